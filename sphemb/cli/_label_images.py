"""Label images and overlays of any size, in parts.

Shape letters: H W image size.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable

import numpy as np

from sphemb.data import Box, ImageWindows, write_image, write_labels, write_tiff
from sphemb.viz import overlay, overlay_boundaries

_PNG_PIXELS = 2**26  # larger PNG files are refused by many readers
_PNG_LABEL = 2**16 - 1
_ROWS = 256  # that are painted together
_COLOURS = 4095  # that labels of a picture share, to be the same in all of its parts

Rows = Callable[[int, int], np.ndarray]


def is_huge(size: tuple[int, int]) -> bool:
    """Whether an image's results are TIFF, since no PNG of this size is read."""
    return math.prod(size) > _PNG_PIXELS


def named_for(path: pathlib.Path, size: tuple[int, int]) -> pathlib.Path:
    """A picture's path, ending in ``.tif`` where the image is huge."""
    png = path.suffix == ".png"
    return path.with_suffix(".tif") if png and is_huge(size) else path


def save_labels(path: pathlib.Path, labels: np.ndarray) -> pathlib.Path:
    """Writes a label map: PNG of 16 bits, or TIFF of 32 where that is too small.

    Args:
        path: ending in ``.png`` or ``.tif``.
        labels: int [H, W] from 0 on.

    Returns:
        Where it is now: ``.tif`` if there are more than 65,535 labels.
    """
    most = int(labels.max(initial=0))
    if path.suffix == ".png" and most <= _PNG_LABEL:
        write_labels(path, labels)
    else:
        path = path.with_suffix(".tif")
        dtype = np.uint16 if most <= _PNG_LABEL else np.uint32
        write_tiff(path, lambda a, b: labels[a:b], size=labels.shape, dtype=dtype)
    _remove_others(path)
    return path


def save_overlay(path: pathlib.Path, image: ImageWindows, labels: np.ndarray) -> None:
    """Writes the labels in colours over their image.

    Args:
        path: ending in ``.png`` or ``.tif``.
        image: of which the labels are.
        labels: int [H, W]; 0 and less leave the image as it is.
    """
    height, width = image.size
    many = int(labels.max(initial=0)) > _COLOURS

    def rows(first: int, last: int) -> np.ndarray:
        # Outlines need the rows next to them.
        above, below = max(first - 1, 0), min(last + 1, height)
        seen = labels[above:below]
        if many:
            seen = np.where(seen > 0, 1 + (seen - 1) % _COLOURS, seen)
        picture = overlay(image.read(Box(above, 0, below, width)), seen)
        return _as_bytes(picture[first - above : last - above])

    _save(path, rows, image.size)


def save_ink(path: pathlib.Path, image: ImageWindows, boundary: np.ndarray) -> None:
    """Writes boundaries float [H, W] in red over their image."""
    width = image.size[1]

    def rows(first: int, last: int) -> np.ndarray:
        pixels = image.read(Box(first, 0, last, width))
        return _as_bytes(overlay_boundaries(pixels, boundary[first:last]))

    _save(path, rows, image.size)


def _save(path: pathlib.Path, rows: Rows, size: tuple[int, int]) -> None:
    def in_parts(first: int, last: int) -> np.ndarray:
        starts = range(first, last, _ROWS)
        return np.concatenate([rows(a, min(a + _ROWS, last)) for a in starts])

    if path.suffix == ".tif":
        write_tiff(path, in_parts, size=size, dtype=np.uint8, channels=3)
    else:
        write_image(path, in_parts(0, size[0]))
    _remove_others(path)


def either_picture(path: pathlib.Path) -> set[pathlib.Path]:
    """Where a picture may be: large ones, and those of many labels, are TIFF."""
    endings = (".png", ".tif")
    return {path, *(path.with_suffix(end) for end in endings if path.suffix in endings)}


def _remove_others(path: pathlib.Path) -> None:
    """Removes what an earlier prediction has written with another ending."""
    for other in either_picture(path) - {path}:
        other.unlink(missing_ok=True)


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * picture).astype(np.uint8)
