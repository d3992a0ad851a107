"""Layers and rearrangements that several networks share.

Shape letters: B images, H rows, W columns, C channels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._grid import Grid

GROUPS = 8  # of channels, for the normalisation


def space_to_depth(x: jax.Array, factor: int = 2) -> jax.Array:
    """Folds every factor x factor patch into the channels; nothing is lost.

    Args:
        x: [B, H, W, C] with H and W divisible by ``factor``.
        factor: the patch's side.

    Returns:
        [B, H / factor, W / factor, factor * factor * C].

    >>> space_to_depth(jnp.zeros((1, 8, 8, 3))).shape
    (1, 4, 4, 12)
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // factor, w // factor, factor * factor * c)


def depth_to_space(x: jax.Array, factor: int = 2) -> jax.Array:
    """Unfolds channels into factor x factor patches: inverse of `space_to_depth`.

    Args:
        x: [B, H, W, factor * factor * C].
        factor: the patch's side.

    Returns:
        [B, H * factor, W * factor, C].

    >>> x = jnp.arange(64.0).reshape(1, 4, 4, 4)
    >>> bool((depth_to_space(space_to_depth(x)) == x).all())
    True
    """
    b, h, w, c = x.shape
    c //= factor * factor
    x = x.reshape(b, h, w, factor, factor, c)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * factor, w * factor, c)


def pixel_coordinates(
    height: int,
    width: int,
    *,
    unit: float = 32.0,
    middle: jax.Array | None = None,
) -> jax.Array:
    """Coordinates of the pixel centres, zero in the middle of the image.

    A translation-invariant network cannot tell two equal objects apart; these two
    channels tell it where a pixel is. They are measured in units of ``unit`` pixels,
    not of the image, so that a step to the right means the same in every image size.

    Args:
        height: H.
        width: W.
        unit: pixels per unit of the coordinate.
        middle: [..., 2], row and column in pixels from the upper left corner of where
            zero is; by default the middle. A tile of a larger image, or an image that
            is padded, gives that of the image.

    Returns:
        [..., H, W, 2]: row and column coordinate.

    >>> pixel_coordinates(2, 2, unit=1.0)[..., 1].tolist()
    [[-0.5, 0.5], [-0.5, 0.5]]
    """
    if middle is None:
        middle = jnp.asarray([height / 2, width / 2])
    sides = zip((height, width), jnp.moveaxis(middle, -1, 0), strict=True)
    rows, columns = ((jnp.arange(n) + 0.5 - at[..., None]) / unit for n, at in sides)
    shape = (*middle.shape[:-1], height, width)
    return jnp.stack(
        [
            jnp.broadcast_to(rows[..., :, None], shape),
            jnp.broadcast_to(columns[..., None, :], shape),
        ],
        axis=-1,
    )


def chromaticity(image: jax.Array, *, floor: float = 1 / 255) -> jax.Array:
    r"""Colour without brightness, :math:`c / (\max_k c_k + \epsilon)`.

    A stroke keeps its chromaticity from its core to its faintest rim, where the colour
    itself has all but vanished.

    Args:
        image: [..., 3] in [0, 1].
        floor: :math:`\epsilon`, one grey level; black stays black.

    Returns:
        [..., 3] in [0, 1).
    """
    return image / (image.max(axis=-1, keepdims=True) + floor)


class MaxPool(nn.Module):
    """The largest of 3 x 3 cells, around every other row and column."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / 2, W / 2, C]."""
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))

    @staticmethod
    def moved(grid: Grid) -> Grid:
        """The grid of what comes out, for a map of a grid."""
        return grid.strided(kernel=3, stride=2, before=1)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., CVPR 2016).

    Group normalisation, because it makes one image's output independent of the images
    that share its batch and of the number of devices.

    Attributes:
        features: output channels, divisible by ``groups``.
        stride: of the first convolution and of the shortcut.
        groups: of the normalisation.
    """

    features: int
    stride: int = 1
    groups: int = GROUPS

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        strides = (self.stride, self.stride)
        # "SAME" would put the kernel's middle beside the cell that the shortcut reads.
        y = nn.Conv(self.features, (3, 3), strides, padding=1, use_bias=False)(x)
        y = nn.relu(nn.GroupNorm(self.groups)(y))
        y = nn.Conv(self.features, (3, 3), use_bias=False)(y)
        y = nn.GroupNorm(self.groups)(y)
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), strides, use_bias=False)(x)
        return nn.relu(x + y)

    @staticmethod
    def moved(grid: Grid, stride: int) -> Grid:
        """The grid of what comes out, for a map of a grid."""
        return grid.strided(kernel=3, stride=stride, before=1)
