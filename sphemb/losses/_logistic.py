"""The logistic loss of two classes of very different size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sphemb._checks import check_floating, check_shape
from sphemb.losses._instances import FLATTEN, counting_labels


def balanced_logistic_loss(
    logits: jax.Array, labels: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:
    r"""Logistic loss in which both classes weigh the same, however rare one is.

    .. math:: \ell = -\frac1N \Big( \frac{|Y_-|}{N} \sum_{i \in Y_+} \log \sigma(z_i)
              + \frac{|Y_+|}{N} \sum_{i \in Y_-} \log (1 - \sigma(z_i)) \Big)

    for the logits z of the N pixels that count. An image in which one class is missing
    costs nothing, and one in which it is small costs little: images count by what there
    is to tell apart.

    Args:
        logits: [..., N].
        labels: int [..., N]; 0 for the one class, anything above for the other;
            ``VOID`` (-1) and any other number do not count.
        mask: bool [..., N], True = counts.

    Returns:
        [...] losses, in float32 at least.

    Raises:
        InputError: an argument of the wrong shape or dtype.

    References:
        Xie & Tu, "Holistically-Nested Edge Detection", ICCV 2015, Eq. 2.

    >>> loss = balanced_logistic_loss(jnp.zeros(4), jnp.array([1, 0, 0, 0]))
    >>> round(float(loss / jnp.log(2)), 3)
    0.375
    """
    sizes = check_shape("logits", logits, "... N")
    check_floating("logits", logits)
    beside = f"logits {jnp.shape(logits)}"
    check_shape("labels", labels, "... N", dims=sizes, beside=beside, hint=FLATTEN)
    labels = counting_labels(labels, mask)
    logits = jnp.asarray(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    ones = labels > 0
    zeros = labels == 0

    def total(counts: jax.Array, values: ArrayLike) -> jax.Array:
        return jnp.sum(jnp.where(counts, values, 0.0), axis=-1)

    num_ones = total(ones, 1.0)
    num_zeros = total(zeros, 1.0)
    number = jnp.maximum(num_ones + num_zeros, 1.0)
    cost = num_zeros * total(ones, jax.nn.softplus(-logits)) + num_ones * total(
        zeros, jax.nn.softplus(logits)
    )
    return cost / jnp.square(number)
