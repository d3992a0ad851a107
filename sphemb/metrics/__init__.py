"""Scores that add up over batches, devices and hosts.

* :class:`AverageRecall`: mean best IoU, recall at .5 and three average recalls.
* :class:`ProposalRecall`: the same for the first n proposals, for several n and by
  the size of the objects.
* :class:`MatchedPrecision`: TP / (TP + FP + FN), the AP50 of the literature on nuclei.
* :class:`InstanceCount`: the number of instances found against the true number.
* :class:`ReachedLimit`: the images in which a limit has left something out.
* :class:`PairScores`: pairwise accuracy, precision and recall of a partition, and its
  adjusted Rand index.
* :class:`BoundaryScores`: ODS, OIS and AP of boundaries, from the
  :func:`boundary_counts` of each image, computed on the host;
  :func:`suppress_non_maxima` before it, :func:`match_boundaries` in it;
  :class:`BoundaryCurve` is its precision over recall.
* :class:`MeanIoU` of classes; :class:`TrimapIoU`, near their boundaries and far from
  them, whose :class:`TrimapCurve` goes over all widths.
* :class:`MatchedIoU`: accuracy and mean IoU of clusters that have no names, after one
  matching with the true classes over the whole set.
* :class:`RegionPrecision`: AP^r of regions with classes, at `REGION_LEVELS`.
* :func:`coco_scores`: average precision and recall by pycocotools, on the host and of
  a whole data set at once; :func:`coco_file_scores` of what COCO's files hold.

Every metric but these two and :class:`RegionPrecision` (which keeps a row for each
detection) is a small pytree of sums. ``from_batch`` runs under ``jax.jit``, what
is made of counts or of a single image is made on the host, ``merge`` adds two of them
(in float64 and int64 once they are off the device), ``compute`` gives the scores on the
host. Since all fields are sums, ``jax.lax.psum`` merges over devices.
"""

from sphemb.metrics._boundary_counts import boundary_counts
from sphemb.metrics._boundary_matching import match_boundaries
from sphemb.metrics._boundary_scores import BoundaryCurve, BoundaryScores
from sphemb.metrics._boundary_thinning import suppress_non_maxima
from sphemb.metrics._coco import coco_file_scores, coco_scores
from sphemb.metrics._count import InstanceCount
from sphemb.metrics._limits import ReachedLimit
from sphemb.metrics._matched import MatchedPrecision
from sphemb.metrics._matched_iou import MatchedIoU
from sphemb.metrics._mean_iou import MeanIoU
from sphemb.metrics._pairs import PairScores
from sphemb.metrics._proposals import ProposalRecall
from sphemb.metrics._recall import AverageRecall
from sphemb.metrics._regions import REGION_LEVELS, RegionPrecision
from sphemb.metrics._trimap import TrimapCurve, TrimapIoU

__all__ = [
    "REGION_LEVELS",
    "AverageRecall",
    "BoundaryCurve",
    "BoundaryScores",
    "InstanceCount",
    "MatchedIoU",
    "MatchedPrecision",
    "MeanIoU",
    "PairScores",
    "ProposalRecall",
    "ReachedLimit",
    "RegionPrecision",
    "TrimapCurve",
    "TrimapIoU",
    "boundary_counts",
    "coco_file_scores",
    "coco_scores",
    "match_boundaries",
    "suppress_non_maxima",
]
