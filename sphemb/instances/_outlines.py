"""Instances without their outlines, and back: B images of H by W pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sphemb._checks import check_count, check_integer, check_shape
from sphemb._labels import VOID

_LARGEST = jnp.iinfo(jnp.int32).max


def erode_instances(labels: jax.Array, width: int) -> jax.Array:
    """Gives the outlines of instances to the background, so that none touch.

    A pixel is outline where the square of ``2 width + 1`` pixels around it holds
    another label. Void pixels and what lies outside of the image are no other label.

    Args:
        labels: int [..., H, W], 0 the background, 1.. instances, negative ones void.
        width: pixels.

    Returns:
        int32 [..., H, W].

    Raises:
        InputError: labels that are no integers or have no rows and columns, a width
            below 0.

    >>> erode_instances(jnp.array([[0, 1, 1, 1, 2, 2, 2, -1]]), 1).tolist()
    [[0, 0, 1, 0, 0, 2, 2, -1]]
    """
    labels = _checked(labels, width)
    void = labels < 0
    highest = _over_squares(labels, width, jax.lax.max, -_LARGEST)
    lowest = _over_squares(
        jnp.where(void, _LARGEST, labels), width, jax.lax.min, _LARGEST
    )
    outline = (highest > labels) | (lowest < labels)
    return jnp.where(~void & outline, 0, labels)


def dilate_instances(labels: jax.Array, width: int) -> jax.Array:
    """Gives the background around instances to them, which keep apart.

    Undoes :func:`erode_instances` where instances are convex and at least
    ``2 width + 1`` pixels wide. They grow by a pixel on all sides, ``width`` times;
    where two meet, the higher label takes the pixel.

    Args:
        labels: int [..., H, W], 0 the background, 1.. instances, negative ones void.
        width: pixels.

    Returns:
        int32 [..., H, W].

    Raises:
        InputError: labels that are no integers or have no rows and columns, a width
            below 0.

    >>> dilate_instances(jnp.array([[0, 0, 1, 0, 0, 2, 0, -1]]), 1).tolist()
    [[0, 1, 1, 1, 2, 2, 2, -1]]
    """
    labels = _checked(labels, width)

    def grow(labels: jax.Array, _) -> tuple[jax.Array, None]:
        around = _over_squares(labels, 1, jax.lax.max, -_LARGEST)
        return jnp.where(labels == 0, around, labels), None

    return jax.lax.scan(grow, labels, length=width)[0]


def _checked(labels: jax.Array, width: int) -> jax.Array:
    check_integer("labels", labels)
    check_shape("labels", labels, "... H W", hint="instances need rows and columns")
    check_count("width", width)
    labels = jnp.asarray(labels).astype(jnp.int32)
    return jnp.where(labels < 0, VOID, labels)


def _over_squares(values: jax.Array, width: int, combine, start: int) -> jax.Array:
    """The largest or least of the values in the square around each pixel."""
    side = 2 * width + 1
    for axis in (-2, -1):
        window = [1] * values.ndim
        window[axis] = side
        values = jax.lax.reduce_window(
            values,
            jnp.int32(start),
            combine,
            window,
            [1] * values.ndim,
            "SAME",
        )
    return values
