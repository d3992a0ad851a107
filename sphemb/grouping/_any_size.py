"""Grouping at the few sizes of `pad_points`, also where a size is not known yet.

Letters: N points, D dimensions; leading axes are batch axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.errors import InconclusiveDimensionOperation
from jax.export import is_symbolic_dim

from sphemb._checks import InputError, check_shape
from sphemb._labels import VOID
from sphemb.grouping._buckets import bucket_size, pad_points

_MOST_POINTS = 2**24


def group_padded(
    group: Callable[[jax.Array, jax.Array], Any],
    points: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> Any:
    """Groups points that are filled up to a shared size, see :func:`pad_points`.

    N may also be a symbol of ``jax.export``, as long as its constraints bound it. Loops
    and tiles need sizes that are numbers, so a symbol's grouping is lowered once for
    each shared size within the bounds, and N chooses among them when it is known.

    Args:
        group: takes points [..., N', D] and mask [..., N'], and returns a named tuple
            with ``labels`` [..., N'], such as :class:`Grouping` or :class:`Rounding`.
            Nothing else in it may depend on N'.
        points: [..., N, D].
        mask: [..., N] bool, True = counts; None counts all points.

    Returns:
        What ``group`` returns, with ``labels`` [..., N].

    Raises:
        InputError: an argument has the wrong shape or dtype, or a symbol has no bound.

    >>> from sphemb.grouping import label_modes
    >>> def group(points, mask):
    ...     return label_modes(points, max_groups=4, mask=mask)
    >>> group_padded(group, jnp.eye(9)).labels.shape
    (9,)
    """
    number = check_shape("points", points, "... N D")["N"]
    if not is_symbolic_dim(number):
        padded = pad_points(points, mask=mask)
        found = group(padded.points, padded.mask)
    else:
        found = _at_any_size(group, jnp.asarray(points), mask, number)
    return found._replace(labels=found.labels[..., :number])


def _at_any_size(
    group: Callable[[jax.Array, jax.Array], Any],
    points: jax.Array,
    mask: jax.Array | None,
    number: Any,
) -> Any:
    """What ``group`` returns, its labels filled up to the largest size."""
    sizes = _shared_sizes(number)
    if mask is None:
        mask = jnp.ones(points.shape[:-1], bool)
    added = (0, sizes[-1] - number)
    batch = [(0, 0)] * (mask.ndim - 1)
    points = jnp.pad(points, [*batch, added, (0, 0)])
    mask = jnp.pad(mask, [*batch, added])

    def at(size: int) -> Callable[[], Any]:
        def grouped() -> Any:
            found = group(points[..., :size, :], mask[..., :size])
            missing = [*batch, (0, sizes[-1] - size)]
            labels = jnp.pad(found.labels, missing, constant_values=VOID)
            return found._replace(labels=labels)

        return grouped

    # As an array: of the symbol itself Python would want to know the answer now.
    chosen = jnp.sum(jnp.asarray(number) > jnp.asarray(sizes))
    return jax.lax.switch(chosen, [at(size) for size in sizes])


def _shared_sizes(number: Any) -> list[int]:
    """The sizes that a symbol may be filled up to, rising."""
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
    """Whether a comparison of symbols holds, whatever they stand for."""
    try:
        return bool(comparison())
    except InconclusiveDimensionOperation:
        return False
