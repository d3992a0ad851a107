"""What the boundary benchmark counts in one image: T thresholds, A annotators."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import numpy as np

from sphemb._checks import (
    InputError,
    InputTypeError,
    check_array,
    check_count,
    check_floating,
    check_number,
    check_shape,
)
from sphemb.metrics._boundary_matching import match_boundaries
from sphemb.metrics._boundary_thinning import thin_curves


def spread_thresholds(thresholds: int | Sequence[float]) -> np.ndarray:
    """The thresholds k/(n+1), k = 1..n, for a number n; others as they are, [T]."""
    if isinstance(thresholds, numbers.Integral):
        check_count("thresholds", thresholds, at_least=1)
        step = 1.0 / (int(thresholds) + 1)
        return np.linspace(step, 1.0 - step, int(thresholds))
    try:
        levels = np.asarray(thresholds, np.float64)
    except (TypeError, ValueError):
        raise InputTypeError(
            f"thresholds must be a number of them or rising numbers, got {thresholds!r}"
        ) from None
    if levels.ndim != 1 or levels.size == 0 or not np.all(np.diff(levels) > 0):
        raise InputError(
            f"thresholds must be a number of them or rising numbers, got {thresholds!r}"
        )
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
    counts once for its annotator. A predicted pixel counts as matched if it is so with
    any of them.

    Args:
        boundary_map: floating point [H, W], the soft map.
        boundaries: bool or integers [A, H, W], not 0 on each annotator's curves.
        thresholds: their number n, for k/(n+1), or rising numbers.
        tolerance: the largest distance of a pair, as a share of the image's diagonal.
        thin: thin the predicted pixels; the annotators' curves are taken as they are.

    Returns:
        int64 [T, 4]: matched true, true, matched predicted and predicted pixels.
        Recall is the first over the second, precision the third over the fourth.

    Raises:
        InputError: shapes that do not go together, NaN in the map, or a setting out of
            range.

    References:
        Arbelaez, Maire, Fowlkes and Malik (2011), "Contour detection and hierarchical
        image segmentation", section 3.1.

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
    before = found = None
    for t, level in enumerate(levels):
        binary = soft >= level
        # The sets shrink as the threshold rises: as many pixels are the same ones.
        if before is not None and before.sum() == binary.sum():
            counts[t] = counts[t - 1]
            continue
        before = binary
        drawn = thin_curves(binary) if thin else binary
        if found is not None and np.array_equal(drawn, found):
            counts[t] = counts[t - 1]
            continue
        found = drawn
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
