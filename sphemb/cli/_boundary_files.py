"""Files of boundary maps and their ground truth: which go together, what they hold."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from sphemb._checks import InputError
from sphemb.cli._label_files import files_below, match_labels, unpredicted
from sphemb.data import read_boundaries

_MAPS = (".png", ".tif", ".tiff", ".npy")
_PICTURES = "overlays/"
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF


class MapFiles(NamedTuple):
    """A map and its ground truth.

    Attributes:
        name: of the truth: its path below its folder, without the ending.
        map: ``.png``, ``.tif`` or ``.npy``.
        truth: ``.mat``.
    """

    name: str
    map: pathlib.Path
    truth: pathlib.Path


def pair_files(
    maps: pathlib.Path, groundtruth: pathlib.Path, *, partial: bool = False
) -> tuple[list[MapFiles], int]:
    """Pairs the maps of one folder with the ground truths of another, by their paths.

    Args:
        maps: a folder of ``.png``, ``.tif`` or ``.npy`` files; others in it are left
            out, and so is ``overlays``, where `sphemb predict` writes pictures.
        groundtruth: a folder of ``.mat`` files.
        partial: leave out ground truths without a map.

    Returns:
        The pairs, sorted by the names of the ground truths, and how many of these have
        no map.

    Raises:
        InputError: a folder that is missing or has no such file, two maps of one image,
            a map without a ground truth; a ground truth without a map, unless that is
            allowed.
    """
    soft = _files("--maps", maps, _MAPS)
    true = _files("--groundtruth", groundtruth, (".mat",))
    found, chosen = match_labels(soft, true, groundtruth, None)
    left = [name for name in chosen if name not in found]
    if left and not partial:
        raise unpredicted(true[left[0]], len(left), len(chosen), maps)
    pairs = [MapFiles(name, path, true[name]) for name, path in found.items()]
    return pairs, len(left)


def _files(
    flag: str, folder: pathlib.Path, suffixes: tuple[str, ...]
) -> dict[str, pathlib.Path]:
    """Name, which is a path below the folder, -> file, sorted."""
    found: dict[str, pathlib.Path] = {}
    for path in files_below(folder, flag):
        name = path.relative_to(folder).with_name(path.stem).as_posix()
        if path.suffix.lower() not in suffixes or name.startswith(_PICTURES):
            continue
        if found.setdefault(name, path) != path:
            raise InputError(
                f"maps must have different names, got {found[name]} and {path.name}"
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
    array = files.map.suffix.lower() == ".npy"
    soft = _read_npy(files.map) if array else _read_grey(files.map)
    curves = read_boundaries(files.truth)
    if soft.shape != curves.shape[1:]:
        raise InputError(
            f"{files.map} must be as large as {files.truth}, "
            f"{_size(curves.shape[1:])}, got {_size(soft.shape)}"
        )
    return soft, curves


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _read_grey(path: pathlib.Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pages, tags = getattr(image, "n_frames", 1), getattr(image, "tag_v2", {})
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    if pages != 1 or tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise InputError(f"{path} must be one page in which 0 is black")
    if mode == "1":
        return values.astype(np.float64)
    if mode not in ("L", "I", "I;16", "I;16B"):
        raise InputError(f"{path} must be grey with 8 or 16 bits, got mode {mode}")
    white = 2**8 - 1 if mode == "L" else 2**16 - 1
    if values.size and not 0 <= values.min() <= values.max() <= white:
        raise InputError(
            f"{path} must have values within {8 if mode == 'L' else 16} bits, got "
            f"{values.min()} to {values.max()}"
        )
    return values / white


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
