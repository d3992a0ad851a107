"""IoU near true boundaries and far from them: K classes, W the widest band."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Self

import jax
import numpy as np

from sphemb._checks import (
    InputError,
    check_count,
    check_integer,
    check_shape,
)
from sphemb._labels import VOID
from sphemb.instances import overlap_counts
from sphemb.metrics._mean_iou import class_ious, mean_of
from sphemb.metrics._sums import Sums

_SHOWN = (1, 2, 5, 10, 20, 40, 80)


class TrimapCurve(NamedTuple):
    """Mean IoU against the width of the band.

    Attributes:
        width: int [W], 1, 2, ..
        inside: [W], of the pixels in the band.
        outside: [W], of all the others.
    """

    width: np.ndarray
    inside: np.ndarray
    outside: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrimapIoU(Sums):
    r"""Mean IoU in bands around the true boundaries, for all widths from one pass.

    A boundary pixel has a neighbour, above, below, left or right, of another label,
    void being one. In the band of width w is whatever lies less than w pixels, from
    centre to centre, from the nearest of them: that of width 1 is the boundary pixels
    themselves, on both sides. Distances are counted by whole pixels, one confusion
    matrix for each, and summed up.

    Attributes:
        confusion: int [W + 1, K, K + 1], by distance, of which the last are the pixels
            W or farther away.
        lost_true: the number of pixels whose true class is above K - 1.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4 and Fig. 9; Kohli et al., IJCV 2009.

    >>> truth = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 4, axis=0)
    >>> found = np.repeat([[0, 0, 0, 0, 0, 1, 1, 1]], 4, axis=0)
    >>> scores = TrimapIoU.from_image(found, truth, num_classes=2, max_width=3)
    >>> curve = scores.curve()
    >>> curve.inside.round(2), curve.outside.round(2)
    (array([0.25, 0.58, 0.71]), array([1., 1., 1.]))
    """

    confusion: np.ndarray
    lost_true: np.ndarray

    @classmethod
    def from_image(
        cls,
        predicted: np.ndarray,
        truth: np.ndarray,
        *,
        num_classes: int,
        max_width: int,
    ) -> Self:
        """Scores one image, on the host.

        Args:
            predicted: int [H, W]; 0..K-1, anything else is none of them.
            truth: int [H, W]; -1 void, 0..K-1.
            num_classes: K.
            max_width: W, pixels.

        Returns:
            The metric of this image.

        Raises:
            InputError: shapes that differ, labels that are no integers, a number below
                1.
        """
        check_count("num_classes", num_classes, at_least=1)
        check_count("max_width", max_width, at_least=1)
        check_integer("predicted", predicted)
        check_integer("truth", truth)
        dims = check_shape("predicted", predicted, "H W")
        check_shape("truth", truth, "H W", dims=dims, beside="predicted")
        predicted, truth = np.asarray(predicted), np.asarray(truth)
        known = (predicted >= 0) & (predicted < num_classes)
        counts = (truth >= 0) & (truth < num_classes)
        bins = np.minimum(boundary_distance(truth), max_width).astype(np.int64)
        shape = (max_width + 1, num_classes, num_classes + 1)
        return cls(
            confusion=overlap_counts(
                np.where(counts, bins * num_classes + truth, VOID),
                np.where(known, predicted, num_classes),
                num_predicted=shape[0] * shape[1],
                num_true=shape[2],
            ).reshape(shape),
            lost_true=np.asarray(np.sum(truth >= num_classes)),
        )

    @classmethod
    def empty(cls, *, num_classes: int, max_width: int) -> Self:
        """The metric of no image."""
        shape = (max_width + 1, num_classes, num_classes + 1)
        return cls(np.zeros(shape, np.int64), np.asarray(0))

    def curve(self) -> TrimapCurve:
        """Mean IoU inside and outside of the bands of all widths; NaN where empty."""
        within = np.cumsum(np.asarray(self.confusion, np.int64), axis=0)
        bands, everything = within[:-1], within[-1]
        return TrimapCurve(
            width=np.arange(1, len(bands) + 1),
            inside=np.array([mean_of(class_ious(c)) for c in bands]),
            outside=np.array([mean_of(class_ious(everything - c)) for c in bands]),
        )

    def compute(self) -> dict[str, float]:
        """The scores.

        Returns:
            ``iou_inside@{w}`` and ``iou_outside@{w}`` for w = 1, 2, 5, 10, 20, 40, 80
            as far as W goes.

        Raises:
            InputError: a pixel's true class was above K - 1.
        """
        if int(self.lost_true):
            raise InputError(
                f"truth must have classes below num_classes {self.confusion.shape[1]}, "
                f"but {int(self.lost_true)} pixels are above: raise num_classes"
            )
        curve = self.curve()
        shown = [w for w in _SHOWN if w <= len(curve.width)]
        return {
            f"iou_{name}@{w}": float(getattr(curve, name)[w - 1])
            for name in ("inside", "outside")
            for w in shown
        }


def boundary_distance(labels: np.ndarray) -> np.ndarray:
    """Pixels from every pixel to the nearest that has a neighbour of another label.

    Args:
        labels: int [H, W].

    Returns:
        float64 [H, W]; infinite everywhere if there is one label alone.

    >>> boundary_distance(np.array([[0, 0, 0, 1, 1]]))
    array([[2., 1., 0., 0., 1.]])
    """
    from scipy import ndimage

    boundary = np.zeros(labels.shape, bool)
    across = labels[:, 1:] != labels[:, :-1]
    boundary[:, 1:] |= across
    boundary[:, :-1] |= across
    down = labels[1:] != labels[:-1]
    boundary[1:] |= down
    boundary[:-1] |= down
    if not boundary.any():
        return np.full(labels.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~boundary))
