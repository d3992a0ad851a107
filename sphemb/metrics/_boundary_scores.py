"""ODS, OIS and AP of boundary detection, from counts: B images, T thresholds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax
import numpy as np

from sphemb._checks import InputError, check_integer, check_shape
from sphemb.metrics._boundary_counts import spread_thresholds
from sphemb.metrics._sums import Sums

_BETWEEN = np.linspace(0.0, 1.0, 100)  # where F is looked at between two thresholds
_PUBLISHED = 99  # thresholds of published scores
_RECALLS = np.linspace(0.0, 1.0, 101)


class BoundaryCurve(NamedTuple):
    """Recall and precision at every threshold, [T] each.

    Attributes:
        recall: the share of true pixels that are matched; 0 where there is none.
        precision: the share of predicted pixels that are matched; 0 likewise.
        f: the harmonic mean of the two.
        threshold: rising.
    """

    recall: np.ndarray
    precision: np.ndarray
    f: np.ndarray
    threshold: np.ndarray


def _rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and F [...] of counts [..., 4]; 0 for 0 / 0."""
    counts = np.asarray(counts, np.float64)
    recall = counts[..., 0] / np.maximum(counts[..., 1], 1.0)
    precision = counts[..., 2] / np.maximum(counts[..., 3], 1.0)
    return recall, precision, _f(recall, precision)


def _f(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    both = recall + precision
    return 2.0 * recall * precision / np.where(both == 0.0, 1.0, both)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoundaryScores(Sums):
    r"""The scores of the BSDS boundary benchmark.

    With recall and precision from counts that are pooled over images,

    .. math:: F = \frac{2 P R}{P + R}.

    ODS (optimal data set scale) is the best F at one threshold for all images, P and R
    being interpolated linearly between thresholds. OIS (optimal image scale) pools the
    counts of each image at its own best threshold, none interpolated. AP is the mean
    of the precision, interpolated over recall, at .01, .02, ..., 1; it is 0 at a recall
    that is not reached, and so 0 for a map with two values only.

    Nothing forces OIS to be at least ODS: the best F of each image need not pool to the
    best F, and ODS alone may lie between thresholds. With 99 thresholds it is so in
    practice.

    Attributes:
        thresholds: [T], rising.
        counts: [T, 4], the sum over images; see :func:`boundary_counts`.
        best_counts: [4], the sum of those at each image's best threshold, the lowest
            where several are.
        num_images: the number of images.

    References:
        Arbelaez, Maire, Fowlkes and Malik (2011), "Contour detection and hierarchical
        image segmentation", section 3.1.

    >>> counts = np.array([[[8, 10, 8, 16], [5, 10, 5, 5]], [[4, 10, 4, 4]] * 2])
    >>> scores = BoundaryScores.from_counts(counts, thresholds=2).compute()
    >>> [round(scores[name], 3) for name in ("ods", "ois", "ods_threshold")]
    [0.635, 0.621, 0.529]
    """

    # First, since `merge` compares the fields in their order.
    thresholds: tuple[float, ...] = dataclasses.field(metadata={"static": True})
    counts: np.ndarray
    best_counts: np.ndarray
    num_images: np.ndarray

    @classmethod
    def from_counts(
        cls, counts: np.ndarray, *, thresholds: int | Sequence[float] = 99
    ) -> Self:
        """Adds up the counts of images, on the host.

        Args:
            counts: int [B, T, 4], what :func:`boundary_counts` gives for each image.
            thresholds: what was given to it.

        Returns:
            The metric of these images.

        Raises:
            InputError: counts of another shape or number of thresholds.
        """
        levels = spread_thresholds(thresholds)
        check_integer("counts", counts)
        check_shape(
            "counts", counts, "B T 4", dims={"T": len(levels)}, beside="thresholds"
        )
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

    def report(self, *class_names: tuple[str, ...]) -> dict[str, float]:
        """The scores of :meth:`compute`, named by the number of thresholds.

        AP rises with it (on BSDS500 by .035 from 33 to 99), and published scores have
        99: those of another number n are reported as ``ods@n``, ``ap@n`` and so on.

        >>> counts = np.array([[[8, 10, 8, 16], [5, 10, 5, 5]]])
        >>> list(BoundaryScores.from_counts(counts, thresholds=2).report())[:2]
        ['ods@2', 'ods_threshold@2']
        """
        number = len(self.thresholds)
        suffix = "" if number == _PUBLISHED else f"@{number}"
        return {
            name if name == "num_images" else name + suffix: score
            for name, score in super().report(*class_names).items()
        }

    def compute(self) -> dict[str, float]:
        """The scores; 0 where nothing is matched.

        Returns:
            ``ods`` with ``ods_threshold``, ``ods_recall`` and ``ods_precision``;
            ``ois`` with ``ois_recall`` and ``ois_precision``; ``ap``; ``num_images``.

        Raises:
            InputError: there is no image.
        """
        if int(self.num_images) == 0:
            raise InputError("counts must be of at least one image, got none")
        curve = self.curve()
        line = np.stack([curve.threshold, curve.recall, curve.precision])  # [3, T]
        if line.shape[1] > 1:
            ends = line[:, 1:, None] * _BETWEEN + line[:, :-1, None] * (1.0 - _BETWEEN)
            line = ends.reshape(3, -1)
        between = _f(line[1], line[2])
        place = int(np.argmax(between))
        threshold, recall, precision = line[:, place].tolist()
        ois_recall, ois_precision, ois = _rates(self.best_counts)
        return {
            "ods": float(between[place]),
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
    """The area under precision over recall, with 101 points as the benchmark has it."""
    recall, first = np.unique(curve.recall, return_index=True)
    if len(recall) < 2:
        return 0.0
    precision = np.interp(_RECALLS, recall, curve.precision[first], left=0.0, right=0.0)
    return float(precision.sum() * 0.01)
