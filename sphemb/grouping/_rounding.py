"""Partitions whose affinity is near the products of embeddings: KwikCluster, rotation.

Letters: N points, D dimensions, K the largest number of groups, R tries of one image;
leading axes are batch axes.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import VOID, check_count, check_key
from sphemb._shards import share_out
from sphemb._tiles import vary
from sphemb.grouping._modes import (
    FoundGroups,
    Grouping,
    GroupOptions,
    Unassigned,
    check_threshold,
    find_groups,
    group_options,
    no_groups,
    number_groups,
    valid_points,
)
from sphemb.sphere import affinity_error, l2_normalize

_NO_LENGTH = 1e-6  # squared


class Rounding(NamedTuple):
    r"""Groups of points, the largest first, and their fit; the best of R tries.

    The first five items are those of :class:`Grouping`; the modes are the pivots or the
    directions. The errors are the mean of
    :math:`(v_i^\top v_j - 1_{[\hat y_i = \hat y_j]})^2` over pairs of different points,
    which is `sphemb.losses.spectral_loss` of these labels; a VOID point is a group of
    its own. The result has the smallest.
    """

    labels: jax.Array
    modes: jax.Array
    sizes: jax.Array
    num_groups: jax.Array
    num_left: jax.Array
    errors: jax.Array  # [..., R] of every try


def kwik_cluster(
    key: jax.Array,
    embeddings: jax.Array,
    *,
    max_groups: int,
    threshold: jax.Array | float = 0.5,
    num_orders: int = 1,
    min_size: int = 1,
    unassigned: Unassigned = "void",
    mask: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
) -> Rounding:
    r"""Rounds embeddings to a partition by random pivots (KwikCluster).

    In a random order of the points, the first free one is a pivot; it and the free
    points of :math:`v_i^\top v_p > \tau` are a group, until no point is free or
    ``max_groups`` are found. With :math:`\tau = 1/2` it has on average at most three
    times as many wrong pairs as the best partition (docs/spectral.md). The order of the
    least error is kept. Static shapes; O(N D K) time for each order. No gradient.

    Args:
        key: a random key, typed or legacy. In the r-th order of a single image the i-th
            valid point comes by ``uniform(fold_in(split(key, num_orders)[r], i))`` (of
            `jax.random`), the smallest first, so masked points change no order.
        embeddings: [..., N, D] unit rows; rows with NaN or infinity count as masked.
        max_groups: K, static: the most groups to find.
        threshold: tau in (-1, 1).
        num_orders: R, static.
        min_size: groups of fewer points are dissolved; 1 for the algorithm as it is.
        unassigned: ``"void"`` or ``"nearest"``, see :func:`label_modes`.
        mask: [..., N] bool, True = valid; the other points get VOID.
        precision: of the matmuls.

    References:
        Ailon, Charikar & Newman, "Aggregating inconsistent information: ranking and
        clustering", JACM 2008; Barnes & Dubrawski, "Deep spectral clustering for object
        instance segmentation", ICLR 2018 workshop, section 2.3.

    >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.96, 0.28]])
    >>> found = kwik_cluster(jax.random.key(0), x, max_groups=4)
    >>> found.labels.tolist(), found.sizes.tolist(), int(found.num_groups)
    ([1, 0, 0], [2, 1, 0, 0], 2)
    """
    x, valid = valid_points(embeddings, mask)
    options = group_options(max_groups, min_size, unassigned, precision)
    check_count("num_orders", num_orders, at_least=1)
    key, threshold = check_key("key", key), check_threshold(threshold, x.dtype)
    settings = {"num_orders": int(num_orders), "options": options}
    return _pivots(key, x, valid, threshold, **settings)


def orthogonal_rounding(
    key: jax.Array,
    embeddings: jax.Array,
    *,
    num_steps: int = 30,
    num_starts: int = 1,
    min_size: int = 1,
    mask: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
) -> Rounding:
    r"""Rounds embeddings to the nearest partition up to a rotation, locally.

    The eigenvectors of the oracle Laplacian are one-hot rows times any rotation, so a
    rotation and a partition are optimized together,

    .. math:: \min_{R^\top R = 1,\; Y \text{ one-hot}} \lVert V R - Y \rVert_F^2
              \quad\Leftrightarrow\quad
              \max_{R,\, \hat y} \sum_i v_i^\top r_{\hat y_i}

    in turns: every point goes to the direction :math:`r_k` of its largest product, and
    :math:`R = U W^\top` with :math:`V^\top Y = U \Sigma W^\top` (orthogonal
    Procrustes), until no point moves. Directions start at points that are farthest from
    the span of those before, the first at a random one. Groups are at right angles,
    hence at most D. Static shapes; O(N D^2) time a turn. No gradient.

    Args:
        key: a random key, typed or legacy, for the first directions.
        embeddings: [..., N, D] unit rows; rows with NaN or infinity count as masked.
        num_steps: turns at most, static.
        num_starts: R tries, static; the one of the least error is kept.
        min_size: smaller groups are dissolved; their points go to the nearest one left.
        mask: [..., N] bool, True = valid; the other points get VOID.
        precision: of the matmuls.

    Returns:
        A :class:`Rounding` of at most D groups; ``num_left`` is 0.

    References:
        Yu & Shi, "Multiclass spectral clustering", ICCV 2003; Damle, Minden & Ying,
        "Simple, direct and efficient multi-way spectral clustering", Information and
        Inference 2019, for the start; proposed by Barnes & Dubrawski, section 4.

    >>> x = jnp.array([[0.6, 0.8], [0.8, -0.6], [1.0, 0.0]])
    >>> found = orthogonal_rounding(jax.random.key(0), x)
    >>> found.labels.tolist(), found.sizes.tolist()
    ([1, 0, 0], [2, 1])
    """
    x, valid = valid_points(embeddings, mask)
    check_count("num_steps", num_steps, at_least=1)
    check_count("num_starts", num_starts, at_least=1)
    check_count("min_size", min_size, at_least=1)
    options = GroupOptions(x.shape[-1], int(min_size), "nearest", precision)
    settings = {"num_steps": int(num_steps), "num_starts": int(num_starts)}
    return _rotations(check_key("key", key), x, valid, **settings, options=options)


@functools.partial(jax.jit, static_argnames=("num_orders", "options"))
def _pivots(key, x, valid, threshold, *, num_orders, options: GroupOptions) -> Rounding:
    def one_order(key, x, valid, threshold) -> Grouping:
        order = jnp.argsort(_random_numbers(key, valid), stable=True)
        found = find_groups(x[order], valid[order], threshold, options, recenter=False)
        labels = jnp.zeros_like(found.labels)
        labels = labels.at[order].set(found.labels, unique_indices=True)
        return number_groups(found._replace(labels=labels), x, valid, options)

    return _best_of(one_order, key, x, valid, num_orders, options, threshold)


@functools.partial(jax.jit, static_argnames=("num_steps", "num_starts", "options"))
def _rotations(
    key, x, valid, *, num_steps, num_starts, options: GroupOptions
) -> Rounding:
    precision = options.precision

    def one_start(key: jax.Array, x: jax.Array, valid: jax.Array) -> Grouping:
        directions = _spread_directions(key, x, valid, precision)

        def assign(directions: jax.Array) -> jax.Array:
            cosine = jnp.matmul(x, directions.T, precision=precision)
            nearest = jnp.argmax(cosine, axis=1).astype(jnp.int32)
            return jnp.where(valid, nearest, VOID)

        def turn(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            step, labels, _, _ = state
            slots = jnp.where(labels == VOID, x.shape[1], labels)
            sums = jnp.zeros_like(directions).at[slots].add(x, mode="drop")
            new = _nearest_rotation(sums, precision)
            found = assign(new)
            return step + 1, found, new, jnp.any(found != labels)

        start = (jnp.int32(0), assign(directions), directions, jnp.asarray(True))
        _, start = vary((x, start))
        _, labels, directions, _ = jax.lax.while_loop(
            lambda state: (state[0] < num_steps) & state[3], turn, start
        )
        found = FoundGroups(
            free=jnp.zeros_like(valid),
            labels=labels,
            modes=directions,
            found=jnp.int32(x.shape[1]),
            left=jnp.asarray(False),
        )
        return number_groups(found, x, valid, options)

    return _best_of(one_start, key, x, valid, num_starts, options)


def _spread_directions(key, x, valid, precision) -> jax.Array:
    """Orthonormal rows [D, D], by a QR decomposition that pivots on the points."""
    dim = x.shape[1]
    first = jnp.argmin(_random_numbers(key, valid))

    def add(k: jax.Array, state: tuple[jax.Array, jax.Array]):
        basis, left = state
        point = jnp.where(k == 0, first, jnp.argmax(left))
        # Twice is enough for orthogonality to the last digits.
        new = x[point]
        for _ in range(2):
            inside = jnp.matmul(basis, new, precision=precision)
            new = new - jnp.matmul(inside, basis, precision=precision)
        # The remainder of points within the span is rounding, not a direction.
        new = jnp.where(left[point] > _NO_LENGTH, l2_normalize(new), 0.0)
        along = jnp.matmul(x, new, precision=precision)
        return basis.at[k].set(new), left - jnp.square(along)

    lengths = jnp.where(valid, jnp.sum(jnp.square(x), axis=-1), 0.0)
    start = vary((jnp.zeros((dim, dim), x.dtype), lengths))
    basis, _ = jax.lax.fori_loop(0, dim, add, start)
    # Completes the basis where the points do not span the space.
    return _nearest_rotation(basis, precision)


def _nearest_rotation(x: jax.Array, precision: jax.lax.PrecisionLike) -> jax.Array:
    """The orthogonal matrix [D, D] nearest to a matrix."""
    left, _, right = jnp.linalg.svd(x)
    return jnp.matmul(left, right, precision=precision)


def _random_numbers(key: jax.Array, valid: jax.Array) -> jax.Array:
    """Uniform numbers [N] of the valid points, infinity for the others."""
    ranks = jnp.maximum(jnp.cumsum(valid) - 1, 0)
    keys = jax.vmap(lambda rank: jax.random.fold_in(key, rank))(ranks)
    numbers = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(keys)
    return jnp.where(valid, numbers, jnp.inf)


def _best_of(
    attempt, key, x, valid, number: int, options: GroupOptions, *settings
) -> Rounding:
    """Groups each image several times and keeps the grouping of the least error."""
    *batch, num_points, dim = x.shape
    if x.size == 0:
        errors = jnp.zeros((*batch, number), x.dtype)
        return Rounding(*no_groups(x, options.max_groups), errors=errors)

    def image(settings, keys, x, valid) -> Rounding:
        gram = jnp.matmul(x.T, x, precision=options.precision)

        def one(key: jax.Array) -> tuple[Grouping, jax.Array]:
            grouping = attempt(key, x, valid, *settings)
            return grouping, _error(grouping, gram, x, valid)

        groupings, errors = jax.lax.map(one, keys)
        best = jnp.argmin(errors)
        grouping = jax.tree.map(lambda leaf: leaf[best], groupings)
        return Rounding(*grouping, errors=errors)

    def here(x, valid, keys, *settings) -> Rounding:
        batch = x.shape[:-2]
        images = math.prod(batch)
        found = jax.vmap(functools.partial(image, settings))(
            keys.reshape(images, number),
            x.reshape(images, num_points, dim),
            valid.reshape(images, num_points),
        )
        return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), found)

    return share_out(
        here,
        (x, valid, jax.random.split(key, (*batch, number)), *settings),
        ("... N D", "... N", "... R", *[""] * len(settings)),
        Rounding._make(("... N", "... K D", "... K", "...", "...", "... R")),
    )


def _error(grouping: Grouping, gram, x, valid) -> jax.Array:
    """The mean over pairs of different points, of one image."""
    number = jnp.maximum(jnp.sum(valid), 1).astype(x.dtype)
    groups = grouping.sizes.shape[0]
    slots = jnp.where(grouping.labels == VOID, groups, grouping.labels)
    sums = jnp.zeros((groups, x.shape[1]), x.dtype).at[slots].add(x, mode="drop")
    # Over N before anything is squared: the terms cancel, and float32 is short.
    sizes = grouping.sizes.astype(x.dtype)
    total = affinity_error(gram / number, sums / number, sizes / number)
    squares = jnp.sum(jnp.square(x), axis=-1)
    alone = valid & (grouping.labels == VOID)
    lone = jnp.sum(jnp.where(alone, 1.0 - 2.0 * squares, 0.0))
    diagonal = jnp.sum(jnp.where(valid, jnp.square(squares - 1.0), 0.0))
    pairs = jnp.maximum(1.0 - 1.0 / number, 1.0 / number)
    return (total + (lone - diagonal) / jnp.square(number)) / pairs
