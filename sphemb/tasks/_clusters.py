"""The clusters of each view, from a stream of batches.

Shape letters: B images, N cells of one, M sampled cells of one, P = B M points, V
views, D dimension, K clusters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb.grouping import KMeansState, init_centroids, k_means, update_k_means
from sphemb.losses import sample_pixels


class SampledPoints(NamedTuple):
    """Some cells of a batch's images.

    Attributes:
        points: [V, P, D]; the same cells in every view.
        mask: bool [P], False where there was no cell of an image to draw.
        images: B, how many there are, in all processes together.
    """

    points: jax.Array
    mask: jax.Array
    images: int


@functools.partial(jax.jit, static_argnames="number")
def sample_cells(
    views: tuple[jax.Array, ...], keys: jax.Array, counted: jax.Array, *, number: int
) -> tuple[jax.Array, jax.Array]:
    """Draws cells of every image.

    Args:
        views: V arrays [B, N, D].
        keys: [B] of the images.
        counted: bool [B, N], which cells may be drawn.
        number: M, at most N.

    Returns:
        [V, P, D] and bool [P].
    """
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
    """Lloyd's steps on the first images, running means of those after them.

    Args:
        key: for the starts.
        stream: batches of points.
        sizes: numbers of clusters K; all of them see the same points.
        start_images: how many images come first.
        start_steps: Lloyd's steps.
        metric: see `sphemb.grouping.k_means`.

    Returns:
        For each K, centroids [V, K, D] and counts [V, K].
    """
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
