"""Folders of label images: which belong together, what they and their lists hold."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError
from sphemb.cli._image_names import ImageNames
from sphemb.data import PaletteColors, inspect_mask, is_image
from sphemb.training import read_json

_LOSSY = (".jpg", ".jpeg", ".jp2", ".webp")  # formats that do not keep values


class LabelPair(NamedTuple):
    """A predicted label image and the true one.

    Attributes:
        name: of the image.
        predicted: the file of what was found.
        true: the file of the truth.
    """

    name: str
    predicted: pathlib.Path
    true: pathlib.Path


class LabelPairs(NamedTuple):
    """What two folders have in common.

    Attributes:
        pairs: in the order of the true names.
        unpredicted: the number of true images for which there is no prediction.
    """

    pairs: list[LabelPair]
    unpredicted: int


def files_below(folder: pathlib.Path, flag: str) -> list[pathlib.Path]:
    """Lists the files of a folder and of its sub-folders, but for hidden ones.

    Args:
        folder: the folder; links in it are followed.
        flag: what it was given as, for messages.

    Raises:
        InputError: it is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"{flag} must be a folder, got {folder}")
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        hidden_or_ring = real in seen
        seen.add(real)
        folders[:] = [
            f for f in folders if not f.startswith(".") and not hidden_or_ring
        ]
        if not hidden_or_ring:
            found += [pathlib.Path(parent, f) for f in files if not f.startswith(".")]
    return sorted(found)


def find_labels(
    folder: pathlib.Path, flag: str, *, tail: str = ""
) -> dict[str, pathlib.Path]:
    """Finds the label images of a folder and of its sub-folders.

    Args:
        folder: holds ``NAME.png``, or another format that keeps values. A file in one
            that does not, such as JPEG, is taken where no other has its name, so that
            whoever reads it says what is wrong.
        flag: what the folder was given as, for complaints.
        tail: where a file is called ``NAME{tail}.png``, only such files count: others
            beside them are pictures to look at.

    Returns:
        name, which is a path below the folder, -> file, sorted.

    Raises:
        InputError: no folder, no such file in it, or two files of one name.
    """
    files = [p for p in files_below(folder, flag) if is_image(p)]
    if not files:
        raise InputError(f"{flag} must hold label images (*.png), got none in {folder}")
    tailed = [p for p in files if tail and p.stem.endswith(tail)]
    cut = len(tail) if tailed else 0
    found: dict[str, pathlib.Path] = {}
    for path in sorted(tailed or files, key=lambda p: p.suffix.lower() in _LOSSY):
        name = path.relative_to(folder).with_name(path.stem).as_posix()
        name = name[: len(name) - cut]
        other = found.setdefault(name, path)
        if other != path and path.suffix.lower() not in _LOSSY:
            raise InputError(
                f"{flag} must have one label image for each name, got {other} and "
                f"{path}"
            )
    return dict(sorted(found.items()))


def pair_labels(
    predictions: pathlib.Path,
    groundtruth: pathlib.Path,
    *,
    tail: str = "",
    images: pathlib.Path | None = None,
    partial: bool = False,
) -> LabelPairs:
    """Pairs the label images of two folders by their paths, see `ImageNames`.

    Args:
        predictions: see :func:`find_labels`.
        groundtruth: see :func:`find_labels`.
        tail: of the predictions.
        images: a text file with the names that count; by default all true images do.
        partial: leave out what is not predicted.

    Returns:
        The pairs, and how many true images that count are in none.

    Raises:
        InputError: a prediction without a truth; a true image without a prediction,
            unless that is allowed; a listed name that the truth lacks; a name that fits
            several images.
    """
    found = find_labels(predictions, "--predictions", tail=tail)
    true = find_labels(groundtruth, "--groundtruth")
    found, chosen = match_labels(found, true, groundtruth, images)
    left = [name for name in chosen if name not in found]
    if left and not partial:
        raise unpredicted(true[left[0]], len(left), len(chosen), predictions)
    pairs = [LabelPair(n, found[n], true[n]) for n in chosen if n in found]
    return LabelPairs(pairs, len(left))


def match_labels(
    found: Mapping[str, pathlib.Path],
    true: Mapping[str, pathlib.Path],
    groundtruth: pathlib.Path,
    images: pathlib.Path | None,
) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Finds the true images that predictions are of, see `ImageNames`.

    Args:
        found: name -> file of predictions.
        true: name -> file of the truth.
        groundtruth: what the truth was given as, for messages.
        images: a text file with the names of the true images that count.

    Returns:
        true name -> file of its prediction, for images that count; and the true names
        that count.

    Raises:
        InputError: a prediction without a truth, a listed name that the truth lacks, or
            a name that fits several images.
    """
    order = list(true)
    names = ImageNames([f"{name}{true[name].suffix}" for name in order], groundtruth)
    chosen = order
    if images is not None:
        listed = {line: names.find(line) for line in read_lines(images, "--images")}
        for line, place in listed.items():
            if place is None:
                raise InputError(
                    f"{line} must have a ground truth in {groundtruth}, got none"
                    f"{names.near(line)}"
                )
        places = dict.fromkeys(p for p in listed.values() if p is not None)
        chosen = [order[place] for place in places]
    predicted, counted = {}, set(chosen)
    for name, place in names.match(found).items():
        if place is None and images is None:
            raise InputError(
                f"{found[name]} must have a ground truth in {groundtruth}, got none"
                f"{names.near(name)}"
            )
        if place is not None and order[place] in counted:
            predicted[order[place]] = found[name]
    return {n: predicted[n] for n in chosen if n in predicted}, chosen


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
    """Reads the values of a label image as they are stored.

    Args:
        path: a grey or palette file.
        void: the value of void; in a palette file 255 is by default.
        soft: it may have soft edges, since it was predicted.
        palettes: of the files before, if the values are classes.

    Returns:
        int32 [H, W], -1 void.

    Raises:
        InputError: a file that cannot be read, holds no numbers, has soft edges, or
            another palette than the files before.
    """
    mask = inspect_mask(path, masks="classes", void=void, soft=soft)
    if palettes is not None:
        palettes.add(path, mask.colors, mask.classes)
    values = mask.semantic
    assert values is not None  # that is what was asked for
    return values


def check_sizes(pair: LabelPair, predicted: np.ndarray, true: np.ndarray) -> None:
    """Refuses a pair whose images differ in size."""
    if predicted.shape != true.shape:
        raise InputError(
            f"{pair.predicted} must have the size of {pair.true}, {true.shape}, got "
            f"{predicted.shape}"
        )


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of bool [H, W], as JSON takes them."""
    from pycocotools.mask import encode

    runs: Any = encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def read_lines(path: pathlib.Path, flag: str) -> list[str]:
    """Reads a text file with a name in each line, or a JSON list of names.

    Args:
        path: the file, JSON if it ends so; empty lines are left out.
        flag: what it was given as, for complaints.

    Returns:
        The names, in order.

    Raises:
        InputError: no such file, no name in it, or one twice.
    """
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
