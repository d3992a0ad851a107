"""Where the cells of a map lie among the pixels of an image, and where an image ends.

Shape letters: B images, H W size of an image, h w size of a map of it, C channels.

Networks, tasks, warps and data all place a map by the same rule. The centre of pixel j
is at j. A map of stride s and origin o has the centre of cell i at

    (i + 1/2) s - 1/2 + o,

in pixels: with an origin of 0 every cell lies in the middle of its s x s pixels.
Between centres values are interpolated bilinearly, beyond the outermost they stay.

Images of a batch may be padded to one size. A cell is of the image if the first of its
s x s pixels is.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Grid(NamedTuple):
    """The cells of a map among the pixels of its image, the same along both axes.

    Attributes:
        stride: s, pixels from one cell to the next.
        origin: o, pixels from the middle of the first s pixels to the centre of the
            first cell.
    """

    stride: float = 1
    origin: float = 0.0

    def centers(self, number: int) -> jax.Array:
        """Where so many cells have their centres, float32 [n] in pixels."""
        return (jnp.arange(number) + 0.5) * self.stride - 0.5 + self.origin

    def cells(self, places: jax.Array) -> jax.Array:
        """Places in pixels, counted in cells: 0 is the centre of the first."""
        return (places + 0.5 - self.origin) / self.stride - 0.5

    def strided(self, *, kernel: int, stride: int, before: int) -> Grid:
        """The grid of what a convolution or a pooling makes of a map of this grid.

        Its first cell lies where the middle of its kernel lies on the first window.

        Args:
            kernel: side of the kernel in cells, the holes of a dilated one included.
            stride: of the layer.
            before: cells of padding above and to the left.

        >>> Grid().strided(kernel=3, stride=2, before=1)
        Grid(stride=2, origin=-0.5)
        """
        middle = (kernel - 1) / 2 - before
        moved = self.stride * (middle - (stride - 1) / 2)
        return Grid(self.stride * stride, self.origin + moved)

    def pixels(self, size: int) -> np.ndarray:
        """The pixels nearest to the centres of the cells in a side of so many pixels.

        >>> Grid(4).pixels(12).tolist(), Grid(4, origin=-1.5).pixels(12).tolist()
        ([2, 6, 10], [0, 4, 8])
        """
        number = int(-(-size // self.stride))
        centers = (np.arange(number) + 0.5) * self.stride - 0.5 + self.origin
        return np.clip(np.floor(centers + 0.5).astype(int), 0, size - 1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Origins:
    """The origins of a network's maps, as its entry ``"origins"``: a static one.

    Attributes:
        items: (name of a map, its origin in pixels), and a tuple of origins where the
            name stands for several maps. Maps that are not named have an origin of 0.
    """

    items: tuple[tuple[str, float | tuple[float, ...]], ...] = ()

    def of(self, name: str, index: int | None = None) -> float:
        """The origin of a map, or of one of those of a name."""
        found = dict(self.items).get(name, 0.0)
        if isinstance(found, tuple):
            return 0.0 if index is None else found[index]
        return found

    def also(self, **items: float | tuple[float, ...]) -> Origins:
        """These and others."""
        return Origins((*self.items, *items.items()))


def bilinear_weights(places: jax.Array, number: int) -> jax.Array:
    """The weights of the cells that places lie between.

    Args:
        places: [..., n], counted in cells.
        number: of the cells.

    Returns:
        [..., n, number].
    """
    places = jnp.clip(places, 0.0, number - 1.0)
    cells = jnp.arange(number, dtype=places.dtype)
    cells = cells.reshape(*(1 for _ in places.shape), -1)
    distance = jnp.abs(places[..., None] - cells)
    return jnp.maximum(1.0 - distance, 0.0)


def resample(
    values: jax.Array, grid: Grid, target: Grid, size: tuple[int, ...]
) -> jax.Array:
    """Reads a map at the cells of another grid.

    Args:
        values: [B, h, w, C] floating point.
        grid: of the map.
        target: where it is read.
        size: cells (h', w') of that.

    Returns:
        [B, h', w', C].
    """
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
    """Which cells of a map are of the image, bool [B, h, w].

    Args:
        mask: bool [B, H, W], False where pixels are padding.
        size: (h, w) of the map, whole fractions of H and W.
    """
    rows, columns = (mask.shape[1 + i] // size[i] for i in range(2))
    return mask[:, ::rows, ::columns]


def without_padding(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """A map [B, h, w, C] that is zero beyond the image, see `cells_of_image`."""
    if mask is None:
        return values
    cells = cells_of_image(mask, values.shape[1:3])
    return jnp.where(cells[..., None], values, 0)


def extended(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """A map whose cells beyond the image hold what the nearest cell of it does.

    Interpolation at the image's border is then what it is without padding.

    Args:
        values: [B, h, w, C].
        mask: bool [B, H, W], True in a rectangle; None for images without padding.
    """
    if mask is None:
        return values
    cells = cells_of_image(mask, values.shape[1:3])
    for axis in (1, 2):
        first, last = _ends(cells.any(axis=3 - axis))
        places = jnp.arange(values.shape[axis])
        nearest = jnp.clip(places, first[:, None], last[:, None])
        nearest = jnp.expand_dims(nearest, (3 - axis, 3))
        values = jnp.take_along_axis(values, nearest, axis=axis)
    return values


def middle_of_image(mask: jax.Array) -> jax.Array:
    """Row and column of the middle of each image, from the corner of the padded one.

    Args:
        mask: bool [B, H, W], True in a rectangle.

    Returns:
        float32 [B, 2], in pixels from the corner of the first pixel.
    """
    ends = [_ends(mask.any(axis=axis)) for axis in (2, 1)]
    return jnp.stack([(first + last + 1) / 2 for first, last in ends], axis=-1)


def _ends(inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first and the last place [B] that is True, of [B, n]."""
    first = jnp.argmax(inside, axis=1)
    return first, first + jnp.maximum(inside.sum(axis=1), 1) - 1
