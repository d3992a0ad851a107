"""Scores that add up over batches, devices and hosts.

A :class:`Metric` is a small pytree of sums and settings. ``from_batch`` makes one
under ``jax.jit`` (``from_image`` and ``from_counts`` on the host), ``merge`` adds two,
``compute`` gives the scores on the host. All raise `sphemb.InputError` for shapes,
dtypes and settings that do not fit, ``compute`` for labels beyond a limit such as
``max_true``. :func:`coco_file_scores` scores a whole data set at once.
"""

from sphemb._coco import coco_file_scores
from sphemb.metrics._boundary_benchmark import (
    BoundaryCurve,
    BoundaryScores,
    boundary_counts,
)
from sphemb.metrics._boundary_pixels import match_boundaries, suppress_non_maxima
from sphemb.metrics._iou import MeanIoU, TrimapCurve, TrimapIoU
from sphemb.metrics._matched import MatchedIoU, MatchedPrecision
from sphemb.metrics._metric import Metric
from sphemb.metrics._pair_scores import InstanceCount, PairScores, ReachedLimit
from sphemb.metrics._recall import AverageRecall, ProposalRecall
from sphemb.metrics._regions import REGION_LEVELS, RegionPrecision

__all__ = [
    "REGION_LEVELS",
    "AverageRecall",
    "BoundaryCurve",
    "BoundaryScores",
    "InstanceCount",
    "MatchedIoU",
    "MatchedPrecision",
    "MeanIoU",
    "Metric",
    "PairScores",
    "ProposalRecall",
    "ReachedLimit",
    "RegionPrecision",
    "TrimapCurve",
    "TrimapIoU",
    "boundary_counts",
    "coco_file_scores",
    "match_boundaries",
    "suppress_non_maxima",
]
