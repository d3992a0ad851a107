"""The spherical max-margin loss of Eq. 2, for one embedding and for a trajectory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sphemb._checks import (
    InputError,
    check_choice,
    check_count,
    check_floating,
    check_number,
    check_shape,
)
from sphemb._labels import VOID
from sphemb._tiles import map_batch, tile_side
from sphemb.losses._instances import (
    counting_labels,
    instance_ids,
    inverse_counts,
)
from sphemb.losses._pairs import pair_sum, within_sum

_FLATTEN = "flatten the pixels first"
_HIGHEST = jax.lax.Precision.HIGHEST


class MarginLossTerms(NamedTuple):
    """The two halves of the loss, see :func:`margin_loss_terms`.

    Attributes:
        positive: [...] what pairs of the same instance cost.
        negative: [...] what pairs of different instances cost.
    """

    positive: jax.Array
    negative: jax.Array


def margin_loss(
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    margin: ArrayLike,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    normalize: str = "pixels",
    negative_weight: ArrayLike = 1.0,
    power: int = 1,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = _HIGHEST,
) -> jax.Array:
    r"""Pulls an instance's pixels together and pushes instances apart, as Eq. 2 does.

    .. math:: \ell = \frac1N \sum_{i,j} w_i w_j \left( 1_{[y_i = y_j]} (1 - s_{ij})
              + \lambda\, 1_{[y_i \ne y_j]} [s_{ij} - \alpha]_+ \right)

    over all ordered pairs, :math:`i = j` included, with the calibrated similarity
    :math:`s = (1 + \cos\theta) / 2`. Time grows with the square of the number of
    pixels, memory linearly, in the gradient too: :func:`sample_pixels` first, if many.
    Differentiable in embeddings, weights, margin and :math:`\lambda`, in both modes and
    to any order (the slope of the hinge is constant between its kinks).

    Args:
        embeddings: [..., N, D] unit vectors; they are not normalised again.
        labels: [..., N] instance of every pixel, any integers; ``VOID`` (-1) counts for
            nothing. Background is an instance like any other.
        margin: alpha in [0, 1]; an array may have any shape that broadcasts to [...].
        weights: [..., N] weights of the pixels; None takes :func:`instance_weights`.
        mask: [..., N] True = counts; None counts all pixels.
        normalize: ``"pixels"`` divides by the number of counting pixels, as Eq. 2;
            ``"pairs"`` by the sum of all pairs' weights, as the authors' code.
        negative_weight: lambda; the authors use 5 on PASCAL VOC.
        power: 1 for Eq. 2; 2 for what the authors' backward pass really descends, with
            :math:`1 - s^2` and :math:`[s - \alpha]_+^2`.
        block_size: side of the tiles of pairs that are at work at a time; None chooses.
            It changes memory and speed, not the result.
        precision: of the matmuls, as ``jax.lax.Precision`` names it.

    Returns:
        [...] losses, in float32 at least; 0 where no pixel counts.

    Raises:
        InputError: an argument of the wrong shape, dtype or range.

    References:
        Kong & Fowlkes, CVPR 2018, Eq. 1 and 2.

    >>> corners = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> labels = jnp.array([1, 1, 2])
    >>> float(margin_loss(corners, labels, margin=0.5))
    0.0
    >>> float(margin_loss(corners, labels, margin=0.25, normalize="pairs"))
    0.125
    """
    check_number("negative_weight", negative_weight, at_least=0)
    terms = margin_loss_terms(
        embeddings,
        labels,
        margin=margin,
        weights=weights,
        mask=mask,
        normalize=normalize,
        power=power,
        block_size=block_size,
        precision=precision,
    )
    return terms.positive + negative_weight * terms.negative


def margin_loss_terms(
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    margin: ArrayLike,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    normalize: str = "pixels",
    power: int = 1,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = _HIGHEST,
) -> MarginLossTerms:
    r"""The two halves of :func:`margin_loss`, to be logged or weighted apart.

    ``margin_loss`` is ``positive + negative_weight * negative``.

    Args:
        embeddings: [..., N, D] unit vectors.
        labels: [..., N] instance of every pixel; ``VOID`` (-1) counts for nothing.
        margin: alpha in [0, 1]; an array may have any shape that broadcasts to [...].
        weights: [..., N] weights of the pixels; None takes :func:`instance_weights`.
        mask: [..., N] True = counts; None counts all pixels.
        normalize: ``"pixels"`` or ``"pairs"``.
        power: 1 or 2.
        block_size: side of the tiles of pairs; None chooses.
        precision: of the matmuls, as ``jax.lax.Precision`` names it.

    Returns:
        :class:`MarginLossTerms` of [...] each.

    Raises:
        InputError: an argument of the wrong shape, dtype or range.

    >>> terms = margin_loss_terms(jnp.ones((4, 1)), jnp.array([1, 1, 2, 2]), margin=0.0)
    >>> float(terms.positive), float(terms.negative)
    (0.0, 0.5)
    """
    batch = _check_points("embeddings", embeddings, labels, weights)
    check_number("margin", margin, at_least=0, at_most=1)
    if not _broadcasts(jnp.shape(margin), batch):
        raise InputError(
            f"margin must broadcast to the batch shape {batch} of embeddings, got "
            f"{jnp.shape(margin)}"
        )
    _check_settings(normalize, power, block_size)
    return _terms(
        embeddings,
        counting_labels(labels, mask),
        weights,
        margin,
        normalize=normalize,
        power=power,
        block_size=block_size,
        precision=precision,
    )


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
    precision: jax.lax.PrecisionLike = _HIGHEST,
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
        normalize: ``"pixels"`` or ``"pairs"``, see :func:`margin_loss`.
        negative_weight: of pairs of different instances.
        power: 1 or 2, see :func:`margin_loss`.
        block_size: side of the tiles of pairs; None chooses.
        precision: of the matmuls, as ``jax.lax.Precision`` names it.

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
    check_shape("trajectory", trajectory, "... N D")
    if jnp.ndim(trajectory) < 3:
        raise InputError(
            "trajectory must have shape [T+1, ..., N, D], got "
            f"{jnp.shape(trajectory)}: use margin_loss for a single step"
        )
    steps, *shape = jnp.shape(trajectory)
    step = jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(trajectory))
    batch = _check_points("a step of the trajectory", step, labels, weights)
    check_number("margin", margin, at_least=0, at_most=1)
    if jnp.ndim(margin) > 0:
        check_shape("margin", margin, str(steps), beside="the trajectory")
        margin = jnp.reshape(jnp.asarray(margin), (steps,) + (1,) * len(batch))
    step_weights = jnp.asarray(
        jnp.ones(steps) if step_weights is None else step_weights
    )
    check_shape("step_weights", step_weights, str(steps), beside="the trajectory")
    check_number("negative_weight", negative_weight, at_least=0)
    _check_settings(normalize, power, block_size)
    terms = _terms(
        trajectory,
        counting_labels(labels, mask),
        weights,
        margin,
        normalize=normalize,
        power=power,
        block_size=block_size,
        precision=precision,
    )
    losses = terms.positive + negative_weight * terms.negative
    return jnp.tensordot(step_weights.astype(losses.dtype), losses, axes=1)


def _check_points(name, embeddings, labels, weights) -> tuple[int, ...]:
    """Checks what belongs to the points, and returns the batch shape."""
    sizes = check_shape(name, embeddings, "... N D")
    check_floating(name, embeddings)
    beside = f"{name} {jnp.shape(embeddings)}"
    check_shape("labels", labels, "... N", dims=sizes, beside=beside, hint=_FLATTEN)
    if weights is not None:
        check_shape("weights", weights, "... N", dims=sizes, beside=beside)
        check_floating("weights", weights)
    return sizes["..."]


def _check_settings(normalize, power, block_size) -> None:
    check_choice("normalize", normalize, ("pixels", "pairs"))
    check_choice("power", power, (1, 2))
    if block_size is not None:
        check_count("block_size", block_size, at_least=1)


def _broadcasts(shape: tuple[int, ...], batch: tuple[int, ...]) -> bool:
    sizes = zip(reversed(shape), reversed(batch), strict=False)
    return len(shape) <= len(batch) and all(n in (1, size) for n, size in sizes)


# Compiled as a whole even for callers who do not, lest every call trace it anew.
@functools.partial(
    jax.jit, static_argnames=("normalize", "power", "block_size", "precision")
)
def _terms(
    x, labels, weights, margin, *, normalize, power, block_size, precision
) -> MarginLossTerms:
    """Computes both terms of [..., N, D]; leading axes of the labels may be missing."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    counts = labels != VOID
    ids = instance_ids(labels)
    if weights is None:
        weights = inverse_counts(labels, ids, dtype=dtype)
    weights = jnp.where(counts, weights.astype(dtype), 0.0)
    # Whatever stands where nothing counts, NaN included, must not reach a matmul.
    x = jnp.where(counts[..., None], x.astype(dtype), 0.0)

    batch, (num_points, dim) = x.shape[:-2], x.shape[-2:]
    side = tile_side(num_points, block_size)

    def image(x, weights, ids, margin):
        def pairs(term):
            return pair_sum(term, side, precision, x, weights, ids, margin)

        if power == 1:
            return within_sum(x, weights, ids), pairs("hinge")
        return pairs("squared_fall"), pairs("squared_hinge")

    def each_image(array, *tail):
        return jnp.broadcast_to(array, batch + tail).reshape(-1, *tail)

    sums = map_batch(
        image,
        x.reshape(-1, num_points, dim),
        each_image(weights, num_points),
        each_image(ids, num_points),
        each_image(jnp.asarray(margin, dtype)),
        tile=side * side,
    )
    if normalize == "pixels":
        total = jnp.sum(counts, axis=-1).astype(dtype)
    else:
        total = jnp.square(jnp.sum(weights, axis=-1))
    scale = 1.0 / jnp.where(total == 0, 1.0, total)
    return MarginLossTerms(*(scale * term.reshape(batch) for term in sums))
