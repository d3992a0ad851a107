"""A residual U-Net with full-resolution output, fast enough for two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_choice, check_count
from sphemb._grid import (
    Grid,
    Origins,
    extended,
    middle_of_image,
    resample,
    without_padding,
)
from sphemb.models._layers import (
    GROUPS,
    PRECISE,
    ResidualBlock,
    check_groups,
    chromaticity,
    depth_to_space,
    pixel_coordinates,
    precise_dense,
    space_to_depth,
)
from sphemb.models.backbones._base import check_image


class UNet(nn.Module):
    """Embeds every pixel of an image, of any size divisible by `stride`.

    There is no convolution at full resolution, which would dominate the run time. The
    image is folded to half resolution without loss; residual stages go down and up with
    additive skips; a small network per pixel combines the result with the pixel's own
    color, chromaticity and coordinates, which gives exact outlines.

    References:
        Ronneberger, Fischer & Brox, "U-Net", MICCAI 2015; Newell, Yang & Deng, "Stacked
        hourglass networks", ECCV 2016, for the additive skips.
    """

    embedding_dim: int  # D
    # Channels of the stages, multiples of 8, from half resolution downwards; each stage
    # after the first halves the resolution.
    features: Sequence[int] = (48, 96, 128)
    head_features: int = 32  # channels of the network per pixel
    coordinates: bool = True  # of the pixels from the middle, see `pixel_coordinates`
    num_classes: int = 0  # K, for an additional map of scores, ``logits``; 0 for none

    def __post_init__(self):
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_count("head_features", self.head_features, at_least=1)
        check_choice("coordinates", self.coordinates, (True, False))
        check_count("num_classes", self.num_classes)
        if not isinstance(self.features, Sequence) or not self.features:
            raise InputError(
                f"features must name the channels of each stage, got {self.features!r}"
            )
        for number in self.features:
            check_groups("features", number)
        super().__post_init__()

    @property
    def stride(self) -> int:
        """H and W must be divisible by it."""
        return 2 ** len(self.features)

    @property
    def shiftable(self) -> bool:
        """False if there are coordinates, which never repeat."""
        return not self.coordinates

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> dict[str, Any]:
        """Maps an image to named maps."""
        batch, height, width = check_image(image, self.stride)
        image = without_padding(image, mask)
        pixel = [image, chromaticity(image)]
        if self.coordinates:
            middle = None if mask is None else middle_of_image(mask)
            where = pixel_coordinates(height, width, middle=middle)
            pixel.append(jnp.broadcast_to(where, (batch, height, width, 2)))
        pixel = jnp.concatenate(pixel, axis=-1)

        maps: dict[str, Any] = {}
        grid, grids = Grid(2), []
        folded = space_to_depth(pixel)
        stem = {"use_bias": False, "precision": PRECISE}
        x = nn.Conv(self.features[0], (3, 3), **stem)(folded)
        x = nn.relu(nn.GroupNorm(GROUPS)(x))
        for i, features in enumerate(self.features):
            stride = 1 if i == 0 else 2
            x = maps[f"stage{i + 1}"] = ResidualBlock(features, stride=stride)(x)
            grid = grid.strided(kernel=3, stride=stride, before=1)
            grids.append(grid)
        for i in reversed(range(len(self.features) - 1)):
            x = nn.Conv(self.features[i], (1, 1), use_bias=False)(x)
            finer = maps[f"stage{i + 1}"]
            x = extended(x, mask)
            x = resample(x, grids[i + 1], grids[i], finer.shape[1:3])
            x = ResidualBlock(self.features[i])(x + finer)
        maps["decoded"] = x

        x = jnp.concatenate([x, folded], axis=-1)
        x = depth_to_space(precise_dense(4 * self.head_features)(x))
        x = jnp.concatenate([x, pixel], axis=-1)
        x = nn.relu(precise_dense(self.head_features)(x))
        x = nn.relu(precise_dense(self.head_features)(x))
        maps["embedding"] = precise_dense(self.embedding_dim)(x)
        if self.num_classes:
            maps["logits"] = precise_dense(self.num_classes, name="classify")(x)
        origins = ((f"stage{i + 1}", grid.origin) for i, grid in enumerate(grids))
        maps["origins"] = Origins(tuple(origins))
        return maps
