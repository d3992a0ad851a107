"""EfficientNet-Lite0: a backbone small enough for a CPU, whose weights install by name.

Tan & Le, ICML 2019, in the "Lite" form: clipped rectifiers instead of swish, no
squeeze-and-excitation. Its weights come from TensorFlow and need "SAME" padding, which
adds more rows below than above for even sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb.models._layers import BatchNorm, DepthwiseConv, convolution
from sphemb.models.backbones._base import (
    Backbone,
    FeatureMap,
    Sampling,
    check_image,
    sample_stages,
)

_STEM = 32


class Stage(NamedTuple):
    """One row of the paper's Table 1."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 without its head, dilated for dense prediction.

    Strides beyond ``output_stride`` become dilations, as in `ResNet`. "SAME" padding
    centers a strided kernel on the odd rows and columns, so the undilated network's
    values are the dilated one's at the last of every two, four or eight. There is no
    stochastic depth, so training and prediction compute the same.

    By the paddings alone, cells of stride s would lie (s - 1) / 2 pixels below and to
    the right of the middles of their s x s pixels: 1.5, 3.5 and 7.5 at strides 4, 8 and
    16. But with the ImageNet weights the gradient of a cell has its centroid about 1, 0
    and 2 pixels away. So the maps of the undilated network have the origin 0, and those
    of the dilated one lie at the same positions.
    """

    @property
    def feature_maps(self) -> tuple[FeatureMap, ...]:
        """The maps that are returned, from the image inwards."""
        maps = [FeatureMap("stem", 2, _STEM)]
        for i, (stage, sampling) in enumerate(self._stages):
            stride = sampling.total
            origin = -(sampling.dilation - 1) * stride / 2
            maps.append(FeatureMap(f"stage{i + 1}", stride, stage.channels, origin))
        return tuple(maps)

    @property
    def _stages(self) -> list[tuple[Stage, Sampling]]:
        strides = [stage.stride for stage in STAGES]
        samplings = sample_stages(strides, start=2, output_stride=self.output_stride)
        return list(zip(STAGES, samplings, strict=True))

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns ``stem`` and ``stage1`` to ``stage7``."""
        check_image(image, self.stride)
        x = ((255.0 * image.astype(jnp.float32) - 127.0) / 128.0).astype(self.dtype)
        x = convolution(_STEM, 3, stride=2, dtype=self.dtype, name="stem_conv")(x)
        settings = {"epsilon": 1e-3, "momentum": 0.01, "axis_name": self.axis_name}
        norm = functools.partial(BatchNorm, self.batch_norm, **settings)
        x = nn.relu6(norm(name="stem_norm")(x, train=train))
        maps = {"stem": x}
        for i, (stage, sampling) in enumerate(self._stages):
            for j in range(stage.blocks):
                stride, dilation = sampling[:2] if j == 0 else (1, sampling.dilation)
                name = f"stage{i + 1}_block{j + 1}"
                block = _Block(stage, stride, dilation, norm, self.dtype, name=name)
                x = block(x, train=train)
            maps[f"stage{i + 1}"] = x
        return maps


class _Block(nn.Module):
    """Expands, filters each channel by itself, projects; with a shortcut if it fits."""

    stage: Stage
    stride: int
    dilation: int
    norm: Callable[..., BatchNorm]
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def convolve(y: jax.Array, features: int, name: str) -> jax.Array:
            y = convolution(features, 1, dtype=self.dtype, name=name)(y)
            return self.norm(name=f"{name}_norm")(y, train=train)

        y = x
        if self.stage.expansion != 1:
            y = nn.relu6(convolve(y, x.shape[-1] * self.stage.expansion, "expand"))
        settings = (self.stage.kernel, self.stride, self.dilation, self.dtype)
        y = DepthwiseConv(*settings, name="depthwise")(y)
        y = nn.relu6(self.norm(name="depthwise_norm")(y, train=train))
        y = convolve(y, self.stage.channels, "project")
        # A first block changes the channels, dilated or not, so it has no shortcut.
        return x + y if x.shape == y.shape else y
