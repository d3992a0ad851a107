"""Residual networks of 18 to 101 layers, dilated for dense prediction.

He et al., CVPR 2016, in the form whose weights are at hand everywhere (torchvision,
timm; "v1.5"): the stride is on the 3 x 3 convolution. Padding is symmetric and
explicit, as in torch; "SAME" would shift every strided convolution by a pixel.

Shape letters: B images, H rows, W columns, C channels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import check_choice
from sphemb._grid import Grid
from sphemb.models._backbone import (
    Backbone,
    FeatureMap,
    Sampling,
    check_image,
    convolution,
    sample_stages,
)
from sphemb.models._layers import MaxPool
from sphemb.models._norm import BatchNorm

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_WIDTHS = (64, 128, 256, 512)
_STRIDES = (1, 2, 2, 2)
_EXPANSION = 4  # of a bottleneck
# Of ImageNet, in [0, 1]; what torchvision's and timm's weights were trained with.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class ResNet(Backbone):
    """A residual network without its classifier.

    Strides beyond ``output_stride`` become dilations: 2 in stage 3 and 4 in stage 4 for
    an output stride of 8; 2, 4 and 8 in the stages 2 to 4 for 4. The first convolution
    and the pooling always keep their stride. The dilated network computes all values of
    the undilated one, at the same places, and those between them.

    Those of `Backbone` come on top.

    Attributes:
        depth: 18, 34 (basic blocks), 50 or 101 (bottlenecks).

    Raises:
        InputError: a setting that makes no network.
    """

    depth: int = 50

    def __post_init__(self):
        check_choice("depth", self.depth, tuple(BLOCKS))
        super().__post_init__()

    @property
    def feature_maps(self) -> tuple[FeatureMap, ...]:
        """What is returned, from the image inwards."""
        grid = Grid().strided(kernel=7, stride=2, before=_padding(7))
        maps = [FeatureMap("stem", 2, 64, grid.origin)]
        grid = MaxPool.moved(grid)
        expansion = _EXPANSION if self.depth >= 50 else 1
        for i, (sampling, width) in enumerate(zip(self._stages, _WIDTHS, strict=True)):
            dilation = sampling.first_dilation
            grid = grid.strided(
                kernel=2 * dilation + 1,
                stride=sampling.stride,
                before=_padding(3, dilation),
            )
            maps.append(
                FeatureMap(
                    f"stage{i + 1}", sampling.total, width * expansion, grid.origin
                )
            )
        return tuple(maps)

    @property
    def _stages(self) -> list[Sampling]:
        return sample_stages(_STRIDES, start=4, output_stride=self.output_stride)

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> dict[str, jax.Array]:
        """Maps an image to named maps.

        Args:
            image: [B, H, W, 3] in [0, 1].
            train: take the batch's moments where ``batch_norm`` is ``"trained"``.

        Returns:
            ``stem``: [B, H / 2, W / 2, 64], before the pooling; ``stage1`` to
            ``stage4``: as `feature_maps` says.

        Raises:
            InputError: the image is no [B, H, W, 3] or not divisible by `stride`.
        """
        check_image(image, self.stride)
        x = (image.astype(jnp.float32) - jnp.array(_MEAN)) / jnp.array(_STD)
        x = x.astype(self.dtype)
        x = _convolution(64, 7, stride=2, dtype=self.dtype, name="stem_conv")(x)
        x = BatchNorm(self.batch_norm, axis_name=self.axis_name, name="stem_norm")(
            x, train=train
        )
        maps = {"stem": nn.relu(x)}
        x = MaxPool(name="stem_pool")(maps["stem"])
        for i, sampling in enumerate(self._stages):
            for j in range(BLOCKS[self.depth][i]):
                x = _Block(
                    _WIDTHS[i],
                    bottleneck=self.depth >= 50,
                    stride=sampling.stride if j == 0 else 1,
                    first_dilation=(
                        sampling.first_dilation if j == 0 else sampling.dilation
                    ),
                    dilation=sampling.dilation,
                    batch_norm=self.batch_norm,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
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
    batch_norm: str
    axis_name: str | None
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def convolve(x, features, size, *, name, stride=1, dilation=1):
            return _convolution(
                features,
                size,
                stride=stride,
                dilation=dilation,
                dtype=self.dtype,
                name=name,
            )(x)

        def normalize(x, name, *, zero_scale=False):
            return BatchNorm(
                self.batch_norm,
                axis_name=self.axis_name,
                zero_scale=zero_scale,
                name=name,
            )(x, train=train)

        # From scratch every block starts as its shortcut (Goyal et al. 2017), without
        # which fixed moments would let the values double from block to block.
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
        # A dilated stage keeps the shape but not the channels, so it has a shortcut
        # convolution wherever the undilated one has.
        if x.shape != y.shape:
            x = convolve(x, features, 1, name="shortcut", stride=self.stride)
            x = normalize(x, "shortcut_norm")
        return nn.relu(x + y)


def _convolution(
    features: int,
    size: int,
    *,
    dtype: str,
    name: str,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Conv:
    return convolution(
        features,
        size,
        padding=_padding(size, dilation),
        stride=stride,
        dilation=dilation,
        dtype=dtype,
        name=name,
    )


def _padding(size: int, dilation: int = 1) -> int:
    """Rows and columns of padding on each side."""
    return dilation * (size - 1) // 2
