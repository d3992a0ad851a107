"""Folders of label images: which belong together, what they and their lists hold."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError
from sphemb.data import inspect_mask
from sphemb.training import read_json


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
        pairs: sorted by name.
        unpredicted: the number of true images for which there is no prediction.
    """

    pairs: list[LabelPair]
    unpredicted: int


def find_labels(
    folder: pathlib.Path, flag: str, *, tail: str = ""
) -> dict[str, pathlib.Path]:
    """Finds the label images of a folder.

    Args:
        folder: holds ``NAME.png``.
        flag: what the folder was given as, for complaints.
        tail: where a file is called ``NAME{tail}.png``, only such files count: others
            beside them are pictures to look at.

    Returns:
        name -> file, sorted.

    Raises:
        InputError: no folder, or no such file in it.
    """
    if not folder.is_dir():
        raise InputError(f"{flag} must be a folder, got {folder}")
    files = sorted(p for p in folder.glob("*.png") if not p.name.startswith("."))
    tailed = [p for p in files if tail and p.stem.endswith(tail)]
    if tailed:
        return {p.stem.removesuffix(tail): p for p in tailed}
    if not files:
        raise InputError(f"{flag} must hold PNG files, got none in {folder}")
    return {p.stem: p for p in files}


def pair_labels(
    predictions: pathlib.Path,
    groundtruth: pathlib.Path,
    *,
    tail: str = "",
    images: pathlib.Path | None = None,
) -> LabelPairs:
    """Pairs the label images of two folders by their names.

    Args:
        predictions: see :func:`find_labels`.
        groundtruth: a folder of ``NAME.png``.
        tail: of the predictions.
        images: a text file with the names that count; then each must be predicted.
            Without it all predictions count.

    Returns:
        The pairs, and how many true images are in none.

    Raises:
        InputError: a prediction without a truth, or a listed name without either.
    """
    found = find_labels(predictions, "--predictions", tail=tail)
    true = find_labels(groundtruth, "--groundtruth")
    names = sorted(found) if images is None else read_lines(images, "--images")
    for name in names:
        if name not in true:
            raise InputError(
                f"{found.get(name, name)} has no truth: {groundtruth / name}.png is "
                "missing"
            )
        if name not in found:
            raise InputError(
                f"{true[name]} must have a prediction {predictions / name}{tail}.png, "
                "got none"
            )
    pairs = [LabelPair(name, found[name], true[name]) for name in names]
    left = len(true.keys() - set(names)) if images is None else 0
    return LabelPairs(pairs, left)


def read_values(path: pathlib.Path, void: int | None) -> np.ndarray:
    """Reads the values of a label image as they are stored.

    Args:
        path: a grey or palette file.
        void: the value of void; in a palette file 255 is by default.

    Returns:
        int32 [H, W], -1 void.

    Raises:
        InputError: a file that cannot be read or holds no numbers.
    """
    values = inspect_mask(path, masks="classes", void=void).semantic
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
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{flag} must be a text file: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) != len(names) or not names:
        raise InputError(f"{path} must have names, each once, one in a line")
    return names
