"""Files of boundary maps and their ground truth: which go together, what they hold."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from sphemb._checks import InputError
from sphemb.data import read_boundaries

_MAPS = (".png", ".npy")


class MapFiles(NamedTuple):
    """A map and its ground truth.

    Attributes:
        name: the stem of both.
        map: ``.png`` or ``.npy``.
        truth: ``.mat``.
    """

    name: str
    map: pathlib.Path
    truth: pathlib.Path


def pair_files(maps: pathlib.Path, groundtruth: pathlib.Path) -> list[MapFiles]:
    """Pairs the maps of one folder with the ground truths of another, by name.

    Args:
        maps: a folder of ``.png`` or ``.npy`` files; others in it are left out.
        groundtruth: a folder of ``.mat`` files.

    Returns:
        The pairs, sorted by name.

    Raises:
        InputError: a folder that is missing or has no such file, two maps of one name,
            or a file without a partner.
    """
    soft: dict[str, pathlib.Path] = {}
    for path in _files("--maps", maps, _MAPS):
        if path.stem in soft:
            raise InputError(
                f"maps must have different names, got {soft[path.stem]} and {path.name}"
            )
        soft[path.stem] = path
    true = {path.stem: path for path in _files("--groundtruth", groundtruth, (".mat",))}
    alone = sorted(soft.keys() ^ true.keys())
    if alone:
        name = alone[0]
        more = f" (and {len(alone) - 1} more files have none)" * (len(alone) > 1)
        if name in soft:
            raise InputError(
                f"{soft[name]} must have a ground truth {groundtruth / name}.mat, got "
                f"none{more}"
            )
        raise InputError(
            f"{true[name]} must have a map {maps / name}.png or .npy, got none{more}"
        )
    return [MapFiles(name, soft[name], true[name]) for name in sorted(soft)]


def _files(
    flag: str, folder: pathlib.Path, suffixes: tuple[str, ...]
) -> list[pathlib.Path]:
    if not folder.is_dir():
        raise InputError(f"{flag} must be a folder, got {folder}")
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
    if not found:
        listed = " or ".join(f"*{suffix}" for suffix in suffixes)
        raise InputError(f"{flag} must hold {listed}, got none in {folder}")
    return found


def read_pair(files: MapFiles) -> tuple[np.ndarray, np.ndarray]:
    """Reads a map and the curves that belong to it.

    Args:
        files: see `pair_files`.

    Returns:
        float64 [H, W] in 0 .. 1, and bool [A, H, W].

    Raises:
        InputError: a file that cannot be read, another kind of image, values that are
            no numbers or outside 0 .. 1, or sizes that differ.
    """
    png = files.map.suffix.lower() == ".png"
    soft = _read_png(files.map) if png else _read_npy(files.map)
    curves = read_boundaries(files.truth)
    if soft.shape != curves.shape[1:]:
        raise InputError(
            f"{files.map} must be as large as {files.truth}, "
            f"{_size(curves.shape[1:])}, got {_size(soft.shape)}"
        )
    return soft, curves


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _read_png(path: pathlib.Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    if mode == "1":
        return values.astype(np.float64)
    if mode not in ("L", "I", "I;16", "I;16B"):
        raise InputError(f"{path} must be grey with 8 or 16 bits, got mode {mode}")
    return values / (2.0**8 - 1.0 if mode == "L" else 2.0**16 - 1.0)


def _read_npy(path: pathlib.Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        kind = getattr(values, "dtype", type(values).__name__)
        raise InputError(f"{path} must be floating point, got {kind}")
    if values.ndim != 2:
        raise InputError(f"{path} must have shape [H, W], got {values.shape}")
    if not np.all((values >= 0.0) & (values <= 1.0)):  # NaN is in neither
        raise InputError(
            f"{path} must have values in 0 .. 1, got {values.min()} to {values.max()}"
        )
    return values.astype(np.float64)
