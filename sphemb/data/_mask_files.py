"""From the bytes of a mask file to the numbers that it stores.

What the numbers mean is the business of ``_masks.py``.
"""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from sphemb.data._findings import FileError
from sphemb.data._stored_images import DAMAGED

_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")
_LOSSY_TIFF = (6, 7, 33003, 33005, 34712, 34892, 50001)  # JPEG, JPEG 2000 and WebP


class Stored(NamedTuple):
    """What a mask file stores.

    Attributes:
        values: [H, W] integers; colours as 65536 R + 256 G + B.
        kind: ``"labels"`` (grey), ``"palette"`` (the indices) or ``"colours"``.
        ground: the colour that a palette gives to index 0, else None.
    """

    values: np.ndarray
    kind: str
    ground: tuple[int, ...] | None = None


def read_stored(path: pathlib.Path) -> Stored:
    """Reads a PNG, TIFF or other lossless file of one page.

    Args:
        path: the file.

    Returns:
        Its numbers as they are. A colour image without colours is grey, and what is
        fully transparent is 0.

    Raises:
        FileError: the file is missing, damaged or far too large; its format does not
            keep values; it has several pages or holds no integers.
    """
    if not os.path.isfile(path):
        raise FileError(f"no such mask file: {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is compared below
            if path.suffix.lower() in (".tif", ".tiff"):
                return _read_tiff(path)
            return _read_with_pillow(path)
    except FileError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(path) from None
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"mask {path} cannot be read: {reason}") from error


def _read_with_pillow(path: pathlib.Path) -> Stored:
    with Image.open(path) as image:
        _check_size(path, image.size)
        if image.format in _LOSSY:
            raise _lossy(path, str(image.format))
        _check_pages(path, getattr(image, "n_frames", 1))
        image.load()
        if image.mode in ("P", "PA"):
            indices = np.asarray(image)
            indices = indices[..., 0] if indices.ndim == 3 else indices
            palette = image.getpalette() or ()
            return Stored(indices, "palette", tuple(palette[:3]))
        known = image.mode in ("1", "L", "LA", "I", "F", "RGB", "RGBA")
        if not known and not image.mode.startswith("I;16"):
            image = image.convert("RGB")
        return _sort_channels(path, np.asarray(image))


def _read_tiff(path: pathlib.Path) -> Stored:
    with tifffile.TiffFile(path) as tiff:
        if not len(tiff.pages):
            raise FileError(f"mask {path} cannot be read: the file is cut short")
        _check_pages(path, len(tiff.pages))
        page = tiff.pages.first
        _check_size(path, (page.imagewidth, page.imagelength))
        if page.compression in _LOSSY_TIFF:
            raise _lossy(path, "JPEG")
        parts = zip(page.dataoffsets, page.databytecounts, strict=True)
        # Without this a file that was cut short could come out as zeros.
        if max((start + length for start, length in parts), default=0) > (
            path.stat().st_size
        ):
            raise FileError(f"mask {path} cannot be read: the file is cut short")
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _read_with_pillow(path)  # which brings LZW with it
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise FileError(
                f"mask {path} must be one flat image, got the axes {page.axes}",
                kind="not ids",
            )
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            colours = page.colormap
            ground = () if colours is None else tuple(int(c) for c in colours[:, 0])
            return Stored(pixels, "palette", ground)
        white_is_0 = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        # tifffile says so of bits too, but writes True as 1 all the same.
        if pixels.dtype == bool and white_is_0 and page.software != "tifffile.py":
            pixels = ~pixels
        return _sort_channels(path, pixels)


def _sort_channels(path: pathlib.Path, pixels: np.ndarray) -> Stored:
    """Tells grey from colour, [H, W] or [H, W, C]."""
    if pixels.dtype.kind not in "biu":
        raise FileError(
            f"mask {path} holds floating-point values: save ids as integers",
            kind="not ids",
        )
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 2:
        return Stored(pixels, "labels")
    channels = pixels.shape[2]
    if channels not in (1, 2, 3, 4) or (channels >= 3 and pixels.dtype != np.uint8):
        raise FileError(
            f"mask {path} must have one channel of ids or 8-bit colours, got "
            f"{channels} channels of {pixels.dtype}",
            kind="not ids",
        )
    if channels in (2, 4):
        pixels = np.where(pixels[..., -1:] > 0, pixels[..., :-1], 0)
    if pixels.shape[2] == 1:
        return Stored(pixels[..., 0], "labels")
    if (pixels == pixels[..., :1]).all():
        return Stored(pixels[..., 0], "labels")
    return Stored(pixels.astype(np.int32) @ np.array([65536, 256, 1], int), "colours")


def _check_size(path: pathlib.Path, size: tuple[int, ...]) -> None:
    if size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise _too_large(path)


def _check_pages(path: pathlib.Path, pages: int) -> None:
    if pages != 1:
        raise FileError(
            f"mask {path} must have one page, got {pages}: save one file for each",
            kind="not ids",
        )


def _too_large(path: pathlib.Path) -> FileError:
    return FileError(
        f"mask {path} has more than the {Image.MAX_IMAGE_PIXELS} pixels that are read: "
        "cut or shrink it first"
    )


def _lossy(path: pathlib.Path, encoding: str) -> FileError:
    return FileError(
        f"mask {path} is encoded as {encoding}, which does not keep ids: save masks as "
        "PNG or TIFF",
        kind="not ids",
    )
