"""Cross-entropy of pixels against centroids that stay (PiCIE).

Letters: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from sphemb._checks import (
    check_choice,
    check_count,
    check_floating,
    check_shape,
)
from sphemb._labels import VOID
from sphemb.losses._instances import FLATTEN, counting_classes
from sphemb.sphere import pairwise_dot

BALANCES = ("none", "proportional", "inverse")


def prototype_cross_entropy(
    embeddings: jax.Array,
    centroids: jax.Array,
    labels: jax.Array,
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""Asks every point to be nearer to its own centroid than to the others.

    .. math:: \ell = -\frac1N \sum_i w_{y_i} \log
              \frac{e^{\mu_{y_i}^\top f_i}}{\sum_k e^{\mu_k^\top f_i}}

    over the N points that count. The centroids are frozen: no gradient reaches them.
    For unit vectors f and unit centroids this is the paper's loss on cosine distances;
    the code of its authors takes centroids of any length, as k-means gives them. There
    is no temperature, so that with unit vectors the loss of a point lies between
    :math:`\ln(1 + (K-1)/e^2)` and :math:`\ln(1 + (K-1) e^2)`, near ln K at first.

    Args:
        embeddings: [..., N, D], unit vectors as a rule.
        centroids: [K, D].
        labels: int [..., N] cluster of every point, 0 .. K - 1; ``VOID`` (-1) and any
            other number do not count.
        weights: [K] of the clusters, see `cluster_weights`.
        mask: bool [..., N], True = counts.

    Returns:
        [...] losses, in float32 at least.

    Raises:
        InputError: an argument of the wrong shape or dtype.

    References:
        Cho et al., "PiCIE: Unsupervised Semantic Segmentation using Invariance and
        Equivariance in Clustering", CVPR 2021, Eq. 3.

    >>> points = jnp.eye(3)
    >>> loss = prototype_cross_entropy(points, points, jnp.arange(3))
    >>> round(float(loss), 4), round(math.log(1 + 2 / math.e), 4)
    (0.5514, 0.5514)
    """
    sizes = check_shape("embeddings", embeddings, "... N D")
    check_floating("embeddings", embeddings)
    dims = {"D": sizes["D"]}
    clusters = check_shape(
        "centroids", centroids, "K D", dims=dims, beside="embeddings"
    )
    check_floating("centroids", centroids)
    beside = f"embeddings {jnp.shape(embeddings)}"
    check_shape("labels", labels, "... N", dims=sizes, beside=beside, hint=FLATTEN)
    labels = counting_classes(labels, mask, number=clusters["K"])
    if weights is not None:
        number = {"K": clusters["K"]}
        check_shape("weights", weights, "K", dims=number, beside="centroids")
        check_floating("weights", weights)

    counts = labels != VOID
    # Whatever stands where nothing counts, NaN included, must not reach a matmul.
    points = jnp.where(counts[..., None], jnp.asarray(embeddings), 0.0)
    flat = points.reshape(-1, sizes["D"])
    logits = pairwise_dot(flat, jax.lax.stop_gradient(jnp.asarray(centroids)))
    logits = logits.reshape(*labels.shape, clusters["K"])
    own = jnp.maximum(labels, 0)
    cost = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(
        logits, own[..., None], axis=-1
    ).squeeze(-1)
    if weights is not None:
        cost = jax.lax.stop_gradient(jnp.asarray(weights))[own] * cost
    total = jnp.sum(jnp.where(counts, cost, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(counts, axis=-1), 1).astype(total.dtype)


def cluster_weights(counts: jax.Array, *, balance: str) -> jax.Array:
    r"""Weights of clusters by their sizes, 1 for the average point.

    .. math:: w_k \propto 1, \quad c_k \quad\text{or}\quad 1 / c_k,
              \qquad \sum_k c_k w_k = \sum_k c_k

    The paper speaks of balancing without a formula. Its authors' code weighs clusters
    *in proportion* to their size, which lets large ones count still more; by the
    inverse, all clusters count the same.

    Args:
        counts: [..., K] sizes.
        balance: ``"none"``, ``"proportional"`` or ``"inverse"``.

    Returns:
        [..., K]; 0 for empty clusters with ``"inverse"`` and ``"proportional"``.

    Raises:
        InputError: counts that are not floating point, an unknown balance.

    >>> counts = jnp.array([3.0, 1.0])
    >>> for balance in ("inverse", "proportional"):
    ...     weights = cluster_weights(counts, balance=balance)
    ...     print([round(float(w), 3) for w in weights])
    [0.667, 2.0]
    [1.2, 0.4]
    """
    check_shape("counts", counts, "... K")
    check_floating("counts", counts)
    check_choice("balance", balance, BALANCES)
    counts = jnp.asarray(counts)
    if balance == "none":
        return jnp.ones_like(counts)
    total = jnp.sum(counts, axis=-1, keepdims=True)
    share = counts / jnp.where(total > 0, total, 1.0)
    there = share > 0
    raw = share if balance == "proportional" else 1.0 / jnp.where(there, share, 1.0)
    raw = jnp.where(there, raw, 0.0)
    mean = jnp.sum(share * raw, axis=-1, keepdims=True)
    return raw / jnp.where(mean > 0, mean, 1.0)


def overclustering_weights(
    num_clusters: int, num_overclusters: int
) -> tuple[float, float]:
    r"""Weights of the losses with two numbers of clusters.

    .. math:: \lambda_1 = \frac{\ln K_2}{\ln K_1 + \ln K_2}, \qquad
              \lambda_2 = \frac{\ln K_1}{\ln K_1 + \ln K_2}

    A cross-entropy grows with ln K, and so both halves weigh the same.

    Args:
        num_clusters: :math:`K_1`.
        num_overclusters: :math:`K_2`, of the finer clusters beside them.

    Returns:
        :math:`\lambda_1, \lambda_2`.

    Raises:
        InputError: fewer than two clusters.

    References:
        Cho et al., "PiCIE", CVPR 2021, section 3.4.

    >>> [round(weight, 3) for weight in overclustering_weights(27, 100)]
    [0.583, 0.417]
    """
    check_count("num_clusters", num_clusters, at_least=2)
    check_count("num_overclusters", num_overclusters, at_least=2)
    one, two = math.log(num_clusters), math.log(num_overclusters)
    return two / (one + two), one / (one + two)
