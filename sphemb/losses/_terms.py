"""Both terms of Eq. 2 for checked arguments; what the public losses share."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    check_array,
    check_axis_name,
    check_choice,
    check_count,
    check_floating,
    check_shape,
)
from sphemb._labels import VOID
from sphemb._ring import AxisName, add_devices, vary
from sphemb._tiles import choose_tiling, map_batch
from sphemb.losses._instances import FLATTEN, instance_ids, inverse_counts
from sphemb.losses._pairs import pair_sum, weight_within, within_sum


class MarginLossTerms(NamedTuple):
    """The two halves of the loss, see :func:`margin_loss_terms`.

    Attributes:
        positive: [...] what pairs of the same instance cost.
        negative: [...] what pairs of different instances cost.
    """

    positive: jax.Array
    negative: jax.Array


def check_points(name, embeddings, labels, weights) -> tuple[int, ...]:
    """Checks what belongs to the points, and returns the batch shape."""
    sizes = check_shape(name, embeddings, "... N D")
    check_floating(name, embeddings)
    check_array("labels", labels)
    beside = f"{name} {jnp.shape(embeddings)}"
    hint = FLATTEN if jnp.ndim(labels) > len(sizes["..."]) + 1 else ""
    check_shape("labels", labels, "... N", dims=sizes, beside=beside, hint=hint)
    if weights is not None:
        check_shape("weights", weights, "... N", dims=sizes, beside=beside)
        check_floating("weights", weights)
    return sizes["..."]


def check_settings(normalize, power, block_size, axis_name) -> None:
    check_choice("normalize", normalize, ("pixels", "pairs", "terms"))
    check_choice("power", power, (1, 2))
    if block_size is not None:
        check_count("block_size", block_size, at_least=1)
    check_axis_name("axis_name", axis_name)


# Compiled as a whole even for callers who do not, lest every call trace it anew.
@functools.partial(
    jax.jit,
    static_argnames=("normalize", "power", "block_size", "precision", "axis_name"),
)
def compute_terms(
    x,
    labels,
    weights,
    margin,
    *,
    normalize,
    power,
    block_size,
    precision,
    axis_name: AxisName,
) -> MarginLossTerms:
    """Computes both terms of [..., N, D]; leading axes of the labels may be missing."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    counts = labels != VOID
    ids = instance_ids(labels, axis_name=axis_name)
    if weights is None:
        weights = inverse_counts(labels, ids, dtype=dtype, axis_name=axis_name)
    weights = jnp.where(counts, weights.astype(dtype), 0.0)
    # Whatever stands where nothing counts, NaN included, must not reach a matmul.
    x = jnp.where(counts[..., None], x.astype(dtype), 0.0)

    batch, (num_points, dim) = x.shape[:-2], x.shape[-2:]
    tiling = choose_tiling(
        num_points, num_points, block_size, precision=precision, axis_name=axis_name
    )

    def image(x, weights, ids, margin):
        x, weights, ids, margin = vary((x, weights, ids, margin), axis_name)

        def pairs(term):
            return pair_sum(term, tiling, x, weights, ids, margin)

        weight = weight_within(weights, ids, axis_name=axis_name)
        if power == 1:
            within = within_sum(x, weights, ids, axis_name=axis_name)
            return within, pairs("hinge"), weight
        return pairs("squared_fall"), pairs("squared_hinge"), weight

    def each_image(array, *tail):
        shape = (math.prod(batch), *tail)
        return jnp.broadcast_to(array, batch + tail).reshape(shape)

    *sums, within = map_batch(
        image,
        x.reshape(math.prod(batch), num_points, dim),
        each_image(weights, num_points),
        each_image(ids, num_points),
        each_image(jnp.asarray(margin, dtype)),
        tile=tiling.size,
    )
    if normalize == "pixels":
        total = add_devices(jnp.sum(counts, axis=-1), axis_name).astype(dtype)
        total = jnp.broadcast_to(total, batch)
        totals = total, total
    else:
        total = jnp.square(add_devices(jnp.sum(weights, axis=-1), axis_name))
        total = jnp.broadcast_to(total, batch)
        totals = total, total
        if normalize == "terms":
            within = within.reshape(batch)
            between = total - within
            # With one instance there is no pair between, and rounding must not be one.
            rounding = 8 * jnp.finfo(dtype).eps * total
            totals = within, jnp.where(between > rounding, between, 0.0)
    return MarginLossTerms(
        *(
            term.reshape(batch) / jnp.where(total == 0, 1.0, total)
            for term, total in zip(sums, totals, strict=True)
        )
    )
