"""Windows of image files that are too large to be in memory several times.

H W image size, h w size of a window.
"""

from __future__ import annotations

import pathlib
import warnings

import numpy as np
import tifffile
from PIL import Image, ImageOps

from sphemb._checks import InputError, check_count
from sphemb.data._findings import PathLike
from sphemb.data._headers import read_size
from sphemb.data._image_files import UNREADABLE, to_rgb
from sphemb.data._tiling import Box

_MOST_PIXELS = 2**31  # what Pillow's and NumPy's 32-bit places can count
_IN_MEMORY = 2**26  # pixels of a compressed TIFF that are not worth a file
_ORIENTATION = 274  # the number of TIFF's tag
# What tifffile raises for damaged files, beside what Pillow does.
_DAMAGED = (*UNREADABLE, ArithmeticError, AttributeError, RuntimeError)


class ImageWindows:
    """An image file of any size, read a window at a time.

    What is read is what `read_image` gives. An uncompressed TIFF stays on the disk and
    is mapped into memory; a compressed one is, too, if it is large, by way of a
    temporary file. All others are decoded as a whole when the first window is read, in
    8 or 16 bits, and kept until :meth:`close`.

    Args:
        path: the file.

    Attributes:
        path: the file.
        size: (H, W), from the header.

    Raises:
        InputError: the file is missing or no image, or larger than 2^31 pixels.
    """

    def __init__(self, path: PathLike) -> None:
        """Reads the header; see the class."""
        self.path = pathlib.Path(path)
        self._pixels: np.ndarray | Image.Image | None = None
        self._inverted = False
        self.size = self._measure()
        height, width = self.size
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

    def close(self) -> None:
        """Lets go of the pixels; the next window reads them anew."""
        self._pixels = None

    def _window(self, box: Box) -> np.ndarray:
        """A window within the image, uint8 [h, w, 3]."""
        try:
            with warnings.catch_warnings(), _any_size():
                warnings.simplefilter("ignore")  # such as doubtful EXIF
                if self._pixels is None:
                    self._pixels = self._open()
                if isinstance(self._pixels, Image.Image):
                    corners = (box.left, box.top, box.right, box.bottom)
                    return to_rgb(self._pixels.crop(corners), self.path)
                cut = np.array(self._pixels[box.slices])
        except InputError:
            raise
        except _DAMAGED as error:
            raise _unreadable(self.path, error) from error
        return _colours(cut, inverted=self._inverted)

    def _measure(self) -> tuple[int, int]:
        """The size, of files that only tifffile can read, too."""
        try:
            with _any_size():
                return read_size(self.path)
        except InputError:
            page = _first_page(self.path)
            if page is None:
                raise
            return page.imagelength, page.imagewidth

    def _open(self) -> np.ndarray | Image.Image:
        """The pixels, on the disk where the format allows."""
        page = _first_page(self.path)
        if page is not None:
            self._inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            try:
                return _tiff_pixels(self.path, page)
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                self._inverted = False
        with Image.open(self.path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
        if "transparency" in image.info:  # crops would not know of it
            upright = upright.convert("RGBA")
        return upright


def _first_page(path: pathlib.Path) -> tifffile.TiffPage | None:
    """The first page of a TIFF whose pixels are plain colours, the right way up."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            tag = page.tags.get(_ORIENTATION)
    except _DAMAGED:
        return None
    plain = (
        isinstance(page, tifffile.TiffPage)
        and page.axes in ("YX", "YXS", "SYX")
        and page.dtype in (np.dtype(np.uint8), np.dtype(np.uint16))
        and page.samplesperpixel in (1, 2, 3, 4)
        and page.photometric
        in (
            tifffile.PHOTOMETRIC.MINISBLACK,
            tifffile.PHOTOMETRIC.MINISWHITE,
            tifffile.PHOTOMETRIC.RGB,
        )
    )
    return page if plain and (tag is None or tag.value == 1) else None


def _tiff_pixels(path: pathlib.Path, page: tifffile.TiffPage) -> np.ndarray:
    """Pixels [H, W] or [H, W, C], mapped where they need not be decoded."""
    ends = zip(page.dataoffsets, page.databytecounts, strict=True)
    # Without this a file that was cut short could come out as zeros.
    if max((start + count for start, count in ends), default=0) > path.stat().st_size:
        raise OSError("the file is cut short")
    if page.is_memmappable:
        pixels = tifffile.memmap(path, page=0, mode="r")
    else:
        large = page.imagelength * page.imagewidth > _IN_MEMORY
        with tifffile.TiffFile(path) as tiff:
            pixels = tiff.pages.first.asarray(out="memmap" if large else None)
    return np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels


def _colours(pixels: np.ndarray, *, inverted: bool) -> np.ndarray:
    """[h, w] or [h, w, C] of 8 or 16 bits as uint8 [h, w, 3].

    The last of 2 or 4 channels is how opaque a pixel is, over black.
    """
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257.0).astype(np.uint8)
    if inverted:
        pixels = 255 - pixels
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[-1] in (2, 4):
        opaque = pixels[..., -1:] / 255.0
        pixels = np.rint(pixels[..., :-1] * opaque).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()


class _any_size:
    """Lets Pillow read images of any size, which it takes for an attack."""

    def __enter__(self) -> None:
        self._limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None

    def __exit__(self, *_: object) -> None:
        Image.MAX_IMAGE_PIXELS = self._limit


def _unreadable(path: pathlib.Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"image {path} cannot be read: {reason}")
