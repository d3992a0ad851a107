"""From unit vectors to a partition whose affinity their products come close to.

Letters: N points, D dimensions, K the largest number of groups, R tries of one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._labels import VOID
from sphemb.grouping._modes import Grouping
from sphemb.sphere import affinity_error


class Rounding(NamedTuple):
    r"""Groups of points, the largest first, and how well they fit; the best of R tries.

    Attributes:
        labels: [..., N] int32, 0..num_groups-1, or VOID.
        modes: [..., K, D] the unit vector each group gathers around, in float32 at
            least: its pivot, or its direction; zero rows from num_groups on.
        sizes: [..., K] int32, how many points bear each label, in falling order.
        num_groups: [...] int32.
        num_left: [...] int32, the points that were still free when K groups were found;
            above 0, the limit was reached and there may be more groups.
        errors: [..., R] of every try, the mean of
            :math:`(v_i^\top v_j - 1_{[\hat y_i = \hat y_j]})^2` over pairs of different
            points, which is `sphemb.losses.spectral_loss` with the groups for labels;
            a VOID point counts as a group of its own. The smallest is that of the
            result.
    """

    labels: jax.Array
    modes: jax.Array
    sizes: jax.Array
    num_groups: jax.Array
    num_left: jax.Array
    errors: jax.Array


def lots(key: jax.Array, counts: jax.Array) -> jax.Array:
    """Random numbers in [0, 1) of the points that count, in float32.

    The i-th of them has the i-th number, whatever points between them do not count: so
    padding and where it lies change no draw.

    Args:
        key: a typed one.
        counts: bool [N].

    Returns:
        [N]; infinity where points do not count.
    """
    ranks = jnp.maximum(jnp.cumsum(counts) - 1, 0)
    keys = jax.vmap(lambda rank: jax.random.fold_in(key, rank))(ranks)
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(keys)
    return jnp.where(counts, drawn, jnp.inf)


def best_of(
    tries: Callable[[jax.Array, jax.Array, jax.Array], Grouping],
    key: jax.Array,
    x: jax.Array,
    counts: jax.Array,
    *,
    number: int,
    max_groups: int,
    precision: jax.lax.PrecisionLike,
) -> Rounding:
    """Groups each image several times and keeps the grouping of the least error.

    Args:
        tries: takes a key, points [N, D] and which of them count, [N].
        key: a typed one, split into one for every image and try.
        x: [..., N, D], zero where points do not count.
        counts: [..., N].
        number: R.
        max_groups: K.
        precision: of the matmuls.
    """
    *batch, num_points, dim = x.shape
    if x.size == 0:
        return Rounding(
            jnp.full((*batch, num_points), VOID, jnp.int32),
            jnp.zeros((*batch, max_groups, dim), x.dtype),
            jnp.zeros((*batch, max_groups), jnp.int32),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros((*batch, number), x.dtype),
        )

    def image(keys: jax.Array, x: jax.Array, counts: jax.Array) -> Rounding:
        gram = jnp.matmul(x.T, x, precision=precision)

        def one(key: jax.Array) -> tuple[Grouping, jax.Array]:
            grouping = tries(key, x, counts)
            return grouping, _error(grouping, gram, x, counts)

        groupings, errors = jax.lax.map(one, keys)
        best = jnp.argmin(errors)
        grouping = jax.tree.map(lambda leaf: leaf[best], groupings)
        return Rounding(*grouping, errors=errors)

    images = math.prod(batch)
    rounding = jax.vmap(image)(
        jax.random.split(key, (*batch, number)).reshape(images, number),
        x.reshape(images, num_points, dim),
        counts.reshape(images, num_points),
    )
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), rounding)


def _error(
    grouping: Grouping, gram: jax.Array, x: jax.Array, counts: jax.Array
) -> jax.Array:
    """The mean over pairs of different points, of one image."""
    number = jnp.maximum(jnp.sum(counts), 1).astype(x.dtype)
    groups = grouping.sizes.shape[0]
    slots = jnp.where(grouping.labels == VOID, groups, grouping.labels)
    sums = jnp.zeros((groups, x.shape[1]), x.dtype).at[slots].add(x, mode="drop")
    # Over N before anything is squared: the terms cancel, and float32 is short.
    total = affinity_error(
        gram / number, sums / number, grouping.sizes.astype(x.dtype) / number
    )
    squares = jnp.sum(jnp.square(x), axis=-1)
    alone = counts & (grouping.labels == VOID)
    lone = jnp.sum(jnp.where(alone, 1.0 - 2.0 * squares, 0.0))
    diagonal = jnp.sum(jnp.where(counts, jnp.square(squares - 1.0), 0.0))
    pairs = jnp.maximum(1.0 - 1.0 / number, 1.0 / number)
    return (total + (lone - diagonal) / jnp.square(number)) / pairs
