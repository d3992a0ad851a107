"""Crops and mirrors, by one continuous box for maps of every size.

Shape letters: H W size of a map, h w size of the result, C channels. The middle of
pixel i of n lies at (i + 1/2) / n of the image's side, in the map and in the result, so
that an image and its coarser feature map are cut at the same place.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    InputError,
    check_count,
    check_floating,
    check_integer,
    check_key,
    check_number,
    check_shape,
)
from sphemb._grid import bilinear_weights


class GeometricTransform(NamedTuple):
    """A box of an image, enlarged to all of it, and perhaps mirrored.

    Attributes:
        top: [...] the upper end of the box, as a fraction of the image's height.
        left: [...] its left end, as a fraction of the width.
        side: [...] its size, as a fraction of both.
        flip: [...] bool, mirror left and right afterwards.
    """

    top: jax.Array
    left: jax.Array
    side: jax.Array
    flip: jax.Array


def sample_geometric(
    key: jax.Array, *, side: tuple[float, float] = (0.5, 1.0), flip: float = 0.5
) -> GeometricTransform:
    """Samples a box of a random size anywhere in the image, a transform of scalars.

    Args:
        key: a random key, typed or legacy.
        side: smallest and largest side, as fractions of the image's; uniform between.
        flip: probability of a mirror.

    >>> box = sample_geometric(jax.random.key(0), side=(0.5, 0.5))
    >>> float(box.side), bool(0 <= box.top <= 0.5)
    (0.5, True)
    """
    low, high = side
    check_number("side", low, above=0, at_most=1)
    check_number("side", high, at_least=low, at_most=1)
    check_number("flip", flip, at_least=0, at_most=1)
    sides, positions, flips = jax.random.split(check_key("key", key), 3)
    share = jax.random.uniform(sides, minval=low, maxval=high)
    top, left = jax.random.uniform(positions, (2,)) * (1.0 - share)
    return GeometricTransform(top, left, share, jax.random.uniform(flips) < flip)


def apply_geometric(
    values: jax.Array,
    transform: GeometricTransform,
    *,
    size: tuple[int, int] | None = None,
    offset: float = 0.0,
) -> jax.Array:
    r"""Cuts the box out of images or feature maps, bilinearly.

    Pixel i of h, in the middle at u = (i + 1/2) / h, takes the value at
    :math:`t + s u` of a box from t of side s; values are constant beyond the outermost
    middles. The cells of a feature map may lie beside the middles of their pixels: with
    an offset, centers are at (i + 1/2 + offset) / H in the map and at
    (i + 1/2 + offset) / h in the result, which is then the map of a network that sees
    the image in the box. The result is linear in the values.

    Args:
        values: [..., H, W, C] floating point.
        transform: of [...], or scalars.
        size: (h, w) of the result; the map's own by default.
        offset: of the centers below and to the right of the middles, in cells; 0 for
            images.

    Returns:
        [..., h, w, C].

    References:
        Cho et al., "PiCIE", CVPR 2021, section 3.3, for the equivariance it tests.

    >>> ramp = jnp.arange(4.0).reshape(1, 4, 1) + jnp.zeros((4, 1, 1))
    >>> middle = GeometricTransform(0.25, 0.25, 0.5, False)
    >>> apply_geometric(ramp, middle)[0, :, 0].tolist()
    [0.75, 1.25, 1.75, 2.25]
    """
    dims = check_shape("values", values, "... H W C")
    check_floating("values", values)
    height, width = _size(size, dims)
    rows, columns = _positions(transform, height, width, offset)
    row_weights = bilinear_weights(rows * dims["H"] - 0.5 - offset, dims["H"])
    column_weights = bilinear_weights(columns * dims["W"] - 0.5 - offset, dims["W"])
    values = jnp.asarray(values)
    wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    highest = jax.lax.Precision.HIGHEST
    cut = jnp.einsum("...iy,...yxc->...ixc", row_weights, wide, precision=highest)
    cut = jnp.einsum("...jx,...ixc->...ijc", column_weights, cut, precision=highest)
    return cut.astype(values.dtype)


def apply_geometric_labels(
    labels: jax.Array,
    transform: GeometricTransform,
    *,
    size: tuple[int, int] | None = None,
) -> jax.Array:
    """Cuts the same box out of label maps int [..., H, W]; each pixel takes one label.

    The other arguments are those of :func:`apply_geometric`; the result is [..., h, w].

    >>> labels = jnp.arange(4)[None, :].repeat(4, axis=0)
    >>> right = GeometricTransform(0.0, 0.5, 0.5, True)
    >>> apply_geometric_labels(labels, right)[0].tolist()
    [3, 3, 2, 2]
    """
    dims = check_shape("labels", labels, "... H W")
    check_integer("labels", labels)
    height, width = _size(size, dims)
    positions = _positions(transform, height, width)
    row, column = (
        jnp.clip(jnp.floor(position * n).astype(jnp.int32), 0, n - 1)
        for position, n in zip(positions, (dims["H"], dims["W"]), strict=True)
    )
    labels = jnp.asarray(labels)
    row = jnp.broadcast_to(row, (*dims["..."], height))
    column = jnp.broadcast_to(column, (*dims["..."], width))
    cut = jnp.take_along_axis(labels, row[..., :, None], axis=-2)
    return jnp.take_along_axis(cut, column[..., None, :], axis=-1)


def _size(size: tuple[int, int] | None, dims: dict[str, int]) -> tuple[int, int]:
    if size is None:
        return dims["H"], dims["W"]
    if len(size) != 2:
        raise InputError(f"size must be (h, w), got {size}")
    for side in size:
        check_count("size", side, at_least=1)
    return size


def _positions(
    transform: GeometricTransform, height: int, width: int, offset: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Rows [..., h] and columns [..., w] of the result, as fractions of the image."""
    leaves = jnp.broadcast_arrays(*(jnp.asarray(leaf)[..., None] for leaf in transform))
    top, left, side, flip = leaves
    axis = (*(1 for _ in top.shape[1:]), -1)
    down = ((jnp.arange(float(height)) + 0.5 + offset) / height).reshape(axis)
    along = ((jnp.arange(float(width)) + 0.5 + offset) / width).reshape(axis)
    along = jnp.where(flip, 1.0 - along, along)
    return top + side * down, left + side * along
