"""Data: from handwriting and image files to batches.

* Handwriting: `load_handwriting`, `Handwriting`.
* Drawings: `draw_digits`; as a TFDS data set `DrawnDigits` with `digits_config` and
  `DigitsConfig`, prepared by `prepare_digits`, read by `BuilderExamples`.
* `DATASETS`: what a configuration can name.
* Batches: `make_loader` from any `ExampleSource`, with `DigitsAugmentation`.
* Image files: `find_images`, `read_image`, `pad_to_multiple`, `write_image`,
  `write_labels`.
"""

from sphemb.data._augmentation import DigitsAugmentation
from sphemb.data._drawings import draw_digits
from sphemb.data._drawn_digits import (
    DigitsConfig,
    DrawnDigits,
    digits_config,
    prepare_digits,
)
from sphemb.data._examples import BuilderExamples
from sphemb.data._handwriting import Handwriting, load_handwriting
from sphemb.data._image_files import (
    find_images,
    pad_to_multiple,
    read_image,
    write_image,
    write_labels,
)
from sphemb.data._loader import ExampleSource, make_loader

DATASETS = {"digits": prepare_digits}
"""Data sets that a configuration can name: name -> function that prepares them."""

AUGMENTATIONS = {"digits": DigitsAugmentation}
"""Augmentations that a configuration can name: name -> class of a grain transform."""

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "BuilderExamples",
    "DigitsAugmentation",
    "DigitsConfig",
    "DrawnDigits",
    "ExampleSource",
    "Handwriting",
    "digits_config",
    "draw_digits",
    "find_images",
    "load_handwriting",
    "make_loader",
    "pad_to_multiple",
    "prepare_digits",
    "read_image",
    "write_image",
    "write_labels",
]
