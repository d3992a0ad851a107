"""Residual networks of 18 to 101 layers, dilated for dense prediction.

He et al., CVPR 2016, in the form of torchvision and timm ("v1.5"): the stride is on the
3 x 3 convolution. Padding is symmetric, as in torch; "SAME" would shift every strided
convolution by a pixel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import check_choice
from sphemb._grid import Grid
from sphemb.models._layers import BatchNorm, MaxPool, convolution
from sphemb.models.backbones._base import (
    Backbone,
    FeatureMap,
    Sampling,
    check_image,
    sample_stages,
)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_WIDTHS = (64, 128, 256, 512)
_STRIDES = (1, 2, 2, 2)
_EXPANSION = 4  # of a bottleneck
# Of ImageNet, in [0, 1], as in the training of torchvision's and timm's weights.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class ResNet(Backbone):
    """A residual network without its classifier.

    Strides beyond ``output_stride`` become dilations: 2 in stage 3 and 4 in stage 4 for
    an output stride of 8; 2, 4 and 8 in the stages 2 to 4 for 4. The first convolution
    and the pooling always keep their stride. The dilated network computes all values of
    the undilated one, at the same positions, and those between them.

    Attributes:
        depth: 18, 34 (basic blocks), 50 or 101 (bottlenecks). The other settings are
            those of `Backbone`.
    """

    depth: int = 50

    def __post_init__(self):
        check_choice("depth", self.depth, tuple(BLOCKS))
        super().__post_init__()

    @property
    def feature_maps(self) -> tuple[FeatureMap, ...]:
        """The maps that are returned, from the image inwards."""
        grid = Grid().strided(kernel=7, stride=2, before=3)
        maps = [FeatureMap("stem", 2, 64, grid.origin)]
        grid = grid.strided(kernel=3, stride=2, before=1)  # the pooling
        expansion = _EXPANSION if self.depth >= 50 else 1
        for i, (sampling, width) in enumerate(zip(self._stages, _WIDTHS, strict=True)):
            dilation = sampling.first_dilation
            sides = {"kernel": 2 * dilation + 1, "before": dilation}
            grid = grid.strided(stride=sampling.stride, **sides)
            channels = width * expansion
            maps.append(
                FeatureMap(f"stage{i + 1}", sampling.total, channels, grid.origin)
            )
        return tuple(maps)

    @property
    def _stages(self) -> list[Sampling]:
        return sample_stages(_STRIDES, start=4, output_stride=self.output_stride)

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns ``stem``, before the pooling, and ``stage1`` to ``stage4``."""
        check_image(image, self.stride)
        x = (image.astype(jnp.float32) - jnp.array(_MEAN)) / jnp.array(_STD)
        x = x.astype(self.dtype)
        conv = functools.partial(convolution, symmetric=True, dtype=self.dtype)
        x = conv(64, 7, stride=2, name="stem_conv")(x)
        norm = functools.partial(BatchNorm, self.batch_norm, axis_name=self.axis_name)
        maps = {"stem": nn.relu(norm(name="stem_norm")(x, train=train))}
        x = MaxPool(name="stem_pool")(maps["stem"])
        for i, sampling in enumerate(self._stages):
            for j in range(BLOCKS[self.depth][i]):
                stride, dilation = sampling[:2] if j == 0 else (1, sampling.dilation)
                x = _Block(
                    _WIDTHS[i],
                    bottleneck=self.depth >= 50,
                    stride=stride,
                    first_dilation=dilation,
                    dilation=sampling.dilation,
                    conv=conv,
                    norm=norm,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
            maps[f"stage{i + 1}"] = x
        return maps


class _Block(nn.Module):
    """Two 3 x 3 convolutions, or one between two 1 x 1, beside a shortcut."""

    width: int
    bottleneck: bool
    stride: int
    first_dilation: int
    dilation: int
    conv: Callable[..., nn.Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def convolve(x, features, size, name, **settings):
            return self.conv(features, size, name=name, **settings)(x)

        def normalize(x, name, **settings):
            return self.norm(name=name, **settings)(x, train=train)

        # From scratch every block starts as its shortcut (Goyal et al. 2017); otherwise
        # the values would double from block to block under fixed moments.
        strided = {"stride": self.stride, "dilation": self.first_dilation}
        if self.bottleneck:
            features = self.width * _EXPANSION
            y = nn.relu(normalize(convolve(x, self.width, 1, name="conv1"), "norm1"))
            y = convolve(y, self.width, 3, name="conv2", **strided)
            y = nn.relu(normalize(y, "norm2"))
            y = convolve(y, features, 1, name="conv3")
            y = normalize(y, "norm3", zero_scale=True)
        else:
            features = self.width
            y = convolve(x, features, 3, name="conv1", **strided)
            y = nn.relu(normalize(y, "norm1"))
            y = convolve(y, features, 3, name="conv2", dilation=self.dilation)
            y = normalize(y, "norm2", zero_scale=True)
        # A dilated stage changes the channels where the undilated one does, so both
        # have the same shortcut convolutions.
        if x.shape != y.shape:
            x = convolve(x, features, 1, name="shortcut", stride=self.stride)
            x = normalize(x, "shortcut_norm")
        return nn.relu(x + y)
