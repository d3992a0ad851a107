"""The cross-entropy of pixels against their classes, where some do not count."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sphemb._checks import check_floating, check_shape
from sphemb._labels import VOID
from sphemb.losses._instances import FLATTEN, counting_classes


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""Softmax cross-entropy, averaged over the pixels that count.

    .. math:: \ell = \frac{1}{\sum_i w_i} \sum_i w_i
              \Big(\log \sum_k e^{z_{ik}} - z_{i y_i}\Big)

    An image without a pixel that counts costs nothing. With ``weights`` from
    `instance_weights` of the labels, every class that the image shows counts the same.

    Args:
        logits: z, [..., N, K].
        labels: y, int [..., N], 0 .. K - 1; ``VOID`` (-1) and any other number do not
            count.
        weights: w, [..., N], none negative; all 1 by default.
        mask: bool [..., N], True = counts.

    Returns:
        [...] losses, in float32 at least.

    Raises:
        InputError: an argument of the wrong shape or dtype.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4.

    >>> loss = cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 3, -1]))
    >>> round(float(loss / jnp.log(4)), 6)
    1.0
    """
    sizes = check_shape("logits", logits, "... N K")
    check_floating("logits", logits)
    number = sizes.pop("K")
    beside = f"logits {jnp.shape(logits)}"
    check_shape("labels", labels, "... N", dims=sizes, beside=beside, hint=FLATTEN)
    labels = counting_classes(labels, mask, number=number)
    logits = jnp.asarray(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    counts = labels != VOID
    # Whatever stands where nothing counts, NaN included, must not reach the gradient.
    logits = jnp.where(counts[..., None], logits, 0.0)
    chosen = jnp.take_along_axis(
        logits, jnp.where(counts, labels, 0)[..., None], axis=-1
    )[..., 0]
    costs = jax.nn.logsumexp(logits, axis=-1) - chosen
    if weights is None:
        weights = jnp.ones_like(costs)
    else:
        check_shape("weights", weights, "... N", dims=sizes, beside=beside)
        weights = jnp.asarray(weights).astype(costs.dtype)
    weights = jnp.where(counts, weights, 0.0)
    total = weights.sum(axis=-1)
    return jnp.sum(weights * costs, axis=-1) / jnp.where(total > 0, total, 1.0)
