"""K-means: its start, Lloyd's steps, and running means of a stream.

Letters: N points, D dimensions, K clusters. Distances are not computed pair by pair:
the nearest centroid has the largest score x c - |c|^2 / 2, one matmul; the sums of the
clusters are another, with one-hot labels. Points are processed in blocks, so that
N x K numbers are never in memory.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    VOID,
    InputError,
    check_axis_name,
    check_block_size,
    check_choice,
    check_count,
    check_floating,
    check_key,
    check_mask,
    check_shape,
)
from sphemb._shards import share_out
from sphemb._tiles import AxisName, add_devices, cut_blocks, vary
from sphemb.sphere import l2_normalize, pairwise_dot

_METRICS = ("euclidean", "spherical")
_EMPTY = ("keep", "farthest")
_METHODS = ("k-means++", "random")
_BLOCK = 4096  # points at a time


class KMeansState(NamedTuple):
    """The state of a stream, see :func:`update_k_means`."""

    centroids: jax.Array  # [K, D]
    counts: jax.Array  # [K] float32, the points of each one so far, or their weight


class KMeans(NamedTuple):
    """The result of :func:`k_means`."""

    centroids: jax.Array  # [K, D]
    counts: jax.Array  # [K] float32, the points nearest to each one, or their weight
    labels: jax.Array  # int32 [N], the nearest centroid; `VOID` where masked
    inertia: jax.Array  # the sum of squared distances to the nearest centroids


def assign_clusters(
    points: jax.Array, centroids: jax.Array, *, metric: str = "euclidean"
) -> jax.Array:
    r"""The nearest centroid of every point, int32 [..., N].

    .. math:: y_i = \arg\max_k\; x_i^\top \mu_k - \tfrac12 \|\mu_k\|^2

    for points [..., N, D] and centroids [K, D]. The metric ``"spherical"`` compares
    directions, ``"euclidean"`` takes the lengths into account.

    >>> centroids = jnp.array([[1.0, 0.0], [0.0, 0.2]])
    >>> assign_clusters(jnp.array([[0.5, 0.4]]), centroids, metric="spherical").tolist()
    [0]
    """
    dims = check_shape("points", points, "... N D")
    check_floating("points", points)
    _check_centroids("centroids", centroids, dims["D"])
    check_choice("metric", metric, _METRICS)
    return _nearest(points, centroids, metric=metric)


def init_centroids(
    key: jax.Array,
    points: jax.Array,
    *,
    num_clusters: int,
    method: str = "k-means++",
    metric: str = "euclidean",
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Samples K of the points as the initial centroids of :func:`k_means`, [K, D].

    ``"random"`` samples without replacement. ``"k-means++"`` samples one after another,
    with a probability proportional to the squared distance to the nearest one before.

    Args:
        key: a random key, typed or legacy.
        points: [N, D] floating point.
        num_clusters: K, static.
        method: ``"k-means++"`` or ``"random"``.
        metric: that of `k_means`; ``"spherical"`` returns unit vectors.
        weights: [N] of the points, to which their probability is proportional.
        mask: bool [N], True = may be sampled; ``"k-means++"`` repeats some if too few.

    References:
        Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, SODA
        2007.

    >>> points = jnp.array([[0.0], [0.1], [9.0], [9.1]])
    >>> start = init_centroids(jax.random.key(0), points, num_clusters=2)
    >>> sorted(round(float(x)) for x in start[:, 0])
    [0, 9]
    """
    key = check_key("key", key)
    weights = _checked_weights(points, weights, mask)
    number = len(weights)
    check_choice("method", method, _METHODS)
    check_choice("metric", metric, _METRICS)
    check_count("num_clusters", num_clusters, at_least=1)
    if num_clusters > number:
        most = f"the number of points, {number}"
        raise InputError(f"num_clusters must be at most {most}, got {num_clusters}")
    weights = weights.astype(jnp.result_type(float))
    options = {"method": method, "num_clusters": num_clusters, "metric": metric}
    return _sampled(key, points, weights, **options)


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

    With ``metric="spherical"`` points are compared by direction, and centroids are unit
    vectors (Dhillon & Modha 2001). No gradient. Use ``jax.vmap`` for several sets of
    points. Sharded points cost one all-reduce of K(D+1)+1 numbers a step.

    Args:
        points: [N, D] floating point.
        start: [K, D], such as from :func:`init_centroids`.
        num_steps: T, static.
        metric: ``"euclidean"`` or ``"spherical"``.
        empty: a centroid without points stays (``"keep"``), or moves to one of the
            points farthest from their centroids (``"farthest"``).
        weights: [N] of the points, 0 or more.
        mask: bool [N], True = valid.
        block_size: points at a time.
        axis_name: of the mesh axis over which the points are sharded, inside
            `jax.shard_map` or `jax.pmap`; the arrays are then those of this device.

    References:
        Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 1982; Dhillon
        and Modha, Concept decompositions, Machine Learning 2001.

    >>> points = jnp.array([[0.0], [1.0], [8.0], [9.0]])
    >>> found = k_means(points, jnp.array([[0.0], [1.0]]), num_steps=3)
    >>> found.centroids.tolist(), found.labels.tolist(), float(found.inertia)
    ([[0.5], [8.5]], [0, 0, 1, 1], 1.0)
    """
    weights = _checked_weights(points, weights, mask)
    options = _checked("start", start, points, metric, block_size, axis_name)
    check_count("num_steps", num_steps)
    check_choice("empty", empty, _EMPTY)
    arrays = jnp.asarray(points), jnp.asarray(start), weights
    return _lloyd(*arrays, num_steps=int(num_steps), empty=empty, options=options)


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
    r"""Adds a batch of a stream: centroids are running means (Sculley).

    .. math:: c_k \leftarrow c_k + n_k, \qquad
              \mu_k \leftarrow \mu_k + \frac{n_k}{c_k} (\bar x_k - \mu_k)

    for the n_k points of the batch that are nearest to centroid k, with mean
    :math:`\bar x_k`. Start from ``KMeansState(start, jnp.zeros(K))``, or with the
    centroids and counts of `k_means` on the first batches. The other arguments are
    those of :func:`k_means`.

    References:
        Sculley, Web-scale k-means clustering, WWW 2010.

    >>> state = KMeansState(jnp.array([[0.0], [9.0]]), jnp.array([1.0, 1.0]))
    >>> state = update_k_means(state, jnp.array([[2.0], [4.0]]))
    >>> state.centroids.tolist(), state.counts.tolist()
    ([[2.0], [9.0]], [3.0, 1.0])
    """
    weights = _checked_weights(points, weights, mask)
    centroids = state.centroids
    name = "state.centroids"
    options = _checked(name, centroids, points, metric, block_size, axis_name)
    clusters = {"K": jnp.shape(centroids)[0]}
    check_shape("state.counts", state.counts, "K", dims=clusters, beside="centroids")
    state = KMeansState(*(jnp.asarray(leaf) for leaf in state))
    return _updated(state, jnp.asarray(points), weights, options=options)


def _check_centroids(name: str, centroids: jax.Array, dim: int) -> None:
    found = check_shape(name, centroids, "K D", dims={"D": dim}, beside="points")
    check_floating(name, centroids)
    if not found["K"]:
        raise InputError(f"{name} must hold one centroid at least, got none")


class _Options(NamedTuple):
    """The static settings that both ways share."""

    metric: str
    block: int
    axis_name: AxisName


def _checked(name, centroids, points, metric, block_size, axis_name) -> _Options:
    _check_centroids(name, centroids, jnp.shape(points)[1])
    check_choice("metric", metric, _METRICS)
    check_block_size(block_size)
    check_axis_name("axis_name", axis_name)
    return _Options(metric, block_size or _BLOCK, axis_name)


def _checked_weights(points, weights, mask) -> jax.Array:
    """Checks points [N, D], weights and mask, and returns weights, 0 where masked."""
    dims = check_shape("points", points, "N D")
    check_floating("points", points)
    check_mask("mask", mask, "N", dims=dims, beside="points")
    if weights is None:
        weights = jnp.ones(dims["N"], jnp.float32)
    else:
        check_shape("weights", weights, "N", dims=dims, beside="points")
        check_floating("weights", weights)
        weights = jnp.asarray(weights)
        weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    return weights if mask is None else jnp.where(mask, weights, 0.0)


@functools.partial(jax.jit, static_argnames="metric")
def _nearest(points, centroids, *, metric) -> jax.Array:
    """The nearest centroid of each point [..., D]."""

    def here(points: jax.Array, centroids: jax.Array) -> jax.Array:
        points, centroids = _comparable(points, metric), _comparable(centroids, metric)
        batch, dim = points.shape[:-1], points.shape[-1]
        flat = points.reshape(math.prod(batch), dim)
        labels = jnp.argmax(_half_scores(flat, centroids), axis=-1).astype(jnp.int32)
        return labels.reshape(batch)

    return share_out(here, (points, centroids), ("... D", "K D"), "...")


@functools.partial(jax.jit, static_argnames=("method", "num_clusters", "metric"))
def _sampled(key, points, weights, *, method, num_clusters, metric) -> jax.Array:
    sample = _spread if method == "k-means++" else _uniform
    sample = functools.partial(sample, num_clusters=num_clusters, metric=metric)
    return share_out(sample, (key, points, weights), ("", "N D", "N"), "K D")


def _uniform(key, points, weights, *, num_clusters, metric):
    # The K largest of Gumbel's numbers are K samples without replacement.
    scores = jnp.log(weights) + jax.random.gumbel(key, weights.shape)
    return _comparable(points[jax.lax.top_k(scores, num_clusters)[1]], metric)


def _spread(key, points, weights, *, num_clusters, metric):
    points = jnp.where(weights[:, None] > 0, _comparable(points, metric), 0.0)
    squares = jnp.sum(jnp.square(points), axis=-1)
    keys = jax.random.split(key, num_clusters)

    def nearer(nearest: jax.Array, chosen: jax.Array) -> jax.Array:
        scores = pairwise_dot(points, chosen[None])[:, 0]
        distance = squares - 2.0 * scores + jnp.sum(jnp.square(chosen))
        return jnp.minimum(nearest, jnp.maximum(distance, 0.0))

    def step(k: jax.Array, state: tuple[jax.Array, jax.Array]):
        start, nearest = state
        chance = weights * nearest
        # Where every point equals a centroid, any point will do.
        chance = jnp.where(jnp.any(chance > 0), chance, weights)
        index = jax.random.categorical(keys[k], jnp.log(chance))
        return start.at[k].set(points[index]), nearer(nearest, points[index])

    first = points[jax.random.categorical(keys[0], jnp.log(weights))]
    start = jnp.zeros((num_clusters, points.shape[1]), points.dtype).at[0].set(first)
    nearest = nearer(jnp.full(squares.shape, jnp.inf, points.dtype), first)
    return jax.lax.fori_loop(1, num_clusters, step, (start, nearest))[0]


@functools.partial(jax.jit, static_argnames=("num_steps", "empty", "options"))
def _lloyd(points, start, weights, *, num_steps, empty, options: _Options) -> KMeans:
    return share_out(
        functools.partial(_lloyd_here, num_steps, empty, options),
        (points, start, weights),
        ("N D", "K D", "N"),
        KMeans._make(("K D", "K", "N", "")),
        rows="N",
        axis_name=options.axis_name,
    )


def _lloyd_here(
    num_steps, empty, options: _Options, points, start, weights, *, axis_name
) -> KMeans:
    options = options._replace(axis_name=axis_name)
    metric = options.metric
    points, start = _comparable(points, metric), _comparable(start, metric)
    points, weights = jax.lax.stop_gradient((points, weights))

    def step(_: int, centroids: jax.Array) -> jax.Array:
        found, _labels, distances = _add_up(points, centroids, weights, options)
        means = _cluster_means(found, centroids, metric)
        if empty == "keep":
            return means
        rest = (distances, weights, options.axis_name)
        return _reseed_empty(means, found, points, *rest)

    centroids = jax.lax.fori_loop(0, num_steps, step, jax.lax.stop_gradient(start))
    found, labels, _ = _add_up(points, centroids, weights, options)
    labels = jnp.where(weights > 0, labels, VOID)
    return KMeans(centroids, found.counts, labels, found.inertia)


@functools.partial(jax.jit, static_argnames="options")
def _updated(state, points, weights, *, options: _Options) -> KMeansState:
    return share_out(
        functools.partial(_updated_here, options),
        (points, weights, *state),
        ("N D", "N", "K D", "K"),
        KMeansState._make(("K D", "K")),
        rows="N",
        axis_name=options.axis_name,
    )


def _updated_here(
    options: _Options, points, weights, centroids, counts, *, axis_name
) -> KMeansState:
    options = options._replace(axis_name=axis_name)
    metric = options.metric
    points = _comparable(points, metric)
    centroids = _comparable(centroids, metric)
    found, _, _ = _add_up(points, centroids, weights, options)
    counts = counts + found.counts
    share = found.counts / jnp.where(counts > 0, counts, 1.0)
    means = _cluster_means(found, centroids, "euclidean")
    moved = centroids + share[:, None] * (means - centroids)
    if metric == "spherical":
        moved = l2_normalize(moved)
    return KMeansState(moved, counts)


class _ClusterSums(NamedTuple):
    sums: jax.Array  # [K, D]
    counts: jax.Array  # [K]
    inertia: jax.Array  # []


def _comparable(x: jax.Array, metric: str) -> jax.Array:
    """Points in float32 at least, or their directions."""
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return l2_normalize(x) if metric == "spherical" else x


def _half_scores(points: jax.Array, centroids: jax.Array) -> jax.Array:
    """[N, K]: half the squared length of a point less half its squared distance."""
    lengths = jnp.sum(jnp.square(centroids), axis=-1)
    return pairwise_dot(points, centroids) - 0.5 * lengths[None]


def _add_up(
    points, centroids, weights, options: _Options
) -> tuple[_ClusterSums, jax.Array, jax.Array]:
    """Sums of the clusters over all devices; labels [N] and squared distances [N]."""
    (number, dim), clusters = points.shape, centroids.shape[0]
    block = max(1, min(options.block, number))
    # Values of invalid points, NaN included, must not reach a matmul.
    points = jnp.where(weights[:, None] > 0, points, 0.0)
    blocks = cut_blocks((points, weights), block)

    def visit(carry: jax.Array, part: tuple[jax.Array, jax.Array]):
        x, w = part
        scores = _half_scores(x, centroids)
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
    zeros, centroids, blocks = vary((zeros, centroids, blocks), options.axis_name)
    total, (labels, distances) = jax.lax.scan(visit, zeros, blocks)
    total = add_devices(total, options.axis_name)
    table = total[:-1].reshape(clusters, dim + 1)
    return (
        _ClusterSums(table[:, :-1], table[:, -1], total[-1]),
        labels.reshape(-1)[:number],
        distances.reshape(-1)[:number],
    )


def _cluster_means(found: _ClusterSums, centroids: jax.Array, metric: str) -> jax.Array:
    """The means of the clusters; an empty one keeps its centroid."""
    filled = found.counts[:, None] > 0
    means = found.sums / jnp.where(filled, found.counts[:, None], 1.0)
    if metric == "spherical":
        means = l2_normalize(means)
    return jnp.where(filled, means, centroids)


def _reseed_empty(means, found, points, distances, weights, axis_name) -> jax.Array:
    """Moves the j-th empty cluster to the j-th farthest of all points."""
    most = min(means.shape[0], points.shape[0])
    far, index = jax.lax.top_k(jnp.where(weights > 0, distances, -1.0), most)
    candidates = points[index]
    if axis_name is not None:
        far = jax.lax.all_gather(far, axis_name, tiled=True)
        candidates = jax.lax.all_gather(candidates, axis_name, tiled=True)
        far, index = jax.lax.top_k(far, min(means.shape[0], far.shape[0]))
        candidates = candidates[index]
        # All devices have the same now; a sum gives these arrays the type that says so.
        size = jax.lax.axis_size(axis_name)
        far, candidates = add_devices((far / size, candidates / size), axis_name)
    empty = found.counts <= 0
    rank = jnp.cumsum(empty) - 1
    taken = jnp.minimum(rank, far.shape[0] - 1)
    # A point on its centroid is no better a start than the empty centroid.
    moves = empty & (rank < far.shape[0]) & (far[taken] > 0)
    return jnp.where(moves[:, None], candidates[taken], means)
