"""From groups of pixels to object instances.

A label map holds -1 (:data:`sphemb.VOID`) for void, 0 for the background and 1, 2, ...
for the instances. All functions raise `sphemb.InputError` for shapes or dtypes that do
not fit and for settings out of range.
"""

from sphemb.instances._morphology import (
    connected_components,
    near_two_instances,
    split_components,
)
from sphemb.instances._overlap import (
    OverlapPairs,
    overlap_pairs,
    overlap_table,
    relabel,
    table_fits,
)
from sphemb.instances._pooling import ProposalPool, pool_proposals
from sphemb.instances._scoring import (
    PROPOSAL_FEATURES,
    LinearScore,
    SelectedDetections,
    Votes,
    apply_scores,
    fit_scores,
    proposal_features,
    select_detections,
    vote_classes,
)
from sphemb.instances._stitching import Piece, Stitched, stitch_labels

__all__ = [
    "PROPOSAL_FEATURES",
    "LinearScore",
    "OverlapPairs",
    "Piece",
    "ProposalPool",
    "SelectedDetections",
    "Stitched",
    "Votes",
    "apply_scores",
    "connected_components",
    "fit_scores",
    "near_two_instances",
    "overlap_pairs",
    "overlap_table",
    "pool_proposals",
    "proposal_features",
    "relabel",
    "select_detections",
    "split_components",
    "stitch_labels",
    "table_fits",
    "vote_classes",
]
