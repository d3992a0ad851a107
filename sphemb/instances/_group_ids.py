"""Group ids [..., H, W] or [..., N] to label maps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sphemb._checks import check_integer, check_shape
from sphemb._labels import VOID


def relabel(labels: jax.Array, background: jax.Array | int) -> jax.Array:
    """Turns group ids 0..G-1 into instance ids with 0 for the background.

    The background's group becomes 0 and the others 1..G-1 in the order of their ids,
    without gaps where the ids had none. Negative labels become void.

    Args:
        labels: int [..., H, W] or [..., N] group ids.
        background: int, the group that is the background, for each of the leading axes
            of ``labels`` that it has; -1 where no group is, and then ids run 1..G.

    Returns:
        int32 of the shape of ``labels``.

    Raises:
        InputError: labels or background that are no integers, or a background whose
            axes are not the leading axes of the labels.

    >>> relabel(jnp.array([0, 1, 2, -1]), 1).tolist()
    [1, 0, 2, -1]
    """
    check_integer("labels", labels)
    check_integer("background", background)
    labels, background = jnp.asarray(labels), jnp.asarray(background)
    leading = background.shape
    check_shape(
        "background",
        background,
        "...",
        dims={"...": labels.shape[: len(leading)]},
        beside="labels",
        hint="one group id per image",
    )
    background = background.reshape(leading + (1,) * (labels.ndim - len(leading)))
    above = (labels < background) | (background < 0)
    shifted = labels + above.astype(labels.dtype)
    instances = jnp.where(labels == background, 0, shifted)
    return jnp.where(labels < 0, VOID, instances).astype(jnp.int32)
