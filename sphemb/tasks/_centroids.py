"""Cells against the centroids of clusters: which is nearest, and how near.

Shape letters: B images, H W image size, h w size of the feature map, N = h w cells, D
dimension, V views, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb.grouping import assign_clusters
from sphemb.losses import cluster_weights, prototype_cross_entropy
from sphemb.sphere import l2_normalize, pairwise_dot
from sphemb.tasks._pixels import PlacedMap, enlarged, unit_map

_SAME = 1e-5  # beyond float32's rounding of a mean of unit vectors


class ViewLosses(NamedTuple):
    """What views lose against clusters.

    Attributes:
        within: by each view's own labels and centroids.
        cross: by those of the other view.
        largest: the largest of `cluster_shares`.
    """

    within: jax.Array
    cross: jax.Array
    largest: jax.Array


def view_losses(
    views: Sequence[jax.Array],
    anchors: Sequence[jax.Array],
    centroids: jax.Array,
    counts: jax.Array,
    *,
    metric: str,
    balance: str,
    temperature: float,
) -> ViewLosses:
    """The cross-entropy of every view with the labels of each, averaged over views.

    Args:
        views: V arrays [B, N, D], of the network that learns.
        anchors: V arrays [B, N, D], of the network that gives the labels.
        centroids: [V, K, D].
        counts: [V, K].
        metric: see `Picie`.
        balance: see `Picie`.
        temperature: see `Picie`.
    """
    weights = cluster_weights(counts, balance=balance)
    labels = [
        assign_clusters(x, centroids[v], metric=metric) for v, x in enumerate(anchors)
    ]

    def mean_loss(shift: int) -> jax.Array:
        """Of every view with the labels and centroids of the view beside it."""
        losses = []
        for view, points in enumerate(views):
            by = (view + shift) % len(views)
            loss = prototype_cross_entropy(
                points, centroids[by] / temperature, labels[by], weights=weights[by]
            )
            losses.append(loss.mean())
        return jnp.stack(losses).mean()

    sizes = jnp.stack(
        [jnp.bincount(y.reshape(-1), length=centroids.shape[1]) for y in labels]
    )
    largest = jnp.max(cluster_shares(sizes, centroids))
    return ViewLosses(mean_loss(0), mean_loss(1), largest)


def cluster_shares(sizes: jax.Array, centroids: jax.Array) -> jax.Array:
    """The share of the points that is in each cluster or in one at the same place.

    Of points that are alike but for rounding, k-means makes several clusters with one
    centroid, which are one.

    Args:
        sizes: [V, K], points of each cluster.
        centroids: [V, K, D], means of unit vectors.

    Returns:
        [V, K].
    """
    apart = jnp.abs(centroids[:, :, None] - centroids[:, None]).max(axis=-1)
    together = jnp.where(apart <= _SAME, sizes[:, None], 0).sum(axis=-1)
    return together / jnp.maximum(sizes.sum(axis=-1, keepdims=True), 1)


def nearest_centroids(
    features: PlacedMap, centroids: jax.Array, size: tuple[int, ...], *, metric: str
) -> jax.Array:
    """The nearest centroid of every pixel.

    Scores are interpolated between cells, not labels.

    Args:
        features: [B, h, w, D] of any length.
        centroids: [K, D].
        size: (H, W) of the image.
        metric: see `Picie`.

    Returns:
        int32 [B, H, W].
    """
    if metric == "spherical":
        centroids = l2_normalize(centroids)
    lengths = jnp.sum(jnp.square(centroids), axis=-1)
    points = unit_map(features.values)
    scores = pairwise_dot(points.reshape(-1, points.shape[-1]), centroids)
    scores = (scores - 0.5 * lengths).reshape(*points.shape[:3], -1)
    scores = enlarged(features._replace(values=scores), size)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)
