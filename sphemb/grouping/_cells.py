r"""Cells of points that lie close together, with static shapes.

Letters: N points, D dimensions, P projections, M the largest number of cells.

Space is cut into cubes after an orthogonal projection: two points are in one cell when
all of their P coordinates fall into one interval of the cell's side. With P = D the
projection is a rotation and a cell a true cube. With fewer, two distant points share a
cell only if their difference is hidden from every projection, which
:func:`are_close` checks where it matters.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_MOST_PROJECTIONS = 24
_TABLE_BITS = 22  # of the table by which cells are counted: 4 Mi entries of a byte


class Cells(NamedTuple):
    """Points gathered in cells.

    Attributes:
        index: [N] int32, the cell of every point; at least M where there was no room.
        means: [M, D] mass-weighted means; zero rows where there is no cell.
        masses: [M] sums of mass; 0 where there is no cell.
        number: [] int32, how many cells there are, with those beyond M.
    """

    index: jax.Array
    means: jax.Array
    masses: jax.Array
    number: jax.Array


class Codes(NamedTuple):
    """A cell's address, hashed to 64 bits: two hashes [N] uint32."""

    first: jax.Array
    second: jax.Array


def project(x: jax.Array) -> jax.Array:
    """Projects [N, D] onto min(D, 24) fixed random orthonormal directions."""
    dim = x.shape[-1]
    square = np.random.default_rng(0).standard_normal((dim, dim))
    directions = np.linalg.qr(square)[0][:, :_MOST_PROJECTIONS]
    directions = jnp.asarray(directions, x.dtype)
    return jnp.matmul(x, directions, precision=jax.lax.Precision.HIGHEST)


def encode(projected: jax.Array, side: jax.Array) -> Codes:
    """Hashes the cell that every point [N, P] lies in."""
    cell = jnp.floor(projected / side).astype(jnp.int32).astype(jnp.uint32)
    factors = np.random.default_rng(1).integers(2**32, size=(2, cell.shape[1]))
    factors = factors.astype(np.uint32) | np.uint32(1)

    def mix(row: np.ndarray) -> jax.Array:
        code = jnp.zeros(cell.shape[0], jnp.uint32)
        for column, factor in enumerate(row):
            code = (code ^ cell[:, column]) * factor
            code = code ^ (code >> np.uint32(15))
        return code

    return Codes(*(mix(row) for row in factors))


def count_cells(codes: Codes, counts: jax.Array) -> jax.Array:
    """Counts cells of points that count, in a table: at times a hair too few."""
    slot = codes.first >> np.uint32(32 - _TABLE_BITS)
    table = jnp.zeros(2**_TABLE_BITS, bool).at[slot].max(counts)
    return jnp.sum(table, dtype=jnp.int32)


def gather(x: jax.Array, mass: jax.Array, codes: Codes, max_cells: int) -> Cells:
    """Gathers points by their codes; those without mass share a cell of their own."""
    num_points = x.shape[0]
    # Silent points sort last, so that the cell they open is the last one.
    silent = mass <= 0
    order = jnp.arange(num_points, dtype=jnp.int32)
    keys = (silent, codes.first, codes.second)
    masked = (keys[0], *(jnp.where(silent, jnp.uint32(0), key) for key in keys[1:]))
    *keys, order = jax.lax.sort((*masked, order), num_keys=3)
    opens = jnp.zeros(num_points, bool)
    for key in keys:
        opens |= key != jnp.roll(key, 1)
    cell = jnp.cumsum(opens.at[0].set(False), dtype=jnp.int32)
    index = jnp.zeros(num_points, jnp.int32).at[order].set(cell, unique_indices=True)
    number = 1 + jnp.max(jnp.where(silent, -1, index))
    return Cells(index, *average(x, mass, index, max_cells), number)


def average(
    x: jax.Array, mass: jax.Array, index: jax.Array, number: int
) -> tuple[jax.Array, jax.Array]:
    """Returns means [number, D] and masses [number] of the points of every index."""
    masses = jnp.zeros(number, x.dtype).at[index].add(mass, mode="drop")
    sums = jnp.zeros((number, x.shape[1]), x.dtype)
    sums = sums.at[index].add(mass[:, None] * x, mode="drop")
    return sums / jnp.where(masses > 0, masses, 1.0)[:, None], masses


def are_close(
    x: jax.Array, mass: jax.Array, cells: Cells, distance: jax.Array
) -> jax.Array:
    """Tells whether no point that counts is farther from its cell's mean."""
    away = jnp.sum(jnp.square(x - cells.means[cells.index]), axis=1)
    return jnp.all((away <= jnp.square(distance)) | (mass <= 0))
