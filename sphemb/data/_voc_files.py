"""PASCAL VOC 2012 as files: where they are published, their lists, masks and classes.

H W image size.
"""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np

from sphemb._checks import InputError
from sphemb._labels import VOID
from sphemb.data.files import Files, PaletteColors, Publication, decode_indices

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
"""VOC's classes; ``semantic`` is 1 for the first."""

BACKGROUND = "background"
"""The name of class 0, of whatever is none of the others."""

VOC = Publication(
    what="VOC 2012",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    algorithm="sha256",
    digest="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    root="VOCdevkit/VOC2012",
    landmark="ImageSets/Segmentation/train.txt",
    folders=(
        "ImageSets/Segmentation",
        "JPEGImages",
        "SegmentationClass",
        "SegmentationObject",
    ),
)
_VOID_CODE = 255


def read_list(files: Files, split: str) -> list[str]:
    """Reads the names of VOC's ``"train"`` or ``"val"``."""
    path = f"ImageSets/Segmentation/{split}.txt"
    lines = files.read(path).decode("utf-8-sig", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"{files.where(path)} must name at least one image, got none")
    return names


def read_splits(voc: Files, *, sbd: Files | None) -> dict[str, list[str]]:
    """Returns the names in each split; test is left out where it would be empty."""
    train, validation = set(read_list(voc, "train")), set(read_list(voc, "val"))
    masks = set(sbd.names("inst", suffix=".mat")) if sbd else set()
    splits = {
        "train": (masks | train) - validation,
        "validation": validation,
        "test": masks & validation,
    }
    if not splits["train"]:
        raise InputError(
            f"{voc.where('ImageSets/Segmentation/train.txt')} must name at least one "
            "image that val.txt does not"
        )
    return {split: sorted(names) for split, names in splits.items() if names}


def read_mask(
    files: Files, path: str, palettes: PaletteColors | None = None
) -> np.ndarray:
    """Reads a palette PNG: int32 [H, W], -1 void, 0 background, 1, 2, .. as it is.

    Where the numbers are classes, the palette is compared with those before.
    """
    who = f"mask {files.where(path)}"
    codes = decode_indices(files.read(path), who=who, palettes=palettes)
    return np.where(codes == _VOID_CODE, VOID, codes.astype(np.int32))


def digest_tree(root: str, splits: dict[str, list[str]]) -> str:
    """Digests the lists and masks of a tree, and the sizes of its images."""
    digest = hashlib.sha256(repr(splits).encode())
    for name in sorted({name for names in splits.values() for name in names}):
        image = pathlib.Path(root, "JPEGImages", f"{name}.jpg")
        digest.update(
            f"{name} {image.stat().st_size if image.exists() else 0}".encode()
        )
        for path in (
            f"SegmentationClass/{name}.png",
            f"SegmentationObject/{name}.png",
            f"inst/{name}.mat",
        ):
            mask = pathlib.Path(root, path)
            digest.update(mask.read_bytes() if mask.is_file() else path.encode())
    return digest.hexdigest()[:8]
