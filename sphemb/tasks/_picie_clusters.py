"""Clusters of PiCIE: two views, the clustering of an epoch, the losses, the state.

View 0 is f(G(P0 x)), the network of the transformed image; view 1 is G(f(P1 x)), the
transformed map of the network. P0 and P1 change colors, G cuts a box and mirrors. The
paper and its code have this order; the notes' pseudocode swaps the names. With one view
the image is used as it is.

Shape letters: B images, N cells of one, M sampled cells of one, P = B M points, V
views, D dimension, K clusters.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sphemb._grid import cells_of_image
from sphemb.grouping import (
    KMeansState,
    assign_clusters,
    init_centroids,
    k_means,
    update_k_means,
)
from sphemb.losses import cluster_weights, prototype_cross_entropy, sample_pixels
from sphemb.sphere import l2_normalize, pairwise_dot
from sphemb.tasks._pixels import PlacedMap, enlarged, unit_map
from sphemb.tasks._task import Apply, Batch
from sphemb.warps import (
    apply_geometric,
    apply_geometric_labels,
    apply_photometric,
    sample_geometric,
    sample_photometric,
)

_GEOMETRIC = 2  # the number of its key, after those of the two views


class ViewSettings(NamedTuple):
    """Settings of `Picie` that the views depend on."""

    views: int
    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter: float
    gray: float
    blur: float
    blur_sigma: tuple[float, float]
    crop_side: tuple[float, float]
    flip: float


def view_keys(seed: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """Keys [B] of the images, which depend on seed, epoch and image alone."""
    key = jax.random.fold_in(jax.random.wrap_key_data(seed), epoch)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def view_image(
    image: jax.Array, keys: jax.Array, *, view: int, settings: ViewSettings
) -> jax.Array:
    """The images [B, H, W, 3] of a view, as the network gets them."""
    if settings.views == 1:
        return image

    def draw(key: jax.Array):
        return sample_photometric(
            jax.random.fold_in(key, view),
            brightness=settings.brightness,
            contrast=settings.contrast,
            saturation=settings.saturation,
            hue=settings.hue,
            jitter=settings.jitter,
            gray=settings.gray,
            blur=settings.blur,
            blur_sigma=settings.blur_sigma,
        )

    recolored = apply_photometric(image, jax.vmap(draw)(keys))
    if view == 1:
        return recolored
    return apply_geometric(recolored, _boxes(keys, settings))


def view_batch(
    batch: Batch, keys: jax.Array, *, view: int, settings: ViewSettings
) -> Batch:
    """The ``image`` and, if any, the ``mask`` of a view."""
    image = view_image(batch["image"], keys, view=view, settings=settings)
    if "mask" not in batch:
        return {"image": image}
    mask = batch["mask"]
    if settings.views == 2 and view == 0:
        boxes = _boxes(keys, settings)
        mask = apply_geometric_labels(mask.astype(jnp.int32), boxes) > 0
    return {"image": image, "mask": mask}


def view_points(
    features: jax.Array,
    keys: jax.Array,
    *,
    view: int,
    settings: ViewSettings,
    offset: float = 0.0,
) -> jax.Array:
    """Unit vectors [B, N, D] of a view; ``offset`` as for `apply_geometric`."""
    if settings.views == 2 and view == 1:
        boxes = _boxes(keys, settings)
        features = apply_geometric(features, boxes, offset=offset)
    batch, height, width, dim = features.shape
    return unit_map(features).reshape(batch, height * width, dim)


def _boxes(keys: jax.Array, settings: ViewSettings):
    def draw(key: jax.Array):
        return sample_geometric(
            jax.random.fold_in(key, _GEOMETRIC),
            side=settings.crop_side,
            flip=settings.flip,
        )

    return jax.vmap(draw)(keys)


_SAME = 1e-5  # above the float32 rounding of a mean of unit vectors


class ViewLosses(NamedTuple):
    """Losses within and across views, and the largest of `cluster_shares`."""

    within: jax.Array
    cross: jax.Array
    largest: jax.Array


def view_losses(
    views: Sequence[jax.Array],
    anchors: Sequence[jax.Array],
    centroids: jax.Array,
    counts: jax.Array,
    *,
    metric: str,
    balance: str,
    temperature: float,
) -> ViewLosses:
    """The cross-entropy of each view with the labels of each, averaged over views."""
    weights = cluster_weights(counts, balance=balance)
    labels = [
        assign_clusters(x, centroids[v], metric=metric) for v, x in enumerate(anchors)
    ]

    def mean_loss(shift: int) -> jax.Array:
        """Of every view with the labels and centroids of a view next to it."""
        losses = []
        for view, points in enumerate(views):
            by = (view + shift) % len(views)
            loss = prototype_cross_entropy(
                points, centroids[by] / temperature, labels[by], weights=weights[by]
            )
            losses.append(loss.mean())
        return jnp.stack(losses).mean()

    sizes = jnp.stack(
        [jnp.bincount(y.reshape(-1), length=centroids.shape[1]) for y in labels]
    )
    largest = jnp.max(cluster_shares(sizes, centroids))
    return ViewLosses(mean_loss(0), mean_loss(1), largest)


def cluster_shares(sizes: jax.Array, centroids: jax.Array) -> jax.Array:
    """The share of the points in each cluster and in those with the same centroid."""
    apart = jnp.abs(centroids[:, :, None] - centroids[:, None]).max(axis=-1)
    together = jnp.where(apart <= _SAME, sizes[:, None], 0).sum(axis=-1)
    return together / jnp.maximum(sizes.sum(axis=-1, keepdims=True), 1)


def nearest_centroids(
    features: PlacedMap, centroids: jax.Array, size: tuple[int, ...], *, metric: str
) -> jax.Array:
    """The nearest centroid of every pixel."""
    if metric == "spherical":
        centroids = l2_normalize(centroids)
    lengths = jnp.sum(jnp.square(centroids), axis=-1)
    points = unit_map(features.values)
    scores = pairwise_dot(points.reshape(-1, points.shape[-1]), centroids)
    scores = (scores - 0.5 * lengths).reshape(*points.shape[:3], -1)
    scores = enlarged(features._replace(values=scores), size)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


class SampledPoints(NamedTuple):
    """Sampled cells of a batch, the same in every view.

    Attributes:
        points: [V, P, D].
        mask: bool [P], False where an image has fewer cells.
        images: B, of all processes together.
    """

    points: jax.Array
    mask: jax.Array
    images: int


@functools.partial(jax.jit, static_argnames="number")
def sample_cells(
    views: tuple[jax.Array, ...], keys: jax.Array, counted: jax.Array, *, number: int
) -> tuple[jax.Array, jax.Array]:
    """Samples cells of every image: [V, P, D] and mask [P]."""
    batch, cells, dim = views[0].shape
    number = min(number, cells)

    def draw(key: jax.Array, counted: jax.Array):
        return sample_pixels(key, counted, num_samples=number)

    sample = jax.vmap(draw)(keys, counted)
    chosen = [
        jnp.take_along_axis(view, sample.indices[..., None], axis=1) for view in views
    ]
    points = jnp.stack(chosen).reshape(len(views), batch * number, dim)
    return points, sample.mask.reshape(-1)


@functools.partial(jax.jit, static_argnames=("num_clusters", "num_steps", "metric"))
def _started(key, points, mask, *, num_clusters, num_steps, metric):
    def one_view(key: jax.Array, points: jax.Array) -> KMeansState:
        start = init_centroids(
            key, points, num_clusters=num_clusters, metric=metric, mask=mask
        )
        found = k_means(
            points,
            start,
            num_steps=num_steps,
            metric=metric,
            empty="farthest",
            mask=mask,
        )
        return KMeansState(found.centroids, found.counts)

    return jax.vmap(one_view)(jax.random.split(key, points.shape[0]), points)


@functools.partial(jax.jit, static_argnames="metric")
def _taken_in(state, points, mask, *, metric):
    def one_view(state: KMeansState, points: jax.Array) -> KMeansState:
        return update_k_means(state, points, metric=metric, mask=mask)

    return jax.vmap(one_view)(state, points)


def cluster_stream(
    key: jax.Array,
    stream: Iterator[SampledPoints],
    *,
    sizes: tuple[int, ...],
    start_images: int,
    start_steps: int,
    metric: str,
) -> list[KMeansState]:
    """Lloyd's steps on the first images, running means of those after them."""
    first: list[SampledPoints] = []
    seen = 0
    for batch in stream:
        first.append(batch)
        seen += batch.images
        if seen >= start_images:
            break
    points = jnp.concatenate([batch.points for batch in first], axis=1)
    mask = jnp.concatenate([batch.mask for batch in first])
    states: list[KMeansState] = [
        _started(
            jax.random.fold_in(key, size),
            points,
            mask,
            num_clusters=size,
            num_steps=start_steps,
            metric=metric,
        )
        for size in sizes
    ]
    for batch in stream:
        states = [
            _taken_in(state, batch.points, batch.mask, metric=metric)
            for state in states
        ]
    return states


_COLLAPSED = 0.9  # share of the pixels in one cluster
_SAMPLE = 3  # the number of the key of the sampled cells, after those of the views
_keys = jax.jit(view_keys)
_shown = jax.jit(view_batch, static_argnames=("view", "settings"))
_points = jax.jit(view_points, static_argnames=("view", "settings", "offset"))


class PicieState(NamedTuple):
    """The state of `Picie`.

    Attributes:
        seed: uint32 [2], data of the random key.
        epoch: int32, number of updates; the random changes of the images depend on it.
        centroids: for each number of clusters K, [V, K, D].
        counts: for each of them, float32 [V, K], the cells of each centroid.
        anchor: the network at the start of the epoch, which gives the labels.
    """

    seed: jax.Array
    epoch: jax.Array
    centroids: tuple[jax.Array, ...]
    counts: tuple[jax.Array, ...]
    anchor: Apply


def empty_state(
    key: jax.Array, apply: Apply, *, views: int, sizes: tuple[int, ...], dim: int
) -> PicieState:
    """A state without clusters, of the shapes that it keeps."""
    shapes = [(views, size) for size in sizes]
    return PicieState(
        seed=jax.random.key_data(key),
        epoch=jnp.zeros((), jnp.int32),
        centroids=tuple(jnp.zeros((*s, dim)) for s in shapes),
        counts=tuple(jnp.zeros(s) for s in shapes),
        anchor=jax.tree.map(jnp.copy, apply),
    )


def next_epoch(
    state: PicieState, apply: Apply, cluster: Callable[[PicieState], list[KMeansState]]
) -> PicieState:
    """The state of the epoch after, with new random changes and new clusters."""
    state = state._replace(epoch=state.epoch + 1)
    states = cluster(state)
    state = state._replace(
        centroids=tuple(state.centroids for state in states),
        counts=tuple(state.counts for state in states),
        anchor=jax.tree.map(jnp.copy, apply),
    )
    _warn_of_collapse(state)
    return state


def embedded_views(
    embed: Callable[[Batch], PlacedMap],
    state: PicieState,
    batches: Iterable[Batch],
    settings: ViewSettings,
    *,
    cluster_images: int | None,
    cluster_pixels: int,
) -> Iterator[SampledPoints]:
    """The points of each batch, embedded one view after the other."""
    seen = 0
    for batch in batches:
        keys = _keys(state.seed, state.epoch, batch["index"])
        # Compiled in three parts, because the network is compiled by the caller: inside
        # another program its parameters would be constants.
        views, counted = [], batch["valid"]
        for view in range(settings.views):
            shown = {k: batch[k] for k in ("image", "mask") if k in batch}
            shown = _shown(shown, keys, view=view, settings=settings)
            features, grid = embed(shown)
            offset = grid.origin / grid.stride
            views.append(
                _points(features, keys, view=view, settings=settings, offset=offset)
            )
            if not view:  # whose cells lie where those of the other are moved to
                counted = _counted(shown.get("mask"), batch["valid"], features)
        cells = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, _SAMPLE)
        points, mask = sample_cells(tuple(views), cells, counted, number=cluster_pixels)
        images = len(batch["index"]) * jax.process_count()
        yield SampledPoints(*_of_all_processes(points, mask, images), images)
        seen += images
        if cluster_images is not None and seen >= cluster_images:
            return


def _counted(
    mask: jax.Array | None, valid: jax.Array, features: jax.Array
) -> jax.Array:
    """Which cells [B, N] are of an image that does not only fill up the batch."""
    batch, height, width = features.shape[:3]
    counted = jnp.broadcast_to(valid[:, None], (batch, height * width))
    if mask is None:
        return counted
    return counted & cells_of_image(mask, (height, width)).reshape(batch, -1)


def _of_all_processes(
    points: jax.Array, mask: jax.Array, images: int
) -> tuple[jax.Array, jax.Array]:
    """Points [V, P, D] and mask [P] of all processes, as if there were one."""
    count = jax.process_count()
    if count == 1:
        return points, mask
    views, _, dim = points.shape
    points, mask = (multihost_utils.process_allgather(x) for x in (points, mask))
    points = points.reshape(count, views, images // count, -1, dim)
    mask = mask.reshape(count, images // count, -1)
    points = points.transpose(1, 2, 0, 3, 4).reshape(views, -1, dim)
    return jnp.asarray(points), jnp.asarray(mask.transpose(1, 0, 2).reshape(-1))


def _warn_of_collapse(state: PicieState) -> None:
    """Warns if nearly all pixels are in one cluster."""
    for counts, centroids in zip(state.counts, state.centroids, strict=True):
        sizes = np.asarray(cluster_shares(counts, centroids))
        shares = sizes.max(axis=1)
        view = int(shares.argmax())
        if shares[view] > _COLLAPSED and jax.process_index() == 0:
            print(
                f"warning: collapse in epoch {int(state.epoch)}: cluster "
                f"{int(sizes[view].argmax())} of {sizes.shape[1]} holds "
                f"{100 * shares[view]:.0f} % of the pixels of view {view}; a smaller "
                "config.optimizer.learning_rate, shorter epochs or "
                "config.settings.balance='inverse' may help",
                file=sys.stderr,
                flush=True,
            )
