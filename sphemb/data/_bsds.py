"""BSDS500: photographs with the boundaries that several annotators drew.

A annotators, H W image size.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import (
    VOID,
    InputError,
    check_boolean,
    check_choice,
    check_count,
    check_shape,
)
from sphemb.data import files
from sphemb.data._prepared import (
    BuilderExamples,
    Generated,
    LabeledBuilder,
    preparer,
    refuse_both,
)
from sphemb.data.files import FileError, Files, FolderFiles, Header, PathLike

BSDS = files.Publication(
    what="BSDS500",
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/"
    "BSR_bsds500.tgz",
    # Berkeley publishes no digest; projects that have the archive state this one.
    algorithm="sha256",
    digest="97e49d31764f3912f0c4122707d53062ac9e783ba0f095e447a4d53c1a41af8e",
    root="BSR/BSDS500/data",
    landmark="groundTruth",
    folders=("images", "groundTruth"),
)
COUNTS = {"train": 200, "validation": 100, "test": 200}
"""The numbers of images of the published data."""

_FOLDERS = {"train": "train", "validation": "val", "test": "test"}
_TRAIN_ON = {"train": "train", "train+val": "train+validation"}


def read_boundaries(path: PathLike) -> np.ndarray:
    """Reads a ground truth of BSDS500, a ``.mat`` file: bool [A, H, W].

    It is a cell array ``groundTruth`` with a structure for every annotator, in which
    ``Boundaries`` is a map of curves one pixel wide.
    """
    file = pathlib.Path(path).expanduser()
    data = FolderFiles(file.parent).read(file.name)
    return _decode_boundaries(data, who=str(file))


def _decode_boundaries(data: bytes, *, who: str) -> np.ndarray:
    with files.reading_matlab(who, "a ground truth of BSDS500"):
        annotators = files.load_variable(data, "groundTruth").ravel()
        if not all(isinstance(a, np.ndarray) for a in annotators):
            raise ValueError("groundTruth must be a cell array of structures")
        maps = [np.asarray(a[0, 0]["Boundaries"]) for a in annotators]
        shapes = sorted({found.shape for found in maps})
        kinds = {found.dtype.kind for found in maps}
    flat = len(shapes) == 1 and len(shapes[0]) == 2 and min(shapes[0]) > 0
    if not flat or not kinds <= set("biuf"):
        text = f"{who} must have maps groundTruth.Boundaries [H, W] of numbers, all of"
        raise FileError(f"{text} one size, got {shapes or 'none'}")
    return np.stack(maps) != 0


def boundary_target(boundaries: np.ndarray, *, consensus: int = 1) -> np.ndarray:
    """Combines the maps of several annotators, bool [A, H, W], into one map to learn.

    A pixel is a boundary (1) if at least ``consensus`` annotators, or all of fewer,
    marked it, none (0) if no annotator did, and void (-1) otherwise; int32 [H, W]. With
    1 it is the union. Annotators often differ by one or two pixels, so that a larger
    consensus leaves few boundaries (Liu et al., CVPR 2017).

    >>> drawn = np.array([[[1, 1, 0, 0]], [[1, 0, 1, 0]], [[1, 1, 0, 0]]], bool)
    >>> boundary_target(drawn), boundary_target(drawn, consensus=2)
    (array([[1, 1, 1, 0]], dtype=int32), array([[ 1,  1, -1,  0]], dtype=int32))
    """
    check_boolean("boundaries", boundaries)
    sizes = check_shape("boundaries", boundaries, "A H W")
    check_count("consensus", consensus, at_least=1)
    votes = boundaries.sum(axis=0, dtype=np.int32)
    agreed = votes >= min(consensus, max(sizes["A"], 1))
    return np.where(agreed, 1, np.where(votes > 0, VOID, 0)).astype(np.int32)


class BsdsBoundaries(LabeledBuilder, skip_registration=True):
    """BSDS500, or another tree in its form, with the boundaries of each annotator.

    Features: image, the JPEG file unchanged; boundaries, PNG uint8 [A * H, W, 1] with
    the maps of the annotators below each other (1 boundary, 0 none); name. A tree whose
    annotations or sizes of images changed is prepared anew.

    Args:
        bsds_dir: a tree with ``images/{train,val,test}/NAME.jpg`` and
            ``groundTruth/{train,val,test}/NAME.mat`` in place of BSDS500, directly or
            in ``BSDS500/data`` or ``BSR/BSDS500/data``. Its images are not counted.
        manual_dir: a folder with the published archive, packed or unpacked; by default
            ``downloads/manual`` in data_dir, into which it is downloaded.
        data_dir: the folder of prepared data sets, see `LabeledBuilder`.

    References:
        Arbelaez, Maire, Fowlkes, Malik, PAMI 2011.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        bsds_dir: PathLike | None = None,
        manual_dir: PathLike | None = None,
        data_dir: PathLike | None = None,
    ) -> None:
        name = "bsds500"
        if bsds_dir:
            refuse_both("bsds_dir", bsds_dir, manual_dir)
            bsds_dir = str(_find_tree(bsds_dir))
            name = f"tree.{_digest_tree(bsds_dir, read_names(FolderFiles(bsds_dir)))}"
        settings = {"bsds_dir": bsds_dir, "manual_dir": manual_dir}
        maps = {"boundaries": np.uint8}
        super().__init__(name=name, data_dir=data_dir, settings=settings, maps=maps)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        tree, folder = self._settings["bsds_dir"], self._settings["manual_dir"]
        self._tree: Files = (
            FolderFiles(tree)
            if tree
            else files.open_publication(BSDS, manual_dir=folder, data_dir=self.root)
        )
        names = read_names(self._tree)
        found = {split: len(inside) for split, inside in names.items()}
        if not tree and found != COUNTS:
            text = f"BSDS500 must have {COUNTS} images, got {found}: name a tree that"
            raise InputError(f"{text} is a part of it in bsds_dir")
        return {s: self._generate_examples(s, inside) for s, inside in names.items()}

    def _generate_examples(self, split: str, names: Iterable[str]) -> Generated:
        for i, name in enumerate(names):
            path = _image_path(split, name)
            image = self._tree.read(path)
            header = files.check_encoded(image, who=f"image {self._tree.where(path)}")
            path = _truth_path(split, name)
            who = self._tree.where(path)
            boundaries = _decode_boundaries(self._tree.read(path), who=who)
            size = boundaries.shape[1:]
            files.check_label_size(size, header, who=f"boundaries of {who}")
            stacked = boundaries.reshape(-1, size[1]).astype(np.int32)
            maps = files.encode_labels(stacked, np.uint8, who=who)
            yield i, {"image": image, "boundaries": maps, "name": name}


prepare_bsds = preparer(BsdsBoundaries, what="BSDS")


def _find_tree(folder: PathLike) -> pathlib.Path:
    folder = pathlib.Path(folder).expanduser()
    return files.find_unpacked(BSDS, folder) or folder


def _image_path(split: str, name: str) -> str:
    return f"images/{_FOLDERS[split]}/{name}.jpg"


def _truth_path(split: str, name: str) -> str:
    return f"groundTruth/{_FOLDERS[split]}/{name}.mat"


def read_names(tree: Files) -> dict[str, list[str]]:
    """Returns the names in each split, every one with a photograph and annotations."""
    names = {}
    for split, folder in _FOLDERS.items():
        images = tree.names(f"images/{folder}", suffix=".jpg")
        truths = tree.names(f"groundTruth/{folder}", suffix=".mat")
        if not images and not truths:
            raise InputError(
                f"{tree.where(f'images/{folder}')} must hold photographs, *.jpg, with "
                f"annotations, *.mat, in groundTruth/{folder} beside images, got none"
            )
        unpaired = sorted(set(images) ^ set(truths))
        if unpaired:
            first = unpaired[0]
            found, missing = _image_path(split, first), _truth_path(split, first)
            if first in truths:
                found, missing = missing, found
            more = f", and {len(unpaired) - 1} more in {folder}" * (len(unpaired) > 1)
            raise InputError(f"{tree.where(found)} has no {missing} beside it{more}")
        names[split] = images
    return names


def _digest_tree(root: PathLike, names: dict[str, list[str]]) -> str:
    digest = hashlib.sha256(repr(names).encode())
    for split, inside in names.items():
        for name in inside:
            image = pathlib.Path(root, _image_path(split, name))
            digest.update(f"{name} {image.stat().st_size}".encode())
            digest.update(pathlib.Path(root, _truth_path(split, name)).read_bytes())
    return digest.hexdigest()[:8]


class BoundaryExamples(BuilderExamples):
    """The examples of one split of a prepared BSDS500.

    An example is ``{"image": uint8 [H, W, 3], "boundaries": int8 [A, H, W],
    "instances": int32 [H, W], "name": str}``. ``boundaries`` is 1 or 0; A is the
    largest number of annotators of an image of the split, and the maps of absent
    annotators are -1. ``instances`` is the `boundary_target` of the ``consensus``.
    """

    def __init__(
        self, builder: tfds.core.DatasetBuilder, split: str, *, consensus: int = 1
    ) -> None:
        super().__init__(builder, split)
        self._consensus = consensus

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        stacked = example["boundaries"]
        header = self.header(self.encoded(index))
        sides = _sides(header, stacked.shape[1])
        drawn = stacked.reshape(-1, *sides).astype(bool)
        drawn = np.stack([header.turn(curves) for curves in drawn])
        maps = np.full((self.num_annotators, *header.size), VOID, np.int8)
        maps[: len(drawn)] = drawn
        target = boundary_target(drawn, consensus=self._consensus)
        return {**example, "boundaries": maps, "instances": target}

    def instances(self, index: int) -> np.ndarray:
        """Computes the instances of one example."""
        return self[index]["instances"]

    @functools.cached_property
    def num_annotators(self) -> int:
        """A, the largest number of annotators of an image."""
        most = 0
        for record in map(self.encoded, range(len(self))):
            # From headers: the maps lie below each other, each as high as the image.
            who = f"boundaries of {record['name']!r}"
            height, width = files.read_header(record["boundaries"], who=who).stored
            most = max(most, height // _sides(self.header(record), width)[0])
        return most


def _sides(header: Header, width: int) -> tuple[int, int]:
    """(H, W) of maps of such a width, which are of the stored or the upright image."""
    return header.stored if width == header.stored[1] else header.size


class BoundaryDataset:
    """BSDS500 as a `Dataset`, prepared if necessary, once for all targets.

    Args:
        bsds_dir, manual_dir, data_dir: see `BsdsBoundaries`.
        train_on: ``"train"``, 200 images; or ``"train+val"``, 300, as published
            detectors are trained, which leaves only test for scores.
        target: ``"union"``, the marks of any annotator; or ``"consensus"``.
        consensus: of `boundary_target`, with target="consensus".
    """

    def __init__(
        self,
        *,
        bsds_dir: PathLike | None = None,
        manual_dir: PathLike | None = None,
        data_dir: PathLike | None = None,
        train_on: str = "train",
        target: str = "union",
        consensus: int = 1,
    ) -> None:
        check_choice("train_on", train_on, tuple(_TRAIN_ON))
        check_choice("target", target, ("union", "consensus"))
        check_count("consensus", consensus, at_least=1)
        self._train = _TRAIN_ON[train_on]
        self._consensus = consensus if target == "consensus" else 1
        self.builder = prepare_bsds(
            bsds_dir=bsds_dir, manual_dir=manual_dir, data_dir=data_dir
        )

    def source(self, split: str) -> BoundaryExamples:
        """Opens a split, or a part of its folder such as ``"train[:10%]"``."""
        wanted = self._train if split == "train" else split
        return BoundaryExamples(self.builder, wanted, consensus=self._consensus)
