"""Which pixels are of one instance, for labels of any value (N pixels of an image)."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sphemb._checks import check_boolean, check_integer, check_shape
from sphemb._labels import VOID

FLATTEN = "flatten the pixels first"
_NUMBERS = f"labels are instance numbers, {VOID} for void"


def instance_weights(labels: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
    r"""Weights that let every instance count as one, whatever its size.

    .. math:: w_i = \frac{1}{|\mathcal I_q|} \quad\text{for } i \in \mathcal I_q

    Any label values will do; they need not be consecutive, or start at zero. Background
    is an instance like any other.

    Args:
        labels: [..., N] instance of every pixel; ``VOID`` (-1) counts for nothing.
        mask: [..., N] True = counts; None counts all pixels.

    Returns:
        [..., N] weights; 0 for pixels that do not count. They sum to the number of
        instances.

    Raises:
        InputError: labels that are no integers, or a mask of another shape.

    References:
        Kong & Fowlkes, CVPR 2018, section 3.1.

    >>> instance_weights(jnp.array([5, 5, 9, -1])).tolist()
    [0.5, 0.5, 1.0, 0.0]
    """
    check_shape("labels", labels, "... N")
    labels = counting_labels(labels, mask)
    dtype = jnp.result_type(float)
    return inverse_counts(labels, instance_ids(labels), dtype=dtype)


def counting_labels(labels: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Checks labels and mask, and returns the labels with VOID where masked out."""
    check_integer("labels", labels, hint=_NUMBERS)
    # Unsigned labels cannot hold VOID.
    labels = jnp.asarray(labels)
    labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
    if mask is None:
        return labels
    check_boolean("mask", mask)
    sizes = {"N": labels.shape[-1], "...": labels.shape[:-1]}
    check_shape("mask", mask, "... N", dims=sizes, beside="labels", hint=FLATTEN)
    return jnp.where(mask, labels, VOID)


def instance_ids(labels: jax.Array) -> jax.Array:
    """Numbers the different labels of each image 0, 1, ... in their order, [..., N]."""

    def number(labels: jax.Array) -> jax.Array:
        order = jnp.argsort(labels)
        ordered = labels[order]
        is_new = ordered != jnp.roll(ordered, 1)
        ids = jnp.cumsum(is_new.at[:1].set(False), dtype=jnp.int32)
        return jnp.zeros_like(ids).at[order].set(ids, unique_indices=True)

    return _each_image(number, labels)


def inverse_counts(labels: jax.Array, ids: jax.Array, *, dtype: jnp.dtype) -> jax.Array:
    """One over the number of pixels of the same instance, and zero for void."""

    def weigh(labels: jax.Array, ids: jax.Array) -> jax.Array:
        counts = jnp.zeros_like(ids).at[ids].add(1)[ids]
        return jnp.where(labels == VOID, 0.0, 1.0 / counts.astype(dtype))

    return _each_image(weigh, labels, ids)


def _each_image(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    shape = arrays[0].shape
    images = (a.reshape(math.prod(shape[:-1]), shape[-1]) for a in arrays)
    return jax.vmap(function)(*images).reshape(shape)
