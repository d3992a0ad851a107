"""Points prepared for grouping: padded to shared sizes, or joined with positions.

Letters: N points, D dimensions, K entries of a position; leading axes are batch axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.errors import InconclusiveDimensionOperation
from jax.export import is_symbolic_dim

from sphemb._checks import (
    VOID,
    InputError,
    check_count,
    check_floating,
    check_mask,
    check_number,
    check_shape,
)

_PER_OCTAVE = 4
_MOST_POINTS = 2**24
_POSITION_CONCENTRATION = 8.0


class PaddedPoints(NamedTuple):
    """Points filled up to a size that other images share."""

    points: jax.Array  # [..., N', D]; zero rows from N on
    mask: jax.Array  # [..., N'] bool, False where it was False, and from N on


class JointPoints(NamedTuple):
    """Points with positions, see :func:`append_positions`."""

    points: jax.Array  # [..., N, D + 2 K] unit vectors
    concentration: float  # kappa of their kernel


def bucket_size(num_points: int) -> int:
    """Rounds a size up to one of four sizes per octave: at most a quarter is added.

    The sizes are 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...

    >>> [bucket_size(n) for n in (7, 9, 4096, 4097, 154401)]
    [7, 10, 4096, 5120, 163840]
    """
    check_count("num_points", num_points)
    num_points = int(num_points)  # NumPy's have no bit_length
    unit = max(1, 2 ** ((num_points - 1).bit_length() - _PER_OCTAVE.bit_length()))
    return -(-num_points // unit) * unit


def pad_points(points: jax.Array, *, mask: jax.Array | None = None) -> PaddedPoints:
    """Fills points up to a shared size with invalid rows.

    A function that is compiled for every shape, such as :func:`gbms`, is then compiled
    at most four times per octave of N. Take the first N rows of its result. Without a
    ``mask``, bool [..., N], all points [..., N, D] are valid.

    >>> padded = pad_points(jnp.ones((9, 3)))
    >>> padded.points.shape, padded.mask.sum().item()
    ((10, 3), 9)
    """
    sizes = check_shape("points", points, "... N D")
    check_mask("mask", mask, "... N", dims=sizes, beside="points")
    return _padded(jnp.asarray(points), mask, bucket_size(sizes["N"]))


def _padded(points: jax.Array, mask: jax.Array | None, size: Any) -> PaddedPoints:
    if mask is None:
        mask = jnp.ones(points.shape[:-1], bool)
    added = [*[(0, 0)] * (points.ndim - 2), (0, size - points.shape[-2])]
    padded = jnp.pad(points, [*added, (0, 0)])
    return PaddedPoints(padded, jnp.pad(jnp.asarray(mask), added))


def group_padded(
    group: Callable[[jax.Array, jax.Array], Any],
    points: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> Any:
    """Groups points that are filled up to a shared size, see :func:`pad_points`.

    N may also be a bounded symbol of ``jax.export``. Loops and tiles need constant
    sizes, so the grouping is lowered once for each shared size within the bounds, and N
    selects one of them at run time.

    ``group`` takes points [..., N', D] and mask [..., N'], and returns a named tuple
    with ``labels`` [..., N'], such as :class:`Grouping` or :class:`Rounding`, of which
    no other item may depend on N'. The result has ``labels`` [..., N]. A symbol without
    a bound is refused.

    >>> from sphemb.grouping import label_modes
    >>> def group(points, mask):
    ...     return label_modes(points, max_groups=4, mask=mask)
    >>> group_padded(group, jnp.eye(9)).labels.shape
    (9,)
    """
    number = check_shape("points", points, "... N D")["N"]
    if is_symbolic_dim(number):
        found = _group_any_size(group, jnp.asarray(points), mask, number)
    else:
        found = group(*pad_points(points, mask=mask))
    return found._replace(labels=found.labels[..., :number])


def _group_any_size(group: Callable, points: jax.Array, mask: Any, number: Any) -> Any:
    """The result of ``group``, with labels filled up to the largest size."""
    sizes = _shared_sizes(number)
    points, mask = _padded(points, mask, sizes[-1])

    def at(size: int) -> Callable[[], Any]:
        def grouped() -> Any:
            found = group(points[..., :size, :], mask[..., :size])
            missing = [*[(0, 0)] * (mask.ndim - 1), (0, sizes[-1] - size)]
            labels = jnp.pad(found.labels, missing, constant_values=VOID)
            return found._replace(labels=labels)

        return grouped

    # As an array: Python would want the value of a comparison of symbols now.
    chosen = jnp.sum(jnp.asarray(number) > jnp.asarray(sizes))
    return jax.lax.switch(chosen, [at(size) for size in sizes])


def _shared_sizes(number: Any) -> list[int]:
    """The sizes that a symbol may be filled up to, ascending."""
    sizes, size = [], 1
    while size <= _MOST_POINTS:
        if not _surely(lambda size=size: number > size):
            sizes.append(size)
            if _surely(lambda size=size: number <= size):
                return sizes
        size = bucket_size(size + 1)
    raise InputError(
        f"the number of points must be at most {_MOST_POINTS:,}, got {number} without "
        "such a bound: give jax.export.symbolic_shape the constraints of the sides"
    )


def _surely(comparison: Callable[[], Any]) -> bool:
    """Whether a comparison of symbols holds for all their values."""
    try:
        return bool(comparison())
    except InconclusiveDimensionOperation:
        return False


def position_vectors(positions: jax.Array, *, periods: Sequence[float]) -> jax.Array:
    r"""Unit vectors of positions, sine and cosine of each period.

    Of positions q, [..., K], the vectors x, [..., 2 K L], repeat after the longest of
    the L periods P if the others divide it. Their product

    .. math:: x^\top x' = \frac{1}{K L} \sum_{k, l} \cos\frac{2\pi (q_k - q'_k)}{P_l}

    falls the faster near zero the shorter the shortest period is.

    >>> q = jnp.array([[0.0, 0.0], [4.0, 0.0]])
    >>> near, far = position_vectors(q, periods=(8.0,))
    >>> round(float(near @ far), 6)
    0.0
    """
    check_floating("positions", positions)
    number = check_shape("positions", positions, "... K")["K"]
    for period in periods:
        check_number("periods", period, above=0)
    angles = [(2 * math.pi / period) * jnp.asarray(positions) for period in periods]
    waves = [wave(angle) for angle in angles for wave in (jnp.sin, jnp.cos)]
    return jnp.concatenate(waves, axis=-1) / math.sqrt(number * len(waves) / 2)


def append_positions(
    embeddings: jax.Array,
    positions: jax.Array,
    *,
    concentration: float,
    spatial_bandwidth: float,
) -> JointPoints:
    r"""Appends positions to unit vectors, so that distant points do not attract.

    The kernel of a mean shift in the joint domain of embedding and position is

    .. math:: \exp(\kappa \cos\theta) \prod_k \exp\left(8 \cos\frac{\Delta_k}
              {\sqrt8\, h} \right) \approx \exp\left(\kappa\cos\theta
              - \frac{\lVert\Delta\rVert^2}{2 h^2} + \text{const} \right)

    for differences :math:`\Delta` of positions much smaller than the period of
    :math:`2 \pi \sqrt8\, h`, about 18 bandwidths. It is the kernel of unit vectors of
    :math:`D + 2 K` entries, for every mean shift. Points a whole period apart are
    neighbors again: split the groups into connected components to separate them.

    Args:
        embeddings: [..., N, D] unit vectors.
        positions: [..., N, K] in any unit, such as rows and columns of an image.
        concentration: kappa, of the embeddings alone.
        spatial_bandwidth: h, standard deviation of the kernel in the unit of positions.

    References:
        Comaniciu & Meer, "Mean shift: a robust approach toward feature space analysis",
        PAMI 2002, section 4; von Mises kernels in place of Gaussian ones.

    >>> x, positions = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[0.0], [2.0]])
    >>> joint = append_positions(x, positions, concentration=3.0, spatial_bandwidth=4.0)
    >>> float(joint.concentration), joint.points.shape
    (11.0, (2, 4))
    """
    sizes = check_shape("embeddings", embeddings, "... N D")
    beside = "embeddings"
    number = check_shape("positions", positions, "... N K", dims=sizes, beside=beside)
    check_number("concentration", concentration, above=0)
    check_number("spatial_bandwidth", spatial_bandwidth, above=0)
    spatial = _POSITION_CONCENTRATION * number["K"]
    total = concentration + spatial
    period = 2 * math.pi * math.sqrt(_POSITION_CONCENTRATION) * spatial_bandwidth
    waves = position_vectors(positions, periods=(period,))
    parts = [
        math.sqrt(concentration / total) * embeddings,
        math.sqrt(spatial / total) * waves,
    ]
    return JointPoints(jnp.concatenate(parts, axis=-1), total)
