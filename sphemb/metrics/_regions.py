"""Average precision of regions: K maps, G groups, C classes, L levels, M detections."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from sphemb._checks import (
    InputError,
    check_count,
    check_floating,
    check_integer,
    check_shape,
)
from sphemb.instances import overlap_pairs
from sphemb.metrics._metric import Metric, check_names, mean_of

REGION_LEVELS = np.linspace(0.1, 0.9, 9)
"""IoU levels of AP^r_vol; .5 is the fifth."""
_HALF = 4


class RegionPrecision(Metric):
    r"""AP^r: average precision of detected regions, per class, and its mean.

    In each image, the detections of a class take their turn by falling score, and each
    takes the true object of its class with the largest overlap, of those not yet taken.
    It is right if the IoU is *above* the level, and then the object is taken. Over all
    images, by falling score,

    .. math:: AP = \sum_i (r_i - r_{i-1}) \max_{j \ge i} p_j

    of recall r and precision p after each distinct score. AP^r is that at an IoU of .5;
    AP^r_vol its mean over .1, .2, .., .9. COCO's AP differs: a detection is right at
    the level itself, the levels begin at .5, and the recall is sampled.

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
    scores: np.ndarray  # float64 [M]
    classes: np.ndarray  # int [M], 1..C-1
    right: np.ndarray  # bool [M, L], at every level
    # int [C], true objects of each class; the first is the background's.
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
        """Scores one image, on the host. Of equal scores, the first group goes first.

        Args:
            label_maps: int [H, W] or [K, H, W], groups 0..G-1; masks of different maps
                may overlap.
            truth: int [H, W]; -1 void, removed from all masks; 0 background; 1..Q.
            scores: float [G] or [K, G]; -inf for no detection.
            classes: int [G] or [K, G], 1..C-1.
            true_classes: int [Q + 1], of the objects; the first, of the background, is
                not read. Objects of class 0 or below are void.
            num_classes: C, with the background.
            name: of the scores.
        """
        check_count("num_classes", num_classes, at_least=2)
        label_maps, truth, scores, classes, true_classes = _checked(
            label_maps, truth, scores, classes, true_classes
        )
        for what, values in (("classes", classes), ("true_classes", true_classes)):
            if values.max(initial=-1) >= num_classes:
                raise InputError(
                    f"{what} must be numbers below {num_classes}, got {values.max()}"
                )
        valid = (truth >= 0) & ((truth == 0) | (true_classes[truth] > 0))
        number, groups = len(true_classes), scores.shape[1]
        # An object without valid pixels is none.
        is_object = np.bincount(truth[valid], minlength=number) > 0
        is_object[0] = False
        object_class = np.where(is_object & (true_classes > 0), true_classes, 0)
        detections = []  # score, class, overlapping objects and their IoU
        for k, labels in enumerate(label_maps):
            pairs = overlap_pairs(
                labels, truth, num_predicted=groups, num_true=number, mask=valid
            )
            iou = pairs.counts / pairs.unions
            starts = np.searchsorted(pairs.rows, np.arange(groups + 1))
            used = np.isfinite(scores[k]) & (pairs.row_sizes[:groups] > 0)
            for g in np.flatnonzero(used & (classes[k] > 0)):
                cut = slice(starts[g], starts[g + 1])
                overlap = (pairs.columns[cut], iou[cut])
                detections.append((scores[k, g], classes[k, g], *overlap))
        detections.sort(key=lambda detection: -detection[0])
        return cls(
            scores=np.array([d[0] for d in detections], np.float64),
            classes=np.array([d[1] for d in detections], classes.dtype),
            right=_take_turns(detections, object_class),
            num_objects=np.bincount(
                object_class[object_class > 0], minlength=num_classes
            ),
            name=name,
        )

    @classmethod
    def empty(cls, *, num_classes: int, name: str = "ap_r") -> Self:
        """The metric of no image."""
        check_count("num_classes", num_classes, at_least=2)
        right = np.zeros((0, len(REGION_LEVELS)), bool)
        none, objects = np.zeros(0, int), np.zeros(num_classes, int)
        return cls(np.zeros(0), none, right, objects, name)

    def _merge_sums(self, name: str, mine: Any, theirs: Any) -> Any:
        """Appends the rows of detections, adds the numbers of objects."""
        if name == "num_objects":
            return super()._merge_sums(name, mine, theirs)
        return np.concatenate([mine, theirs])

    def class_precisions(self) -> np.ndarray:
        """AP of every class at every level, [C, L]; NaN without objects."""
        precisions = np.full((len(self.num_objects), len(REGION_LEVELS)), np.nan)
        scores, right = np.asarray(self.scores), np.asarray(self.right)
        for c in np.flatnonzero(self.num_objects):
            mine, number = np.asarray(self.classes) == c, int(self.num_objects[c])
            precisions[c] = [_area(scores[mine], x, number) for x in right[mine].T]
        return precisions

    def compute(self, names: Sequence[str] = ()) -> dict[str, float]:
        """The scores, NaN without objects; the first of ``names`` is the background's.

        ``ap_r@0.5``, ``ap_r@0.7`` and ``ap_r_vol`` are means over the classes that have
        objects, ``ap_r@0.5/{name}`` is that of one.
        """
        precisions = self.class_precisions()
        check_names(names, len(precisions))
        scores = {
            f"{self.name}@0.5": mean_of(precisions[:, _HALF]),
            f"{self.name}@0.7": mean_of(precisions[:, _HALF + 2]),
            f"{self.name}_vol": mean_of(precisions.mean(axis=1)),
        }
        for name, value in zip(names[1:], precisions[1:, _HALF], strict=False):
            scores[f"{self.name}@0.5/{name}"] = float(value)
        return scores


def _checked(
    label_maps: Any, truth: Any, scores: Any, classes: Any, true_classes: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One image's maps [K, H, W], truth, scores and classes [K, G], true classes."""
    given = {"label_maps": label_maps, "truth": truth, "classes": classes}
    for name, values in {**given, "true_classes": true_classes}.items():
        check_integer(name, values)
    check_floating("scores", scores)
    label_maps, truth, scores = map(np.asarray, (label_maps, truth, scores))
    classes, true_classes = np.asarray(classes), np.asarray(true_classes)
    label_maps = label_maps[None] if label_maps.ndim == 2 else label_maps
    scores = scores[None] if scores.ndim == 1 else scores
    classes = classes[None] if classes.ndim == 1 else classes
    dims = check_shape("truth", truth, "H W")
    dims |= check_shape("label_maps", label_maps, "K H W", dims=dims, beside="truth")
    dims |= check_shape("scores", scores, "K G", dims=dims, beside="label_maps")
    check_shape("classes", classes, "K G", dims=dims, beside="scores")
    check_shape("true_classes", true_classes, "Q")
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise InputError("scores must be numbers or -inf, got NaN or inf")
    if label_maps.max(initial=-1) >= scores.shape[1]:
        raise InputError(
            f"scores must have a score for every label, got {scores.shape[1]} for "
            f"labels up to {label_maps.max()}: -inf means that a label is no object"
        )
    if truth.max(initial=0) >= len(true_classes):
        raise InputError(
            f"true_classes must have a class for every object, got {len(true_classes)} "
            f"for labels up to {truth.max()}: the first is that of label 0"
        )
    return label_maps, truth, scores, classes, true_classes


def _take_turns(detections: list[tuple], object_class: np.ndarray) -> np.ndarray:
    """Which of the M detections, in their order, are right at every level [M, L]."""
    right = np.zeros((len(detections), len(REGION_LEVELS)), bool)
    free = np.ones((len(object_class), len(REGION_LEVELS)), bool)
    for i, (_, kind, objects, iou) in enumerate(detections):
        alike = object_class[objects] == kind
        objects, iou = objects[alike], iou[alike]
        if not len(objects):
            continue
        left = np.where(free[objects], iou[:, None], -1.0)
        right[i] = left.max(axis=0) > REGION_LEVELS + 1e-12
        best = objects[left.argmax(axis=0)]
        free[best[right[i]], np.flatnonzero(right[i])] = False
    return right


def _area(scores: np.ndarray, right: np.ndarray, number: int) -> float:
    """The area under the envelope of precision over recall."""
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    # Detections of one score come together: their order has no meaning.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    recall = np.concatenate([[0.0], hits[last] / number])
    precision = hits[last] / (last + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))
