r"""Neighbors in blocks, so that blocks of pairs that cannot matter are left out.

Letters: N points, D entries, B points in a block, n blocks, K leaders.

Each of K leaders is the point farthest from the earlier ones, and the points nearest to
a leader, the nearest first, fill blocks of their own. With the direction c_I of the sum
of a block's rows, the largest angle r_I of a row to it, the smallest angle a_IJ of a
row of I to c_J, and the length rho_I of the longest row, or of the shortest where the
cosine is negative, no product of two rows is larger than

.. math:: x_i^\top x_j \le \rho_I \rho_J \cos(\max(0, a_{IJ} - r_J, a_{JI} - r_I)),
          \qquad i \in I, j \in J.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._tiles import Tiling, cut_blocks, fold_tiles, vary
from sphemb.sphere._vectors import l2_normalize, pairwise_dot

# Below this many multiplications a dense sum takes less time than the blocks save.
_FEWEST = 10**9
_SAMPLE = 1024
_MOST_LEADERS = 32
_COLUMNS = 1024  # of a tile
_ROWS = 256
# Rounding of a cosine near 1 moves its angle by the root of the machine's precision.
_ROUNDING = 1e-3
_WORTH = 0.75  # of all pairs; else the dense sum takes less time


class Blocks(NamedTuple):
    """Points in the order of their blocks, n of B points."""

    points: jax.Array  # [n B] int32, the point of a slot; N for none
    slots: jax.Array  # [N] int32, the slot of a point
    shortest: jax.Array  # [n] length of a row
    lowest: jax.Array  # [n] bound of the products within a block
    highest: jax.Array  # [n, n] bound of the products of rows
    filled: jax.Array  # [n] bool, whether a row is not zero

    @property
    def side(self) -> int:
        """B, the points in a block."""
        return self.points.shape[0] // self.filled.shape[0]

    def cut(self, tree: Any, blocks: int = 1) -> Any:
        """Cuts [N, ...] into [n, B, ...], or so many blocks at a time; else zeros."""
        taken = jax.tree.map(lambda leaf: _taken(leaf, self.points), tree)
        return cut_blocks(taken, blocks * self.side)


def pays(x: jax.Array, tiling: Tiling) -> bool:
    """Whether there are so many points that leaving out pairs can save time."""
    number, dim = x.shape
    return tiling.skips and number**2 * dim >= _FEWEST


def arrange(x: jax.Array) -> Blocks:
    """Puts neighbors among [N, D] into the same blocks; zero rows come last."""
    number = x.shape[0]
    side = min(256, max(64, 1 << (number // 128).bit_length() - 1))
    leaders = min(_MOST_LEADERS, max(8, number // (4 * side)))
    filled = jnp.any(x != 0, axis=-1)
    near = jnp.matmul(x, _leaders(x, filled, leaders).T)
    group = jnp.where(filled, jnp.argmax(near, axis=-1), leaders)
    away = jnp.clip(0.5 - 0.5 * jnp.max(near, axis=-1), 0.0, 0.999)

    sizes = jnp.zeros(leaders + 1, jnp.int32).at[group].add(1)
    blocks = -(-sizes // side)
    first = (jnp.cumsum(blocks) - blocks) * side - (jnp.cumsum(sizes) - sizes)
    order = jnp.arange(number, dtype=jnp.int32)
    key, order = jax.lax.sort((group + away, order), num_keys=1)
    group = key.astype(jnp.int32)
    slots = first[group] + jnp.arange(number, dtype=jnp.int32)
    total = (math.ceil(number / side) + leaders) * side
    points = jnp.full(total, number, jnp.int32).at[slots].set(order)
    slots = jnp.zeros(number, jnp.int32).at[order].set(slots)
    return Blocks(points, slots, *_bounds(cut_blocks(_taken(x, points), side)))


def _taken(leaf: jax.Array, points: jax.Array) -> jax.Array:
    return leaf.at[points].get(mode="fill", fill_value=0)


def _leaders(x: jax.Array, filled: jax.Array, number: int) -> jax.Array:
    """[K, D], each the farthest from those before it, of a part of the points."""
    stride = max(1, x.shape[0] // _SAMPLE)
    sample, filled = x[::stride], filled[::stride]

    def body(nearest: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        leader = sample[jnp.argmin(nearest)]
        return jnp.maximum(nearest, sample @ leader), leader

    start = jnp.where(filled, -jnp.inf, jnp.inf)
    return jax.lax.scan(body, start, None, length=number)[1]


def _bounds(rows: jax.Array) -> tuple[jax.Array, ...]:
    """Shortest, lowest, highest and filled of blocks [n, B, D]."""
    lengths = jnp.linalg.norm(rows, axis=-1)
    there = lengths > 0
    # Written so that a row of NaN bounds nothing.
    there |= jnp.isnan(lengths)
    unit = rows / jnp.where(there, lengths, 1.0)[..., None]
    center = l2_normalize(jnp.sum(rows, axis=1))
    highest = jax.lax.Precision.HIGHEST
    own = jnp.einsum("nbd,nd->nb", unit, center, precision=highest)
    own = jnp.min(jnp.where(there, own, 1.0), axis=1)
    angles = jnp.arccos(jnp.clip(own, -1.0, 1.0)) + _ROUNDING
    flat = unit.reshape(-1, unit.shape[-1])
    cosine = pairwise_dot(center, flat, precision=highest)
    cosine = jnp.where(there.reshape(-1), cosine, -1.0)
    nearest = jnp.max(cosine.reshape(len(center), *rows.shape[:2]), axis=-1)
    apart = jnp.arccos(jnp.clip(nearest, -1.0, 1.0)) - _ROUNDING - angles[:, None]
    gap = jnp.maximum(jnp.maximum(apart, apart.T), 0.0)
    longest = jnp.max(lengths, axis=1)
    shortest = jnp.min(jnp.where(there, lengths, jnp.inf), axis=1)
    bound = jnp.cos(jnp.minimum(gap, np.pi))
    lengths = jnp.where(
        bound > 0, longest[:, None] * longest, shortest[:, None] * shortest
    )
    highest = bound * lengths
    within = jnp.cos(jnp.minimum(2.0 * angles, np.pi))
    lowest = within * jnp.square(jnp.where(within > 0, shortest, longest))
    return shortest, lowest, highest, jnp.any(there, axis=1)


class Plan(NamedTuple):
    """The column blocks that each tile's rows need, before those they do not."""

    blocks: Blocks
    columns: jax.Array  # [tiles, n] int32
    counts: jax.Array  # [tiles] int32
    few: jax.Array  # [] bool, whether leaving out the others saves time


def plan_blocks(blocks: Blocks, needed: jax.Array, x, weights) -> Plan:
    """Plans the sum over the blocks of pairs that are needed, [n, n] bool."""
    needed &= blocks.filled[:, None] & blocks.filled[None]
    rows = max(1, _ROWS // blocks.side)
    together = cut_blocks(needed, rows).any(axis=1)
    columns = jnp.argsort(~together, axis=1, stable=True).astype(jnp.int32)
    counts = jnp.sum(together, axis=1, dtype=jnp.int32)
    share = jnp.sum(counts) * (rows * blocks.side**2 / blocks.slots.shape[0] ** 2)
    # Rows of zeros are in no block that is needed, and so must not count.
    counted = jnp.any((weights > 0) & jnp.all(x == 0, axis=-1))
    return Plan(blocks, columns, counts, (share < _WORTH) & ~counted)


def fold_blocks(tile, initial, rows, columns, tiling: Tiling, *, plan: Plan) -> Any:
    """`fold_tiles` over the blocks of a plan, where these are few.

    Rows of zeros in the columns must add nothing.
    """

    def dense(args: Any) -> Any:
        rows, columns, _ = args
        return fold_tiles(tile, initial, rows, columns, tiling)

    def listed(args: Any) -> Any:
        return _fold_listed(tile, initial, *args)

    args = vary((rows, columns, plan))
    return jax.lax.cond(plan.few, listed, dense, args)


def _fold_listed(tile, initial, rows, columns, plan: Plan) -> Any:
    blocks = plan.blocks
    side, number = blocks.side, blocks.filled.shape[0]
    across, down = max(1, _COLUMNS // side), max(1, _ROWS // side)
    columns = blocks.cut(columns)
    order = jnp.pad(plan.columns, ((0, 0), (0, -number % across)))

    def one_row(args: Any) -> Any:
        row, order, count = args

        def body(turn: jax.Array, carry: Any) -> Any:
            places = turn * across + jnp.arange(across)
            # Beyond the count there is no block, and rows of zeros are taken.
            chosen = jnp.where(places < count, order[places], number)
            part = jax.tree.map(lambda leaf: _taken(leaf, chosen), columns)
            joined = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), part)
            return tile(carry, row, joined)

        turns = (count + across - 1) // across
        start, _ = vary((initial(down * side), row))
        return jax.lax.fori_loop(0, turns, body, start)

    sums = jax.lax.map(one_row, (blocks.cut(rows, down), order, plan.counts))
    return jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[blocks.slots], sums
    )
