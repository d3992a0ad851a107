"""Where k-means starts from.

Letters: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from sphemb._checks import (
    InputError,
    check_boolean,
    check_choice,
    check_count,
    check_floating,
    check_key,
    check_shape,
)
from sphemb.grouping._cluster_sums import comparable
from sphemb.grouping._kmeans import METRICS
from sphemb.sphere import pairwise_dot

_METHODS = ("k-means++", "random")


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
    """Draws K of the points as the centroids that :func:`k_means` starts from.

    ``"random"`` draws without replacement. ``"k-means++"`` draws one after the other,
    each with a chance that grows with the square of its distance to the nearest one
    before it, which keeps two starts out of one cluster.

    Args:
        key: a random key, typed or legacy.
        points: [N, D] floating point.
        num_clusters: K, static.
        method: ``"k-means++"`` or ``"random"``.
        metric: that `k_means` will use; starts are unit vectors for ``"spherical"``.
        weights: [N] the mass of each point, which its chance is in proportion to.
        mask: bool [N], True = may be drawn. Where fewer than K may, some are drawn
            twice by ``"k-means++"``.

    Returns:
        [K, D].

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, SODA
        2007.

    >>> points = jnp.array([[0.0], [0.1], [9.0], [9.1]])
    >>> start = init_centroids(jax.random.key(0), points, num_clusters=2)
    >>> sorted(round(float(x)) for x in start[:, 0])
    [0, 9]
    """
    key = check_key("key", key)
    dims = check_shape("points", points, "N D")
    check_floating("points", points)
    check_choice("method", method, _METHODS)
    check_choice("metric", metric, METRICS)
    check_count("num_clusters", num_clusters, at_least=1)
    if num_clusters > dims["N"]:
        raise InputError(
            f"num_clusters must be at most the number of points, {dims['N']}, got "
            f"{num_clusters}"
        )
    mass = jnp.ones(dims["N"])
    number = {"N": dims["N"]}
    if weights is not None:
        check_shape("weights", weights, "N", dims=number, beside="points")
        mass = jnp.asarray(weights, mass.dtype)
    if mask is not None:
        check_shape("mask", mask, "N", dims=number, beside="points")
        check_boolean("mask", mask)
        mass = jnp.where(mask, mass, 0.0)
    draw = _spread if method == "k-means++" else _uniform
    return draw(
        key, jnp.asarray(points), mass, num_clusters=num_clusters, metric=metric
    )


@functools.partial(jax.jit, static_argnames=("num_clusters", "metric"))
def _uniform(key, points, mass, *, num_clusters, metric):
    # The K largest of Gumbel's numbers are K draws without replacement.
    chance = jnp.log(mass) + jax.random.gumbel(key, mass.shape)
    return comparable(points[jax.lax.top_k(chance, num_clusters)[1]], metric)


@functools.partial(jax.jit, static_argnames=("num_clusters", "metric"))
def _spread(key, points, mass, *, num_clusters, metric):
    points = jnp.where(mass[:, None] > 0, comparable(points, metric), 0.0)
    squares = jnp.sum(jnp.square(points), axis=-1)
    keys = jax.random.split(key, num_clusters)

    def nearer(nearest: jax.Array, chosen: jax.Array) -> jax.Array:
        scores = pairwise_dot(points, chosen[None])[:, 0]
        distance = squares - 2.0 * scores + jnp.sum(jnp.square(chosen))
        return jnp.minimum(nearest, jnp.maximum(distance, 0.0))

    def step(k: jax.Array, state: tuple[jax.Array, jax.Array]):
        start, nearest = state
        chance = mass * nearest
        # Where every point lies on a start, any will do.
        chance = jnp.where(jnp.any(chance > 0), chance, mass)
        place = jax.random.categorical(keys[k], jnp.log(chance))
        return start.at[k].set(points[place]), nearer(nearest, points[place])

    first = points[jax.random.categorical(keys[0], jnp.log(mass))]
    start = jnp.zeros((num_clusters, points.shape[1]), points.dtype).at[0].set(first)
    nearest = nearer(jnp.full(squares.shape, jnp.inf, points.dtype), first)
    return jax.lax.fori_loop(1, num_clusters, step, (start, nearest))[0]
