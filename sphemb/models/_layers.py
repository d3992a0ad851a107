"""Layers and rearrangements that several networks share.

Shape letters: B images, H rows, W columns, C channels, F features, K side of a kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sphemb._checks import (
    InputError,
    check_axis_name,
    check_choice,
    check_count,
    check_number,
)
from sphemb._grid import Grid, extended, resample

GROUPS = 8  # of channels, for group normalization
BATCH_NORMS = ("fixed", "trained")

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")

# By default accelerators multiply float32 in bfloat16 or TF32, whose 8 or 11 bits are
# too few for the coordinates of neighboring pixels. The small layers that read
# coordinates, or make the embedding, take this precision; the other convolutions not.
PRECISE = lax.Precision.HIGHEST
precise_dense = functools.partial(nn.Dense, precision=PRECISE)


def check_groups(name: str, number: int, *, at_least: int = 1) -> None:
    """Checks a number of channels that are normalized in `GROUPS` groups."""
    check_count(name, number, at_least=at_least)
    if number % GROUPS:
        raise InputError(
            f"{name} must be a multiple of {GROUPS}, the number of groups of the "
            f"normalization, got {number}"
        )


def space_to_depth(x: jax.Array) -> jax.Array:
    """Folds 2 x 2 patches into channels: [B, H, W, C] to [B, H / 2, W / 2, 4 C].

    >>> space_to_depth(jnp.zeros((1, 8, 8, 3))).shape
    (1, 4, 4, 12)
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(x: jax.Array) -> jax.Array:
    """Unfolds channels into 2 x 2 patches: the inverse of `space_to_depth`.

    >>> x = jnp.arange(64.0).reshape(1, 4, 4, 4)
    >>> bool((depth_to_space(space_to_depth(x)) == x).all())
    True
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


def pixel_coordinates(
    height: int, width: int, *, unit: float = 32.0, middle: jax.Array | None = None
) -> jax.Array:
    """Coordinates [..., H, W, 2] of the pixel centers, by row and column.

    They are zero at ``middle`` [..., 2], in pixels from the upper left corner, by
    default the middle of the array; ``unit`` is pixels per unit. With these channels a
    translation-invariant network can separate two equal objects.

    >>> pixel_coordinates(2, 2, unit=1.0)[..., 1].tolist()
    [[-0.5, 0.5], [-0.5, 0.5]]
    """
    if middle is None:
        middle = jnp.asarray([height / 2, width / 2])
    sides = zip((height, width), jnp.moveaxis(middle, -1, 0), strict=True)
    rows, columns = ((jnp.arange(n) + 0.5 - at[..., None]) / unit for n, at in sides)
    both = jnp.broadcast_arrays(rows[..., :, None], columns[..., None, :])
    return jnp.stack(both, axis=-1)


def chromaticity(image: jax.Array) -> jax.Array:
    r"""Computes color without brightness, :math:`c / (\max_k c_k + 1 / 255)`.

    For an image [..., 3] in [0, 1]. A stroke keeps its chromaticity up to its faintest
    rim, where the color itself almost vanishes; black stays black.
    """
    return image / (image.max(axis=-1, keepdims=True) + 1 / 255)


def convolution(
    features: int,
    size: int,
    *,
    dtype: str,
    name: str,
    stride: int = 1,
    dilation: int = 1,
    symmetric: bool = False,
    precision: lax.Precision | None = None,
) -> nn.Conv:
    """A square convolution without a bias; its padding is symmetric, or "SAME"."""
    padding = dilation * (size - 1) // 2 if symmetric else "SAME"
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        padding=padding,
        kernel_dilation=(dilation, dilation),
        use_bias=False,
        kernel_init=he_normal,
        dtype=jnp.dtype(dtype),
        precision=precision,
        name=name,
    )


class BatchNorm(nn.Module):
    r"""Normalizes every channel (Ioffe & Szegedy, ICML 2015).

    .. math:: y = \gamma\, (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

    The arithmetic is float32 for every input type, because bfloat16 has too few digits
    for :math:`x - \mu`.

    Attributes:
        mode: ``"fixed"`` keeps the moments that came with the weights, in training too
            (Kong & Fowlkes 2018, section 5), because a batch of one large image says
            little about the next. ``"trained"``: in training the moments are those of
            the batch over all devices, and their running averages are updated.
        epsilon: :math:`\epsilon`.
        momentum: weight of a new batch in the running averages.
        axis_name: the mapped axis that the batch is spread over, or None.
        zero_scale: start from :math:`\gamma = 0`.
    """

    mode: str = "fixed"
    epsilon: float = 1e-5
    momentum: float = 0.1
    axis_name: str | None = "batch"
    zero_scale: bool = False

    def __post_init__(self):
        check_choice("mode", self.mode, BATCH_NORMS)
        check_number("epsilon", self.epsilon, above=0)
        check_number("momentum", self.momentum, at_least=0, at_most=1)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalizes [B, H, W, C]; in training ``axis_name`` must be bound."""
        shape = (x.shape[-1],)
        initial = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self.param("scale", initial, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, var = running_mean.value, running_var.value
        wide = x.astype(jnp.float32)
        if train and self.mode == "trained" and not self.is_initializing():
            mean, var, count = self._batch_moments(wide)
            # The running variance is the unbiased one, as in the paper's Algorithm 2.
            unbiased = var * count / max(count - 1, 1)
            for running, new in ((running_mean, mean), (running_var, unbiased)):
                running.value += self.momentum * (new - running.value)
        y = (wide - mean) * (scale * lax.rsqrt(var + self.epsilon)) + bias
        return y.astype(x.dtype)

    def _batch_moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        """Mean, variance and number of values, over the batch of all devices."""
        axis, count = self.axis_name, x.size // x.shape[-1]
        check_axis_name("axis_name", axis)
        mean = x.mean((0, 1, 2))
        if axis is not None:
            mean, count = lax.pmean(mean, axis), count * lax.axis_size(axis)
        var = jnp.square(x - mean).mean((0, 1, 2))
        return mean, var if axis is None else lax.pmean(var, axis), count


class MaxPool(nn.Module):
    """The maximum of 3 x 3 cells, around every other row and column."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / 2, W / 2, C]."""
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1
) -> jax.Array:
    """Filters every channel with its own kernel [K, K, 1, C] and SAME padding."""
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _shifted_products(x, kernel, stride, dilation),
        default=lambda x, kernel: _grouped_convolution(x, kernel, stride, dilation),
    )


def _grouped_convolution(x, kernel, stride: int, dilation: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _sum_of_products(x, kernel, stride: int, dilation: int) -> jax.Array:
    x, sizes = _padded(x, kernel.shape[0], stride, dilation)
    total = jnp.zeros((), x.dtype)
    for i, j in np.ndindex(kernel.shape[:2]):
        top, left = i * dilation, j * dilation
        rows, columns = ((size - 1) * stride + 1 for size in sizes)
        window = x[:, top : top + rows : stride, left : left + columns : stride]
        total = total + window * kernel[i, j, 0]
    return total


_shifted_products = jax.custom_vjp(_sum_of_products, nondiff_argnums=(2, 3))


def _forward(x, kernel, stride, dilation):
    return _sum_of_products(x, kernel, stride, dilation), (x, kernel)


def _backward(stride, dilation, saved, cotangent):
    x, kernel = saved

    def product(x: jax.Array) -> jax.Array:
        return _sum_of_products(x, kernel, stride, dilation)

    (x_gradient,) = jax.linear_transpose(product, x)(cotangent)
    return x_gradient, _kernel_gradient(x, kernel, cotangent, stride, dilation)


_shifted_products.defvjp(_forward, _backward)


def _kernel_gradient(x, kernel, cotangent, stride: int, dilation: int) -> jax.Array:
    """Sums the products of windows and cotangent, one row of one image at a time."""
    x, (height, width) = _padded(x, kernel.shape[0], stride, dilation)
    taps = list(np.ndindex(kernel.shape[:2]))
    extent = (width - 1) * stride + 1

    def add_row(n: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        image, row = jnp.divmod(n, height)
        weights = cotangent[image, row].astype(jnp.float32)
        new = []
        for (i, j), total in zip(taps, sums, strict=True):
            values = x[image, row * stride + i * dilation]
            left = j * dilation
            new.append(total + values[left : left + extent : stride] * weights)
        return tuple(new)

    zeros = (jnp.zeros_like(cotangent[0, 0], jnp.float32),) * len(taps)
    sums = lax.fori_loop(0, x.shape[0] * height, add_row, zeros)
    gradient = jnp.stack([jnp.sum(total, axis=0) for total in sums])
    return gradient.reshape(kernel.shape).astype(kernel.dtype)


def _padded(x, side: int, stride: int, dilation: int) -> tuple[jax.Array, list[int]]:
    """The map with SAME padding, and the height and width of the output."""
    sizes = [-(-length // stride) for length in x.shape[1:3]]
    padding = []
    for length, size in zip(x.shape[1:3], sizes, strict=True):
        extent = (size - 1) * stride + 1 + (side - 1) * dilation
        missing = max(extent - length, 0)
        padding.append((missing // 2, missing - missing // 2))
    return jnp.pad(x, ((0, 0), *padding, (0, 0))), sizes


class DepthwiseConv(nn.Module):
    """`depthwise_convolution` with a trained kernel of side ``size``."""

    size: int
    stride: int = 1
    dilation: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), C]."""
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", he_normal, shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        settings = {"stride": self.stride, "dilation": self.dilation}
        return depthwise_convolution(x, kernel, **settings)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., CVPR 2016).

    Group normalization makes the output for an image independent of the other images
    of its batch and of the number of devices.
    """

    features: int  # F, a multiple of 8
    stride: int = 1  # of the first convolution and of the shortcut

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, F]."""
        strides = (self.stride, self.stride)
        # "SAME" would center the kernel beside the cell that the shortcut reads.
        y = nn.Conv(self.features, (3, 3), strides, padding=1, use_bias=False)(x)
        y = nn.relu(nn.GroupNorm(GROUPS)(y))
        y = nn.Conv(self.features, (3, 3), use_bias=False)(y)
        y = nn.GroupNorm(GROUPS)(y)
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), strides, use_bias=False)(x)
        return nn.relu(x + y)


class TopDown(nn.Module):
    """Adds finer and finer maps to a coarse one (Lin et al., CVPR 2017).

    Each map passes a 1 x 1 convolution and is added to the sum of the coarser ones,
    enlarged bilinearly. A separable 3 x 3 convolution smooths the result; a full one
    would dominate the run time of the network.
    """

    features: int  # F, a multiple of 8
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        maps: Sequence[jax.Array],
        grids: Sequence[Grid],
        *,
        mask: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Maps [B, h, w, C] on ``grids``, from coarse to fine, to [B, h, w, F] each."""

        def convolve(x, name):
            settings = {"dtype": self.dtype, "precision": PRECISE, "name": name}
            return convolution(self.features, 1, **settings)(x)

        x = convolve(maps[0], "lateral0")
        levels = [x]
        for i, finer in enumerate(maps[1:], start=1):
            x = extended(x, mask)
            x = resample(x, grids[i - 1], grids[i], finer.shape[1:3])
            x = x + convolve(finer, f"lateral{i}")
            x = DepthwiseConv(3, dtype=self.dtype, name=f"smooth{i}")(x)
            x = convolve(x, f"mix{i}")
            x = nn.GroupNorm(GROUPS, dtype=jnp.dtype(self.dtype), name=f"norm{i}")(x)
            x = nn.relu(x)
            levels.append(x)
        return levels


class AtrousPyramid(nn.Module):
    """Reads a map by convolutions of several dilations and mixes the results.

    A 1 x 1 convolution and a 3 x 3 convolution for each rate read the map; a 1 x 1
    convolution mixes their channels. The published pyramid also has the mean over the
    image; here the group normalization sees the whole image.

    References:
        Chen et al., "Rethinking atrous convolution for semantic image segmentation",
        2017, section 3.3.
    """

    features: int  # F, a multiple of 8
    rates: tuple[int, ...]  # dilations, in cells
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, F]."""
        dtype = self.dtype

        def convolve(x: jax.Array, name: str, side: int = 1, rate: int = 1):
            settings = {"dilation": rate, "dtype": dtype, "name": name}
            x = convolution(self.features, side, **settings)(x)
            norm = nn.GroupNorm(GROUPS, dtype=jnp.dtype(dtype), name=f"{name}_norm")
            return nn.relu(norm(x))

        branches = [convolve(x, "point")]
        branches += [convolve(x, f"rate{rate}", 3, rate) for rate in self.rates]
        return convolve(jnp.concatenate(branches, axis=-1), "mix")
