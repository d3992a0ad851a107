"""What PiCIE remembers, and how an epoch begins with it anew.

Shape letters: B images, H rows, W columns, h w size of the feature map, M sampled
cells of an image, P = B M points, D dimension, V views, K clusters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sphemb._grid import cells_of_image
from sphemb.grouping import KMeansState
from sphemb.tasks._centroids import cluster_shares
from sphemb.tasks._clusters import SampledPoints, sample_cells
from sphemb.tasks._pixels import PlacedMap
from sphemb.tasks._task import Apply, Batch
from sphemb.tasks._views import ViewSettings, view_batch, view_keys, view_points

_COLLAPSED = 0.9  # share of the pixels in one cluster
_SAMPLE = 3  # the number of the key of the sampled cells, after those of the views
_keys = jax.jit(view_keys)
_shown = jax.jit(view_batch, static_argnames=("view", "settings"))
_points = jax.jit(view_points, static_argnames=("view", "settings", "offset"))


class PicieState(NamedTuple):
    """What a run of PiCIE knows beside its network.

    Attributes:
        seed: uint32 [2], of everything that is drawn.
        epoch: int32, updates so far; the images' random changes go by it.
        centroids: for each number of clusters K, [V, K, D].
        counts: for each of them, float32 [V, K], the cells behind each centroid.
        anchor: the network as it was when the epoch began, which gives the labels.
    """

    seed: jax.Array
    epoch: jax.Array
    centroids: tuple[jax.Array, ...]
    counts: tuple[jax.Array, ...]
    anchor: Apply


def empty_state(
    key: jax.Array, apply: Apply, *, views: int, sizes: tuple[int, ...], dim: int
) -> PicieState:
    """A state without clusters, of the shapes that it keeps.

    Args:
        key: of all that will be drawn.
        apply: the network.
        views: V.
        sizes: numbers of clusters K.
        dim: D.
    """
    shapes = [(views, size) for size in sizes]
    return PicieState(
        seed=jax.random.key_data(key),
        epoch=jnp.zeros((), jnp.int32),
        centroids=tuple(jnp.zeros((*s, dim)) for s in shapes),
        counts=tuple(jnp.zeros(s) for s in shapes),
        anchor=jax.tree.map(jnp.copy, apply),
    )


def next_epoch(
    state: PicieState,
    apply: Apply,
    cluster: Callable[[PicieState], list[KMeansState]],
) -> PicieState:
    """The state of the epoch after, with new random changes and new clusters.

    Args:
        state: of the epoch that ends.
        apply: the network.
        cluster: finds the clusters of a state whose epoch is the new one.
    """
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
    """The points of each batch, embedded one view after the other.

    Args:
        embed: from ``image`` [B, H, W, 3], and ``mask`` [B, H, W] where there is
            padding, to features [B, h, w, D], compiled.
        state: of this epoch.
        batches: the same, with ``index`` [B] and ``valid`` [B].
        settings: of the views.
        cluster_images: images of all processes that are looked at, at most.
        cluster_pixels: M.
    """
    seen = 0
    for batch in batches:
        keys = _keys(state.seed, state.epoch, batch["index"])
        # Compiled in three parts, since the network is by whoever hands it in: its
        # parameters would be constants of a part that it stands in.
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
    """Points [V, P, D] and mask [P] of all processes, as if there were one.

    The i-th image of every process comes before the next one of any, which is the order
    that they were dealt out in.
    """
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
    """Says so, once, where nearly all pixels are in one cluster."""
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
