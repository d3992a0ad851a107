"""The spherical max-margin loss of Eq. 2."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sphemb._checks import InputError, check_number
from sphemb._ring import AxisName
from sphemb.losses._instances import counting_labels
from sphemb.losses._terms import (
    MarginLossTerms,
    check_points,
    check_settings,
    compute_terms,
)


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
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    axis_name: AxisName = None,
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
            ``"pairs"`` by the sum of all pairs' weights, as the authors' code;
            ``"terms"`` divides each half by the weights of its own pairs, those of one
            instance and those of different ones, so that with Q instances the pull is
            not Q - 1 times weaker than the push.
        negative_weight: lambda, a number or an array that broadcasts to [...]; the
            authors use 5 on PASCAL VOC.
        power: 1 for Eq. 2; 2 for what the authors' backward pass really descends, with
            :math:`1 - s^2` and :math:`[s - \alpha]_+^2`.
        block_size: side of the tiles of pairs that are at work at a time; None chooses.
            It changes memory and speed, not the result.
        precision: of the matmuls, as ``jax.lax.Precision`` names it.
        axis_name: of the mesh axis over which the pixels are sharded, or a tuple of
            names, inside `jax.shard_map` or `jax.pmap`. Embeddings, labels, weights and
            mask then hold this device's pixels, equally many on all devices, and the
            loss is that of all pixels, the same everywhere. Each of P devices needs
            memory for N / P pixels; docs/sharding.md has the gradient.

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
        axis_name=axis_name,
    )
    batch = jnp.shape(terms.negative)
    _check_broadcasts("negative_weight", negative_weight, batch)
    factor = jnp.asarray(negative_weight, terms.negative.dtype)
    return terms.positive + jnp.broadcast_to(factor, batch) * terms.negative


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
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    axis_name: AxisName = None,
) -> MarginLossTerms:
    r"""The two halves of :func:`margin_loss`, to be logged or weighted apart.

    ``margin_loss`` is ``positive + negative_weight * negative``.

    Args:
        embeddings: [..., N, D] unit vectors.
        labels: [..., N] instance of every pixel; ``VOID`` (-1) counts for nothing.
        margin: alpha in [0, 1]; an array may have any shape that broadcasts to [...].
        weights: [..., N] weights of the pixels; None takes :func:`instance_weights`.
        mask: [..., N] True = counts; None counts all pixels.
        normalize: ``"pixels"``, ``"pairs"`` or ``"terms"``.
        power: 1 or 2.
        block_size: side of the tiles of pairs; None chooses.
        precision: of the matmuls, as ``jax.lax.Precision`` names it.
        axis_name: of the axis over which the pixels are sharded, as in
            :func:`margin_loss`.

    Returns:
        :class:`MarginLossTerms` of [...] each.

    Raises:
        InputError: an argument of the wrong shape, dtype or range.

    >>> terms = margin_loss_terms(jnp.ones((4, 1)), jnp.array([1, 1, 2, 2]), margin=0.0)
    >>> float(terms.positive), float(terms.negative)
    (0.0, 0.5)
    """
    batch = check_points("embeddings", embeddings, labels, weights)
    check_number("margin", margin, at_least=0, at_most=1)
    _check_broadcasts("margin", margin, batch)
    check_settings(normalize, power, block_size, axis_name)
    return compute_terms(
        embeddings,
        counting_labels(labels, mask),
        weights,
        margin,
        normalize=normalize,
        power=power,
        block_size=block_size,
        precision=precision,
        axis_name=axis_name,
    )


def _check_broadcasts(name: str, value: ArrayLike, batch: tuple[int, ...]) -> None:
    shape = jnp.shape(value)
    sizes = zip(reversed(shape), reversed(batch), strict=False)
    if len(shape) > len(batch) or any(n not in (1, size) for n, size in sizes):
        raise InputError(
            f"{name} must broadcast to the batch shape {batch} of embeddings, got "
            f"{shape}"
        )
