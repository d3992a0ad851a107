"""Pairs of points in square tiles, and the exchange of points between devices.

No N x N array is ever made. An axis name means that the points are sharded over the
devices of that axis (inside `jax.shard_map` or `jax.pmap`); None that all are here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.sharding import AxisType

AxisName = str | tuple[str, ...] | None

_ROUND = 8


def _largest_tile() -> tuple[int, int]:
    """Rows and columns of the largest tile on the machine's own backend.

    On CPUs 4096 x 256 float32 numbers are 4 MiB: large enough for fast matmuls, small
    enough for the cache; measured, not derived (docs/speed.md). On accelerators that is
    less work than a kernel takes to start; 32 MiB fit the second cache of a large GPU.
    """
    return (4096, 256) if jax.default_backend() == "cpu" else (8192, 1024)


def _varying(array: Any) -> frozenset[str]:
    """The mesh axes over which an array differs, according to its type."""
    return jax.typeof(array).manual_axis_type.varying


def vary(tree: Any, axis_name: AxisName = None) -> Any:
    """Makes the types of all arrays vary over the same mesh axes, the named included.

    JAX compares them in loops and in rules of differentiation. Each device has its own
    gradient for a shared setting; the cast adds them up.
    """
    wanted = [_varying(leaf) for leaf in jax.tree.leaves(tree)]
    if axis_name is not None:
        # Without check_vma the types do not vary, so ask instead of assuming.
        wanted.append(_varying(jax.lax.axis_index(axis_name)))
    axes = frozenset().union(*wanted)

    def cast(leaf: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - _varying(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree) if axes else tree


def add_devices(tree: Any, axis_name: AxisName) -> Any:
    """Sums over the devices; every device gets the sum."""
    if axis_name is None:
        return tree
    return jax.lax.psum(vary(tree, axis_name), axis_name)


def add_visits(visit: Callable, columns: Any, *, axis_name: AxisName) -> Any:
    """Sums ``visit(columns)`` over the columns of all devices, passed on in a ring."""
    if axis_name is None:
        return visit(columns)
    size = jax.lax.axis_size(axis_name)
    ring = [(i, (i + 1) % size) for i in range(size)]
    onward = functools.partial(jax.lax.ppermute, axis_name=axis_name, perm=ring)
    visit = jax.checkpoint(visit, prevent_cse=False)

    def hop(state: Any, _: None) -> tuple[Any, None]:
        sums, visitors = state
        # The next visitors do not wait for the sums: they travel meanwhile.
        following = jax.tree.map(onward, visitors)
        return (jax.tree.map(jnp.add, sums, visit(visitors)), following), None

    columns = vary(columns, axis_name)
    shapes = jax.eval_shape(visit, columns)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    start, columns = vary((zeros, columns), axis_name)
    return jax.lax.scan(hop, (start, columns), None, length=size)[0][0]


class Tiling(NamedTuple):
    """Rows and columns of a tile, precision of the matmuls, axis of the devices."""

    rows: int
    columns: int
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST
    axis_name: AxisName = None
    skips: bool = False  # whether pairs that cannot matter may be left out

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
    num_rows, num_columns, block_size=None, *, precision, axis_name=None, points=None
) -> Tiling:
    """Chooses evenly filled tiles of at most ``block_size``, None for the fastest.

    Pairs may be left out where `map_batch` takes the images of ``points`` [..., N, D]
    one by one: side by side, a branch that one of them needs is computed for all.
    """
    largest = _largest_tile()
    rows = _even_side(num_rows, block_size or largest[0])
    columns = _even_side(num_columns, block_size or largest[1])
    skips = block_size is None and axis_name is None and points is not None
    skips = skips and (points.ndim == 2 or _num_devices(points) == 1)
    return Tiling(rows, columns, precision, axis_name, skips)


def cut_blocks(tree: Any, side: int) -> Any:
    """Cuts [N, ...] into [blocks, side, ...]; the last block is filled with zeros."""

    def cut(leaf: jax.Array) -> jax.Array:
        missing = -leaf.shape[0] % side
        padding = [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)
        padded = jnp.pad(leaf, padding) if missing else leaf
        return padded.reshape(-1, side, *leaf.shape[1:])

    return jax.tree.map(cut, tree)


def fold_tiles(tile, initial, rows, columns, tiling) -> Any:
    """Folds ``tile(carry, row_block, column_block)`` over the columns, row by row.

    ``initial(R)`` is the carry of R rows.
    """
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    start = initial(tiling.rows)
    start, rows, columns = vary((start, rows, columns), tiling.axis_name)

    def fold(columns: Any) -> Any:
        column_blocks = cut_blocks(columns, tiling.columns)

        def row_block(row: Any) -> Any:
            def one_tile(carry: Any, column: Any) -> tuple[Any, None]:
                return tile(carry, row, column), None

            one_tile = jax.checkpoint(one_tile, prevent_cse=False)
            return jax.lax.scan(one_tile, start, column_blocks)[0]

        row_block = jax.checkpoint(row_block, prevent_cse=False)
        blocks = jax.lax.map(row_block, cut_blocks(rows, tiling.rows))
        joined = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), blocks)
        return jax.tree.map(lambda leaf: leaf[:num_rows], joined)

    return add_visits(fold, columns, axis_name=tiling.axis_name)


def map_batch(
    function: Callable[..., Any], *arrays: jax.Array, tile: int | None
) -> Any:
    """Maps a function of one image over the leading axis [B, ...] of every array.

    As many images are computed together as tiles of this size fit into the largest
    tile; with None one after another, or one on each of the devices of an Auto mesh.
    """
    batch = arrays[0].shape[0]
    if is_symbolic_dim(batch):
        return jax.lax.map(lambda one: function(*one), arrays)
    if batch == 1:
        # A batch axis of 1 would make the matmuls of the tiles slower.
        return jax.tree.map(lambda leaf: leaf[None], function(*(a[0] for a in arrays)))
    devices = math.gcd(batch, _num_devices(arrays[0]))
    own = batch // devices
    most = math.prod(_largest_tile())
    fitting = max(1, min(own, most // max(1, most if tile is None else tile)))
    together = devices * next(n for n in range(fitting, 0, -1) if own % n == 0)
    if together == batch:
        return jax.vmap(function)(*arrays)
    if together == 1:
        return jax.lax.map(lambda one: function(*one), arrays)

    def cut(array: jax.Array) -> jax.Array:
        # The loop is over the second axis, so that the first may be sharded.
        chunks = array.reshape(together, batch // together, *array.shape[1:])
        return chunks.swapaxes(0, 1)

    def join(array: jax.Array) -> jax.Array:
        return array.swapaxes(0, 1).reshape(batch, *array.shape[2:])

    chunks = tuple(cut(array) for array in arrays)
    mapped = jax.lax.map(lambda chunk: jax.vmap(function)(*chunk), chunks)
    return jax.tree.map(join, mapped)


def _num_devices(array: jax.Array) -> int:
    """The most devices that the compiler may shard an array over, for all we know."""
    mesh = jax.typeof(array).sharding.mesh
    if mesh.empty:
        return jax.device_count()
    sizes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return math.prod(size for size, kind in sizes if kind == AxisType.Auto)
