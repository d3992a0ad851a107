"""Images larger than memory: windows of files, and tiles with overlapping borders.

H W image size, h w size of a window; places are (row, column), ends are exclusive.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from sphemb._checks import InputError, check_count
from sphemb.data.files._image_files import count_pages, read_header, read_values
from sphemb.data.files._images import AS_SHOWN, PathLike, Reading, Values

_MOST_PIXELS = 2**31  # Pillow and NumPy count places with 32 bits


class Box(NamedTuple):
    """A rectangle of pixels: from row and column up to row and column."""

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
        """The slices of an array [H, W, ...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def clipped(self, height: int, width: int) -> Box:
        """The part of it that lies in an image."""
        top, left, bottom, right = self
        return Box(max(top, 0), max(left, 0), min(bottom, height), min(right, width))

    def within(self, outer: Box) -> Box:
        """The same pixels, counted from the upper left corner of another box."""
        top, left = outer[:2]
        return Box(
            self.top - top, self.left - left, self.bottom - top, self.right - left
        )


class Tile(NamedTuple):
    """One tile of an image; the cores of all tiles cover it without overlap."""

    outer: Box  # the network's input, padded beyond the image, below and to the right
    core: Box  # the part of the result that is kept


def tile_image(
    size: tuple[int, int], *, tile: int, halo: int, multiple: int = 1
) -> list[Tile]:
    """Cuts an image into tiles of one size, each with a halo around its core.

    Tiles and cores begin at multiples of ``multiple``, so that a network's cells lie
    as in the whole image. The last tiles of a row or column overlap more.

    Args:
        size: (H, W).
        tile: the least side of a tile; rounded up to the multiple.
        halo: the least number of pixels between the core and the border of a tile,
            except at the image's border; rounded up to the multiple.
        multiple: of a network's input.

    Raises:
        InputError: a size below 1, or no core left within the halos.

    >>> tiles = tile_image((16, 40), tile=16, halo=2, multiple=4)
    >>> [tile.outer.left for tile in tiles], [tile.core.left for tile in tiles]
    ([0, 8, 16, 24], [0, 12, 20, 28])
    """
    for name, value in {"H": size[0], "W": size[1], "tile": tile}.items():
        check_count(name, value, at_least=1)
    check_count("halo", halo)
    check_count("multiple", multiple, at_least=1)
    side, margin = (value + -value % multiple for value in (tile, halo))
    if side <= 2 * margin and max(size) > side:
        text = f"tile must be more than twice the halo, got {tile} and {halo}"
        raise InputError(f"{text}, in the network's steps of {multiple} pixels")
    rows, columns = (_spans(length, side, margin, multiple) for length in size)
    return [
        Tile(Box(top, left, below, beside), Box(row, column, last_row, last_column))
        for top, below, row, last_row in rows
        for left, beside, column, last_column in columns
    ]


def _spans(
    length: int, side: int, margin: int, multiple: int
) -> list[tuple[int, int, int, int]]:
    """Beginning and end of the tiles along one axis, and of their cores."""
    padded = length + -length % multiple
    side = min(side, padded)
    step = max(side - 2 * margin, 1)
    starts = [*range(0, padded - side, step), padded - side]
    seams = [0, *(start + margin for start in starts[1:]), length]
    return [
        (start, start + side, seams[i], seams[i + 1]) for i, start in enumerate(starts)
    ]


class ImageWindows:
    """An image file of any size, read a window at a time.

    TIFF files are mapped into memory, large compressed ones by way of a temporary file.
    Other files are decoded as a whole when the first window is read, and kept until
    :meth:`close`. ``reading`` is about the whole image.

    Attributes:
        path: the file.
        size: (H, W), from the header.
        num_pages: of the file.
        turned_from: (H, W) of the stored pixels, if a camera's orientation turns them.

    Raises:
        InputError: not an image, more than 2^31 pixels, or no such page.
    """

    def __init__(self, path: PathLike, reading: Reading = AS_SHOWN) -> None:
        self.path = pathlib.Path(path)
        self._reading = reading
        self._values: Values | None = None
        with _any_size():
            header = read_header(self.path, reading)
            self.num_pages = count_pages(self.path)
        self.size = height, width = header.size
        self.turned_from = header.stored if header.orientation != 1 else None
        if height * width > _MOST_PIXELS:
            text = f"must have at most {_MOST_PIXELS:,} pixels, got {height} x {width}"
            raise InputError(f"image {self.path} {text}")

    def read(self, box: Box) -> np.ndarray:
        """Reads a window as uint8 [h, w, 3], mirrored beyond the image.

        Raises:
            InputError: the box lies beside the image, or the file cannot be decoded.
        """
        inside = box.clipped(*self.size)
        if min(*inside.size, *box.size) < 1:
            text = f"a window must lie in the image {self.path} of size {self.size}"
            raise InputError(f"{text}, got {tuple(box)}")
        if self._values is None:
            with _any_size():
                self._values = read_values(self.path, self._reading)
        border = [
            (inside.top - box.top, box.bottom - inside.bottom),
            (inside.left - box.left, box.right - inside.right),
            (0, 0),
        ]
        return np.pad(self._values.shown(inside.slices), border, mode="symmetric")

    def whole(self) -> np.ndarray:
        """Reads the whole image, uint8 [H, W, 3]."""
        return self.read(Box(0, 0, *self.size))

    @property
    def pages_read(self) -> str:
        """Which page of how many is read; empty for a single page."""
        if self.num_pages == 1:
            return ""
        if self._reading.page == "max":
            return f"maximum of {self.num_pages} pages"
        return f"page {self._reading.page} of {self.num_pages}"

    def close(self) -> None:
        """Frees the pixels; the next window decodes them again."""
        self._values = None


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Lifts Pillow's limit of pixels, which is against attacks."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
