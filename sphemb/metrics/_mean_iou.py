"""Intersection over union of classes: B images, N pixels, K classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError, check_count, check_shape
from sphemb.instances import overlap_table
from sphemb.metrics._sums import Sums, flatten_images, ratio, valid_images


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MeanIoU(Sums):
    r"""Mean intersection over union of the classes, pooled over a whole set.

    .. math:: \mathrm{IoU}_k = \frac{n_{kk}}{\sum_j n_{kj} + \sum_j n_{jk} - n_{kk}}

    for :math:`n_{kj}`, the pixels of class k that were found to be j, of all images
    together. The mean is over the classes that the set has; one that it lacks is NaN,
    wherever it was found.

    Attributes:
        confusion: int [K, K + 1], true classes in rows; the last column counts pixels
            for which none of the K was found.
        lost_true: the number of pixels whose true class is above K - 1.

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
    confusion: jax.Array
    lost_true: jax.Array

    @classmethod
    def from_batch(
        cls,
        predicted: jax.Array,
        truth: jax.Array,
        *,
        num_classes: int,
        valid: jax.Array | None = None,
    ) -> Self:
        """Scores a batch of label maps.

        Args:
            predicted: int [B, H, W] or [B, N]; 0..K-1, anything else is none of them.
            truth: int, the same shape; -1 void, 0..K-1.
            num_classes: K; static.
            valid: bool [B], False for images that only fill up the batch.

        Returns:
            The metric of this batch.

        Raises:
            InputError: shapes that differ, labels that are no integers.
        """
        check_count("num_classes", num_classes, at_least=1)
        dims = check_shape("predicted", predicted, "... N")
        check_shape("truth", truth, "... N", dims=dims, beside="predicted")
        predicted = flatten_images("predicted", predicted)
        truth = flatten_images("truth", truth)
        valid = valid_images(valid, truth.shape[0], "predicted")
        table = overlap_table(
            predicted,
            truth,
            num_predicted=num_classes,
            num_true=num_classes,
            mask=jnp.broadcast_to(valid[:, None], truth.shape),
        ).sum(axis=0)
        return cls(
            confusion=table[:, :num_classes].T, lost_true=jnp.sum(table[:, num_classes])
        )

    def compute(self, names: Sequence[str] = ()) -> dict[str, float]:
        """The scores.

        Args:
            names: of the classes, for one entry each; none by default.

        Returns:
            ``mean_iou``; ``pixel_accuracy``, the share of pixels whose class is right;
            ``mean_accuracy``, the mean of that share over the classes of the set;
            ``iou/{name}``. NaN where there is nothing to divide by.

        Raises:
            InputError: a pixel's true class was above K - 1, or another number of
                names.
        """
        if int(self.lost_true):
            raise InputError(
                f"truth must have classes below num_classes {len(self.confusion)}, but "
                f"{int(self.lost_true)} pixels are above: raise num_classes"
            )
        confusion = np.asarray(self.confusion, np.int64)
        if names and len(names) != len(confusion):
            raise InputError(
                f"names must be those of {len(confusion)} classes, got {len(names)}"
            )
        ious = class_ious(confusion)
        right, true = np.diag(confusion), confusion.sum(axis=1)
        shares = right[true > 0] / true[true > 0]
        return {
            "mean_iou": mean_of(ious),
            "pixel_accuracy": ratio(right.sum(), true.sum()),
            "mean_accuracy": mean_of(shares),
            **{f"iou/{n}": float(iou) for n, iou in zip(names, ious, strict=False)},
        }


def class_ious(confusion: np.ndarray) -> np.ndarray:
    """The IoU of every class, NaN of those that are not there: [..., K].

    Args:
        confusion: int64 [..., K, K + 1].
    """
    number = confusion.shape[-2]
    both = np.diagonal(confusion, axis1=-2, axis2=-1)
    true = confusion.sum(axis=-1)
    either = true + confusion[..., :number].sum(axis=-2) - both
    return np.where(true > 0, both / np.maximum(either, 1), np.nan)


def mean_of(values: np.ndarray) -> float:
    """The mean of what is no NaN; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
