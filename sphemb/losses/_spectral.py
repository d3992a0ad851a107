"""The spectral loss: how far products of embeddings are from the oracle affinity."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sphemb._checks import VOID, InputError, check_choice, check_number
from sphemb._shards import share_out
from sphemb.losses._sampling import (
    check_points,
    instance_ids,
    instance_sums,
    valid_labels,
)
from sphemb.sphere import affinity_error


def spectral_loss(
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    normalize: str = "pairs",
    num_points: ArrayLike | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
) -> jax.Array:
    r"""Squared Frobenius distance of the embeddings' products from the true affinity.

    .. math:: \ell = \lVert V V^\top - A \rVert_F^2
              = \sum_{i,j} w_i w_j \left( v_i^\top v_j - 1_{[y_i = y_j]} \right)^2

    in :math:`O(N D^2)` time without N x N arrays, see `sphemb.sphere.affinity_error`.
    It is zero for the eigenvectors of the oracle Laplacian and their rotations
    (:func:`sphemb.sphere.oracle_spectrum`), which needs D >= the number of instances.
    The terms cancel: in float32 a mean around 1e-6 is rounding, and may be negative.

    Args:
        embeddings: [..., N, D] unit vectors; they are not normalized again.
        labels: [..., N] instance of every pixel, any integers; ``VOID`` (-1) is
            excluded. Background is an instance.
        weights: [..., N] weights of the pixels, such as :func:`instance_weights`; None
            for equal weights, as in the paper.
        mask: [..., N] True = valid; None takes all pixels as valid.
        normalize: ``"pairs"`` for the weighted mean over pairs of different pixels, of
            which a uniform sample is an unbiased estimate; ``"total"`` for the sum over
            all pairs, :math:`i = j` included, as in the paper.
        num_points: None, or the number n (a number or [...]) of pixels of which the m
            valid ones are a uniform sample without replacement: ``"total"`` is then
            an unbiased estimate of the total of all n. Pairs of different pixels are
            scaled by :math:`n (n - 1) / (m (m - 1))`.
        precision: of the matmul, see `jax.lax.Precision`.

    Returns:
        [...] losses, in float32 at least; for pairs 0 with fewer than two valid pixels.

    References:
        Barnes & Dubrawski, "Deep spectral clustering for object instance segmentation",
        ICLR 2018 workshop, section 2.2.

    >>> corners = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> float(spectral_loss(corners, jnp.array([1, 1, 2])))
    0.0
    >>> float(spectral_loss(corners, jnp.array([1, 2, 2]), normalize="total"))
    4.0
    """
    batch = check_points("embeddings", embeddings, "... N D", labels, weights)["..."]
    check_choice("normalize", normalize, ("pairs", "total"))
    if num_points is not None:
        if normalize != "total":
            raise InputError(
                f'num_points is for normalize="total", got {normalize!r}: the mean '
                "over a sample's pairs needs no scale"
            )
        check_number("num_points", num_points, at_least=1)
        if jnp.shape(num_points) not in ((), batch):
            raise InputError(
                f"num_points must be a number or have the batch shape {batch} of "
                f"embeddings, got {jnp.shape(num_points)}"
            )
    labels = valid_labels(labels, mask)
    options = {"normalize": normalize, "precision": precision}
    return _losses(embeddings, labels, weights, num_points, **options)


# Compiled even for callers who do not compile, so that a call need not trace it again.
@functools.partial(jax.jit, static_argnames=("normalize", "precision"))
def _losses(x, labels, weights, num_points, *, normalize, precision) -> jax.Array:
    return share_out(
        functools.partial(_losses_here, normalize, precision),
        (x, labels, weights, num_points),
        ("... N D", "... N", "... N", "..."),
        "...",
    )


def _losses_here(normalize, precision, x, labels, weights, num_points) -> jax.Array:
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    valid = labels != VOID
    if weights is None:
        weights = jnp.ones(labels.shape, dtype)
    weights = jnp.where(valid, weights.astype(dtype), 0.0)
    # Values of invalid points, NaN included, must not reach a matmul.
    x = jnp.where(valid[..., None], x.astype(dtype), 0.0)

    def image(x, weights, ids):
        weighted = weights[:, None] * x
        gram = jnp.matmul(x.T, weighted, precision=precision)
        (sums, totals), _ = instance_sums((weighted, weights), ids)
        own = jnp.square(weights) * jnp.square(jnp.sum(jnp.square(x), axis=-1) - 1.0)
        return affinity_error(gram, sums, totals), jnp.sum(own)

    batch, (number, dim) = x.shape[:-2], x.shape[-2:]
    images = math.prod(batch)
    total, diagonal = jax.vmap(image)(
        x.reshape(images, number, dim),
        weights.reshape(images, number),
        instance_ids(labels).reshape(images, number),
    )
    total, diagonal = total.reshape(batch), diagonal.reshape(batch)
    if normalize == "total":
        if num_points is None:
            return total
        n = jnp.asarray(num_points, dtype)
        m = jnp.sum(valid, axis=-1).astype(dtype)
        pairs = m * (m - 1.0)
        scale = jnp.where(pairs > 0, n * (n - 1.0), 0.0) / jnp.maximum(pairs, 1.0)
        return scale * (total - diagonal) + n / jnp.maximum(m, 1.0) * diagonal
    squares = jnp.sum(jnp.square(weights), axis=-1)
    pairs = jnp.square(jnp.sum(weights, axis=-1)) - squares
    mean = (total - diagonal) / jnp.where(pairs > 0, pairs, 1.0)
    return jnp.where(pairs > 0, mean, 0.0)
