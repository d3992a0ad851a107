"""Boundaries to learn and to score, from what several annotators drew.

A annotators, H W image size.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sphemb._checks import check_boolean, check_choice, check_count, check_shape
from sphemb._labels import VOID
from sphemb.data._bsds import prepare_bsds
from sphemb.data._examples import BuilderExamples
from sphemb.data.files import Header, read_header

_TRAIN_ON = {"train": "train", "train+val": "train+validation"}


def boundary_target(boundaries: np.ndarray, *, consensus: int = 1) -> np.ndarray:
    """Makes one map to learn of those that several annotators drew.

    A pixel is a boundary where at least ``consensus`` annotators marked it, none where
    nobody did, and void in between: what some people saw is neither true nor false.
    With 1 it is the union, without void. Where an image has fewer annotators than
    ``consensus``, all of them must agree.

    Annotators agree on a pixel only where they hit the very same one. As they often
    miss each other by one or two, a larger consensus leaves less than one would think.

    Args:
        boundaries: bool [A, H, W].
        consensus: the least number of annotators who must agree.

    Returns:
        int32 [H, W]: 1 boundary, 0 none, -1 void.

    Raises:
        InputError: boundaries are not bool [A, H, W], or consensus is below 1.

    References:
        Liu et al., "Richer Convolutional Features for Edge Detection", CVPR 2017, who
        leave out the pixels that too few marked.

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


class BoundaryExamples(BuilderExamples):
    """The examples of one split of a prepared BSDS500.

    An example is ``{"image": uint8 [H, W, 3], "boundaries": int8 [A, H, W],
    "instances": int32 [H, W], "name": str}``. ``boundaries`` is 1 or 0; A is the same
    for the whole split, that of the image with most annotators, and an image that has
    fewer is filled up with maps that are -1 everywhere. ``instances`` is the
    `boundary_target`.

    Args:
        builder: made by `prepare_bsds`.
        split: ``"train"``, or a part or a sum such as ``"train+validation"``.
        consensus: see `boundary_target`.

    Raises:
        InputError: the split does not exist, or consensus is below 1.
    """

    def __init__(
        self, builder: tfds.core.DatasetBuilder, split: str, *, consensus: int = 1
    ) -> None:
        """Opens the split; see the class."""
        check_count("consensus", consensus, at_least=1)
        super().__init__(builder, split)
        self._consensus = consensus

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Reads and decodes one example."""
        example = super().__getitem__(index)
        below_each_other = example["boundaries"]
        header = self.header(self.encoded(index))
        sides = _sides(header, below_each_other.shape[1])
        drawn = below_each_other.reshape(-1, *sides).astype(bool)
        drawn = np.stack([header.turn(curves) for curves in drawn])
        maps = np.full((self.num_annotators, *header.size), VOID, np.int8)
        maps[: len(drawn)] = drawn
        target = boundary_target(drawn, consensus=self._consensus)
        return {**example, "boundaries": maps, "instances": target}

    @functools.cached_property
    def num_annotators(self) -> int:
        """A, the number of annotators of the image that has most."""
        return max(self._annotators(self.encoded(i)) for i in range(len(self)))

    def _annotators(self, record: dict[str, Any]) -> int:
        # Headers alone: the maps lie below each other, each as high as the image.
        who = f"boundaries of {record['name']!r}"
        height, width = read_header(record["boundaries"], who=who).stored
        return height // _sides(self.header(record), width)[0]


def _sides(header: Header, width: int) -> tuple[int, int]:
    """(H, W) of maps of such a width, which are of the stored or the upright image."""
    return header.stored if width == header.stored[1] else header.size


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundaryDataset:
    """A prepared BSDS500 as a data set of three splits; see `open_bsds`.

    Attributes:
        builder: made by `prepare_bsds`.
        train_on: what ``"train"`` stands for.
        consensus: see `boundary_target`.
    """

    builder: tfds.core.DatasetBuilder
    train_on: str = "train"
    consensus: int = 1

    def __post_init__(self):
        check_choice("train_on", self.train_on, tuple(_TRAIN_ON))
        check_count("consensus", self.consensus, at_least=1)

    def source(self, split: str) -> BoundaryExamples:
        """Opens a split.

        Args:
            split: ``"train"``, ``"validation"``, ``"test"``, or a part such as
                ``"train[:10%]"``, which is a part of the folder alone.

        Returns:
            Its examples.

        Raises:
            InputError: there is no such split.
        """
        wanted = _TRAIN_ON[self.train_on] if split == "train" else split
        return BoundaryExamples(self.builder, wanted, consensus=self.consensus)


def open_bsds(
    *,
    bsds_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    train_on: str = "train",
    target: str = "union",
    consensus: int = 1,
) -> BoundaryDataset:
    """Opens BSDS500 to learn from, after preparing it if it is not there yet.

    Whom to learn from, and where, is decided as examples are read: one preparation
    serves every choice.

    Args:
        bsds_dir: see `bsds_config`.
        manual_dir: see `bsds_config`.
        data_dir: see `bsds_config`.
        train_on: ``"train"``, 200 images; or ``"train+val"``, 300, as published
            detectors are trained. What is scored on validation has been learned then,
            and only test tells.
        target: what is to be learned as a boundary: ``"union"``, what any annotator
            marked; or ``"consensus"``.
        consensus: with target="consensus", how many annotators must have marked a
            pixel; see `boundary_target`.

    Returns:
        The data set.

    Raises:
        InputError: as of `prepare_bsds`, or a setting does not fit.
    """
    check_choice("train_on", train_on, tuple(_TRAIN_ON))
    check_choice("target", target, ("union", "consensus"))
    check_count("consensus", consensus, at_least=1)
    builder = prepare_bsds(bsds_dir=bsds_dir, manual_dir=manual_dir, data_dir=data_dir)
    return BoundaryDataset(
        builder=builder,
        train_on=train_on,
        consensus=consensus if target == "consensus" else 1,
    )
