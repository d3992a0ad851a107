"""The BSDS boundary benchmark: B images, T thresholds, A annotators."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from sphemb._checks import (
    InputError,
    InputTypeError,
    check_array,
    check_count,
    check_floating,
    check_integer,
    check_number,
    check_shape,
)
from sphemb.metrics._boundary_pixels import match_boundaries, thin_curves
from sphemb.metrics._metric import Metric

_BETWEEN = np.linspace(0.0, 1.0, 100)  # two thresholds, where F is evaluated
_PUBLISHED = 99  # thresholds of published scores
_RECALLS = np.linspace(0.0, 1.0, 101)


def spread_thresholds(thresholds: int | Sequence[float]) -> np.ndarray:
    """The thresholds k/(n+1), k = 1..n, for a number n; others as they are, [T]."""
    if isinstance(thresholds, numbers.Integral):
        check_count("thresholds", thresholds, at_least=1)
        step = 1.0 / (int(thresholds) + 1)
        return np.linspace(step, 1.0 - step, int(thresholds))
    message = f"thresholds must be their number or rising numbers, got {thresholds!r}"
    try:
        levels = np.asarray(thresholds, np.float64)
    except (TypeError, ValueError):
        raise InputTypeError(message) from None
    if levels.ndim != 1 or levels.size == 0 or not np.all(np.diff(levels) > 0):
        raise InputError(message)
    return levels


def boundary_counts(
    boundary_map: np.ndarray,
    boundaries: np.ndarray,
    *,
    thresholds: int | Sequence[float] = 99,
    tolerance: float = 0.0075,
    thin: bool = True,
) -> np.ndarray:
    """Counts the boundary pixels of one image that are matched, at every threshold.

    At a threshold t the pixels with a value of at least t are thinned and matched with
    the curves of each annotator in turn; see :func:`match_boundaries`. A true pixel
    counts for its annotator alone, a predicted one if it is matched with any of them.

    Args:
        boundary_map: floating point [H, W], the soft map.
        boundaries: bool or integers [A, H, W], not 0 on each annotator's curves.
        thresholds: their number n, for k/(n+1), or rising numbers.
        tolerance: the largest distance of a pair, as a share of the image's diagonal.
        thin: thin the predicted pixels; the annotators' curves are taken as they are.

    Returns:
        int64 [T, 4]: matched true, true, matched predicted and predicted pixels.
        Recall is the first over the second, precision the third over the fourth.

    >>> truth = np.zeros((2, 9, 9), bool)
    >>> truth[0, 4] = truth[1, 3, :6] = True
    >>> boundary_counts(0.5 * truth[0], truth, thresholds=3).tolist()
    [[9, 15, 9, 9], [9, 15, 9, 9], [0, 15, 0, 0]]
    """
    check_floating("boundary_map", boundary_map)
    dims = check_shape("boundary_map", boundary_map, "H W")
    check_array("boundaries", boundaries)
    truth = np.asarray(boundaries)
    if truth.dtype.kind not in "bui":
        raise InputTypeError(f"boundaries must be bool or integers, got {truth.dtype}")
    check_shape("boundaries", truth, "A H W", dims=dims, beside="boundary_map")
    check_number("tolerance", tolerance, at_least=0, at_most=1)
    levels = spread_thresholds(thresholds)
    soft = np.asarray(boundary_map, np.float64)
    if np.isnan(soft).any():
        raise InputError("boundary_map must be numbers, got NaN")

    curves = truth != 0
    max_distance = tolerance * float(np.hypot(*soft.shape))
    counts = np.zeros((len(levels), 4), np.int64)
    number, found = -1, None
    for t, level in enumerate(levels):
        binary = soft >= level
        counts[t] = counts[t - 1]
        # The sets shrink as the threshold rises: as many pixels are the same ones.
        if number == binary.sum():
            continue
        number = binary.sum()
        thinned = thin_curves(binary) if thin else binary
        if found is None or not np.array_equal(thinned, found):
            found = thinned
            counts[t] = _count(found, curves, max_distance)
    return counts


def _count(found: np.ndarray, curves: np.ndarray, max_distance: float) -> list[int]:
    matched = np.zeros_like(found)
    matched_true = 0
    for curve in curves:
        here, there = match_boundaries(found, curve, max_distance=max_distance)
        matched |= here
        matched_true += int(there.sum())
    return [matched_true, int(curves.sum()), int(matched.sum()), int(found.sum())]


class BoundaryCurve(NamedTuple):
    """Recall and precision at every threshold, [T] each."""

    recall: np.ndarray  # the share of true pixels that are matched; 0 for 0 / 0
    precision: np.ndarray  # the share of predicted pixels that are matched; likewise
    f: np.ndarray  # the harmonic mean of the two
    threshold: np.ndarray  # rising


def _rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and F [...] of counts [..., 4]; 0 for 0 / 0."""
    counts = np.asarray(counts, np.float64)
    recall = counts[..., 0] / np.maximum(counts[..., 1], 1.0)
    precision = counts[..., 2] / np.maximum(counts[..., 3], 1.0)
    return recall, precision, _f(recall, precision)


def _f(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    total = recall + precision
    return 2.0 * recall * precision / np.where(total == 0.0, 1.0, total)


class BoundaryScores(Metric):
    r"""The scores of the BSDS boundary benchmark.

    With recall and precision from counts that are pooled over images,

    .. math:: F = \frac{2 P R}{P + R}.

    ODS (optimal data set scale) is the best F at one threshold for all images, P and R
    being interpolated linearly between thresholds. OIS (optimal image scale) pools the
    counts of each image at its own best threshold, none interpolated. AP is the mean
    of the precision, interpolated over recall, at .01, .02, ..., 1; it is 0 at a recall
    that is not reached, and so 0 for a map with two values only.

    OIS can be below ODS: the best F of each image need not pool to the best F, and only
    ODS may lie between thresholds. With 99 thresholds it is at least ODS in practice.

    References:
        Arbelaez, Maire, Fowlkes and Malik (2011), "Contour detection and hierarchical
        image segmentation", section 3.1.

    >>> counts = np.array([[[8, 10, 8, 16], [5, 10, 5, 5]], [[4, 10, 4, 4]] * 2])
    >>> scores = BoundaryScores.from_counts(counts, thresholds=2).compute()
    >>> [round(scores[name], 3) for name in ("ods", "ois", "ods_threshold")]
    [0.635, 0.621, 0.529]
    """

    thresholds: tuple[float, ...] = dataclasses.field(metadata={"static": True})
    counts: np.ndarray  # [T, 4], see `boundary_counts`
    best_counts: np.ndarray  # [4], at each image's best (lowest) threshold
    num_images: np.ndarray

    @classmethod
    def from_counts(
        cls, counts: np.ndarray, *, thresholds: int | Sequence[float] = 99
    ) -> Self:
        """Adds up counts int [B, T, 4] of :func:`boundary_counts`, on the host."""
        levels = spread_thresholds(thresholds)
        check_integer("counts", counts)
        dims = {"T": len(levels)}
        check_shape("counts", counts, "B T 4", dims=dims, beside="thresholds")
        counts = np.asarray(counts, np.int64)
        best = np.argmax(_rates(counts)[2], axis=1)  # [B], the first of several
        return cls(
            counts=counts.sum(axis=0),
            best_counts=counts[np.arange(len(counts)), best].sum(axis=0),
            num_images=np.asarray(len(counts)),
            thresholds=tuple(levels.tolist()),
        )

    def curve(self) -> BoundaryCurve:
        """Recall, precision and F of all images at every threshold."""
        return BoundaryCurve(*_rates(self.counts), np.array(self.thresholds))

    def report(self, class_names: Sequence[str] = ()) -> dict[str, float]:
        """The scores of :meth:`compute`, named by the number of thresholds.

        AP rises with it (on BSDS500 by .035 from 33 to 99). Published scores have 99;
        those of another number n are reported as ``ods@n``, ``ap@n`` and so on.
        """
        number = len(self.thresholds)
        suffix = "" if number == _PUBLISHED else f"@{number}"
        scores = {f"{name}{suffix}": score for name, score in self.compute().items()}
        return scores | {"num_images": scores.pop(f"num_images{suffix}")}

    def compute(self) -> dict[str, float]:
        """The scores; 0 where nothing is matched.

        Returns:
            ``ods`` with ``ods_threshold``, ``ods_recall`` and ``ods_precision``;
            ``ois`` with ``ois_recall`` and ``ois_precision``; ``ap``; ``num_images``.
        """
        if int(self.num_images) == 0:
            raise InputError("counts must be of at least one image, got none")
        curve = self.curve()
        points = np.stack([curve.threshold, curve.recall, curve.precision])  # [3, T]
        if points.shape[1] > 1:
            left, right = points[:, :-1, None], points[:, 1:, None]
            points = right * _BETWEEN + left * (1.0 - _BETWEEN)
            points = points.reshape(3, -1)
        between = _f(points[1], points[2])
        best = int(np.argmax(between))
        threshold, recall, precision = points[:, best].tolist()
        ois_recall, ois_precision, ois = _rates(self.best_counts)
        return {
            "ods": float(between[best]),
            "ods_threshold": threshold,
            "ods_recall": recall,
            "ods_precision": precision,
            "ois": float(ois),
            "ois_recall": float(ois_recall),
            "ois_precision": float(ois_precision),
            "ap": _average_precision(curve),
            "num_images": float(self.num_images),
        }


def _average_precision(curve: BoundaryCurve) -> float:
    """The area under precision over recall, with the benchmark's 101 points."""
    recall, first = np.unique(curve.recall, return_index=True)
    if len(recall) < 2:
        return 0.0
    precision = np.interp(_RECALLS, recall, curve.precision[first], left=0.0, right=0.0)
    return float(precision.sum() * 0.01)
