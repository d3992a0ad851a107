"""The margin loss on every step of a mean shift (T steps)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sphemb._checks import InputError, check_array, check_number, check_shape
from sphemb._ring import AxisName
from sphemb.losses._instances import counting_labels
from sphemb.losses._terms import check_points, check_settings, compute_terms


def trajectory_margin_loss(
    trajectory: jax.Array,
    labels: jax.Array,
    *,
    margin: ArrayLike,
    step_weights: Sequence[float] | jax.Array | None = None,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    normalize: str = "pixels",
    negative_weight: ArrayLike = 1.0,
    power: int = 1,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Margin loss on every step of a mean shift, so that all of them are taught.

    .. math:: \sum_{t=0}^{T} v_t\, \ell(X^{(t)})

    Instances and their weights are worked out once for all steps. To draw other pixels
    at every step, as the authors do, give :func:`margin_loss` the samples of all steps
    as a batch.

    Args:
        trajectory: [T+1, ..., N, D] unit vectors, the input of the mean shift first.
        labels: [..., N] instance of every pixel; ``VOID`` (-1) counts for nothing.
        margin: alpha in [0, 1], one for all steps or [T+1] (the authors' digits: .1 for
            the first, .07 for the others).
        step_weights: [T+1] weight v of every step; None weighs all of them 1.
        weights: [..., N] weights of the pixels; None takes :func:`instance_weights`.
        mask: [..., N] True = counts; None counts all pixels.
        normalize: ``"pixels"``, ``"pairs"`` or ``"terms"``, see :func:`margin_loss`.
        negative_weight: of pairs of different instances, one for all steps or [T+1].
        power: 1 or 2, see :func:`margin_loss`.
        block_size: side of the tiles of pairs; None chooses.
        precision: of the matmuls, as ``jax.lax.Precision`` names it.
        axis_name: of the axis over which the pixels are sharded, as in
            :func:`margin_loss`.

    Returns:
        [...] losses.

    Raises:
        InputError: an argument of the wrong shape, dtype or range.

    References:
        Kong & Fowlkes, CVPR 2018, section 4.2.

    >>> still = jnp.stack([jnp.eye(2)] * 3)
    >>> float(trajectory_margin_loss(still, jnp.array([1, 2]), margin=0.25))
    0.75
    """
    check_array("trajectory", trajectory)
    check_shape("trajectory", trajectory, "... N D")
    if jnp.ndim(trajectory) < 3:
        raise InputError(
            "trajectory must have shape [T+1, ..., N, D], got "
            f"{jnp.shape(trajectory)}: use margin_loss for a single step"
        )
    steps, *shape = jnp.shape(trajectory)
    step = jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(trajectory))
    batch = check_points("a step of the trajectory", step, labels, weights)

    def each_step(name: str, value: ArrayLike) -> jax.Array:
        """[T+1, 1, ..]: lest a number for each step meets the images of a batch."""
        value = jnp.asarray(value)
        if value.ndim > 0:
            check_shape(name, value, str(steps), beside="the trajectory")
        return value.reshape(-1, *(1 for _ in batch))

    check_number("margin", margin, at_least=0, at_most=1)
    margin = each_step("margin", margin)
    if step_weights is None:
        step_weights = jnp.ones(steps)
    step_weights = jnp.asarray(step_weights)
    check_shape("step_weights", step_weights, str(steps), beside="the trajectory")
    step_weights = each_step("step_weights", step_weights)
    check_number("negative_weight", negative_weight, at_least=0)
    negative_weight = each_step("negative_weight", negative_weight)
    check_settings(normalize, power, block_size, axis_name)
    terms = compute_terms(
        trajectory,
        counting_labels(labels, mask),
        weights,
        margin,
        normalize=normalize,
        power=power,
        block_size=block_size,
        precision=precision,
        axis_name=axis_name,
    )
    dtype = terms.positive.dtype
    losses = terms.positive + negative_weight.astype(dtype) * terms.negative
    # Not a dot product, which accelerators would round.
    return jnp.sum(step_weights.astype(dtype) * losses, axis=0)
