# ruff: noqa: F401 (the imports are what is public)
"""Data: from public data sets, handwriting and your own files to batches.

A `Dataset` has ``source(split)``, an `ExampleSource`; `make_loader` makes its batches.
A configuration names one of `DATASETS` and of `AUGMENTATIONS`, or a class of your own.
For a folder of your own images see `FolderDataset`. Readers and writers of files are in
`sphemb.data.files`.
"""

from sphemb.data import files
from sphemb.data._augmentation import CenterCrop, DigitsAugmentation, ImageAugmentation
from sphemb.data._bsds import (
    BoundaryDataset,
    BoundaryExamples,
    BsdsBoundaries,
    boundary_target,
    prepare_bsds,
    read_boundaries,
)
from sphemb.data._coco_sets import (
    CITYSCAPES_CLASSES,
    CITYSCAPES_THINGS,
    COARSE_CLASSES,
    COARSE_STUFF,
    COARSE_THINGS,
    VOC_NAMES,
    CocoMasks,
    coarse_class,
    coarse_labels,
    prepare_coco,
)
from sphemb.data._dataset_check import (
    CheckedFile,
    InstanceSizes,
    Report,
    check_data,
    measure_instances,
    vanishing_instances,
)
from sphemb.data._digits import (
    DrawnDigits,
    Handwriting,
    load_handwriting,
    prepare_digits,
    render_digits,
)
from sphemb.data._folder import FolderDataset, FolderExamples, ImageDataset, open_folder
from sphemb.data._pipeline import (
    LABEL_MAPS,
    Dataset,
    ExampleSource,
    PadExample,
    SkippingSource,
    make_loader,
    padded_size,
    size_buckets,
)
from sphemb.data._prepared import (
    BuilderDataset,
    BuilderExamples,
    LabeledBuilder,
    only_prepared,
    tfds_data_dir,
)
from sphemb.data._voc import VOC_CLASSES, VocMasks, prepare_voc
from sphemb.data.files import (
    Box,
    FileError,
    Finding,
    ImageValues,
    ImageWindows,
    Mask,
    PaletteColors,
    Reading,
    Resolution,
    Tile,
    category_names,
    find_images,
    image_files,
    inspect_mask,
    is_image,
    load_annotations,
    read_image,
    read_mask,
    read_size,
    tile_image,
    write_image,
    write_labels,
    write_tiff,
)

DATASETS = {
    "digits": prepare_digits,
    "voc": prepare_voc,
    "coco": prepare_coco,
    "bsds": BoundaryDataset,
    "folder": open_folder,
    "images": ImageDataset,
}
"""Names of `Dataset` classes and functions that a configuration can use."""

AUGMENTATIONS = {
    "digits": DigitsAugmentation,
    "images": ImageAugmentation,
    "center": CenterCrop,
}
"""Names of grain transforms that a configuration can use."""

__all__ = [name for name in dir() if not name.startswith("_")]
