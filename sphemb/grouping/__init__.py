"""Grouping: from embeddings to groups, by recurrent mean shift on the sphere.

* :func:`gbms`, :func:`gbms_step`, :func:`gbms_trajectory`: Gaussian blurring mean
  shift, every point moving on the density of all, with its true gradient in memory
  that is linear in N.
* :func:`accelerated_gbms`: the same ends without a gradient, for hundreds of thousands
  of points.
* :func:`mean_shift`: seeds climbing a density that stays.
* :func:`append_positions`, :class:`JointPoints`: unit vectors that carry the place they
  come from, for a mean shift in the joint domain.
* :func:`pad_points`, :func:`bucket_size`: few sizes, so that images of many sizes
  share compiled programs; :func:`group_padded`: grouping with them, also at a size that
  ``jax.export`` leaves open.
* :func:`label_modes`, :class:`Grouping`: labels, modes and sizes read off the result.
* :func:`k_means`, :class:`KMeans`: Lloyd's steps from the start that
  :func:`init_centroids` drew; :func:`update_k_means`, :class:`KMeansState`: the same on
  a stream of batches; :func:`assign_clusters`: the nearest centroids.
* :func:`kwik_cluster`, :func:`orthogonal_rounding`, :class:`Rounding`: a partition
  whose affinity the products of the embeddings come close to.
"""

from __future__ import annotations

from sphemb.grouping._accelerated import accelerated_gbms
from sphemb.grouping._any_size import group_padded
from sphemb.grouping._blurring import gbms, gbms_step, gbms_trajectory
from sphemb.grouping._buckets import PaddedPoints, bucket_size, pad_points
from sphemb.grouping._kmeans import (
    KMeans,
    KMeansState,
    assign_clusters,
    k_means,
    update_k_means,
)
from sphemb.grouping._kwik import kwik_cluster
from sphemb.grouping._modes import Grouping, label_modes
from sphemb.grouping._places import JointPoints, append_positions
from sphemb.grouping._rotation import orthogonal_rounding
from sphemb.grouping._rounding import Rounding
from sphemb.grouping._seeded import mean_shift
from sphemb.grouping._starts import init_centroids

__all__ = [
    "Grouping",
    "JointPoints",
    "KMeans",
    "KMeansState",
    "PaddedPoints",
    "Rounding",
    "accelerated_gbms",
    "append_positions",
    "assign_clusters",
    "bucket_size",
    "gbms",
    "gbms_step",
    "gbms_trajectory",
    "group_padded",
    "init_centroids",
    "k_means",
    "kwik_cluster",
    "label_modes",
    "mean_shift",
    "orthogonal_rounding",
    "pad_points",
    "update_k_means",
]
