"""Handwritten digits, the raw material of the drawings: 28x28 ink on an empty ground.

Two sources, one form. scikit-learn brings 1,797 digits of 8x8 pixels with it, so the
main job needs no download; MNIST has 70,000. Each is cut into three fixed splits, so
that no handwritten digit is ever seen both in training and in a test.

M digits.
"""

from __future__ import annotations

import os
import pathlib
import tokenize
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import (
    InputError,
    InputTypeError,
    check_choice,
    check_integer,
    check_shape,
)

GLYPH_SIZE = 28
SPLITS = ("train", "validation", "test")
_BOX = 20  # MNIST fits every digit into a box of 20 pixels
_FAINTEST_INK = 64  # so that strokes, once blown up, cover as many pixels as MNIST's
_SKLEARN_TRAIN, _SKLEARN_VALIDATION = 1200, 200
_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")


class Handwriting(NamedTuple):
    """Handwritten digits of one split.

    Attributes:
        glyphs: uint8 [M, 28, 28] ink, 0 where there is none.
        classes: int64 [M] the digits' values, 0 to 9.
    """

    glyphs: np.ndarray
    classes: np.ndarray


def load_handwriting(
    source: str = "sklearn",
    *,
    mnist_path: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, Handwriting]:
    """Loads handwritten digits in three splits that share no digit.

    The digits of scikit-learn are scaled to MNIST's 20-pixel box in the middle of
    28x28 pixels and split 1,200 / 200 / 397. MNIST's validation split is the last
    twelfth (5,000) of its training digits, its test split its own.

    Args:
        source: ``"sklearn"`` (nothing to download) or ``"mnist"``.
        mnist_path: an ``mnist.npz`` with the arrays x_train, y_train, x_test, y_test;
            for ``"mnist"`` alone.
        data_dir: where TFDS keeps prepared data sets, for an ``mnist`` that was
            prepared there with ``file_format="array_record"`` (one of tfrecord cannot
            be read without TensorFlow); by default ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``.

    Returns:
        ``{"train": ..., "validation": ..., "test": ...}``, each a `Handwriting`.

    Raises:
        InputError: an unknown source, an mnist_path that it does not read, or a file
            that is missing or not MNIST.

    References:
        Kong & Fowlkes 2018, Fig. 4 (MNIST on a grid).

    >>> test = load_handwriting("sklearn")["test"]
    >>> test.glyphs.shape, test.classes.shape
    ((397, 28, 28), (397,))
    """
    check_source("source", source, mnist_path)
    if source == "sklearn":
        return _read_sklearn()
    if mnist_path:
        train, test = _read_npz(pathlib.Path(mnist_path).expanduser())
    else:
        train, test = _read_prepared(tfds_data_dir(data_dir))
    held_out = len(train.glyphs) // 12
    if held_out == 0 or len(test.glyphs) == 0:
        raise InputError(
            "MNIST needs at least 12 training digits and 1 test digit, got "
            f"{len(train.glyphs)} and {len(test.glyphs)}"
        )
    return {
        "train": Handwriting(*(part[:-held_out] for part in train)),
        "validation": Handwriting(*(part[-held_out:] for part in train)),
        "test": test,
    }


def check_source(
    name: str, source: str, mnist_path: str | os.PathLike[str] | None
) -> None:
    """Refuses an unknown source, and a file that the source would never read."""
    check_choice(name, source, ("sklearn", "mnist"))
    if mnist_path and source != "mnist":
        raise InputError(
            f"mnist_path needs {name} = 'mnist', got {source!r}: use "
            "--config=configs/digits.py:mnist"
        )


def tfds_data_dir(data_dir: str | os.PathLike[str] | None = None) -> str:
    """Returns the folder of prepared data sets, by TFDS's conventions."""
    if not data_dir:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return os.path.expanduser(os.fspath(data_dir))


def _read_sklearn() -> dict[str, Handwriting]:
    from sklearn.datasets import load_digits

    bundle: Any = load_digits()
    glyphs = np.stack([_enlarge(image) for image in bundle.images])
    classes = bundle.target.astype(np.int64)
    # RandomState, because its stream is frozen: the splits must never change.
    order = np.random.RandomState(0).permutation(len(glyphs))
    bounds = (_SKLEARN_TRAIN, _SKLEARN_TRAIN + _SKLEARN_VALIDATION)
    return {
        split: Handwriting(glyphs[part], classes[part])
        for split, part in zip(SPLITS, np.split(order, bounds), strict=True)
    }


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Scales a digit of 8x8 pixels with values 0..16 to uint8 [28, 28]."""
    from PIL import Image

    ink = Image.fromarray((image * (255.0 / 16.0)).astype(np.float32))
    box = np.asarray(ink.resize((_BOX, _BOX), Image.Resampling.BICUBIC))
    box = np.rint(np.clip(box, 0.0, 255.0)).astype(np.uint8)
    box[box < _FAINTEST_INK] = 0
    return np.pad(box, (GLYPH_SIZE - _BOX) // 2)


def _read_npz(path: pathlib.Path) -> tuple[Handwriting, Handwriting]:
    if not path.is_file():
        raise InputError(f"mnist_path must be an mnist.npz, but {path} is no file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _NPZ_KEYS if key not in archive]
            arrays = [archive[key] for key in _NPZ_KEYS if key not in missing]
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        TypeError,
        NotImplementedError,  # a compression that Python has not
        RuntimeError,  # an encrypted member
        tokenize.TokenError,  # NumPy reads the header of an array as Python
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(
            f"mnist_path {path} cannot be read as an .npz of plain arrays: "
            f"{' '.join(str(error).split())}"
        ) from error
    if missing:
        raise InputError(
            f"mnist_path {path} lacks {', '.join(missing)}: it must hold "
            f"{', '.join(_NPZ_KEYS)}"
        )
    x_train, y_train, x_test, y_test = arrays
    return (
        _checked(x_train, y_train, f"x_train of {path}", f"y_train of {path}"),
        _checked(x_test, y_test, f"x_test of {path}", f"y_test of {path}"),
    )


def _read_prepared(data_dir: str) -> tuple[Handwriting, Handwriting]:
    import tensorflow_datasets as tfds

    infos = sorted(tfds.core.Path(data_dir).glob("mnist/*/dataset_info.json"))
    ways = (
        "give an mnist.npz (mnist_path, --config.data.mnist_path=FILE), or prepare "
        "TFDS's mnist there as array_record (tfrecord cannot be read without "
        "TensorFlow)"
    )
    if not infos:
        raise InputError(f"no MNIST found in {data_dir}: {ways}")
    folder = infos[-1].parent
    try:
        builder: Any = tfds.builder_from_directory(folder)
        records = builder.as_data_source()
        train, test = (
            (
                np.stack([record["image"][..., 0] for record in records[split]]),
                np.array([record["label"] for record in records[split]]),
            )
            for split in ("train", "test")
        )
    except (NotImplementedError, KeyError, ValueError, ImportError) as error:
        raise InputError(
            f"the MNIST in {folder} cannot be read without TensorFlow: {ways}"
        ) from error
    return (
        _checked(*train, f"image of {folder} (train)", f"label of {folder} (train)"),
        _checked(*test, f"image of {folder} (test)", f"label of {folder} (test)"),
    )


def _checked(
    glyphs: np.ndarray, classes: np.ndarray, glyphs_name: str, classes_name: str
) -> Handwriting:
    sizes = check_shape(glyphs_name, glyphs, f"M {GLYPH_SIZE} {GLYPH_SIZE}")
    check_shape(classes_name, classes, "M", dims=sizes, beside=glyphs_name)
    if glyphs.dtype != np.uint8:
        raise InputTypeError(f"{glyphs_name} must be uint8, got {glyphs.dtype}")
    check_integer(classes_name, classes)
    if classes.size and (classes.min() < 0 or classes.max() > 9):
        raise InputError(
            f"{classes_name} must be digits from 0 to 9, got values from "
            f"{classes.min()} to {classes.max()}"
        )
    return Handwriting(glyphs, classes.astype(np.int64))
