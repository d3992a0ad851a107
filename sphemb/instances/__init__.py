"""From groups of pixels to object instances.

* :func:`overlap_table`: how many pixels every pair of labels shares;
  :func:`overlap_counts`: the same on the host; :func:`overlap_pairs`,
  :class:`OverlapPairs`: the pairs that share some, where a table would be
  too large, which :func:`table_fits` says.
* :func:`relabel`: group ids to instance ids, with 0 for the background.
* :func:`connected_components`: an id for every connected part of equal labels.
* :func:`split_components`: every connected part of a group an instance of its own.
* :func:`erode_instances`, :func:`dilate_instances`: the outlines to the background, so
  that no two touch, and back.
* :func:`pool_proposals`, :class:`ProposalPool`: the groups of several label maps as one
  ordered set of proposals without duplicates.
* :func:`vote_classes`, :class:`Votes`: the class of a proposal by the vote of its
  pixels; :func:`proposal_features` (`PROPOSAL_FEATURES`): its shape in numbers;
  :func:`fit_scores`, :func:`apply_scores`, :class:`LinearScore`: how good it is.
* :func:`stitch_labels`, :class:`Piece`, :class:`Stitched`: the label maps of tiles as
  one, with what their seams have cut.
* :func:`select_detections`, :class:`SelectedDetections`: the best of scored proposals.

A label map holds -1 (:data:`sphemb.VOID`) where nothing counts, 0 for the background
and 1, 2, ... for the instances.
"""

from sphemb.instances._components import connected_components, split_components
from sphemb.instances._detections import SelectedDetections, select_detections
from sphemb.instances._group_ids import relabel
from sphemb.instances._morphology import PROPOSAL_FEATURES, proposal_features
from sphemb.instances._outlines import dilate_instances, erode_instances
from sphemb.instances._overlap import (
    OverlapPairs,
    overlap_counts,
    overlap_pairs,
    overlap_table,
    table_fits,
)
from sphemb.instances._pooling import ProposalPool, pool_proposals
from sphemb.instances._rescoring import LinearScore, apply_scores, fit_scores
from sphemb.instances._stitching import Piece, Stitched, stitch_labels
from sphemb.instances._voting import Votes, vote_classes

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
    "dilate_instances",
    "erode_instances",
    "fit_scores",
    "overlap_counts",
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
