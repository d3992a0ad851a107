"""The drawings as a TFDS data set: drawn once, kept as array_record, read by anybody.

TensorFlow is not needed, neither to prepare the data set nor to read it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import InputError, check_count
from sphemb.data._builders import LabelledBuilder, prepare_quietly
from sphemb.data._drawings import check_size, draw_digits
from sphemb.data._handwriting import (
    SPLITS,
    Handwriting,
    check_source,
    load_handwriting,
    tfds_data_dir,
)
from sphemb.data.files import to_png


@dataclasses.dataclass(eq=False, kw_only=True)
class DigitsConfig(tfds.core.BuilderConfig):
    """Everything that a prepared set of drawings depends on; see `digits_config`."""

    name: str
    description: str | None = None
    handwriting: str
    size: tuple[int, int]
    counts: dict[str, int]
    seed: int
    mnist_path: str | None
    data_dir: str


def digits_config(
    handwriting: str = "sklearn",
    *,
    size: int | Sequence[int] = (64, 64),
    train: int = 12000,
    validation: int = 200,
    test: int = 500,
    seed: int = 0,
    mnist_path: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> DigitsConfig:
    """Makes the config of one set of drawings, whose name says all that it depends on.

    Two settings that give different drawings never have one name, and so never share a
    folder: where MNIST comes from a file, a digest of the file is part of the name.
    TFDS's own MNIST goes without its version, so that drawings can be opened where it
    is no longer; after replacing it by another, delete the drawings beside it.

    Args:
        handwriting: ``"sklearn"`` or ``"mnist"``, see `load_handwriting`.
        size: (H, W), or one number for both; multiples of 8 from 32 on, since a digit
            has 28 pixels.
        train: number of drawings to train on.
        validation: number of drawings to choose settings by.
        test: number of drawings to report on.
        seed: of the drawings; the splits of the handwriting are fixed.
        mnist_path: an ``mnist.npz``, see `load_handwriting`; with ``"mnist"`` alone.
        data_dir: where TFDS keeps prepared data sets, an ``mnist`` among them; by
            default ``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.

    Returns:
        A config for `DrawnDigits`.

    Raises:
        InputError: a setting does not fit, or mnist_path is no file or is not needed.

    >>> digits_config(size=32, train=8, validation=2, test=2, seed=7).name
    'sklearn-32x32-train8-validation2-test2-seed7'
    """
    check_source("handwriting", handwriting, mnist_path)
    height, width = check_size(size)
    counts = dict(zip(SPLITS, (train, validation, test), strict=True))
    for split, count in counts.items():
        check_count(split, count, at_least=1)
    check_count("seed", seed)
    origin, path = handwriting, None
    if mnist_path:
        path = pathlib.Path(mnist_path).expanduser()
        if not path.is_file():
            raise InputError(f"mnist_path must be an mnist.npz, but {path} is no file")
        origin += "." + hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    parts = [origin, f"{height}x{width}"]
    parts += [f"{split}{count}" for split, count in counts.items()]
    return DigitsConfig(
        name="-".join([*parts, f"seed{seed}"]),
        description="Coloured digits on a grid, after Kong & Fowlkes 2018, Fig. 4.",
        handwriting=handwriting,
        size=(height, width),
        counts=counts,
        seed=int(seed),
        mnist_path=None if path is None else str(path),
        data_dir=tfds_data_dir(data_dir),
    )


class DrawnDigits(LabelledBuilder, skip_registration=True):
    """Drawings of coloured digits with their instances, as a TFDS builder.

    Features: image, PNG uint8 [H, W, 3]; instances, PNG uint8 [H, W, 1] (0 background);
    name, text. Drawing i of a split depends on the seed, the split and i alone, so that
    a larger set begins with the smaller one.

    Args:
        config: made by `digits_config`.
        data_dir: where prepared data sets are kept; by default the config's.
        file_format: how the examples are kept.
        **kwargs: for TFDS.

    Raises:
        InputError: the config was not made by `digits_config`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS's own form)
    config_class = DigitsConfig
    config_function = "digits_config"

    def _info(self) -> tfds.core.DatasetInfo:
        size = self._settings.size
        return tfds.core.DatasetInfo(
            builder=self,
            description="Coloured handwritten digits on a grid and their instances.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(*size, 3), dtype=np.uint8, encoding_format="png"
                    ),
                    "instances": tfds.features.Image(
                        shape=(*size, 1), dtype=np.uint8, encoding_format="png"
                    ),
                    "name": tfds.features.Text(),
                }
            ),
            # Kept in the order of drawing, so that index i is drawing i.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        settings = self._settings
        handwriting = load_handwriting(
            settings.handwriting,
            mnist_path=settings.mnist_path,
            data_dir=settings.data_dir,
        )
        return {s: self._generate_examples(s, handwriting[s]) for s in SPLITS}

    def _generate_examples(
        self, split: str, handwriting: Handwriting
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        settings = self._settings
        for i in range(settings.counts[split]):
            drawing = draw_digits(
                np.random.default_rng((settings.seed, SPLITS.index(split), i)),
                *handwriting,
                size=settings.size,
                name=f"{split}-{i:06d}",
            )
            yield (
                i,
                {
                    "image": to_png(drawing["image"]),
                    "instances": to_png(drawing["instances"].astype(np.uint8)),
                    "name": drawing["name"],
                },
            )


# Whoever asks for the signature gets that of `digits_config`.
@functools.wraps(digits_config, assigned=())
def prepare_digits(*args: Any, **settings: Any) -> DrawnDigits:
    """Opens a set of drawings, after drawing it if it is not there yet.

    A preparation that breaks off leaves nothing behind, and of several processes that
    prepare the same set at once one wins. The progress bar is shown on a terminal only.

    Args:
        *args: as for `digits_config`, with the same defaults.
        **settings: as for `digits_config`, with the same defaults.

    Returns:
        The prepared builder, to be read through `BuilderExamples`.

    Raises:
        InputError: a setting does not fit, the handwriting is missing, or data_dir
            cannot be written to.
    """
    config = digits_config(*args, **settings)
    return prepare_quietly(DrawnDigits, config, what="drawings")
