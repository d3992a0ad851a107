"""Weights and samples of the pixels of an image, by its labels (N pixels)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    VOID,
    InputError,
    check_array,
    check_axis_name,
    check_count,
    check_floating,
    check_integer,
    check_key,
    check_mask,
    check_shape,
)
from sphemb._shards import share_out
from sphemb._tiles import AxisName, add_visits

FLATTEN = "flatten the pixels first"


class PixelSample(NamedTuple):
    """Some pixels of every image, see :func:`sample_pixels`."""

    indices: jax.Array  # [..., M] int32, all different within an image
    mask: jax.Array  # [..., M], False for the rest of images with fewer valid pixels


def sample_pixels(
    key: jax.Array, candidates: jax.Array, *, num_samples: int
) -> PixelSample:
    """Samples pixels uniformly without replacement, in each image independently.

    ``jnp.take_along_axis(embeddings, sample.indices[..., None], axis=-2)`` then gives
    the pixels' embeddings, and ``sample.mask`` is the mask of the loss.

    Args:
        key: a random key, typed or legacy.
        candidates: [..., N] labels, whose ``VOID`` (-1) is never sampled, or a bool
            mask, True = may be sampled.
        num_samples: M, static, at most N; the authors take a fifth to a third of the
            pixels, and 4000 at most.

    References:
        Kong & Fowlkes, CVPR 2018, section 3.1.

    >>> labels = jnp.array([7, -1, 7, -1, 8])
    >>> sample = sample_pixels(jax.random.key(0), labels, num_samples=4)
    >>> sorted(sample.indices[sample.mask].tolist())
    [0, 2, 4]
    """
    key = check_key("key", key)
    num_pixels = check_shape("candidates", candidates, "... N")["N"]
    check_count("num_samples", num_samples, at_least=1)
    if num_samples > num_pixels:
        raise InputError(
            f"num_samples must be at most the number of pixels, {num_pixels}, got "
            f"{num_samples}: pixels are sampled without replacement"
        )
    valid = jnp.asarray(candidates)
    if not jnp.issubdtype(jnp.result_type(candidates), jnp.bool_):
        check_integer("candidates", candidates)
        valid = valid != VOID
    # The M largest of N random numbers are a uniform sample of M; invalid pixels get 0.
    scores = jax.random.uniform(key, valid.shape, minval=0.5)
    scores = jnp.where(valid, scores, 0.0)
    return _largest(scores, num_samples=int(num_samples))


@functools.partial(jax.jit, static_argnames="num_samples")
def _largest(scores: jax.Array, *, num_samples: int) -> PixelSample:
    def here(scores: jax.Array) -> PixelSample:
        largest, indices = jax.lax.top_k(scores, num_samples)
        return PixelSample(indices.astype(jnp.int32), largest > 0)

    return share_out(here, (scores,), ("... N",), PixelSample._make(["... M"] * 2))


def instance_weights(
    labels: jax.Array, *, mask: jax.Array | None = None, axis_name: AxisName = None
) -> jax.Array:
    r"""Weights [..., N] of a total of one for every instance, 0 where excluded.

    .. math:: w_i = \frac{1}{|\mathcal I_q|} \quad\text{for } i \in \mathcal I_q

    Args:
        labels: [..., N] instance of every pixel, any integers; ``VOID`` (-1) is
            excluded. Background is an instance.
        mask: [..., N] True = valid; None takes all pixels as valid.
        axis_name: of the mesh axis over which the pixels are sharded, inside
            `jax.shard_map` or `jax.pmap`; the arrays are then those of this device.

    References:
        Kong & Fowlkes, CVPR 2018, section 3.1.

    >>> instance_weights(jnp.array([5, 5, 9, -1])).tolist()
    [0.5, 0.5, 1.0, 0.0]
    """
    check_shape("labels", labels, "... N")
    labels = valid_labels(labels, mask)
    check_axis_name("axis_name", axis_name)
    return _weights(labels, axis_name=axis_name)


@functools.partial(jax.jit, static_argnames="axis_name")
def _weights(labels: jax.Array, *, axis_name: AxisName) -> jax.Array:
    def here(labels: jax.Array, *, axis_name: AxisName) -> jax.Array:
        dtype = jnp.result_type(float)
        ids = instance_ids(labels, axis_name=axis_name)
        return inverse_counts(labels, ids, dtype=dtype, axis_name=axis_name)

    return share_out(
        here, (labels,), ("... N",), "... N", rows="N", axis_name=axis_name
    )


def check_points(name, points, spec, labels, weights) -> dict[str, Any]:
    """Checks points with labels and weights [..., N], and returns the sizes."""
    sizes = check_shape(name, points, spec)
    check_floating(name, points)
    check_array("labels", labels)
    beside = f"{name} {jnp.shape(points)}"
    hint = FLATTEN if jnp.ndim(labels) > len(sizes["..."]) + 1 else ""
    check_shape("labels", labels, "... N", dims=sizes, beside=beside, hint=hint)
    if weights is not None:
        check_shape("weights", weights, "... N", dims=sizes, beside=beside)
        check_floating("weights", weights)
    return sizes


def valid_labels(labels: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Checks labels and mask, and returns the labels with VOID where masked out."""
    hint = f"labels are instance numbers, {VOID} for void"
    check_integer("labels", labels, hint=hint)
    # Unsigned labels cannot hold VOID.
    labels = jnp.asarray(labels)
    labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
    sizes = {"N": labels.shape[-1], "...": labels.shape[:-1]}
    check_mask("mask", mask, "... N", dims=sizes, beside="labels")
    return labels if mask is None else jnp.where(mask, labels, VOID)


def valid_classes(
    labels: jax.Array, mask: jax.Array | None, *, number: int
) -> jax.Array:
    """Checks labels and mask, and returns labels 0..number-1, VOID for all others."""
    labels = valid_labels(labels, mask)
    return jnp.where((labels >= 0) & (labels < number), labels, VOID)


def instance_ids(labels: jax.Array, *, axis_name: AxisName = None) -> jax.Array:
    """Numbers the labels of each image 0, 1, ... in their order, [..., N]."""

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
    """Sums a tree of [N, ...] by instance, over all devices."""
    if axis_name is None:
        return jax.tree.map(lambda v: jnp.zeros_like(v).at[ids].add(v), values), ids
    # An instance's slot is at the first of its labels on this device.
    ordered = jnp.sort(ids)

    def visit(visitors: Any) -> Any:
        labels, values = visitors
        slot = jnp.searchsorted(ordered, labels)
        known = ordered.at[slot].get(mode="clip") == labels
        slot = jnp.where(known, slot, ordered.shape[0])
        return jax.tree.map(
            lambda v: jnp.zeros_like(v).at[slot].add(v, mode="drop"), values
        )

    sums = add_visits(visit, (ids, values), axis_name=axis_name)
    return sums, jnp.searchsorted(ordered, ids)


def inverse_counts(labels, ids, *, dtype, axis_name=None) -> jax.Array:
    """One over the number of pixels of the same instance, and zero for void."""

    def weigh(labels: jax.Array, ids: jax.Array) -> jax.Array:
        ones = jnp.ones(ids.shape, jnp.int32)
        counts, slot = instance_sums(ones, ids, axis_name=axis_name)
        inverse = 1.0 / counts[slot].astype(dtype)
        return jnp.where(labels == VOID, 0.0, inverse)

    return _each_image(weigh, labels, ids)


def _each_image(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    shape = arrays[0].shape
    images = (a.reshape(math.prod(shape[:-1]), shape[-1]) for a in arrays)
    return jax.vmap(function)(*images).reshape(shape)
