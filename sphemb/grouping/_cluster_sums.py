"""One pass over the points of a k-means, and what becomes of its sums.

Letters: N points, D dimensions, K clusters.

Distances are never taken pair by pair. The nearest centroid is the one of the largest
score x c - |c|^2 / 2, one matmul; what a cluster adds up to is another one, with the
points' one-hot labels. Both go through the points in blocks, so that N x K numbers
never are in memory at once.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._ring import AxisName, add_devices, vary
from sphemb.sphere import l2_normalize, pairwise_dot


class ClusterSums(NamedTuple):
    """What a pass over the points adds up."""

    sums: jax.Array
    counts: jax.Array
    inertia: jax.Array


def comparable(x: jax.Array, metric: str) -> jax.Array:
    """What a metric compares: points in float32 at least, or their directions."""
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return l2_normalize(x) if metric == "spherical" else x


def half_scores(points: jax.Array, centroids: jax.Array) -> jax.Array:
    """[N, K]: half the squared length of a point less half its squared distance."""
    lengths = jnp.sum(jnp.square(centroids), axis=-1)
    return pairwise_dot(points, centroids) - 0.5 * lengths[None]


def add_up(
    points: jax.Array,
    centroids: jax.Array,
    mass: jax.Array,
    *,
    block: int,
    axis_name: AxisName,
) -> tuple[ClusterSums, jax.Array, jax.Array]:
    """Goes through the points once.

    Returns:
        The sums over all devices, and of the points that are here the labels [N] and
        the squared distances [N] to their centroids.
    """
    (number, dim), clusters = points.shape, centroids.shape[0]
    block = max(1, min(block, number))
    missing = -number % block
    # Whatever stands where nothing counts, NaN included, must not reach a matmul.
    points = jnp.where(mass[:, None] > 0, points, 0.0)
    blocks = jax.tree.map(
        lambda leaf: jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)).reshape(
            -1, block, *leaf.shape[1:]
        ),
        (points, mass),
    )

    def visit(carry: jax.Array, part: tuple[jax.Array, jax.Array]):
        x, w = part
        scores = half_scores(x, centroids)
        labels = jnp.argmax(scores, axis=-1)
        squares = jnp.sum(jnp.square(x), axis=-1)
        distances = jnp.maximum(squares - 2.0 * jnp.max(scores, axis=-1), 0.0)
        members = jax.nn.one_hot(labels, clusters, dtype=x.dtype) * w[:, None]
        sides = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=-1)
        sums = jnp.matmul(members.T, sides, precision=jax.lax.Precision.HIGHEST)
        # One array, so that several devices need one all-reduce.
        added = jnp.append(sums.reshape(-1), jnp.sum(w * distances))
        return carry + added, (labels.astype(jnp.int32), distances)

    zeros = jnp.zeros(clusters * (dim + 1) + 1, points.dtype)
    zeros, centroids, blocks = vary((zeros, centroids, blocks), axis_name)
    total, (labels, distances) = jax.lax.scan(visit, zeros, blocks)
    total = add_devices(total, axis_name)
    table = total[:-1].reshape(clusters, dim + 1)
    return (
        ClusterSums(table[:, :-1], table[:, -1], total[-1]),
        labels.reshape(-1)[:number],
        distances.reshape(-1)[:number],
    )


def cluster_means(found: ClusterSums, centroids: jax.Array, metric: str) -> jax.Array:
    """The means of the clusters; an empty one keeps its centroid."""
    there = found.counts[:, None] > 0
    means = found.sums / jnp.where(there, found.counts[:, None], 1.0)
    if metric == "spherical":
        means = l2_normalize(means)
    return jnp.where(there, means, centroids)


def reseed_empty(
    means: jax.Array,
    found: ClusterSums,
    points: jax.Array,
    distances: jax.Array,
    mass: jax.Array,
    axis_name: AxisName,
) -> jax.Array:
    """The j-th empty cluster goes to the j-th farthest of all points."""
    most = min(means.shape[0], points.shape[0])
    far, place = jax.lax.top_k(jnp.where(mass > 0, distances, -1.0), most)
    candidates = points[place]
    if axis_name is not None:
        far = jax.lax.all_gather(far, axis_name, tiled=True)
        candidates = jax.lax.all_gather(candidates, axis_name, tiled=True)
        far, place = jax.lax.top_k(far, min(means.shape[0], far.shape[0]))
        candidates = candidates[place]
        # All devices have the same now, which their types do not know.
        size = jax.lax.axis_size(axis_name)
        far, candidates = add_devices((far / size, candidates / size), axis_name)
    empty = found.counts <= 0
    rank = jnp.cumsum(empty) - 1
    reached = jnp.minimum(rank, far.shape[0] - 1)
    # A point on its centroid is no better a start than where the empty one is.
    moves = empty & (rank < far.shape[0]) & (far[reached] > 0)
    return jnp.where(moves[:, None], candidates[reached], means)
