"""Positions of the cells of a map among the pixels of an image, and its padding.

B images, H W size of an image, h w size of a map of it, C channels. The center of pixel
j is at j. In a map of stride s and origin o the center of cell i is at
(i + 1/2) s - 1/2 + o, in pixels: with an origin of 0 the middle of its s x s pixels.
Values are interpolated bilinearly between centers, and constant beyond the outermost.
A cell belongs to the image, not to its padding, if the first of its pixels does.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Grid(NamedTuple):
    """The cells of a map among the pixels of its image, the same along both axes."""

    stride: float = 1  # s, pixels from one cell to the next
    # o, pixels from the middle of the first s pixels to the first center
    origin: float = 0.0

    def centers(self, number: int) -> jax.Array:
        """The centers of the first cells, float32 [n] in pixels."""
        return (jnp.arange(number) + 0.5) * self.stride - 0.5 + self.origin

    def cells(self, positions: jax.Array) -> jax.Array:
        """Converts pixels to cells: 0 is the center of the first cell."""
        return (positions + 0.5 - self.origin) / self.stride - 0.5

    def strided(self, *, kernel: int, stride: int, before: int) -> Grid:
        """The grid after a convolution or pooling with ``before`` cells of padding.

        ``kernel`` is the side of the kernel in cells, with the gaps of a dilated one.

        >>> Grid().strided(kernel=3, stride=2, before=1)
        Grid(stride=2, origin=-0.5)
        """
        middle = (kernel - 1) / 2 - before
        moved = self.stride * (middle - (stride - 1) / 2)
        return Grid(self.stride * stride, self.origin + moved)

    def pixels(self, size: int) -> np.ndarray:
        """The pixels nearest to the centers of the cells, along a side of ``size``."""
        number = int(-(-size // self.stride))
        centers = (np.arange(number) + 0.5) * self.stride - 0.5 + self.origin
        return np.clip(np.floor(centers + 0.5).astype(int), 0, size - 1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Origins:
    """The origins of a network's maps by name; tuples where a name has several maps."""

    items: tuple[tuple[str, float | tuple[float, ...]], ...] = ()

    def of(self, name: str, index: int | None = None) -> float:
        """The origin of a map, or of the one at an index."""
        found = dict(self.items).get(name, 0.0)
        if isinstance(found, tuple):
            return 0.0 if index is None else found[index]
        return found

    def also(self, **items: float | tuple[float, ...]) -> Origins:
        """These origins and others."""
        return Origins((*self.items, *items.items()))


def bilinear_weights(positions: jax.Array, number: int) -> jax.Array:
    """Weights [..., n, number] of the cells at positions [..., n] counted in cells."""
    positions = jnp.clip(positions, 0.0, number - 1.0)
    cells = jnp.arange(number, dtype=positions.dtype)
    cells = cells.reshape(*(1 for _ in positions.shape), -1)
    return jnp.maximum(1.0 - jnp.abs(positions[..., None] - cells), 0.0)


def resample(
    values: jax.Array, grid: Grid, target: Grid, size: tuple[int, ...]
) -> jax.Array:
    """Reads a map [B, h, w, C] of ``grid`` at the (h', w') cells of ``target``."""
    if grid == target and values.shape[1:3] == tuple(size):
        return values
    rows, columns = (
        bilinear_weights(grid.cells(target.centers(n)), values.shape[axis])
        for axis, n in zip((1, 2), size, strict=True)
    )
    highest = jax.lax.Precision.HIGHEST
    rows, columns = rows.astype(values.dtype), columns.astype(values.dtype)
    read = jnp.einsum("iy,byxc->bixc", rows, values, precision=highest)
    return jnp.einsum("jx,bixc->bijc", columns, read, precision=highest)


def cells_of_image(mask: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """The cells that belong to the image, bool [B, h, w], of a mask bool [B, H, W]."""
    rows, columns = (mask.shape[1 + i] // size[i] for i in range(2))
    return mask[:, ::rows, ::columns]


def without_padding(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Sets a map [B, h, w, C] to zero outside the image, see `cells_of_image`."""
    if mask is None:
        return values
    cells = cells_of_image(mask, values.shape[1:3])
    return jnp.where(cells[..., None], values, 0)


def extended(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Repeats the border cells of the image in its padding, [B, h, w, C]."""
    if mask is None:
        return values
    cells = cells_of_image(mask, values.shape[1:3])
    for axis in (1, 2):
        first, last = _ends(cells.any(axis=3 - axis))
        positions = jnp.arange(values.shape[axis])
        nearest = jnp.clip(positions, first[:, None], last[:, None])
        nearest = jnp.expand_dims(nearest, (3 - axis, 3))
        values = jnp.take_along_axis(values, nearest, axis=axis)
    return values


def middle_of_image(mask: jax.Array) -> jax.Array:
    """Row and column of the middle of each image, float32 [B, 2]."""
    ends = [_ends(mask.any(axis=axis)) for axis in (2, 1)]
    return jnp.stack([(first + last + 1) / 2 for first, last in ends], axis=-1)


def _ends(inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first and the last index [B] that is True, of [B, n]."""
    first = jnp.argmax(inside, axis=1)
    return first, first + jnp.maximum(inside.sum(axis=1), 1) - 1
