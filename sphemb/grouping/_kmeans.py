"""K-means: Lloyd's steps on points that are all here, and running means of a stream.

Letters: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    InputError,
    check_axis_name,
    check_boolean,
    check_choice,
    check_count,
    check_floating,
    check_shape,
)
from sphemb._labels import VOID
from sphemb._ring import AxisName
from sphemb.grouping._cluster_sums import (
    add_up,
    cluster_means,
    comparable,
    half_scores,
    reseed_empty,
)
from sphemb.sphere import l2_normalize

METRICS = ("euclidean", "spherical")
_EMPTY = ("keep", "farthest")
_BLOCK = 4096  # points at a time


class KMeansState(NamedTuple):
    """What a stream has told so far; see :func:`update_k_means`.

    Attributes:
        centroids: [K, D].
        counts: [K] float32, the points, or their mass, behind each centroid.
    """

    centroids: jax.Array
    counts: jax.Array


class KMeans(NamedTuple):
    """What :func:`k_means` finds.

    Attributes:
        centroids: [K, D].
        counts: [K] float32, the points, or their mass, nearest to each of them.
        labels: int32 [N], the nearest centroid of every point; `VOID` where masked.
        inertia: the sum of squared distances to the nearest centroids.
    """

    centroids: jax.Array
    counts: jax.Array
    labels: jax.Array
    inertia: jax.Array


def assign_clusters(
    points: jax.Array, centroids: jax.Array, *, metric: str = "euclidean"
) -> jax.Array:
    r"""The nearest centroid of every point.

    .. math:: y_i = \arg\max_k\; x_i^\top \mu_k - \tfrac12 \|\mu_k\|^2

    Without the second term, which is often forgotten, it is another rule wherever
    centroids differ in length. Those of points on a sphere do: a tight cluster's mean
    lies near the surface, a wide one's near the middle.

    Args:
        points: [..., N, D] floating point.
        centroids: [K, D].
        metric: ``"euclidean"``, or ``"spherical"``, which compares directions.

    Returns:
        int32 [..., N].

    Raises:
        InputError: an argument has the wrong shape or dtype.

    >>> centroids = jnp.array([[1.0, 0.0], [0.0, 0.2]])
    >>> assign_clusters(jnp.array([[0.5, 0.5]]), centroids).tolist()
    [1]
    >>> assign_clusters(jnp.array([[0.5, 0.4]]), centroids, metric="spherical").tolist()
    [0]
    """
    dims = check_shape("points", points, "... N D")
    check_floating("points", points)
    _check_centroids("centroids", centroids, dims["D"])
    check_choice("metric", metric, METRICS)
    points, centroids = comparable(points, metric), comparable(centroids, metric)
    flat = points.reshape(-1, dims["D"])
    labels = jnp.argmax(half_scores(flat, centroids), axis=-1).astype(jnp.int32)
    return labels.reshape(points.shape[:-1])


def k_means(
    points: jax.Array,
    start: jax.Array,
    *,
    num_steps: int = 20,
    metric: str = "euclidean",
    empty: str = "keep",
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> KMeans:
    r"""Moves centroids to the means of the points nearest to them, T times (Lloyd).

    .. math:: \mu_k \leftarrow \frac{\sum_{i: y_i = k} w_i x_i}{\sum_{i: y_i = k} w_i}

    With ``metric="spherical"`` points count by their direction, and centroids are unit
    vectors (Dhillon & Modha 2001). There is no gradient. Use ``jax.vmap`` for several
    sets of points.

    Points that are spread over devices cost one all-reduce of K(D+1)+1 numbers a step;
    ``empty="farthest"`` asks every device for its K farthest points besides.

    Args:
        points: [N, D] floating point.
        start: [K, D], of :func:`init_centroids` or from anywhere.
        num_steps: T, static.
        metric: ``"euclidean"`` or ``"spherical"``.
        empty: a centroid that no point is nearest to stays (``"keep"``), or goes to one
            of the points farthest from theirs (``"farthest"``).
        weights: [N] the mass of each point, 0 or more.
        mask: bool [N], True = counts.
        block_size: points at a time.
        axis_name: of the mesh axis over which the points are spread, inside
            `jax.shard_map` or `jax.pmap`; points, weights and mask are this device's.

    Returns:
        A `KMeans`, with labels, counts and inertia by the centroids that it holds.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 1982; Dhillon
        and Modha, Concept decompositions, Machine Learning 2001.

    >>> points = jnp.array([[0.0], [1.0], [8.0], [9.0]])
    >>> found = k_means(points, jnp.array([[0.0], [1.0]]), num_steps=3)
    >>> found.centroids.tolist(), found.labels.tolist(), float(found.inertia)
    ([[0.5], [8.5]], [0, 0, 1, 1], 1.0)
    """
    mass = _checked_mass(points, start, metric, weights, mask, axis_name, "start")
    check_count("num_steps", num_steps)
    check_choice("empty", empty, _EMPTY)
    if block_size is not None:
        check_count("block_size", block_size, at_least=1)
    return _lloyd(
        jnp.asarray(points),
        jnp.asarray(start),
        mass,
        num_steps=int(num_steps),
        metric=metric,
        empty=empty,
        block=block_size or _BLOCK,
        axis_name=axis_name,
    )


def update_k_means(
    state: KMeansState,
    points: jax.Array,
    *,
    metric: str = "euclidean",
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> KMeansState:
    r"""Takes in one more batch of a stream: centroids are running means (Sculley).

    .. math:: c_k \leftarrow c_k + n_k, \qquad
              \mu_k \leftarrow \mu_k + \frac{n_k}{c_k} (\bar x_k - \mu_k)

    for the n_k points of the batch that are nearest to centroid k, with mean
    :math:`\bar x_k`. Start from ``KMeansState(start, jnp.zeros(K))``, or with the
    centroids and counts that `k_means` found on the first batches.

    Args:
        state: of the batches before.
        points: [N, D] floating point.
        metric: ``"euclidean"`` or ``"spherical"``.
        weights: [N] the mass of each point, 0 or more.
        mask: bool [N], True = counts.
        block_size: points at a time.
        axis_name: see `k_means`; one all-reduce.

    Returns:
        The next state.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Sculley, Web-scale k-means clustering, WWW 2010.

    >>> state = KMeansState(jnp.array([[0.0], [9.0]]), jnp.array([1.0, 1.0]))
    >>> state = update_k_means(state, jnp.array([[2.0], [4.0]]))
    >>> state.centroids.tolist(), state.counts.tolist()
    ([[2.0], [9.0]], [3.0, 1.0])
    """
    mass = _checked_mass(
        points, state.centroids, metric, weights, mask, axis_name, "state.centroids"
    )
    clusters = {"K": jnp.shape(state.centroids)[0]}
    check_shape("state.counts", state.counts, "K", dims=clusters, beside="centroids")
    if block_size is not None:
        check_count("block_size", block_size, at_least=1)
    return _updated(
        KMeansState(*(jnp.asarray(leaf) for leaf in state)),
        jnp.asarray(points),
        mass,
        metric=metric,
        block=block_size or _BLOCK,
        axis_name=axis_name,
    )


def _check_centroids(name: str, centroids: jax.Array, dim: int) -> None:
    found = check_shape(name, centroids, "K D", dims={"D": dim}, beside="points")
    check_floating(name, centroids)
    if not found["K"]:
        raise InputError(f"{name} must hold one centroid at least, got none")


def _checked_mass(points, centroids, metric, weights, mask, axis_name, name):
    """Checks what both ways share, and returns the mass [N] of the points."""
    dims = check_shape("points", points, "N D")
    check_floating("points", points)
    _check_centroids(name, centroids, dims["D"])
    check_choice("metric", metric, METRICS)
    check_axis_name("axis_name", axis_name)
    number = {"N": dims["N"]}
    mass = jnp.ones(dims["N"], jnp.float32)
    if weights is not None:
        check_shape("weights", weights, "N", dims=number, beside="points")
        check_floating("weights", weights)
        mass = jnp.asarray(weights, jnp.promote_types(weights.dtype, jnp.float32))
    if mask is not None:
        check_shape("mask", mask, "N", dims=number, beside="points")
        check_boolean("mask", mask)
        mass = jnp.where(mask, mass, 0.0)
    return mass


@functools.partial(
    jax.jit, static_argnames=("num_steps", "metric", "empty", "block", "axis_name")
)
def _lloyd(points, start, mass, *, num_steps, metric, empty, block, axis_name):
    points, start = comparable(points, metric), comparable(start, metric)
    points, mass = jax.lax.stop_gradient((points, mass))
    through = functools.partial(add_up, block=block, axis_name=axis_name)

    def step(_: int, centroids: jax.Array) -> jax.Array:
        found, _labels, distances = through(points, centroids, mass)
        means = cluster_means(found, centroids, metric)
        if empty == "keep":
            return means
        return reseed_empty(means, found, points, distances, mass, axis_name)

    centroids = jax.lax.fori_loop(0, num_steps, step, jax.lax.stop_gradient(start))
    found, labels, _ = through(points, centroids, mass)
    labels = jnp.where(mass > 0, labels, VOID)
    return KMeans(centroids, found.counts, labels, found.inertia)


@functools.partial(jax.jit, static_argnames=("metric", "block", "axis_name"))
def _updated(state, points, mass, *, metric, block, axis_name):
    points = comparable(points, metric)
    centroids = comparable(state.centroids, metric)
    found, _, _ = add_up(points, centroids, mass, block=block, axis_name=axis_name)
    counts = state.counts + found.counts
    share = found.counts / jnp.where(counts > 0, counts, 1.0)
    means = cluster_means(found, centroids, "euclidean")
    moved = centroids + share[:, None] * (means - centroids)
    if metric == "spherical":
        moved = l2_normalize(moved)
    return KMeansState(moved, counts)
