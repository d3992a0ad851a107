"""PASCAL VOC 2012 with the masks of SBD as a TFDS data set, or a tree in its form."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import VOID, InputError
from sphemb.data import files
from sphemb.data._prepared import Generated, LabeledBuilder, preparer, refuse_both
from sphemb.data.files import Files, FolderFiles, PaletteColors, PathLike

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
"""VOC's classes; ``semantic`` is 1 for the first."""

BACKGROUND = "background"
"""The name of class 0, of everything outside of the other classes."""

VOC = files.Publication(
    what="VOC 2012",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    algorithm="sha256",
    digest="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    root="VOCdevkit/VOC2012",
    landmark="ImageSets/Segmentation/train.txt",
    folders=(
        *("ImageSets/Segmentation", "JPEGImages"),
        *("SegmentationClass", "SegmentationObject"),
    ),
)
SBD = files.Publication(
    what="the Semantic Boundaries Dataset",
    url="http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
    "semantic_contours/benchmark.tgz",
    algorithm="md5",
    digest="82b4d87ceb2ed10f6038a1cba92111cb",
    root="benchmark_RELEASE/dataset",
    landmark="inst",
    folders=("inst",),
)
COUNTS = {
    True: {"train": 10582, "validation": 1449, "test": 1103},
    False: {"train": 1464, "validation": 1449},
}
"""With SBD or without: the numbers of images of the published data."""

_VOID_CODE = 255


class VocMasks(LabeledBuilder, skip_registration=True):
    """PASCAL VOC 2012, or another tree in its form, with masks of instances.

    Features: image, the JPEG file unchanged; instances and semantic, PNG uint8
    [H, W, 1] (0 background, 255 void); name. Where both have masks, VOC's are taken,
    because SBD has no void. Splits: train, VOC's and all of SBD's images that are not
    in validation; validation, VOC's val; test, those of validation that SBD has too. A
    tree whose lists, masks or sizes of images changed is prepared anew.

    Args:
        sbd: take the masks of the Semantic Boundaries Dataset where VOC has none, which
            makes 10,582 training images of 1,464. In voc_dir: if it has ``inst/*.mat``.
        voc_dir: a tree with ``JPEGImages``, ``SegmentationClass``,
            ``SegmentationObject`` and ``ImageSets/Segmentation/{train,val}.txt`` in
            place of VOC 2012. Its images are not counted.
        manual_dir: a folder with the archives of VOC and SBD, packed or unpacked; by
            default ``downloads/manual`` in data_dir, into which they are downloaded.
        data_dir: the folder of prepared data sets, see `LabeledBuilder`.

    References:
        Everingham et al., IJCV 2015; Hariharan et al., ICCV 2011.
    """

    VERSION = tfds.core.Version("1.1.0")
    class_names = (BACKGROUND, *VOC_CLASSES)

    def __init__(
        self,
        *,
        sbd: bool = True,
        voc_dir: PathLike | None = None,
        manual_dir: PathLike | None = None,
        data_dir: PathLike | None = None,
    ) -> None:
        name = "2012"
        if voc_dir:
            refuse_both("voc_dir", voc_dir, manual_dir)
            voc_dir = os.path.expanduser(os.fspath(voc_dir))
            tree = FolderFiles(voc_dir)
            sbd = bool(sbd) and bool(tree.names("inst", suffix=".mat"))
            splits = _read_splits(tree, sbd=tree if sbd else None)
            name = f"tree.{_digest_tree(voc_dir, splits)}"
        super().__init__(
            name=f"{name}-sbd" if sbd else name,
            data_dir=data_dir,
            settings={"sbd": bool(sbd), "voc_dir": voc_dir, "manual_dir": manual_dir},
            maps={"instances": np.uint8, "semantic": np.uint8},
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        tree, with_sbd = self._settings["voc_dir"], self._settings["sbd"]
        self._palettes = PaletteColors()
        if tree:
            voc = sbd = FolderFiles(tree)
        else:
            where = {"manual_dir": self._settings["manual_dir"], "data_dir": self.root}
            voc = files.open_publication(VOC, **where)
            sbd = files.open_publication(SBD, **where) if with_sbd else voc
        splits = _read_splits(voc, sbd=sbd if with_sbd else None)
        found = {split: len(names) for split, names in splits.items()}
        if not tree and found != COUNTS[with_sbd]:
            text = f"VOC 2012 must have {COUNTS[with_sbd]} images, got {found}: name a"
            raise InputError(f"{text} tree that is a part of it in voc_dir")
        of_voc = {*_read_list(voc, "train"), *_read_list(voc, "val")}
        return {
            split: self._generate_examples(names, of_voc, voc, sbd)
            for split, names in splits.items()
        }

    def _generate_examples(
        self, names: Iterable[str], of_voc: set[str], voc: Files, sbd: Files
    ) -> Generated:
        for i, name in enumerate(names):
            path = f"JPEGImages/{name}.jpg"
            image = voc.read(path)
            header = files.check_encoded(image, who=f"image {voc.where(path)}")
            if name in of_voc:
                masks = f"SegmentationObject/{name}.png"
                classes = f"SegmentationClass/{name}.png"
                who, who_classes = (f"mask {voc.where(p)}" for p in (masks, classes))
                instances = _read_mask(voc.read(masks), who)
                semantic = _read_mask(voc.read(classes), who_classes, self._palettes)
                if self._settings["voc_dir"]:  # the published masks have hard edges
                    for mask, labels in ((who, instances), (who_classes, semantic)):
                        known = np.maximum(labels, 0)
                        numbered, _ = files.number_in_order(known)
                        files.check_edges(mask, numbered, known[..., None])
            else:
                masks = f"inst/{name}.mat"
                who = who_classes = f"mask {sbd.where(masks)}"
                instances, semantic = _read_sbd(sbd.read(masks), who=sbd.where(masks))
            files.check_label_size(instances.shape, header, who=who)
            files.check_label_size(semantic.shape, header, who=who_classes)
            instances = files.encode_labels(instances, np.uint8, who=who)
            semantic = files.encode_labels(semantic, np.uint8, who=who_classes)
            maps = {"instances": instances, "semantic": semantic}
            yield i, {"image": image, **maps, "name": name}


prepare_voc = preparer(VocMasks, what="VOC")


def _read_list(tree: Files, split: str) -> list[str]:
    path = f"ImageSets/Segmentation/{split}.txt"
    lines = tree.read(path).decode("utf-8-sig", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"{tree.where(path)} must name at least one image, got none")
    return names


def _read_splits(voc: Files, *, sbd: Files | None) -> dict[str, list[str]]:
    """Returns the names in each split; test is left out where it would be empty."""
    train, validation = set(_read_list(voc, "train")), set(_read_list(voc, "val"))
    masks = set(sbd.names("inst", suffix=".mat")) if sbd else set()
    splits = {
        "train": (masks | train) - validation,
        "validation": validation,
        "test": masks & validation,
    }
    if not splits["train"]:
        text = f"{voc.where('ImageSets/Segmentation/train.txt')} must name at least one"
        raise InputError(f"{text} image that val.txt does not")
    return {split: sorted(names) for split, names in splits.items() if names}


def _read_mask(
    data: bytes, who: str, palettes: PaletteColors | None = None
) -> np.ndarray:
    """Reads a palette PNG: int32 [H, W], -1 void, 0 background, 1, 2, .."""
    codes = files.decode_indices(data, who=who, palettes=palettes)
    return np.where(codes == _VOID_CODE, VOID, codes.astype(np.int32))


def _read_sbd(data: bytes, *, who: str) -> tuple[np.ndarray, np.ndarray]:
    with files.reading_matlab(who, "a mask of SBD"):
        truth = files.load_variable(data, "GTinst")[0, 0]
        instances = np.asarray(truth["Segmentation"]).astype(np.int32)
        classes = np.asarray(truth["Categories"]).ravel().astype(np.int32)
    if instances.ndim != 2 or instances.size == 0:
        shape = instances.shape
        raise InputError(f"{who} must have GTinst.Segmentation [H, W], got {shape}")
    if instances.min() < 0 or instances.max() > len(classes):
        text = f"{who} must number its {len(classes)} GTinst.Categories in"
        got = f"numbers from {instances.min()} to {instances.max()}"
        raise InputError(f"{text} GTinst.Segmentation, got {got}")
    return instances, np.concatenate([[0], classes]).astype(np.int32)[instances]


def _digest_tree(root: str, splits: dict[str, list[str]]) -> str:
    digest = hashlib.sha256(repr(splits).encode())
    masks = ("SegmentationClass/{}.png", "SegmentationObject/{}.png", "inst/{}.mat")
    for name in sorted({name for names in splits.values() for name in names}):
        image = pathlib.Path(root, "JPEGImages", f"{name}.jpg")
        size = image.stat().st_size if image.exists() else 0
        digest.update(f"{name} {size}".encode())
        for path in (mask.format(name) for mask in masks):
            mask = pathlib.Path(root, path)
            digest.update(mask.read_bytes() if mask.is_file() else path.encode())
    return digest.hexdigest()[:8]
