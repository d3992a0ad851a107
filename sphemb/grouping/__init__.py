"""Grouping: from embeddings to groups, by recurrent mean shift on the sphere.

All functions raise `InputError` for an argument of a wrong shape, dtype or range.
"""

from sphemb.grouping._accelerated import accelerated_gbms
from sphemb.grouping._blurring import gbms, gbms_step, gbms_trajectory
from sphemb.grouping._kmeans import (
    KMeans,
    KMeansState,
    assign_clusters,
    init_centroids,
    k_means,
    update_k_means,
)
from sphemb.grouping._modes import Grouping, label_modes
from sphemb.grouping._points import (
    JointPoints,
    PaddedPoints,
    append_positions,
    bucket_size,
    group_padded,
    pad_points,
    position_vectors,
)
from sphemb.grouping._positions import PositionGroups, group_positions, spread_labels
from sphemb.grouping._rounding import Rounding, kwik_cluster, orthogonal_rounding
from sphemb.grouping._seeded import mean_shift

__all__ = [
    "Grouping",
    "JointPoints",
    "KMeans",
    "KMeansState",
    "PaddedPoints",
    "PositionGroups",
    "Rounding",
    "accelerated_gbms",
    "append_positions",
    "assign_clusters",
    "bucket_size",
    "gbms",
    "gbms_step",
    "gbms_trajectory",
    "group_padded",
    "group_positions",
    "init_centroids",
    "k_means",
    "kwik_cluster",
    "label_modes",
    "mean_shift",
    "orthogonal_rounding",
    "pad_points",
    "position_vectors",
    "spread_labels",
    "update_k_means",
]
