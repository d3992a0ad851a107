"""Curves one pixel wide, moved so that they do not break.

Reading the nearest pixel skips some of a curve where an image shrinks or turns. Here
the steps from each of its pixels to the next are followed instead.

Shape letters: H W size of the labels that go in, h w of those that come out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sphemb._labels import VOID

# Half of the eight neighbours; the other half steps back.
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def mend_curves(
    moved: np.ndarray, labels: np.ndarray, linear: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    r"""Closes the gaps that reading the nearest pixel has left in curves.

    What comes out at :math:`p` was read at :math:`Lp + o`. Every pixel of a curve goes
    to :math:`L^{-1}(q - o)`, and so do points between two neighbours, as many as keep
    them at most one pixel apart: rounded, they are neighbours again. Nothing changes
    where nothing is scaled or turned but by right angles.

    Args:
        moved: int32 [h, w], the labels as they were read.
        labels: int [H, W]: 1 on curves, -1 (void) on those that do not count, 0 beside.
        linear: [2, 2], :math:`L`, from rows and columns that come out to those that go
            in.
        offset: [2], :math:`o`.

    Returns:
        int32 [h, w]: void curves are closed where nothing is, and the others on top.

    >>> diagonal, half = np.eye(6, dtype=np.int32), 2.0 * np.eye(2)
    >>> moved = diagonal[1::2, ::2]  # which misses all of it
    >>> mend_curves(moved, diagonal, half, np.array([1.0, 0.0]))
    array([[1, 1, 0],
           [0, 1, 1],
           [0, 0, 1]], dtype=int32)
    """
    found = moved.copy()
    if (labels == VOID).any():
        rows, columns = _trace(labels != 0, linear, offset, moved.shape)
        empty = found[rows, columns] == 0
        found[rows[empty], columns[empty]] = VOID
    found[_trace(labels == 1, linear, offset, moved.shape)] = 1
    return found


def mend_examples(
    moved: dict[str, Any],
    example: dict[str, Any],
    linear: np.ndarray,
    offset: np.ndarray,
) -> dict[str, Any]:
    """Closes the gaps in all curves of a moved example, see `mend_curves`.

    Args:
        moved: the example that came out.
        example: the example that went in; its label maps are curves where it has
            ``"boundaries"``.
        linear: as of `mend_curves`.
        offset: as of `mend_curves`.

    Returns:
        The moved example, with boundaries where it had them.
    """
    if "boundaries" not in example:
        return moved
    mended = dict(moved)
    if "instances" in moved:
        mended["instances"] = mend_curves(
            moved["instances"], example["instances"], linear, offset
        )
    if "boundaries" in moved:
        pairs = zip(moved["boundaries"], example["boundaries"], strict=True)
        # A map without a curve is left as it is: that of an absent annotator is void.
        maps = [
            mend_curves(new, old, linear, offset) if (old == 1).any() else new
            for new, old in pairs
        ]
        mended["boundaries"] = np.stack(maps)
    return mended


def _trace(
    curves: np.ndarray, linear: np.ndarray, offset: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns in [h, w] that curves, bool [H, W], run through."""
    forward = np.linalg.inv(linear)
    height, width = curves.shape
    points = [np.argwhere(curves).astype(float)]
    for down, right in _STEPS:
        step = np.array([down, right])
        # The cosine of a right angle is not quite zero.
        pieces = math.ceil(np.abs(forward @ step).max() - 1e-6)
        if pieces < 2:
            continue
        left = max(-right, 0)
        here = curves[: height - down, left : width - max(right, 0)]
        there = curves[down:, max(right, 0) : width - left]
        starts = np.argwhere(here & there) + np.array([0, left])
        points += [starts + step * k / pieces for k in range(1, pieces)]
    # Not rint, which takes a half once up and once down, two pixels apart.
    placed = np.floor((np.concatenate(points) - offset) @ forward.T + 0.5).astype(int)
    inside = ((placed >= 0) & (placed < size)).all(axis=1)
    rows, columns = placed[inside].T
    return rows, columns
