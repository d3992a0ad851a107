"""Drawing some of an image's pixels, so that the pairs stay few."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    InputError,
    check_count,
    check_integer,
    check_key,
    check_shape,
)
from sphemb._labels import VOID


class PixelSample(NamedTuple):
    """Some pixels of every image, as :func:`sample_pixels` draws them.

    Attributes:
        indices: [..., M] int32, all different within an image.
        mask: [..., M] True = drawn from the counting pixels; False fills up the images
            that have fewer than M of them.
    """

    indices: jax.Array
    mask: jax.Array


def sample_pixels(
    key: jax.Array, candidates: jax.Array, *, num_samples: int
) -> PixelSample:
    """Draws pixels uniformly without replacement, each image for itself.

    ``jnp.take_along_axis(embeddings, sample.indices[..., None], axis=-2)`` then picks
    the pixels' embeddings, and ``sample.mask`` is the mask of the loss.

    Args:
        key: a random key, typed or legacy; leading axes of the labels get independent
            draws from it.
        candidates: [..., N] labels, whose ``VOID`` (-1) is never sampled, or a bool
            mask, True = may be sampled.
        num_samples: M, static, at most N; the authors take a fifth to a third of the
            pixels, and 4000 at most.

    Returns:
        A :class:`PixelSample`.

    Raises:
        InputError: more samples than pixels, or labels of the wrong dtype.

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
            f"{num_samples}: pixels are drawn without replacement"
        )
    if jnp.issubdtype(jnp.result_type(candidates), jnp.bool_):
        counts = jnp.asarray(candidates)
    else:
        check_integer("candidates", candidates)
        counts = jnp.asarray(candidates) != VOID
    # The M largest of N random numbers are a uniform draw of M; zero is for the others.
    lots = jax.random.uniform(key, counts.shape, minval=0.5)
    drawn, indices = jax.lax.top_k(jnp.where(counts, lots, 0.0), num_samples)
    return PixelSample(indices.astype(jnp.int32), drawn > 0)
