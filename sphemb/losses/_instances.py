"""Which pixels are of one instance, for labels of any value (N pixels of an image)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sphemb._checks import (
    check_axis_name,
    check_boolean,
    check_integer,
    check_shape,
)
from sphemb._labels import VOID
from sphemb._ring import AxisName, add_visits

FLATTEN = "flatten the pixels first"
_NUMBERS = f"labels are instance numbers, {VOID} for void"


def instance_weights(
    labels: jax.Array,
    *,
    mask: jax.Array | None = None,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Weights that let every instance count as one, whatever its size.

    .. math:: w_i = \frac{1}{|\mathcal I_q|} \quad\text{for } i \in \mathcal I_q

    Any label values will do; they need not be consecutive, or start at zero. Background
    is an instance like any other.

    Args:
        labels: [..., N] instance of every pixel; ``VOID`` (-1) counts for nothing.
        mask: [..., N] True = counts; None counts all pixels.
        axis_name: of the mesh axis over which the pixels are sharded, inside
            `jax.shard_map` or `jax.pmap`; the arrays are this device's then.

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
    check_axis_name("axis_name", axis_name)
    dtype = jnp.result_type(float)
    ids = instance_ids(labels, axis_name=axis_name)
    return inverse_counts(labels, ids, dtype=dtype, axis_name=axis_name)


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


def counting_classes(
    labels: jax.Array, mask: jax.Array | None, *, number: int
) -> jax.Array:
    """Checks labels and mask, and returns labels 0..number-1, with VOID for the rest.

    That is the one rule of all losses of classes. Under `jax.jit` no value can be
    refused, and to read past the classes would be NaN; so what is outside of them is
    void. Data are refused where they are read, see `sphemb.training`.
    """
    labels = counting_labels(labels, mask)
    return jnp.where((labels >= 0) & (labels < number), labels, VOID)


def instance_ids(labels: jax.Array, *, axis_name: AxisName = None) -> jax.Array:
    """Numbers the different labels of each image 0, 1, ... in their order, [..., N].

    Over several devices the labels stay as they are: no device knows all of them.
    """

    def number(labels: jax.Array) -> jax.Array:
        order = jnp.argsort(labels)
        ordered = labels[order]
        is_new = ordered != jnp.roll(ordered, 1)
        ids = jnp.cumsum(is_new.at[:1].set(False), dtype=jnp.int32)
        return jnp.zeros_like(ids).at[order].set(ids, unique_indices=True)

    return labels if axis_name is not None else _each_image(number, labels)


def instance_sums(
    values: Any, ids: jax.Array, *, axis_name: AxisName = None
) -> tuple[Any, jax.Array]:
    """Adds up values instance by instance, those on other devices included.

    Args:
        values: tree of [N, ...].
        ids: [N] what :func:`instance_ids` returns for one image.
        axis_name: of the devices over which the points are spread.

    Returns:
        The tree of sums, [N, ...], and where in it every point's instance stands, [N].
    """
    if axis_name is None:
        return jax.tree.map(lambda v: jnp.zeros_like(v).at[ids].add(v), values), ids
    # A place for each instance that is here, at the first of its labels.
    ordered = jnp.sort(ids)

    def visit(visitors: Any) -> Any:
        labels, values = visitors
        place = jnp.searchsorted(ordered, labels)
        known = ordered.at[place].get(mode="clip") == labels
        place = jnp.where(known, place, ordered.shape[0])
        return jax.tree.map(
            lambda v: jnp.zeros_like(v).at[place].add(v, mode="drop"), values
        )

    sums = add_visits(visit, (ids, values), axis_name=axis_name)
    return sums, jnp.searchsorted(ordered, ids)


def inverse_counts(
    labels: jax.Array,
    ids: jax.Array,
    *,
    dtype: jnp.dtype,
    axis_name: AxisName = None,
) -> jax.Array:
    """One over the number of pixels of the same instance, and zero for void."""

    def weigh(labels: jax.Array, ids: jax.Array) -> jax.Array:
        ones = jnp.ones(ids.shape, jnp.int32)
        counts, place = instance_sums(ones, ids, axis_name=axis_name)
        inverse = 1.0 / counts[place].astype(dtype)
        return jnp.where(labels == VOID, 0.0, inverse)

    return _each_image(weigh, labels, ids)


def _each_image(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    shape = arrays[0].shape
    images = (a.reshape(math.prod(shape[:-1]), shape[-1]) for a in arrays)
    return jax.vmap(function)(*images).reshape(shape)
