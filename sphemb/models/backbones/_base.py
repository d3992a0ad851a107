"""What backbones share: their settings, and a description of the maps they return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax

from sphemb._checks import InputError, check_choice, check_shape
from sphemb._grid import Grid
from sphemb.models._layers import BATCH_NORMS


class Backbone(nn.Module, kw_only=True):
    """The base of backbones and of networks that return the maps of one, and more.

    Its ``feature_maps`` are a `FeatureMap` for each map, from the image inwards.
    """

    output_stride: int = 32  # of the last map: 4, 8, 16 or 32
    batch_norm: str = "fixed"  # or "trained", see `BatchNorm`
    axis_name: str | None = "batch"  # of the devices, for "trained"
    dtype: str = "float32"  # or "bfloat16", of the convolutions, not of parameters

    def __post_init__(self):
        check_choice("output_stride", self.output_stride, (4, 8, 16, 32))
        check_choice("batch_norm", self.batch_norm, BATCH_NORMS)
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        super().__post_init__()

    @property
    def stride(self) -> int:
        """H and W must be divisible by it."""
        return self.output_stride


class FeatureMap(NamedTuple):
    """The key, stride, number of channels and origin of a map [B, H / s, W / s, C].

    The origin is the distance in pixels from the middle of the first s x s pixels to
    the center of the first cell; it follows from the paddings of the layers.
    """

    name: str
    stride: int
    channels: int
    origin: float = 0.0

    @property
    def grid(self) -> Grid:
        """The positions of the map's cells in the image."""
        return Grid(self.stride, self.origin)


class Sampling(NamedTuple):
    """How the convolutions of one stage sample their input."""

    stride: int  # of the stage's strided convolution
    first_dilation: int  # of that convolution, which reads the finer grid
    dilation: int  # of the convolutions after it
    total: int  # stride of the stage's output to the image


def sample_stages(
    strides: Sequence[int], *, start: int, output_stride: int
) -> list[Sampling]:
    """Turns the strides beyond ``output_stride`` into dilations (Yu & Koltun 2016).

    A dilated stage computes every value of the strided stage and those between them;
    later convolutions skip the new ones. ``start`` is the stride of the first input.

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
    """Returns the deepest of a backbone's maps of a stride; there must be one."""
    for feature_map in reversed(maps):
        if feature_map.stride == stride:
            return feature_map
    known = ", ".join(f"{m.name} {m.stride}" for m in maps)
    raise InputError(f"stride must be that of a map ({known}), got {stride}")


def check_image(image: jax.Array, stride: int) -> tuple[int, int, int]:
    """Returns B, H, W of an image; H and W must be divisible by the stride."""
    dims = check_shape("image", image, "B H W 3")
    if dims["H"] % stride or dims["W"] % stride:
        raise InputError(
            f"image must have height and width divisible by {stride}, got "
            f"({dims['H']}, {dims['W']}): pad it first"
        )
    return dims["B"], dims["H"], dims["W"]
