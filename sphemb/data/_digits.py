"""Renderings of colored digits: learning to group in its smallest form.

Color alone cannot separate two digits of one class. H W image size, M digits.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import (
    InputError,
    InputTypeError,
    check_choice,
    check_count,
    check_integer,
    check_shape,
)
from sphemb.data._pipeline import SPLITS
from sphemb.data._prepared import Generated, LabeledBuilder, preparer, tfds_data_dir
from sphemb.data.files import PathLike, number_in_order, to_png

_GLYPH = 28  # pixels
_BOX = 20  # MNIST fits every digit into a box of 20 pixels
_FAINTEST_INK = 64  # so that enlarged strokes cover as many pixels as MNIST's
_SKLEARN_TRAIN, _SKLEARN_VALIDATION = 1200, 200
_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_NUM_CLASSES = 10
_CELL_STEP = 17.5  # of the grid: 0, 17, 35 on the authors' 64 pixels
_SMALLEST, _MULTIPLE = 32, 8
_HUE_JITTER = 0.02  # a fifth of the distance between neighboring hues


class Handwriting(NamedTuple):
    """Handwritten digits of one split."""

    glyphs: np.ndarray  # uint8 [M, 28, 28] ink, 0 where there is none
    classes: np.ndarray  # int64 [M] the digits' values, 0 to 9


def load_handwriting(
    source: str = "sklearn",
    *,
    mnist_path: PathLike | None = None,
    data_dir: PathLike | None = None,
) -> dict[str, Handwriting]:
    """Loads handwritten digits in the three splits, which share no digit.

    The digits of scikit-learn are scaled to MNIST's 20-pixel box in the center of
    28x28 pixels and split 1,200 / 200 / 397. MNIST's validation split is the last
    twelfth (5,000) of its training digits. It is read from an ``mnist.npz``, or from
    TFDS's ``mnist`` in data_dir, prepared with ``file_format="array_record"``.

    >>> test = load_handwriting("sklearn")["test"]
    >>> test.glyphs.shape, test.classes.shape
    ((397, 28, 28), (397,))
    """
    _check_source("source", source, mnist_path)
    if source == "sklearn":
        return _read_sklearn()
    if mnist_path:
        train, test = _read_npz(pathlib.Path(mnist_path).expanduser())
    else:
        train, test = _read_prepared(tfds_data_dir(data_dir))
    numbers = len(train.glyphs), len(test.glyphs)
    held_out = numbers[0] // 12
    if not held_out or not numbers[1]:
        text = "MNIST needs at least 12 training digits and 1 test digit, got"
        raise InputError(f"{text} {numbers[0]} and {numbers[1]}")
    return {
        "train": Handwriting(*(part[:-held_out] for part in train)),
        "validation": Handwriting(*(part[-held_out:] for part in train)),
        "test": test,
    }


def _check_source(name: str, source: str, mnist_path: PathLike | None) -> None:
    check_choice(name, source, ("sklearn", "mnist"))
    if mnist_path and source != "mnist":
        text = f"mnist_path needs {name} = 'mnist', got {source!r}: use"
        raise InputError(f"{text} --config=configs/digits.py:mnist")


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
    return np.pad(box, (_GLYPH - _BOX) // 2)


def _read_npz(path: pathlib.Path) -> list[Handwriting]:
    _check_npz(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in _NPZ_KEYS if key in archive}
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen types
        text = f"mnist_path {path} cannot be read as an .npz of plain arrays:"
        raise InputError(f"{text} {' '.join(str(error).split())}") from error
    missing = ", ".join(key for key in _NPZ_KEYS if key not in arrays)
    if missing:
        wanted = ", ".join(_NPZ_KEYS)
        raise InputError(f"mnist_path {path} lacks {missing}: it must hold {wanted}")
    named = [(arrays[key], f"{key} of {path}") for key in _NPZ_KEYS]
    return [_checked(*named[0], *named[1]), _checked(*named[2], *named[3])]


def _check_npz(path: pathlib.Path) -> None:
    if not path.is_file():
        raise InputError(f"mnist_path must be an mnist.npz, but {path} is no file")


def _read_prepared(data_dir: str) -> list[Handwriting]:
    infos = sorted(tfds.core.Path(data_dir).glob("mnist/*/dataset_info.json"))
    ways = "give an mnist.npz (mnist_path, --config.data.mnist_path=FILE), or prepare "
    ways += "TFDS's mnist there as array_record (tfrecord needs TensorFlow)"
    if not infos:
        raise InputError(f"no MNIST found in {data_dir}: {ways}")
    folder, parts = infos[-1].parent, []
    for split in ("train", "test"):
        try:
            builder: Any = tfds.builder_from_directory(folder)
            records = builder.as_data_source(split)
            glyphs = np.stack([record["image"][..., 0] for record in records])
            classes = np.array([record["label"] for record in records])
        except (NotImplementedError, KeyError, ValueError, ImportError) as error:
            raise InputError(
                f"the MNIST in {folder} cannot be read without TensorFlow: {ways}"
            ) from error
        where = f"of {folder} ({split})"
        parts.append(_checked(glyphs, f"image {where}", classes, f"label {where}"))
    return parts


def _checked(
    glyphs: np.ndarray, glyphs_name: str, classes: np.ndarray, classes_name: str
) -> Handwriting:
    sizes = check_shape(glyphs_name, glyphs, f"M {_GLYPH} {_GLYPH}")
    check_shape(classes_name, classes, "M", dims=sizes, beside=glyphs_name)
    if glyphs.dtype != np.uint8:
        raise InputTypeError(f"{glyphs_name} must be uint8, got {glyphs.dtype}")
    check_integer(classes_name, classes)
    low, high = classes.min(initial=0), classes.max(initial=0)
    if low < 0 or high >= _NUM_CLASSES:
        text = f"{classes_name} must be digits from 0 to 9, got values from {low} to"
        raise InputError(f"{text} {high}")
    return Handwriting(glyphs, classes.astype(np.int64))


def render_digits(
    rng: np.random.Generator,
    glyphs: np.ndarray,
    classes: np.ndarray,
    *,
    size: int | Sequence[int] = (64, 64),
    max_digits: int = 9,
    name: str = "",
) -> dict[str, Any]:
    r"""Renders one image of colored digits, ``name``, together with its instances.

    The number of digits is uniform in 0 .. max_digits (as far as there are cells). They
    are pasted, unscaled and in random order, into different cells of a grid whose
    corners are :math:`\lfloor 17.5\,i \rfloor`; the ink of a later digit hides an
    earlier one. All digits of one class have one color, and the ten colors are sampled
    anew for every image. A pixel belongs to a digit where its ink is > 0, and is not
    black.

    Args:
        rng: the random generator.
        glyphs: uint8 [M, 28, 28] ink to choose from.
        classes: int [M] the digits' values, 0 to 9.
        size: (H, W), or one number for both; multiples of 8 from 32 on.
        max_digits: the largest number of digits.
        name: of the example.

    Returns:
        ``{"image": uint8 [H, W, 3], "instances": int32 [H, W], "name": str}``;
        instances are 1, 2, .. in the order of pasting, without hidden digits.

    References:
        Kong & Fowlkes 2018, Fig. 4 and the authors' demo.

    >>> glyphs = np.full((1, 28, 28), 255, np.uint8)
    >>> one = render_digits(np.random.default_rng(0), glyphs, np.array([7]), size=32)
    >>> one["image"].shape, one["instances"].max()
    ((32, 32, 3), np.int32(1))
    """
    height, width = _check_size(size)
    check_count("max_digits", max_digits)
    glyphs, classes = _checked(glyphs, "glyphs", classes, "classes")
    if len(glyphs) == 0:
        raise InputError("glyphs must hold at least one digit, got none")

    palette = _sample_palette(rng)
    cells = [(y, x) for y in _corners(height) for x in _corners(width)]
    number = int(rng.integers(min(max_digits, len(cells)), endpoint=True))
    chosen_cells = rng.permutation(len(cells))[:number]
    chosen_glyphs = rng.integers(len(glyphs), size=number)

    image = np.zeros((height, width, 3), np.uint8)
    pasted = np.zeros((height, width), np.int32)
    pairs = zip(chosen_cells, chosen_glyphs, strict=True)
    for order, (cell, glyph) in enumerate(pairs, start=1):
        y, x = cells[cell]
        window = np.s_[y : y + _GLYPH, x : x + _GLYPH]
        ink = glyphs[glyph]
        image[window][ink > 0] = _color_ink(ink[ink > 0], palette[classes[glyph]])
        pasted[window][ink > 0] = order
    instances, _ = number_in_order(pasted)  # hidden digits have no number
    return {"image": image, "instances": instances, "name": name}


def _check_size(size: int | Sequence[int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2:
        raise InputError(f"size must be (height, width) or one number, got {size!r}")
    for side in sides:
        check_count("size", side)
        if side < _SMALLEST or side % _MULTIPLE:
            raise InputError(
                f"size must be multiples of {_MULTIPLE} from {_SMALLEST} on, got {size}"
            )
    return int(sides[0]), int(sides[1])


def _corners(length: int) -> list[int]:
    starts = (int(_CELL_STEP * i) for i in range(length))
    return [start for start in starts if start + _GLYPH <= length]


def _sample_palette(rng: np.random.Generator) -> np.ndarray:
    """Samples ten colors, [10, 3] in 0..255, that are easy to distinguish."""
    hues = rng.uniform() + np.arange(_NUM_CLASSES) / _NUM_CLASSES
    hues += rng.uniform(-_HUE_JITTER, _HUE_JITTER, _NUM_CLASSES)
    hues = rng.permutation(hues)[:, None]
    saturations = rng.uniform(0.5, 1.0, (_NUM_CLASSES, 1))
    values = rng.uniform(0.7, 1.0, (_NUM_CLASSES, 1))
    # HSV to RGB in closed form: each channel is a trapezium of the hue.
    ramp = (np.array([5.0, 3.0, 1.0]) + 6.0 * hues) % 6.0
    trapezium = np.clip(np.minimum(ramp, 4.0 - ramp), 0.0, 1.0)
    return 255.0 * values * (1.0 - saturations * trapezium)


def _color_ink(ink: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Colors ink > 0, [n], into uint8 [n, 3] of which no row is black."""
    colored = np.rint(ink[:, None] / 255.0 * color).astype(np.uint8)
    brightest = np.argmax(color)
    colored[:, brightest] = np.maximum(colored[:, brightest], 1)
    return colored


class DrawnDigits(LabeledBuilder, skip_registration=True):
    """Renderings of colored digits with their instances, as a TFDS builder.

    Features: image, PNG uint8 [H, W, 3]; instances, PNG uint8 [H, W, 1] (0 background);
    name. Image i of a split depends on the seed, the split and i alone. After replacing
    TFDS's own MNIST, delete the renderings.

    Args:
        handwriting, mnist_path: see `load_handwriting`.
        size: (H, W), or one number for both; multiples of 8 from 32 on.
        train, validation, test: numbers of images.
        seed: of the renderings; the splits of the handwriting are fixed.
        data_dir: the folder of prepared data sets, and of TFDS's ``mnist``.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        handwriting: str = "sklearn",
        *,
        size: int | Sequence[int] = (64, 64),
        train: int = 12000,
        validation: int = 200,
        test: int = 500,
        seed: int = 0,
        mnist_path: PathLike | None = None,
        data_dir: PathLike | None = None,
    ) -> None:
        _check_source("handwriting", handwriting, mnist_path)
        sides = _check_size(size)
        self._counts = dict(zip(SPLITS, (train, validation, test), strict=True))
        for split, count in self._counts.items():
            check_count(split, count, at_least=1)
        check_count("seed", seed)
        origin = handwriting
        if mnist_path:
            path = pathlib.Path(mnist_path).expanduser()
            _check_npz(path)
            origin += "." + hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        parts = [origin, "{}x{}".format(*sides)]
        parts += [f"{split}{count}" for split, count in self._counts.items()]
        settings = {"handwriting": handwriting, "size": sides, **self._counts}
        settings |= {"seed": int(seed), "mnist_path": mnist_path}
        name = "-".join([*parts, f"seed{seed}"])
        super().__init__(
            name=name,
            data_dir=data_dir,
            settings=settings,
            maps={"instances": np.uint8},
            encoding="png",
            size=sides,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        path, source = self._settings["mnist_path"], self._settings["handwriting"]
        handwriting = load_handwriting(source, mnist_path=path, data_dir=self.root)
        return {s: self._generate_examples(s, handwriting[s]) for s in SPLITS}

    def _generate_examples(self, split: str, handwriting: Handwriting) -> Generated:
        for i in range(self._counts[split]):
            seed = (self._settings["seed"], SPLITS.index(split), i)
            rng, name = np.random.default_rng(seed), f"{split}-{i:06d}"
            size = self._settings["size"]
            drawn = render_digits(rng, *handwriting, size=size, name=name)
            instances = to_png(drawn["instances"].astype(np.uint8))
            yield i, {**drawn, "image": to_png(drawn["image"]), "instances": instances}


prepare_digits = preparer(DrawnDigits, what="digits")
