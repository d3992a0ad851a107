"""Data: from handwriting, data sets and your own files to batches.

* `DATASETS`: what a configuration can name, each a function that gives a data set:
  `BuilderDataset`, `BoundaryDataset`, `FolderDataset` or `ImageDataset`, whose
  ``source(split)`` are its examples.
* Your own folder: `open_folder`, `FolderDataset`, `FolderExamples`, `read_mask`,
  `inspect_mask`, `Mask`; `check_data`, whose `Report` has a `CheckedFile` with its
  `Finding` entries for each file; `FileError` is what reading a file raises.
  `PaletteColors` compares the palettes of masks of classes.
* `measure_instances`: how many instances, how large (`InstanceSizes`), and which of
  them `vanishing_instances` says that a coarse map loses.
* Your own images without any label: `open_images`, `ImageDataset`, `ImageExamples`,
  `ImageFile`.
* PASCAL VOC with SBD: `prepare_voc`, `voc_config`, `VocConfig`, `VocMasks`,
  `VOC_CLASSES`; COCO: `prepare_coco`, `coco_config`, `CocoConfig`, `CocoMasks`,
  `VOC_NAMES`.
* Coarse classes: `COARSE_CLASSES` (`COARSE_THINGS`, `COARSE_STUFF`) of COCO-Stuff by
  `coarse_class`, `CITYSCAPES_CLASSES`, `CITYSCAPES_THINGS`, and `coarse_labels` of
  published label maps.
* `load_annotations`: an annotation file of COCO, checked, whose categories have
  `category_names`.
* BSDS500: `open_bsds`, a `BoundaryDataset` of `BoundaryExamples` whose
  `boundary_target` is learned; `prepare_bsds`, `bsds_config`, `BsdsConfig`,
  `BsdsBoundaries`; `read_boundaries` of one of its files.
* Drawings: `draw_digits` from `load_handwriting`, `Handwriting`; as a TFDS data set
  `DrawnDigits` with `digits_config` and `DigitsConfig`, prepared by `prepare_digits`.
* Any prepared TFDS builder: `BuilderDataset`, `BuilderExamples`; `tfds_data_dir`, where
  prepared data sets are kept; `only_prepared`, within which none is written.
* `AUGMENTATIONS`: what a configuration can name: `ImageAugmentation`,
  `DigitsAugmentation`; `CentreCrop`, which leaves nothing to chance.
* Batches: `make_loader` from any `ExampleSource`; `SkippingSource` goes on without what
  cannot be used, `size_buckets` and `PadExample` make few sizes of many.
* Image files: `find_images`, `is_image`, `read_image`, `read_size` by `Reading`;
  `pad_to_multiple`, `write_image`, `write_labels`; `ImageValues` of `image_files` says
  what else they hold.
* Images larger than memory: `ImageWindows` reads them a `Box` at a time, `tile_image`
  cuts them into `Tile` entries with halos, `write_tiff` writes them in parts.
"""

from sphemb.data._augmentation import DigitsAugmentation
from sphemb.data._boundary_examples import (
    BoundaryDataset,
    BoundaryExamples,
    boundary_target,
    open_bsds,
)
from sphemb.data._bsds import BsdsBoundaries, BsdsConfig, bsds_config, prepare_bsds
from sphemb.data._bsds_files import read_boundaries
from sphemb.data._buckets import PadExample, padded_size, size_buckets
from sphemb.data._builders import BuilderDataset, as_dataset, only_prepared
from sphemb.data._centre_crop import CentreCrop
from sphemb.data._check import CheckedFile, Report, check_data
from sphemb.data._coarse_classes import (
    CITYSCAPES_CLASSES,
    CITYSCAPES_THINGS,
    COARSE_CLASSES,
    COARSE_STUFF,
    COARSE_THINGS,
    coarse_class,
    coarse_labels,
)
from sphemb.data._coco import CocoConfig, CocoMasks, coco_config, prepare_coco
from sphemb.data._coco_classes import VOC_NAMES
from sphemb.data._drawings import draw_digits
from sphemb.data._drawn_digits import (
    DigitsConfig,
    DrawnDigits,
    digits_config,
    prepare_digits,
)
from sphemb.data._examples import BuilderExamples
from sphemb.data._folder import FolderDataset, open_folder
from sphemb.data._folder_examples import FolderExamples
from sphemb.data._handwriting import Handwriting, load_handwriting, tfds_data_dir
from sphemb.data._image_augmentation import ImageAugmentation
from sphemb.data._instance_sizes import (
    InstanceSizes,
    instance_areas,
    measure_instances,
    vanishing_instances,
)
from sphemb.data._loader import ExampleSource, make_loader
from sphemb.data._skipping import SkippingSource
from sphemb.data._unlabelled import (
    ImageDataset,
    ImageExamples,
    ImageFile,
    open_images,
)
from sphemb.data._voc import VocConfig, VocMasks, prepare_voc, voc_config
from sphemb.data._voc_files import VOC_CLASSES
from sphemb.data.files import (
    Box,
    FileError,
    Finding,
    ImageValues,
    ImageWindows,
    Mask,
    PaletteColors,
    Reading,
    Tile,
    category_names,
    find_images,
    image_files,
    inspect_mask,
    is_image,
    load_annotations,
    pad_to_multiple,
    read_image,
    read_mask,
    read_size,
    tile_image,
    write_image,
    write_labels,
    write_tiff,
)

DATASETS = {
    "digits": as_dataset(prepare_digits),
    "voc": as_dataset(prepare_voc),
    "coco": as_dataset(prepare_coco),
    "bsds": open_bsds,
    "folder": open_folder,
    "images": open_images,
}
"""Data sets that a configuration can name: name -> function that opens them."""

AUGMENTATIONS = {
    "digits": DigitsAugmentation,
    "images": ImageAugmentation,
    "centre": CentreCrop,
}
"""Augmentations that a configuration can name: name -> class of a grain transform."""

__all__ = [
    "AUGMENTATIONS",
    "CITYSCAPES_CLASSES",
    "CITYSCAPES_THINGS",
    "COARSE_CLASSES",
    "COARSE_STUFF",
    "COARSE_THINGS",
    "DATASETS",
    "VOC_CLASSES",
    "VOC_NAMES",
    "BoundaryDataset",
    "BoundaryExamples",
    "Box",
    "BsdsBoundaries",
    "BsdsConfig",
    "BuilderDataset",
    "BuilderExamples",
    "CentreCrop",
    "CheckedFile",
    "CocoConfig",
    "CocoMasks",
    "DigitsAugmentation",
    "DigitsConfig",
    "DrawnDigits",
    "ExampleSource",
    "FileError",
    "Finding",
    "FolderDataset",
    "FolderExamples",
    "Handwriting",
    "ImageAugmentation",
    "ImageDataset",
    "ImageExamples",
    "ImageFile",
    "ImageValues",
    "ImageWindows",
    "InstanceSizes",
    "Mask",
    "PadExample",
    "PaletteColors",
    "Reading",
    "Report",
    "SkippingSource",
    "Tile",
    "VocConfig",
    "VocMasks",
    "boundary_target",
    "bsds_config",
    "category_names",
    "check_data",
    "coarse_class",
    "coarse_labels",
    "coco_config",
    "digits_config",
    "draw_digits",
    "find_images",
    "image_files",
    "inspect_mask",
    "instance_areas",
    "is_image",
    "load_annotations",
    "load_handwriting",
    "make_loader",
    "measure_instances",
    "only_prepared",
    "open_bsds",
    "open_folder",
    "open_images",
    "pad_to_multiple",
    "padded_size",
    "prepare_bsds",
    "prepare_coco",
    "prepare_digits",
    "prepare_voc",
    "read_boundaries",
    "read_image",
    "read_mask",
    "read_size",
    "size_buckets",
    "tfds_data_dir",
    "tile_image",
    "vanishing_instances",
    "voc_config",
    "write_image",
    "write_labels",
    "write_tiff",
]
