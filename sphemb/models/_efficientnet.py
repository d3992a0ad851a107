"""EfficientNet-Lite0: a backbone small enough for a CPU, whose weights install by name.

Tan & Le, ICML 2019, in the "Lite" form: clipped rectifiers instead of swish, no
squeeze-and-excitation. Its weights come from TensorFlow and want "SAME" padding, which
on even sizes adds more rows below than above.

Shape letters: B images, H rows, W columns, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb.models._backbone import (
    Backbone,
    FeatureMap,
    Sampling,
    check_image,
    convolution,
    sample_stages,
)
from sphemb.models._depthwise import DepthwiseConv
from sphemb.models._norm import BatchNorm

_STEM = 32
_EPSILON = 1e-3
_MOMENTUM = 0.01


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
    puts the centre of a strided kernel on the odd rows and columns, so the undilated
    network's values are the dilated one's at the last of every two, four or eight.

    There is no stochastic depth: what the network says about an image in training is
    what it says after it.

    By the paddings alone, cells of stride s would lie (s - 1) / 2 pixels below and to
    the right of the middles of their s x s pixels: 1.5, 3.5 and 7.5 pixels at strides
    4, 8 and 16. The ImageNet weights look elsewhere: the gradient of a cell has its
    centroid about 1, 0 and 2 pixels away. So the maps of the undilated network have an
    origin of 0, and those of the dilated one lie where these do.

    The settings are those of `Backbone`.

    Raises:
        InputError: a setting that makes no network.
    """

    @property
    def feature_maps(self) -> tuple[FeatureMap, ...]:
        """What is returned, from the image inwards."""
        maps = [FeatureMap("stem", 2, _STEM)]
        for i, (stage, sampling) in enumerate(
            zip(STAGES, self._samplings, strict=True)
        ):
            stride = sampling.total
            origin = -(sampling.dilation - 1) * stride / 2
            maps.append(FeatureMap(f"stage{i + 1}", stride, stage.channels, origin))
        return tuple(maps)

    @property
    def _samplings(self) -> list[Sampling]:
        strides = [stage.stride for stage in STAGES]
        return sample_stages(strides, start=2, output_stride=self.output_stride)

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> dict[str, jax.Array]:
        """Maps an image to named maps.

        Args:
            image: [B, H, W, 3] in [0, 1].
            train: take the batch's moments where ``batch_norm`` is ``"trained"``.

        Returns:
            ``stem`` and ``stage1`` to ``stage7``, as `feature_maps` says.

        Raises:
            InputError: the image is no [B, H, W, 3] or not divisible by `stride`.
        """
        check_image(image, self.stride)
        x = ((255.0 * image.astype(jnp.float32) - 127.0) / 128.0).astype(self.dtype)
        x = _convolution(_STEM, 3, stride=2, dtype=self.dtype, name="stem_conv")(x)
        x = BatchNorm(
            self.batch_norm,
            epsilon=_EPSILON,
            momentum=_MOMENTUM,
            axis_name=self.axis_name,
            name="stem_norm",
        )(x, train=train)
        x = nn.relu6(x)
        maps = {"stem": x}
        for i, (stage, sampling) in enumerate(
            zip(STAGES, self._samplings, strict=True)
        ):
            for j in range(stage.blocks):
                x = _Block(
                    stage,
                    stride=sampling.stride if j == 0 else 1,
                    dilation=sampling.first_dilation if j == 0 else sampling.dilation,
                    batch_norm=self.batch_norm,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
            maps[f"stage{i + 1}"] = x
        return maps


class _Block(nn.Module):
    """Widen, filter each channel by itself, narrow; beside a shortcut where it fits."""

    stage: Stage
    stride: int
    dilation: int
    batch_norm: str
    axis_name: str | None
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def normalize(x, name):
            return BatchNorm(
                self.batch_norm,
                epsilon=_EPSILON,
                momentum=_MOMENTUM,
                axis_name=self.axis_name,
                name=name,
            )(x, train=train)

        wide = x.shape[-1] * self.stage.expansion
        y = x
        if self.stage.expansion != 1:
            y = _convolution(wide, 1, dtype=self.dtype, name="expand")(y)
            y = nn.relu6(normalize(y, "expand_norm"))
        y = DepthwiseConv(
            self.stage.kernel,
            stride=self.stride,
            dilation=self.dilation,
            dtype=self.dtype,
            name="depthwise",
        )(y)
        y = nn.relu6(normalize(y, "depthwise_norm"))
        y = _convolution(self.stage.channels, 1, dtype=self.dtype, name="project")(y)
        y = normalize(y, "project_norm")
        # A first block changes the channels, dilated or not, and so has no shortcut.
        return x + y if x.shape == y.shape else y


def _convolution(
    features: int, size: int, *, dtype: str, name: str, stride: int = 1
) -> nn.Conv:
    return convolution(
        features, size, padding="SAME", stride=stride, dtype=dtype, name=name
    )
