"""TIFF files that are written in parts: H W image size."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tifffile

from sphemb._checks import InputError, check_count
from sphemb.data.files._findings import PathLike
from sphemb.data.files._image_files import image_written_whole

_SIDE = 512  # of a tile in the file, a multiple of 16


def write_tiff(
    path: PathLike,
    rows: Callable[[int, int], np.ndarray],
    *,
    size: tuple[int, int],
    dtype: np.dtype | type,
    channels: int = 1,
) -> None:
    """Writes a compressed TIFF in parts; a write that breaks off leaves nothing.

    Args:
        path: the file, ending in ``.tif``; a file that is there is replaced.
        rows: gives the pixels from one row up to another, [h, W] or [h, W, 3].
        size: (H, W).
        dtype: of the pixels, an unsigned integer.
        channels: 1 for grey, or 3.

    Raises:
        InputError: another ending, a size below 1, or the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != ".tif":
        raise InputError(f"path must end in .tif, got {path}")
    height, width = size
    check_count("H", height, at_least=1)
    check_count("W", width, at_least=1)

    def tiles() -> Iterator[np.ndarray]:
        for top in range(0, height, _SIDE):
            band = np.asarray(rows(top, min(top + _SIDE, height)), dtype)
            for left in range(0, width, _SIDE):
                part = band[:, left : left + _SIDE]
                border = [(0, _SIDE - side) for side in part.shape[:2]]
                border += [(0, 0)] * (part.ndim - 2)
                yield np.pad(part, border)

    with image_written_whole(path) as unfinished:
        tifffile.imwrite(
            unfinished,
            tiles(),
            shape=(height, width) if channels == 1 else (height, width, channels),
            dtype=dtype,
            tile=(_SIDE, _SIDE),
            compression="zlib",
            photometric="minisblack" if channels == 1 else "rgb",
            bigtiff=height * width * channels * np.dtype(dtype).itemsize >= 2**31,
            metadata=None,
        )
