"""Backbones by name, and what networks on top of them share.

Shape letters: B images, H rows, W columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import check_choice
from sphemb._grid import Origins
from sphemb.models._backbone import FeatureMap, check_image, check_settings
from sphemb.models._efficientnet import EfficientNetLite0
from sphemb.models._norm import BatchNorm
from sphemb.models._resnet import BLOCKS, ResNet

_NORMALIZATIONS = ("none", "cells", "channels")
_TINY = 1e-6  # of a mean square, so that a dead cell stays zero

BACKBONES: dict[str, Callable[..., Any]] = {
    **{f"resnet{depth}": functools.partial(ResNet, depth) for depth in BLOCKS},
    "efficientnet_lite0": EfficientNetLite0,
}
"""Backbones by name; each takes the settings of `Backbone`."""


class OnBackbone(nn.Module):
    """The base of networks that read the maps of a backbone.

    The backbone's variables are the sub-tree ``backbone`` of ``params`` and of
    ``batch_stats``; `load_weights` gives what belongs there.

    Attributes:
        backbone: a name of `BACKBONES`.
        output_stride: of the backbone's last map: 4, 8, 16 or 32.
        normalize_maps: what is done to the maps before anything reads them. ``"none"``.
            ``"cells"``: every cell is divided by the root of its mean square, for
            networks that add maps up: those of EfficientNet-Lite0 shrink with depth,
            from 10 to 3 on photographs, and what is shallow drowns what is deep.
            ``"channels"``: a `BatchNorm` that learns, for networks that read a map:
            what its channels have in common everywhere is ten times what they tell
            apart, and an optimiser sees little else.
        batch_norm: ``"fixed"`` for the moments that came with the weights, or
            ``"trained"``, see `BatchNorm`.
        axis_name: of the devices, for ``"trained"``.
        dtype: that the backbone computes in, ``"float32"`` or ``"bfloat16"``.

    Raises:
        InputError: a setting that makes no backbone.
    """

    backbone: str = "resnet50"
    output_stride: int = 8
    normalize_maps: str = "none"
    batch_norm: str = "fixed"
    axis_name: str | None = "batch"
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("backbone", self.backbone, tuple(BACKBONES))
        check_choice("normalize_maps", self.normalize_maps, _NORMALIZATIONS)
        check_settings(self)
        super().__post_init__()

    @property
    def stride(self) -> int:
        """What H and W must be divisible by."""
        return self.output_stride

    @property
    def shiftable(self) -> bool:
        """Whether it says the same of a place wherever in an image that is.

        That is so up to the moments of group normalisation (see `apply_with_moments`)
        and near the border.
        """
        return True

    @property
    def feature_maps(self) -> tuple[FeatureMap, ...]:
        """The backbone's maps, from the image inwards."""
        make = BACKBONES[self.backbone]
        return make(output_stride=self.output_stride, parent=None).feature_maps

    def backbone_maps(self, image: jax.Array, *, train: bool) -> dict[str, Any]:
        """The backbone's maps of an image, by name, and their ``origins``.

        It is called once, in ``__call__``.

        Args:
            image: [B, H, W, 3] in [0, 1].
            train: take the batch's moments where ``batch_norm`` is ``"trained"``.

        Raises:
            InputError: the image is no [B, H, W, 3] or not divisible by `stride`.
        """
        check_image(image, self.stride)
        maps = BACKBONES[self.backbone](
            output_stride=self.output_stride,
            batch_norm=self.batch_norm,
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="backbone",
        )(image, train=train)
        if self.normalize_maps == "cells":
            maps = {name: _of_one_size(found) for name, found in maps.items()}
        elif self.normalize_maps == "channels":
            maps = {
                name: BatchNorm(
                    "trained", axis_name=self.axis_name, name=f"{name}_norm"
                )(found, train=train)
                for name, found in maps.items()
            }
        origins = tuple((m.name, m.origin) for m in self.feature_maps)
        return {**maps, "origins": Origins(origins)}


def _of_one_size(found: jax.Array) -> jax.Array:
    square = jnp.mean(jnp.square(found.astype(jnp.float32)), axis=-1, keepdims=True)
    return found * jax.lax.rsqrt(square + _TINY).astype(found.dtype)
