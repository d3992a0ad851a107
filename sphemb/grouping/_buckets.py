"""Few sizes instead of many, so that images of many sizes share compiled programs.

Letters: N points, D dimensions; leading axes are batch axes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import check_boolean, check_count, check_shape

_PER_OCTAVE = 4


class PaddedPoints(NamedTuple):
    """Points filled up to a size that other images share.

    Attributes:
        points: [..., N', D]; zero rows from N on.
        mask: [..., N'] bool, False where it was False, and from N on.
    """

    points: jax.Array
    mask: jax.Array


def bucket_size(num_points: int) -> int:
    """Rounds a size up to one of four sizes per octave: at most a quarter is added.

    Args:
        num_points: N >= 0.

    Returns:
        The smallest of 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ... that is not
        below N.

    Raises:
        InputError: ``num_points`` is no int of at least 0.

    >>> [bucket_size(n) for n in (7, 9, 4096, 4097, 154401)]
    [7, 10, 4096, 5120, 163840]
    """
    check_count("num_points", num_points)
    num_points = int(num_points)  # NumPy's have no bit_length
    unit = max(1, 2 ** ((num_points - 1).bit_length() - _PER_OCTAVE.bit_length()))
    return -(-num_points // unit) * unit


def pad_points(points: jax.Array, *, mask: jax.Array | None = None) -> PaddedPoints:
    """Fills points up to a shared size with rows that do not count.

    A function that is compiled for every shape, such as :func:`gbms` or
    :func:`label_modes`, is compiled at most four times per octave of N then, instead of
    once for every image size. Take the first N rows of what it returns.

    Args:
        points: [..., N, D].
        mask: [..., N] bool, True = counts; None counts all points.

    Returns:
        :class:`PaddedPoints`.

    Raises:
        InputError: an argument has the wrong shape or dtype.

    >>> padded = pad_points(jnp.ones((9, 3)))
    >>> padded.points.shape, padded.mask.sum().item()
    ((10, 3), 9)
    """
    sizes = check_shape("points", points, "... N D")
    points = jnp.asarray(points)
    if mask is None:
        counts = jnp.ones(points.shape[:-1], bool)
    else:
        dims = {"...": sizes["..."], "N": sizes["N"]}
        check_shape("mask", mask, "... N", dims=dims, beside="points")
        check_boolean("mask", mask)
        counts = jnp.asarray(mask)
    added = (0, bucket_size(sizes["N"]) - sizes["N"])
    batch = [(0, 0)] * len(sizes["..."])
    return PaddedPoints(
        jnp.pad(points, [*batch, added, (0, 0)]), jnp.pad(counts, [*batch, added])
    )
