"""Folders of label images and boundary maps: pairs of predicted and true files."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from sphemb._checks import InputError
from sphemb.cli._names import ImageNames
from sphemb.data import PaletteColors, inspect_mask, is_image, read_boundaries
from sphemb.training import read_json

_MAPS = (".png", ".tif", ".tiff", ".npy")
_PICTURES = "overlays"  # of what `sphemb predict` writes
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF
_LOSSY = (".jpg", ".jpeg", ".jp2", ".webp")  # formats that do not keep values


Files = Mapping[str, pathlib.Path]  # name of an image -> file


class LabelPair(NamedTuple):
    """The files of a prediction and of its ground truth, by the image's name."""

    name: str
    predicted: pathlib.Path
    true: pathlib.Path


class LabelPairs(NamedTuple):
    """Pairs in the order of the true names, and how many true images have none."""

    pairs: list[LabelPair]
    unpredicted: int


def files_below(folder: pathlib.Path, flag: str) -> list[pathlib.Path]:
    """Lists the files of a folder and of its sub-folders without the hidden ones."""
    if not folder.is_dir():
        raise InputError(f"{flag} must be a folder, got {folder}")
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        known = real in seen
        seen.add(real)
        folders[:] = [f for f in folders if not f.startswith(".") and not known]
        if not known:
            found += [pathlib.Path(parent, f) for f in files if not f.startswith(".")]
    return sorted(found)


def find_labels(folder: pathlib.Path, flag: str, *, tail: str = "") -> Files:
    """Finds the label images of a folder, name below the folder -> file, sorted."""
    return _find(folder, flag, is_image, "label images (*.png)", tail)


def _find(
    folder: pathlib.Path,
    flag: str,
    wanted: Callable[[pathlib.Path], bool],
    listed: str,
    tail: str = "",
) -> Files:
    """Files of a folder by name, without the ``tail`` of the names that have one."""
    files = [path for path in files_below(folder, flag) if wanted(path)]
    if not files:
        raise InputError(f"{flag} must hold {listed}, got none in {folder}")
    tailed = [p for p in files if tail and p.stem.endswith(tail)]
    found: dict[str, pathlib.Path] = {}
    for path in sorted(tailed or files, key=lambda p: p.suffix.lower() in _LOSSY):
        name = path.relative_to(folder).with_name(path.stem).as_posix()
        name = name.removesuffix(tail if tailed else "")
        other = found.setdefault(name, path)
        if other != path and path.suffix.lower() not in _LOSSY:
            got = f"got {other} and {path}"
            raise InputError(f"{flag} must have one file for each name, {got}")
    return dict(sorted(found.items()))


def match_labels(
    found: Files,
    true: Files,
    predictions: pathlib.Path,
    groundtruth: pathlib.Path,
    images: pathlib.Path | None = None,
    *,
    partial: bool = False,
) -> LabelPairs:
    """Pairs predictions with ground truths, both name -> file, see `ImageNames`."""
    order = list(true)
    names = ImageNames([f"{name}{true[name].suffix}" for name in order], groundtruth)

    def known(place: int | None, what: object, name: str) -> int:
        if place is None:
            got = f"got none{names.near(name)}"
            raise InputError(f"{what} must have a ground truth in {groundtruth}, {got}")
        return place

    chosen = order
    if images is not None:
        lines = read_lines(images, "--images")
        places = [known(names.find(line), line, line) for line in lines]
        chosen = [order[place] for place in dict.fromkeys(places)]
    predicted = {}
    for name, place in names.match(found).items():
        if images is None:
            known(place, found[name], name)
        if place is not None:
            predicted[order[place]] = found[name]
    pairs = [LabelPair(n, predicted[n], true[n]) for n in chosen if n in predicted]
    left = [name for name in chosen if name not in predicted]
    if left and not partial:
        raise unpredicted(true[left[0]], len(left), len(chosen), predictions)
    return LabelPairs(pairs, len(left))


def unpredicted(
    first: object, missing: int, number: int, predictions: pathlib.Path
) -> InputError:
    """Words the error of true images without a prediction."""
    return InputError(
        f"{first} must have a prediction in {predictions}, got none ({missing} of "
        f"{number} true images have none): --partial leaves them out"
    )


def read_values(
    path: pathlib.Path,
    void: int | None,
    *,
    soft: bool = False,
    palettes: PaletteColors | None = None,
) -> np.ndarray:
    """Reads the values of a label image as they are stored, int32 [H, W], -1 void."""
    mask = inspect_mask(path, masks="classes", void=void, soft=soft)
    if palettes is not None:
        palettes.add(path, mask.colors, mask.classes)
    assert mask.semantic is not None  # that is what was asked for
    return mask.semantic


def check_sizes(
    path: pathlib.Path, size: tuple[int, ...], of: object, wanted: tuple[int, ...]
) -> None:
    """Refuses a file of another size than ``of``."""
    if size != wanted:
        raise InputError(f"{path} must have the size of {of}, {wanted}, got {size}")


def read_lines(path: pathlib.Path, flag: str) -> list[str]:
    """Reads a text file with a name in each line, or a JSON list of names, in order."""
    if path.suffix.lower() == ".json":
        lines = read_json(path)
        if not isinstance(lines, list) or not all(isinstance(n, str) for n in lines):
            raise InputError(f"{path} must hold a list of names")
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{flag} must be a text file: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) != len(names) or not names:
        raise InputError(f"{path} must have names, each once, one in a line")
    return names


def pair_files(
    maps: pathlib.Path, groundtruth: pathlib.Path, *, partial: bool = False
) -> LabelPairs:
    """Pairs boundary maps with ground truths by their paths, see `ImageNames`."""

    def is_map(path: pathlib.Path) -> bool:
        picture = path.relative_to(maps).parts[0] == _PICTURES
        return path.suffix.lower() in _MAPS and not picture

    def is_truth(path: pathlib.Path) -> bool:
        return path.suffix.lower() == ".mat"

    soft = _find(maps, "--maps", is_map, " or ".join(f"*{end}" for end in _MAPS))
    true = _find(groundtruth, "--groundtruth", is_truth, "*.mat")
    return match_labels(soft, true, maps, groundtruth, partial=partial)


def read_pair(files: LabelPair) -> tuple[np.ndarray, np.ndarray]:
    """Reads a map, float64 [H, W] in 0 .. 1, and its annotators' bool [A, H, W]."""
    array = files.predicted.suffix.lower() == ".npy"
    soft = _read_npy(files.predicted) if array else _read_gray(files.predicted)
    curves = read_boundaries(files.true)
    check_sizes(files.predicted, soft.shape, files.true, curves.shape[1:])
    return soft, curves


def _read_gray(path: pathlib.Path) -> np.ndarray:
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
        raise InputError(f"{path} must be gray with 8 or 16 bits, got mode {mode}")
    bits = 8 if mode == "L" else 16
    if values.size and not 0 <= values.min() <= values.max() < 2**bits:
        got = f"{values.min()} to {values.max()}"
        raise InputError(f"{path} must have values within {bits} bits, got {got}")
    return values / (2**bits - 1)


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
        got = f"{values.min()} to {values.max()}"
        raise InputError(f"{path} must have values in 0 .. 1, got {got}")
    return values.astype(np.float64)
