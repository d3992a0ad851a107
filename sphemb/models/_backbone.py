"""What backbones share: their settings, and the named maps that they return.

Decoders and side branches pick the maps they read by stride, so what a backbone will
return is known without running it.

Shape letters: B images, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_choice, check_shape
from sphemb._grid import Grid
from sphemb.models._norm import BATCH_NORMS

OUTPUT_STRIDES = (4, 8, 16, 32)
DTYPES = ("float32", "bfloat16")

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class Backbone(nn.Module, kw_only=True):
    """The base of backbones: the settings that all of them have.

    Attributes:
        output_stride: of the last map: 4, 8, 16 or 32.
        batch_norm: ``"fixed"`` or ``"trained"``, see `BatchNorm`.
        axis_name: of the devices, for ``"trained"``.
        dtype: that the convolutions compute in, ``"float32"`` or ``"bfloat16"``;
            parameters are float32.

    Raises:
        InputError: a setting that makes no network.
    """

    output_stride: int = 32
    batch_norm: str = "fixed"
    axis_name: str | None = "batch"
    dtype: str = "float32"

    def __post_init__(self):
        check_settings(self)
        super().__post_init__()

    @property
    def stride(self) -> int:
        """What H and W must be divisible by."""
        return self.output_stride


class FeatureMap(NamedTuple):
    """One map that a backbone returns.

    Attributes:
        name: its key in the returned dict.
        stride: the map is [B, H / stride, W / stride, channels].
        channels: its width.
        origin: pixels from the middle of the first stride x stride pixels to the centre
            of the first cell; it follows from the paddings of the layers.
    """

    name: str
    stride: int
    channels: int
    origin: float = 0.0

    @property
    def grid(self) -> Grid:
        """Where the map's cells lie among the image's pixels."""
        return Grid(self.stride, self.origin)


class Sampling(NamedTuple):
    """How the convolutions of one stage sample their input.

    Attributes:
        stride: of the stage's strided convolution.
        first_dilation: of that convolution; it still reads the finer grid.
        dilation: of those after it.
        total: stride of the stage's output to the image.
    """

    stride: int
    first_dilation: int
    dilation: int
    total: int


def convolution(
    features: int,
    size: int,
    *,
    dtype: str,
    name: str,
    padding: str | int,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Conv:
    """A square convolution without a bias, as all of a backbone are.

    Args:
        features: channels that come out.
        size: of the kernel.
        dtype: that it computes in.
        name: of its variables.
        padding: rows and columns on each side; or ``"SAME"``.
        stride: of the output.
        dilation: of the kernel.
    """
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        padding=padding,
        kernel_dilation=(dilation, dilation),
        use_bias=False,
        kernel_init=he_normal,
        dtype=jnp.dtype(dtype),
        name=name,
    )


def sample_stages(
    strides: Sequence[int], *, start: int, output_stride: int
) -> list[Sampling]:
    """Turns the strides beyond ``output_stride`` into dilations (Yu & Koltun 2016).

    A stage that no longer halves the resolution keeps every value that it would have
    computed with its stride, and computes those between them as well; later
    convolutions skip over the new ones.

    Args:
        strides: of the stages, 1 or 2.
        start: stride of the first stage's input.
        output_stride: the largest total stride.

    Returns:
        One `Sampling` per stage.

    >>> [s.dilation for s in sample_stages((1, 2, 2, 2), start=4, output_stride=8)]
    [1, 1, 2, 4]
    """
    total, dilation, stages = start, 1, []
    for stride in strides:
        first = dilation
        if total * stride > output_stride:
            dilation *= stride
            stride = 1
        total *= stride
        stages.append(Sampling(stride, first, dilation, total))
    return stages


def last_map_at(maps: Sequence[FeatureMap], stride: int) -> FeatureMap:
    """The deepest map of a stride.

    Args:
        maps: of a backbone, from the image inwards.
        stride: the wanted one.

    Returns:
        The map.

    Raises:
        InputError: the backbone has none of that stride.

    >>> last_map_at([FeatureMap("stem", 2, 64), FeatureMap("stage1", 4, 256)], 4).name
    'stage1'
    """
    for feature_map in reversed(maps):
        if feature_map.stride == stride:
            return feature_map
    known = ", ".join(f"{m.name} {m.stride}" for m in maps)
    raise InputError(f"stride must be that of a map ({known}), got {stride}")


def check_settings(network: Any) -> None:
    """Refuses settings of a network that make no backbone."""
    check_choice("output_stride", network.output_stride, OUTPUT_STRIDES)
    check_choice("batch_norm", network.batch_norm, BATCH_NORMS)
    check_choice("dtype", network.dtype, DTYPES)


def check_image(image: jax.Array, stride: int) -> tuple[int, int, int]:
    """Refuses an image that a network of this stride cannot take.

    Args:
        image: [B, H, W, 3].
        stride: what H and W must be divisible by.

    Returns:
        B, H, W.

    Raises:
        InputError: the image is no [B, H, W, 3] or not divisible.
    """
    dims = check_shape("image", image, "B H W 3")
    if dims["H"] % stride or dims["W"] % stride:
        raise InputError(
            f"image must have height and width divisible by {stride}, got "
            f"({dims['H']}, {dims['W']}): pad it first"
        )
    return dims["B"], dims["H"], dims["W"]
