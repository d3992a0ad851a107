"""From the bytes of a mask file to the numbers that it stores.

What the numbers mean is the business of ``_masks.py``.
"""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from sphemb.data.files._findings import FileError
from sphemb.data.files._stored_images import DAMAGED

_BYTE = 255
_FEW_BITS = {"L;2": 85, "L;4": 17}  # by what Pillow multiplies 2 and 4 bits
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")
_LOSSY_TIFF = (6, 7, 33003, 33005, 34712, 34892, 50001)  # JPEG, JPEG 2000 and WebP


class Stored(NamedTuple):
    """What a mask file stores.

    Attributes:
        values: [H, W] integers; colours as 65536 R + 256 G + B.
        kind: ``"labels"`` (grey), ``"palette"`` (the indices) or ``"colours"``.
        palette: [K, 3] the colours of the indices, 8 bits, where a palette has them.
    """

    values: np.ndarray
    kind: str
    palette: np.ndarray | None = None


def read_stored(path: pathlib.Path) -> Stored:
    """Reads a PNG, TIFF or other lossless file of one page.

    Args:
        path: the file.

    Returns:
        Its numbers as they are. A colour image without colours is grey, and what is
        fully transparent is 0.

    Raises:
        FileError: the file is missing, damaged or far too large; its format does not
            keep values; it has several pages, holds no integers, or colours of more
            than 8 bits.
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
        encoding = pixel_encoding(image)
        grey = image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")
        if not grey and (";16" in encoding[0] or encoding[1] > _BYTE):
            raise _wide_colours(path)
        image.load()
        if image.mode in ("P", "PA"):
            indices = np.asarray(image)
            indices = indices[..., 0] if indices.ndim == 3 else indices
            colours = np.array(image.getpalette() or (), np.uint8).reshape(-1, 3)
            return Stored(indices, "palette", colours)
        if not grey and image.mode not in ("LA", "RGB", "RGBA"):
            image = image.convert("RGB")
        return _sort_channels(path, as_stored(np.asarray(image), *encoding))


def pixel_encoding(image: Image.Image) -> tuple[str, int]:
    """How the pixels of an image that is not loaded lie in its file.

    Returns:
        Pillow's name of it, such as ``"L;4"``, and the largest value that a file of the
        PGM family declares, else 0.
    """
    tiles: Any = getattr(image, "tile", ())
    tile = tiles[0] if tiles else None
    arguments = tile[3] if tile else ""
    first, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
    of_pgm = tile is not None and str(tile[0]).startswith("ppm") and rest
    return str(first), int(rest[0]) if of_pgm else 0


def as_stored(values: np.ndarray, encoding: str, largest: int) -> np.ndarray:
    """Undoes the scaling by which Pillow shows few bits in the range of more."""
    if values.ndim > 2:
        return values
    if largest:
        shown = _BYTE if values.dtype == np.uint8 else 2**16 - 1
        return np.rint(values * (largest / shown)).astype(values.dtype)
    if encoding.startswith("L;") and encoding.endswith("I"):  # white is 0
        values = _BYTE - values
    factor = _FEW_BITS.get(encoding[:3])
    return values // factor if factor else values


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
            if page.samplesperpixel > 1 and page.bitspersample > 8:
                raise _wide_colours(path) from None
            return _read_with_pillow(path)  # which brings LZW with it
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise FileError(
                f"mask {path} must be one flat image, got the axes {page.axes}",
                kind="not ids",
            )
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            colours = page.colormap  # [3, K] of 16 bits
            palette = None if colours is None else (colours.T >> 8).astype(np.uint8)
            return Stored(pixels, "palette", palette)
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
    if channels in (3, 4) and pixels.dtype == np.uint16:
        raise _wide_colours(path)
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


def _wide_colours(path: pathlib.Path) -> FileError:
    return FileError(
        f"mask {path} must have one channel of ids or 8-bit colours, got several "
        "channels of 16 bits: save the ids as one grey channel of 16 bits",
        kind="not ids",
    )


def _lossy(path: pathlib.Path, encoding: str) -> FileError:
    return FileError(
        f"mask {path} is encoded as {encoding}, which does not keep ids: save masks as "
        "PNG or TIFF",
        kind="not ids",
    )
