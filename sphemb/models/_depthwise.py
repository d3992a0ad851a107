"""Convolutions of every channel by itself.

Shape letters: B images, H rows, W columns, C channels, K side of the kernel.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn.initializers import Initializer

from sphemb.models._backbone import he_normal


def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1
) -> jax.Array:
    """Filters every channel with a kernel of its own, with TensorFlow's SAME padding.

    XLA's grouped convolution takes 10 to 40 times as long on CPUs as the K^2 shifted
    products that it stands for, and its gradient 4 to 15 times; there the products are
    summed, which has a reverse mode only. Accelerators keep the convolution.

    Args:
        x: [B, H, W, C].
        kernel: [K, K, 1, C].
        stride: of the output.
        dilation: of the kernel.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), C].

    >>> depthwise_convolution(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))).max()
    Array(9., dtype=float32)
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _shifted_products(x, kernel, stride, dilation),
        default=lambda x, kernel: _grouped_convolution(x, kernel, stride, dilation),
    )


def _grouped_convolution(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _sum_of_products(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
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
    """Sums the products of windows and cotangent, a row of one image at a time.

    Every entry of the kernel needs a sum over all pixels. Taken one after the other
    they read both maps from memory K^2 times, and take longer than all the rest of a
    training step; a row stays in the cache for all of them.
    """
    x, (height, width) = _padded(x, kernel.shape[0], stride, dilation)
    taps = list(np.ndindex(kernel.shape[:2]))
    reach = (width - 1) * stride + 1

    def add_row(n: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        image, row = jnp.divmod(n, height)
        weights = cotangent[image, row].astype(jnp.float32)
        new = []
        for (i, j), total in zip(taps, sums, strict=True):
            values = x[image, row * stride + i * dilation]
            left = j * dilation
            new.append(total + values[left : left + reach : stride] * weights)
        return tuple(new)

    zeros = (jnp.zeros((width, x.shape[-1]), jnp.float32),) * len(taps)
    sums = jax.lax.fori_loop(0, x.shape[0] * height, add_row, zeros)
    gradient = jnp.stack([jnp.sum(total, axis=0) for total in sums])
    return gradient.reshape(kernel.shape).astype(kernel.dtype)


def _padded(
    x: jax.Array, side: int, stride: int, dilation: int
) -> tuple[jax.Array, list[int]]:
    """The map with SAME padding, and the height and width of the output."""
    sizes = [-(-length // stride) for length in x.shape[1:3]]
    padding = []
    for length, size in zip(x.shape[1:3], sizes, strict=True):
        reach = (size - 1) * stride + 1 + (side - 1) * dilation
        missing = max(reach - length, 0)
        padding.append((missing // 2, missing - missing // 2))
    return jnp.pad(x, ((0, 0), *padding, (0, 0))), sizes


class DepthwiseConv(nn.Module):
    """`depthwise_convolution` with a kernel that is learned.

    Attributes:
        size: K.
        stride: of the output.
        dilation: of the kernel.
        dtype: of the computation.
        kernel_init: of the kernel.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    dtype: str = "float32"
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), C]."""
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        return depthwise_convolution(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            dilation=self.dilation,
        )
