"""Overlaps of groups and objects, in whole numbers where they meet a level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError
from sphemb.instances import OverlapPairs, overlap_pairs
from sphemb.metrics._sums import ratio

# The IoU levels .5, .55, ..., 1 are 10/20 ... 20/20: as whole numbers they compare
# without rounding, which decides at J* = .6 or .7 exactly.
LEVEL_UNIT = 20
LEVELS = np.arange(10, 21)


class Overlaps(NamedTuple):
    """Of pairs of masks: the IoU, and how many twentieths of it are full.

    Attributes:
        iou: float32.
        twentieths: int32, exact for images of up to 10^8 pixels.
    """

    iou: jax.Array
    twentieths: jax.Array


def overlaps(both: jax.Array, one: jax.Array, other: jax.Array) -> Overlaps:
    """Compares masks by the pixels that they share and that each of them has."""
    either = jnp.maximum(one + other - both, 1)
    return Overlaps(both / either, LEVEL_UNIT * both // either)


def pair_overlaps(pairs: OverlapPairs) -> Overlaps:
    """The same of pairs that share pixels, in the same precision, on the host."""
    either: Any = np.maximum(pairs.unions, 1)
    iou: Any = pairs.counts.astype(np.float32) / either.astype(np.float32)
    twentieths: Any = LEVEL_UNIT * pairs.counts // either
    return Overlaps(iou, twentieths)


def images_pairs(
    predicted: Any, truth: Any, counts: Any, *, num_predicted: int, num_true: int
) -> Iterator[OverlapPairs]:
    """The overlaps of images [B, N] one by one, see `overlap_pairs`."""
    arrays = (np.asarray(x) for x in (predicted, truth, counts))
    for labels, known, mask in zip(*arrays, strict=True):
        yield overlap_pairs(
            labels, known, num_predicted=num_predicted, num_true=num_true, mask=mask
        )


def refuse_lost(**lost: Any) -> None:
    """Complains about labels beyond a limit, by the number of their pixels."""
    for name, pixels in lost.items():
        if int(pixels):
            raise InputError(
                f"{name} must be as large as the labels need, got {int(pixels)} "
                f"pixels with larger ones: raise {name}"
            )


def recall_scores(
    sum_best_iou: Any, sum_excess: Any, hits: Any, num_objects: Any
) -> dict[str, float]:
    """Means over objects, from the sums over J*; NaN where there is no object.

    Args:
        sum_best_iou: of J*.
        sum_excess: of max(J* - .5, 0).
        hits: [11], the objects that reach each of the levels.
        num_objects: their number.

    Returns:
        The mean J*, the recall at .5 and the three average recalls.
    """
    hits, objects = np.asarray(hits), int(num_objects)
    return {
        "mean_best_iou": ratio(sum_best_iou, objects),
        "recall@0.5": ratio(hits[0], objects),
        "average_recall": ratio(hits[:10].sum(), 10 * objects),
        "average_recall_mcg": ratio(hits.sum(), 11 * objects),
        "average_recall_hosang": ratio(2.0 * sum_excess, objects),
    }
