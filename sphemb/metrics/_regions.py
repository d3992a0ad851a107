"""Average precision of regions: K maps, G groups, C classes, L levels, M detections."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax
import numpy as np
import scipy.sparse

from sphemb._checks import (
    InputError,
    InputTypeError,
    check_count,
    check_floating,
    check_integer,
    check_shape,
)
from sphemb.instances import OverlapPairs, overlap_pairs
from sphemb.metrics._mean_iou import mean_of
from sphemb.metrics._sums import Metric

REGION_LEVELS = np.linspace(0.1, 0.9, 9)
"""IoU levels of AP^r_vol; .5 is the fifth."""
_HALF = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RegionPrecision(Metric):
    r"""AP^r: average precision of detected regions, per class, and its mean.

    In each image, the detections of a class take their turn by falling score, and each
    takes the true object of its class that it overlaps most, of those not yet taken. It
    is right if the IoU is *above* the level, and then the object is taken. Over all
    images, by falling score,

    .. math:: AP = \sum_i (r_i - r_{i-1}) \max_{j \ge i} p_j

    of recall r and precision p after each distinct score. AP^r is that at an IoU of .5;
    AP^r_vol its mean over .1, .2, .., .9. COCO's AP is another one: a detection needs
    the level and no more, the levels begin at .5, and the recall is sampled.

    Attributes:
        scores: float64 [M].
        classes: int [M], 1..C-1.
        right: bool [M, L], at every level.
        num_objects: int [C], true objects of each class; the first is the background's.
        name: of the scores.

    References:
        Hariharan et al., "Simultaneous detection and segmentation", ECCV 2014, section
        4; Kong & Fowlkes, CVPR 2018, Table 2.

    >>> truth = np.array([[1, 1, 2, 2, 0, 0]])
    >>> found = np.array([[1, 1, 2, 0, 0, 3]])
    >>> metric = RegionPrecision.from_image(
    ...     found, truth, scores=np.array([-np.inf, 0.9, 0.8, 0.7]),
    ...     classes=np.array([0, 5, 5, 5]), true_classes=np.array([0, 5, 5]),
    ...     num_classes=6,
    ... )
    >>> round(metric.compute()["ap_r@0.5"], 3)
    0.5
    """

    per_class: ClassVar[bool] = True
    scores: np.ndarray
    classes: np.ndarray
    right: np.ndarray
    num_objects: np.ndarray
    name: str = dataclasses.field(default="ap_r", metadata={"static": True})

    @classmethod
    def from_image(
        cls,
        label_maps: np.ndarray,
        truth: np.ndarray,
        *,
        scores: np.ndarray,
        classes: np.ndarray,
        true_classes: np.ndarray,
        num_classes: int,
        name: str = "ap_r",
    ) -> Self:
        """Scores one image, on the host.

        Args:
            label_maps: int [H, W] or [K, H, W], groups 0..G-1; masks of different maps
                may overlap.
            truth: int [H, W]; -1 void, removed from all masks; 0 background; 1..Q.
            scores: float [G] or [K, G], how sure each group is; -inf for none.
            classes: int [G] or [K, G], the class 1..C-1 of each group.
            true_classes: int [Q + 1], the class of every object; the first, of the
                background, is not looked at. Objects of class 0 or below count for
                nothing, and their pixels are void.
            num_classes: C, the background among them.
            name: of the scores.

        Returns:
            The metric of this image. Of equal scores, the first in the maps goes first.

        Raises:
            InputError: shapes that do not go together, NaN, a class out of range.
        """
        label_maps, truth, scores, classes, true_classes = _checked(
            label_maps, truth, scores, classes, true_classes, num_classes
        )
        counts = (truth >= 0) & ((truth == 0) | (true_classes[truth] > 0))
        number = len(true_classes)
        sizes = np.bincount(truth[counts], minlength=number)
        # An object that is all void, or has no pixel, is none.
        kept = np.flatnonzero(
            (sizes > 0) & (true_classes > 0) & (np.arange(number) > 0)
        )
        ious, found = [], []
        groups = scores.shape[1]
        for k, labels in enumerate(label_maps):
            pairs = overlap_pairs(
                labels, truth, num_predicted=groups, num_true=number, mask=counts
            )
            area = pairs.row_sizes[:groups]
            there = np.isfinite(scores[k]) & (area > 0) & (classes[k] > 0)
            ious.append(_ious(pairs)[np.flatnonzero(there)][:, kept])
            found += [(k, g) for g in np.flatnonzero(there)]
        iou: Any = scipy.sparse.vstack(
            [scipy.sparse.csr_array((0, len(kept))), *ious], format="csr"
        )
        iou.sort_indices()
        place = tuple(np.array(found, int).reshape(-1, 2).T)
        score, group_class = scores[place], classes[place]
        order = np.argsort(-score, kind="stable")
        right = _take_turns(iou[order], group_class[order], true_classes[kept])
        return cls(
            scores=score[order].astype(np.float64),
            classes=group_class[order],
            right=right,
            num_objects=np.bincount(true_classes[kept], minlength=num_classes),
            name=name,
        )

    @classmethod
    def empty(cls, *, num_classes: int, name: str = "ap_r") -> Self:
        """The metric of no image."""
        check_count("num_classes", num_classes, at_least=2)
        return cls(
            np.zeros(0),
            np.zeros(0, int),
            np.zeros((0, len(REGION_LEVELS)), bool),
            np.zeros(num_classes, int),
            name,
        )

    def merge(self, other: Self) -> Self:
        """Puts the detections of two sets of images together.

        Raises:
            InputError: another kind of metric, or other classes.
        """
        if type(other) is not type(self):
            raise InputTypeError(
                f"other must be {type(self).__name__}, got {type(other).__name__}"
            )
        if len(other.num_objects) != len(self.num_objects):
            raise InputError(
                f"other must have the same num_classes, {len(self.num_objects)}, got "
                f"{len(other.num_objects)}"
            )
        return type(self)(
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.classes, other.classes]),
            np.concatenate([self.right, other.right]),
            np.asarray(self.num_objects) + np.asarray(other.num_objects),
            self.name,
        )

    def class_precisions(self) -> np.ndarray:
        """AP of every class at every level, [C, L]; NaN where there is no object."""
        precisions = np.full((len(self.num_objects), len(REGION_LEVELS)), np.nan)
        for c in np.flatnonzero(self.num_objects):
            mine = np.asarray(self.classes) == c
            scores, right = np.asarray(self.scores)[mine], np.asarray(self.right)[mine]
            precisions[c] = [
                _area(scores, right[:, level], int(self.num_objects[c]))
                for level in range(len(REGION_LEVELS))
            ]
        return precisions

    def compute(self, names: Sequence[str] = ()) -> dict[str, float]:
        """The scores.

        Args:
            names: of the classes, the background's first, for one entry each.

        Returns:
            ``ap_r@0.5``, ``ap_r@0.7``, ``ap_r_vol``: means over the classes that have
            objects; ``ap_r@0.5/{name}``. NaN where there is none.

        Raises:
            InputError: another number of names.
        """
        precisions = self.class_precisions()
        if names and len(names) != len(precisions):
            raise InputError(
                f"names must be those of {len(precisions)} classes, got {len(names)}"
            )
        return {
            f"{self.name}@0.5": mean_of(precisions[:, _HALF]),
            f"{self.name}@0.7": mean_of(precisions[:, _HALF + 2]),
            f"{self.name}_vol": mean_of(precisions.mean(axis=1)),
            **{
                f"{self.name}@0.5/{name}": float(precisions[c, _HALF])
                for c, name in enumerate(names)
                if c
            },
        }


def _ious(pairs: OverlapPairs) -> Any:
    """The IoU of rows and columns, sparse [P + 1, Q + 1]: most pairs share no pixel."""
    return scipy.sparse.csr_array(
        (pairs.counts / pairs.unions, (pairs.rows, pairs.columns)),
        shape=(len(pairs.row_sizes), len(pairs.column_sizes)),
    )


def _take_turns(iou: Any, classes: np.ndarray, true_classes: np.ndarray) -> np.ndarray:
    """Which of the detections [M], in their order, are right at every level [M, L].

    Args:
        iou: sparse [M, Q].
        classes: [M].
        true_classes: [Q].
    """
    right = np.zeros((iou.shape[0], len(REGION_LEVELS)), bool)
    free = np.ones((len(true_classes), len(REGION_LEVELS)), bool)
    for i, (first, last) in enumerate(itertools.pairwise(iou.indptr)):
        objects, row = iou.indices[first:last], iou.data[first:last]
        open_to = np.where(true_classes[objects] == classes[i], row, -1.0)
        for level, wanted in enumerate(REGION_LEVELS):
            left = np.where(free[objects, level], open_to, -1.0)
            if left.size and left.max() > wanted + 1e-12:
                best = int(np.argmax(left))
                right[i, level] = True
                free[objects[best], level] = False
    return right


def _area(scores: np.ndarray, right: np.ndarray, number: int) -> float:
    """The area under the envelope of precision over recall."""
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    # Detections of one score come together: their order means nothing.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    recall = np.concatenate([[0.0], hits[last] / number])
    precision = hits[last] / (last + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def _checked(label_maps, truth, scores, classes, true_classes, num_classes):
    check_count("num_classes", num_classes, at_least=2)
    check_integer("label_maps", label_maps)
    check_integer("truth", truth)
    check_floating("scores", scores)
    check_integer("classes", classes)
    check_integer("true_classes", true_classes)
    label_maps, truth = np.asarray(label_maps), np.asarray(truth)
    scores, classes = np.asarray(scores), np.asarray(classes)
    true_classes = np.asarray(true_classes)
    label_maps = label_maps[None] if label_maps.ndim == 2 else label_maps
    scores = scores[None] if scores.ndim == 1 else scores
    classes = classes[None] if classes.ndim == 1 else classes
    dims = check_shape("truth", truth, "H W")
    dims |= check_shape("label_maps", label_maps, "K H W", dims=dims, beside="truth")
    dims |= check_shape("scores", scores, "K G", dims=dims, beside="label_maps")
    check_shape("classes", classes, "K G", dims=dims, beside="scores")
    check_shape("true_classes", true_classes, "Q")
    if np.isnan(scores).any():
        raise InputError("scores must be numbers, -inf for what is none, got NaN")
    for name, values, most in (
        ("label_maps", label_maps, scores.shape[1]),
        ("truth", truth, len(true_classes)),
        ("classes", classes, num_classes),
        ("true_classes", true_classes, num_classes),
    ):
        if values.max(initial=-1) >= most:
            raise InputError(f"{name} must be numbers below {most}, got {values.max()}")
    return label_maps, truth, scores, classes, true_classes
