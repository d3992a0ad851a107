"""An image as overlapping tiles of one size: pure geometry.

H W image size; all places are (row, column), ends are exclusive.
"""

from __future__ import annotations

from typing import NamedTuple

from sphemb._checks import InputError, check_count


class Box(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        top: first row.
        left: first column.
        bottom: the row after the last.
        right: the column after the last.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts it out of an array [H, W, ...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def clipped(self, height: int, width: int) -> Box:
        """The part of it that lies in an image."""
        return Box(
            max(self.top, 0),
            max(self.left, 0),
            min(self.bottom, height),
            min(self.right, width),
        )

    def within(self, other: Box) -> Box:
        """The same rectangle, counted from another's upper left corner."""
        top, left = other[:2]
        return Box(
            self.top - top, self.left - left, self.bottom - top, self.right - left
        )


class Tile(NamedTuple):
    """A part of an image.

    Attributes:
        outer: what is looked at; it may reach beyond the image, below and to the right,
            where that is to be padded.
        core: what the tile answers for, within the image. The cores of all tiles cover
            the image, and no two of them overlap.
    """

    outer: Box
    core: Box


def tile_image(
    size: tuple[int, int], *, tile: int, halo: int, multiple: int = 1
) -> list[Tile]:
    """Cuts an image into tiles of one size, each with a halo around its core.

    Tiles and cores begin at multiples of ``multiple``, so that a network's cells lie
    where they lie in the whole image, and every network is compiled once. Where tiles
    do not fit, the last ones of a row or column overlap more.

    Args:
        size: (H, W).
        tile: the side of a tile, at least; rounded up to the multiple.
        halo: pixels between the core and the border of a tile, at least, save where
            that is the image's border; rounded up to the multiple.
        multiple: of a network's input.

    Returns:
        The tiles, line by line.

    Raises:
        InputError: a size below 1, or no core left within the halos.

    >>> tiles = tile_image((16, 40), tile=16, halo=2, multiple=4)
    >>> [tile.outer.left for tile in tiles], [tile.core.left for tile in tiles]
    ([0, 8, 16, 24], [0, 12, 20, 28])
    """
    for name, value in zip(("H", "W"), size, strict=True):
        check_count(name, value, at_least=1)
    check_count("tile", tile, at_least=1)
    check_count("halo", halo)
    check_count("multiple", multiple, at_least=1)
    side, margin = (_rounded_up(value, multiple) for value in (tile, halo))
    if side <= 2 * margin and max(size) > side:
        raise InputError(
            f"tile must be more than twice the halo, got {tile} and {halo} (in steps "
            f"of {multiple} pixels, which the network needs)"
        )
    rows, columns = (_spans(length, side, margin, multiple) for length in size)
    return [
        Tile(Box(top, left, below, beside), Box(*first, *last))
        for (top, below), (row, last_row) in rows
        for (left, beside), (column, last_column) in columns
        for first, last in [((row, column), (last_row, last_column))]
    ]


def _rounded_up(value: int, multiple: int) -> int:
    return value + -value % multiple


def _spans(
    length: int, side: int, margin: int, multiple: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Beginning and end of the tiles along one axis, and of their cores."""
    padded = _rounded_up(length, multiple)
    side = min(side, padded)
    step = max(side - 2 * margin, 1)
    starts = [*range(0, padded - side, step), padded - side]
    seams = [0, *(start + margin for start in starts[1:]), length]
    return [
        ((start, start + side), (seams[i], seams[i + 1]))
        for i, start in enumerate(starts)
    ]
