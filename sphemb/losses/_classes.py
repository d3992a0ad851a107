"""Losses of pixels against classes, or against fixed centroids (PiCIE).

Letters: N points, D dimensions, K classes or clusters. Labels outside 0 .. K - 1,
``VOID`` (-1) among them, and points outside a mask are excluded.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sphemb._checks import VOID, check_choice, check_count, check_floating, check_shape
from sphemb.losses._sampling import check_points, valid_classes, valid_labels
from sphemb.sphere import pairwise_dot

_BALANCES = ("none", "proportional", "inverse")


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""Softmax cross-entropy, averaged over the valid pixels.

    .. math:: \ell = \frac{1}{\sum_i w_i} \sum_i w_i
              \Big(\log \sum_k e^{z_{ik}} - z_{i y_i}\Big)

    With ``weights`` from :func:`instance_weights` of the labels, every class of an
    image has the same weight.

    Args:
        logits: z, [..., N, K].
        labels: y, int [..., N], 0 .. K - 1; other numbers are excluded.
        weights: w, [..., N], not negative; all 1 by default.
        mask: bool [..., N], True = valid.

    Returns:
        [...] losses, in float32 at least; 0 without valid pixels.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4.

    >>> loss = cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 3, -1]))
    >>> round(float(loss / jnp.log(4)), 6)
    1.0
    """
    number = check_points("logits", logits, "... N K", labels, weights)["K"]
    labels = valid_classes(labels, mask, number=number)
    logits = jnp.asarray(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    valid = labels != VOID
    # Values of invalid pixels, NaN included, must not reach the gradient.
    costs = _negative_log_likelihood(jnp.where(valid[..., None], logits, 0.0), labels)
    weights = jnp.ones_like(costs) if weights is None else jnp.asarray(weights)
    weights = jnp.where(valid, weights.astype(costs.dtype), 0.0)
    total = weights.sum(axis=-1)
    return jnp.sum(weights * costs, axis=-1) / jnp.where(total > 0, total, 1.0)


def balanced_logistic_loss(
    logits: jax.Array, labels: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:
    r"""Logistic loss in which both classes have the same weight, however rare.

    .. math:: \ell = -\frac1N \Big( \frac{|Y_-|}{N} \sum_{i \in Y_+} \log \sigma(z_i)
              + \frac{|Y_+|}{N} \sum_{i \in Y_-} \log (1 - \sigma(z_i)) \Big)

    for the N valid pixels. The loss is 0 where one class is missing, and small where it
    is rare.

    Args:
        logits: z, [..., N].
        labels: int [..., N]; 0 for one class, positive for the other; negative numbers
            are excluded.
        mask: bool [..., N], True = valid.

    Returns:
        [...] losses, in float32 at least.

    References:
        Xie & Tu, "Holistically-Nested Edge Detection", ICCV 2015, Eq. 2.

    >>> loss = balanced_logistic_loss(jnp.zeros(4), jnp.array([1, 0, 0, 0]))
    >>> round(float(loss / jnp.log(2)), 3)
    0.375
    """
    check_points("logits", logits, "... N", labels, None)
    labels = valid_labels(labels, mask)
    logits = jnp.asarray(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    ones, zeros = labels > 0, labels == 0

    def total(which: jax.Array, values: ArrayLike) -> jax.Array:
        return jnp.sum(jnp.where(which, values, 0.0), axis=-1)

    num_ones, num_zeros = total(ones, 1.0), total(zeros, 1.0)
    number = jnp.maximum(num_ones + num_zeros, 1.0)
    cost = num_zeros * total(ones, jax.nn.softplus(-logits))
    cost = cost + num_ones * total(zeros, jax.nn.softplus(logits))
    return cost / jnp.square(number)


def prototype_cross_entropy(
    embeddings: jax.Array,
    centroids: jax.Array,
    labels: jax.Array,
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""Cross-entropy of every point against fixed centroids.

    .. math:: \ell = -\frac1N \sum_i w_{y_i} \log
              \frac{e^{\mu_{y_i}^\top f_i}}{\sum_k e^{\mu_k^\top f_i}}

    over the N valid points. No gradient reaches the centroids. With unit vectors this
    is the paper's loss on cosine distances; its code takes centroids of any length, as
    k-means returns them. There is no temperature.

    Args:
        embeddings: [..., N, D], usually unit vectors.
        centroids: [K, D].
        labels: int [..., N] cluster of every point; other numbers are excluded.
        weights: [K] of the clusters, see :func:`cluster_weights`.
        mask: bool [..., N], True = valid.

    Returns:
        [...] losses, in float32 at least.

    References:
        Cho et al., "PiCIE: Unsupervised Semantic Segmentation using Invariance and
        Equivariance in Clustering", CVPR 2021, Eq. 3.

    >>> points = jnp.eye(3)
    >>> loss = prototype_cross_entropy(points, points, jnp.arange(3))
    >>> round(float(loss), 4), round(math.log(1 + 2 / math.e), 4)
    (0.5514, 0.5514)
    """
    dim = check_points("embeddings", embeddings, "... N D", labels, None)["D"]
    clusters = check_shape(
        "centroids", centroids, "K D", dims={"D": dim}, beside="embeddings"
    )
    check_floating("centroids", centroids)
    labels = valid_classes(labels, mask, number=clusters["K"])
    if weights is not None:
        check_shape("weights", weights, "K", dims=clusters, beside="centroids")
        check_floating("weights", weights)

    valid = labels != VOID
    # Values of invalid points, NaN included, must not reach a matmul.
    points = jnp.where(valid[..., None], jnp.asarray(embeddings), 0.0)
    flat = points.reshape(-1, dim)
    logits = pairwise_dot(flat, jax.lax.stop_gradient(jnp.asarray(centroids)))
    cost = _negative_log_likelihood(logits.reshape(*labels.shape, -1), labels)
    if weights is not None:
        weights = jax.lax.stop_gradient(jnp.asarray(weights))
        own = jax.nn.one_hot(labels, clusters["K"], dtype=weights.dtype)
        cost = jnp.sum(own * jnp.broadcast_to(weights, own.shape), axis=-1) * cost
    total = jnp.sum(jnp.where(valid, cost, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(valid, axis=-1), 1).astype(total.dtype)


def _negative_log_likelihood(logits: jax.Array, labels: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[..., None], axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - chosen[..., 0]


def cluster_weights(counts: jax.Array, *, balance: str) -> jax.Array:
    r"""Weights of clusters by their sizes, 1 for the average point.

    .. math:: w_k \propto 1, \quad c_k \quad\text{or}\quad 1 / c_k,
              \qquad \sum_k c_k w_k = \sum_k c_k

    for counts [..., K]; 0 for empty clusters, except with ``"none"``. The paper gives
    no formula for its balancing. The authors' code is ``"proportional"``; with
    ``"inverse"`` all clusters have the same total weight.

    >>> counts = jnp.array([3.0, 1.0])
    >>> for balance in ("inverse", "proportional"):
    ...     weights = cluster_weights(counts, balance=balance)
    ...     print([round(float(w), 3) for w in weights])
    [0.667, 2.0]
    [1.2, 0.4]
    """
    check_shape("counts", counts, "... K")
    check_floating("counts", counts)
    check_choice("balance", balance, _BALANCES)
    counts = jnp.asarray(counts)
    if balance == "none":
        return jnp.ones_like(counts)
    total = jnp.sum(counts, axis=-1, keepdims=True)
    share = counts / jnp.where(total > 0, total, 1.0)
    filled = share > 0
    raw = share if balance == "proportional" else 1.0 / jnp.where(filled, share, 1.0)
    raw = jnp.where(filled, raw, 0.0)
    mean = jnp.sum(share * raw, axis=-1, keepdims=True)
    return raw / jnp.where(mean > 0, mean, 1.0)


def overclustering_weights(
    num_clusters: int, num_overclusters: int
) -> tuple[float, float]:
    r"""Weights of two losses with K1 clusters and K2 finer ones, to balance them.

    .. math:: \lambda_1 = \frac{\ln K_2}{\ln K_1 + \ln K_2}, \qquad
              \lambda_2 = \frac{\ln K_1}{\ln K_1 + \ln K_2}

    A cross-entropy grows with ln K.

    References:
        Cho et al., "PiCIE", CVPR 2021, section 3.4.

    >>> [round(weight, 3) for weight in overclustering_weights(27, 100)]
    [0.583, 0.417]
    """
    check_count("num_clusters", num_clusters, at_least=2)
    check_count("num_overclusters", num_overclusters, at_least=2)
    one, two = math.log(num_clusters), math.log(num_overclusters)
    return two / (one + two), one / (one + two)
