"""Windows of image files that are too large to be in memory several times.

H W image size, h w size of a window.
"""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image

from sphemb._checks import InputError, check_count
from sphemb.data.files._findings import PathLike
from sphemb.data.files._stored_images import (
    AS_SHOWN,
    Reading,
    Values,
    count_pages,
    read_header,
    read_values,
)
from sphemb.data.files._tiling import Box

_MOST_PIXELS = 2**31  # what Pillow's and NumPy's 32-bit places can count


class ImageWindows:
    """An image file of any size, read a window at a time.

    What is read is what `read_image` gives. An uncompressed TIFF stays on the disk and
    is mapped into memory; a compressed one is, too, if it is large, by way of a
    temporary file. All others are decoded as a whole when the first window is read, in
    8 or 16 bits, and kept until :meth:`close`.

    Args:
        path: the file.
        reading: which page, and which of its values become black and white; it is
            about the whole image, also where windows are read.

    Attributes:
        path: the file.
        size: (H, W), from the header.
        num_pages: of the file.
        turned_from: (H, W) of the stored pixels, if a camera's orientation turns them.

    Raises:
        InputError: the file is missing or no image, or larger than 2^31 pixels, or has
            no such page.
    """

    def __init__(self, path: PathLike, reading: Reading = AS_SHOWN) -> None:
        """Reads the header; see the class."""
        self.path = pathlib.Path(path)
        self._reading = reading
        self._values: Values | None = None
        with _any_size():
            header = read_header(self.path, reading)
            self.num_pages = count_pages(self.path)
        self.size = height, width = header.size
        # By EXIF, from which the stored pixels may be of another size.
        self.turned_from = header.stored if header.orientation != 1 else None
        if height * width > _MOST_PIXELS:
            raise InputError(
                f"image {self.path} must have at most {_MOST_PIXELS:,} pixels, got "
                f"{height} x {width}"
            )

    def read(self, box: Box) -> np.ndarray:
        """Reads a window, mirrored where it reaches beyond the image.

        Args:
            box: of which at least a row and a column lie in the image.

        Returns:
            uint8 [h, w, 3].

        Raises:
            InputError: the file is damaged, or holds values that are no colours.
        """
        for name, value in zip(("height", "width"), box.size, strict=True):
            check_count(f"the box's {name}", value, at_least=1)
        inside = box.clipped(*self.size)
        if min(inside.size) < 1:
            raise InputError(
                f"a window must lie in the image {self.path} of size {self.size}, got "
                f"{tuple(box)}"
            )
        window = self._window(inside)
        border = [
            (inside.top - box.top, box.bottom - inside.bottom),
            (inside.left - box.left, box.right - inside.right),
            (0, 0),
        ]
        return np.pad(window, border, mode="symmetric")

    def whole(self) -> np.ndarray:
        """The whole image, uint8 [H, W, 3]."""
        return self.read(Box(0, 0, *self.size))

    @property
    def pages_read(self) -> str:
        """Which page of how many is read; nothing where there is one."""
        if self.num_pages == 1:
            return ""
        if self._reading.page == "max":
            return f"maximum of {self.num_pages} pages"
        return f"page {self._reading.page} of {self.num_pages}"

    def close(self) -> None:
        """Lets go of the pixels; the next window reads them anew."""
        self._values = None

    def _window(self, box: Box) -> np.ndarray:
        """A window within the image, uint8 [h, w, 3]."""
        if self._values is None:
            with _any_size():
                self._values = read_values(self.path, self._reading)
        return self._values.shown(box.slices)


class _any_size:
    """Lets Pillow read images of any size, which it takes for an attack."""

    def __enter__(self) -> None:
        self._limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None

    def __exit__(self, *_: object) -> None:
        Image.MAX_IMAGE_PIXELS = self._limit
