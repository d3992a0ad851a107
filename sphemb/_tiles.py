"""Pairs of points in square tiles, so that no N x N array ever exists.

Letters: N points, S the side of a tile. Trees of arrays [N, ...] are cut along their
first axis; what is added to fill the last tile is zero and must count for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sphemb._ring import AxisName, add_visits, vary

# A tile of 4096 x 256 float32 numbers is 4 MiB: large enough for matmuls to reach their
# speed, small enough to stay near the cache. Measured, not derived (docs/speed.md).
_ROWS = 4096
_COLUMNS = 256
_TILE = _ROWS * _COLUMNS
_ROUND = 8


class Tiling(NamedTuple):
    """How pairs are visited; static.

    An axis name says that the points are spread over devices. Then each has the rows of
    its points, the columns come round, and what is summed over rows is its own share.

    Attributes:
        rows: of a tile.
        columns: of a tile.
        precision: of the matmuls.
        axis_name: of the devices.
    """

    rows: int
    columns: int
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST
    axis_name: AxisName = None

    @property
    def size(self) -> int:
        """Numbers in a tile."""
        return self.rows * self.columns


def _even_side(num_points: int, largest: int) -> int:
    largest = max(1, min(num_points, largest))
    blocks = max(1, math.ceil(num_points / largest))
    even = math.ceil(num_points / blocks)
    return max(1, min(largest, math.ceil(even / _ROUND) * _ROUND))


def choose_tiling(
    num_rows: int,
    num_columns: int,
    block_size: int | None = None,
    *,
    precision: jax.lax.PrecisionLike,
    axis_name: AxisName = None,
) -> Tiling:
    """Chooses evenly filled tiles.

    Args:
        num_rows: N, of the points whose sums are wanted.
        num_columns: M, of the points that are summed over.
        block_size: the largest side; None takes what was measured to be the fastest.
        precision: of the matmuls.
        axis_name: of the devices over which the points are spread.
    """
    return Tiling(
        _even_side(num_rows, block_size or _ROWS),
        _even_side(num_columns, block_size or _COLUMNS),
        precision,
        axis_name,
    )


def _cut(tree: Any, side: int) -> Any:
    """Cuts [N, ...] into [blocks, side, ...], with zeros where the points end."""

    def cut(leaf: jax.Array) -> jax.Array:
        missing = -leaf.shape[0] % side
        padding = [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)
        padded = jnp.pad(leaf, padding) if missing else leaf
        return padded.reshape(-1, side, *leaf.shape[1:])

    return jax.tree.map(cut, tree)


def fold_tiles(
    tile: Callable[[Any, Any, Any], Any],
    initial: Any,
    rows: Any,
    columns: Any,
    tiling: Tiling,
) -> Any:
    """Folds ``tile(carry, row_block, column_block)`` over the columns, row by row.

    Every level is checkpointed: differentiating the fold, in whichever mode, computes
    the tiles again instead of keeping them.

    Args:
        tile: takes the carry, a block of rows and a block of columns, and returns the
            next carry.
        initial: tree of [tiling.rows, ...], the first carry of every row block. Zero,
            and the carry a sum, where the tiling has an axis name.
        rows: tree of [N, ...].
        columns: tree of [M, ...].
        tiling: sides of the tiles, and the devices whose columns are wanted.

    Returns:
        The tree of final carries, [N, ...].
    """
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    initial, rows, columns = vary((initial, rows, columns), tiling.axis_name)

    def fold(columns: Any) -> Any:
        column_blocks = _cut(columns, tiling.columns)

        def row_block(row: Any) -> Any:
            def one_tile(carry: Any, column: Any) -> tuple[Any, None]:
                return tile(carry, row, column), None

            one_tile = jax.checkpoint(one_tile, prevent_cse=False)
            return jax.lax.scan(one_tile, initial, column_blocks)[0]

        row_block = jax.checkpoint(row_block, prevent_cse=False)
        blocks = jax.lax.map(row_block, _cut(rows, tiling.rows))
        return jax.tree.map(
            lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_rows], blocks
        )

    return add_visits(fold, columns, axis_name=tiling.axis_name)


def map_batch(function: Callable[..., Any], *arrays: jax.Array, tile: int) -> Any:
    """Maps a function of one image over the leading axis of every array.

    Small images go side by side, because a device idles on one of them. Images that
    fill a tile alone go one after another: side by side they would multiply the
    temporary memory by the batch and win nothing.

    Args:
        function: takes one image's slice of each array.
        *arrays: [B, ...] each.
        tile: numbers in one tile of one image.
    """
    batch = arrays[0].shape[0]
    if batch == 1:
        # A batch axis of 1 alone would make the matmuls of its tiles slower.
        return jax.tree.map(lambda leaf: leaf[None], function(*(a[0] for a in arrays)))
    fitting = max(1, min(batch, _TILE // max(1, tile)))
    together = next(n for n in range(fitting, 0, -1) if batch % n == 0)
    if together == batch:
        return jax.vmap(function)(*arrays)
    chunks = tuple(a.reshape(-1, together, *a.shape[1:]) for a in arrays)
    if together == 1:
        return jax.lax.map(lambda one: function(*one), arrays)
    mapped = jax.lax.map(lambda chunk: jax.vmap(function)(*chunk), chunks)
    return jax.tree.map(lambda leaf: leaf.reshape(batch, *leaf.shape[2:]), mapped)
