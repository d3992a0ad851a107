"""Intersection over union of K classes, of whole images and near boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import check_count, check_integer, check_shape
from sphemb.instances import overlap_pairs
from sphemb.metrics._metric import (
    Metric,
    check_names,
    mean_of,
    pooled_table,
    ratio,
    refuse_lost,
)

_WIDTHS = (1, 2, 5, 10, 20, 40, 80)  # of the reported bands


class MeanIoU(Metric):
    r"""Mean intersection over union of the classes, pooled over a whole set.

    .. math:: \mathrm{IoU}_k = \frac{n_{kk}}{\sum_j n_{kj} + \sum_j n_{jk} - n_{kk}}

    for :math:`n_{kj}`, the pixels of class k that were found to be j, of all images
    together. The mean is over the true classes of the set; the IoU of others is NaN.

    References:
        Everingham et al., "The PASCAL Visual Object Classes Challenge: A
        Retrospective", IJCV 2015, section 4.2.

    >>> truth = jnp.array([[0, 0, 0, 1, 1, -1]])
    >>> found = jnp.array([[0, 0, 1, 1, 1, 2]])
    >>> scores = MeanIoU.from_batch(found, truth, num_classes=3).compute()
    >>> round(scores["mean_iou"], 3), scores["pixel_accuracy"]
    (0.667, 0.8)
    """

    per_class: ClassVar[bool] = True
    # int [K, K + 1], true classes in rows; the last column counts pixels for which none
    # of the K was found.
    confusion: jax.Array
    lost_true: jax.Array  # pixels whose true class is above K - 1

    @classmethod
    def from_batch(
        cls,
        predicted: jax.Array,
        truth: jax.Array,
        *,
        num_classes: int,
        valid: jax.Array | None = None,
    ) -> Self:
        """Counts the pixels of label maps int [B, H, W] or [B, N] of one shape.

        Labels are 0..K-1. Others are void in ``truth`` if they are negative, and no
        class in ``predicted``.
        """
        check_count("num_classes", num_classes, at_least=1)
        table = pooled_table(predicted, truth, valid, num_classes, num_classes)
        return cls(table[:, :num_classes].T, jnp.sum(table[:, num_classes]))

    def compute(self, names: Sequence[str] = ()) -> dict[str, float]:
        """The scores; NaN for 0 / 0.

        Returns:
            ``mean_iou``; ``pixel_accuracy``, the share of pixels whose class is right;
            ``mean_accuracy``, the mean of that share over the classes of the set;
            ``iou/{name}``.
        """
        refuse_lost(num_classes=self.lost_true)
        confusion = np.asarray(self.confusion, np.int64)
        check_names(names, len(confusion))
        ious = _class_ious(confusion)
        right, true = np.diag(confusion), confusion.sum(axis=1)
        shares = right[true > 0] / true[true > 0]
        return {
            "mean_iou": mean_of(ious),
            "pixel_accuracy": ratio(right.sum(), true.sum()),
            "mean_accuracy": mean_of(shares),
            **{f"iou/{n}": float(iou) for n, iou in zip(names, ious, strict=False)},
        }


class TrimapCurve(NamedTuple):
    """Mean IoU against the width of the band."""

    width: np.ndarray  # int [W], 1, 2, ..
    inside: np.ndarray  # [W], of the pixels in the band
    outside: np.ndarray  # [W], of all the others


class TrimapIoU(Metric):
    r"""Mean IoU in bands around the true boundaries, for all widths in one pass.

    A boundary pixel has a neighbor, above, below, left or right, of another label or
    void. The band of width w has the pixels less than w from the nearest of them,
    center to center: that of width 1 is the boundary pixels themselves, on both sides.
    There is one confusion matrix for each distance in whole pixels.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4 and Fig. 9; Kohli et al., IJCV 2009.

    >>> truth = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 4, axis=0)
    >>> found = np.repeat([[0, 0, 0, 0, 0, 1, 1, 1]], 4, axis=0)
    >>> scores = TrimapIoU.from_image(found, truth, num_classes=2, max_width=3)
    >>> curve = scores.curve()
    >>> curve.inside.round(2), curve.outside.round(2)
    (array([0.25, 0.58, 0.71]), array([1., 1., 1.]))
    """

    # int [W + 1, K, K + 1], by distance; the last has the pixels W or farther away.
    confusion: np.ndarray
    lost_true: np.ndarray  # pixels whose true class is above K - 1

    @classmethod
    def from_image(
        cls,
        predicted: np.ndarray,
        truth: np.ndarray,
        *,
        num_classes: int,
        max_width: int,
    ) -> Self:
        """Counts the pixels of one image, int [H, W], by distance up to W, on the host.

        Labels are those of :class:`MeanIoU`.
        """
        check_count("num_classes", num_classes, at_least=1)
        check_count("max_width", max_width, at_least=1)
        check_integer("predicted", predicted)
        check_integer("truth", truth)
        dims = check_shape("predicted", predicted, "H W")
        check_shape("truth", truth, "H W", dims=dims, beside="predicted")
        predicted, truth = np.asarray(predicted), np.asarray(truth)
        known = (predicted >= 0) & (predicted < num_classes)
        valid = (truth >= 0) & (truth < num_classes)
        bins = np.minimum(boundary_distance(truth), max_width).astype(np.int64)
        shape = (max_width + 1, num_classes, num_classes + 1)
        pairs = overlap_pairs(
            bins * num_classes + truth,
            np.where(known, predicted, num_classes),
            num_predicted=shape[0] * shape[1],
            num_true=shape[2],
            mask=valid,
        )
        lost = np.asarray(np.sum(truth >= num_classes))
        return cls(pairs.table[:-1, :-1].reshape(shape), lost)

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
            inside=np.array([mean_of(_class_ious(c)) for c in bands]),
            outside=np.array([mean_of(_class_ious(everything - c)) for c in bands]),
        )

    def compute(self) -> dict[str, float]:
        """``iou_inside@{w}``, ``iou_outside@{w}``: w = 1, 2, 5, 10, 20, .., up to W."""
        refuse_lost(num_classes=self.lost_true)
        curve = self.curve()
        return {
            f"iou_{name}@{w}": float(getattr(curve, name)[w - 1])
            for name in ("inside", "outside")
            for w in _WIDTHS
            if w <= len(curve.width)
        }


def _class_ious(confusion: np.ndarray) -> np.ndarray:
    """The IoU [K] of every class from int64 [K, K + 1]; NaN for absent classes."""
    both, true = np.diagonal(confusion), confusion.sum(axis=1)
    either = true + confusion[:, :-1].sum(axis=0) - both
    return np.where(true > 0, both / np.maximum(either, 1), np.nan)


def boundary_distance(labels: np.ndarray) -> np.ndarray:
    """Pixels to the nearest that has a neighbor of another label, or inf; [H, W]."""
    from scipy import ndimage

    down = np.pad(labels[1:] != labels[:-1], ((1, 1), (0, 0)))
    across = np.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (1, 1)))
    boundary = down[1:] | down[:-1] | across[:, 1:] | across[:, :-1]
    if not boundary.any():
        return np.full(labels.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~boundary))
