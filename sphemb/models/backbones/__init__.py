"""Backbones: networks that return maps of several strides, by name in `BACKBONES`."""

import functools
from collections.abc import Callable
from typing import Any

from sphemb.models.backbones._base import Backbone, FeatureMap, last_map_at
from sphemb.models.backbones._efficientnet import EfficientNetLite0
from sphemb.models.backbones._resnet import BLOCKS, ResNet

BACKBONES: dict[str, Callable[..., Any]] = {
    **{f"resnet{depth}": functools.partial(ResNet, depth) for depth in BLOCKS},
    "efficientnet_lite0": EfficientNetLite0,
}
"""Backbones by name; each takes the settings of `Backbone`."""

__all__ = [
    "BACKBONES",
    "Backbone",
    "EfficientNetLite0",
    "FeatureMap",
    "ResNet",
    "last_map_at",
]
