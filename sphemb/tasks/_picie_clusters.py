"""Clusters of PiCIE: two views, the clustering of an epoch, the losses, the state.

View 0 is f(G(P0 x)), the network of the transformed image; view 1 is G(f(P1 x)), the
transformed map of the network. P0 and P1 change colors, G cuts a box and mirrors. The
paper and its code have this order; the notes' pseudocode swaps the names. With one view
the image is used as it is.

Shape letters: B images, N cells of one, M sampled cells of one, P = B M points, V
views, D dimension, K clusters.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

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
from sphemb.tasks._task import Apply, Batch, Settings, setting
from sphemb.warps import (
    apply_geometric,
    apply_geometric_labels,
    apply_photometric,
    sample_geometric,
    sample_photometric,
)

_GEOMETRIC = 2  # the number of its key, after those of the two views
_COLORS = ("brightness", "contrast", "saturation", "hue")
_CHANGES = (*_COLORS, "jitter", "gray", "blur", "blur_sigma")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewSettings(Settings):
    """Settings of `Picie` that the views depend on.

    Attributes:
        views: 2, or 1 for the baseline without random changes, after DeepCluster.
        brightness, contrast, saturation, hue, jitter, gray, blur, blur_sigma: color
            changes, see `sphemb.warps.sample_photometric`.
        crop_side: smallest and largest side of the box, as shares of the image's.
        flip: probability of a mirrored view.
    """

    views: int = setting(2, choices=(1, 2))
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.1
    jitter: float = 0.8
    gray: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    crop_side: tuple[float, float] = (0.5, 1.0)
    flip: float = 0.5


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
    changes: dict[str, Any] = {name: getattr(settings, name) for name in _CHANGES}

    def draw(key: jax.Array):
        return sample_photometric(jax.random.fold_in(key, view), **changes)

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
        key = jax.random.fold_in(key, _GEOMETRIC)
        return sample_geometric(key, side=settings.crop_side, flip=settings.flip)

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

    count = functools.partial(jnp.bincount, length=centroids.shape[1])
    sizes = jnp.stack([count(of_view.reshape(-1)) for of_view in labels])
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
    """Sampled cells of a batch of B images, the same in every view."""

    points: jax.Array  # [V, P, D]
    mask: jax.Array  # [P], False where an image has fewer cells
    images: int  # B, of all processes together


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
    indices = sample.indices[..., None]
    chosen = jnp.stack([jnp.take_along_axis(view, indices, axis=1) for view in views])
    return chosen.reshape(len(views), batch * number, dim), sample.mask.reshape(-1)


@functools.partial(jax.jit, static_argnames=("num_clusters", "num_steps", "metric"))
def _started(key, points, mask, *, num_clusters, num_steps, metric):
    given = {"metric": metric, "mask": mask}

    def one_view(key: jax.Array, points: jax.Array) -> KMeansState:
        start = init_centroids(key, points, num_clusters=num_clusters, **given)
        found = k_means(points, start, num_steps=num_steps, empty="farthest", **given)
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
    for batch in stream:
        first.append(batch)
        if sum(one.images for one in first) >= start_images:
            break
    points = jnp.concatenate([batch.points for batch in first], axis=1)
    mask = jnp.concatenate([batch.mask for batch in first])
    given = {"num_steps": start_steps, "metric": metric}
    states: list[KMeansState] = [
        _started(
            jax.random.fold_in(key, size), points, mask, num_clusters=size, **given
        )
        for size in sizes
    ]
    for points, mask, _ in stream:
        states = [_taken_in(state, points, mask, metric=metric) for state in states]
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
            chosen: Any = {"view": view, "settings": settings}
            shown = {k: batch[k] for k in ("image", "mask") if k in batch}
            shown = _shown(shown, keys, **chosen)
            features, grid = embed(shown)
            offset = grid.origin / grid.stride
            views.append(_points(features, keys, offset=offset, **chosen))
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


def warn_of_collapse(state: PicieState) -> None:
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
                "config.task.balance='inverse' may help",
                file=sys.stderr,
                flush=True,
            )
