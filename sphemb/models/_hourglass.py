"""A residual hourglass with full-resolution output, fast enough for two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_count
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


class Hourglass(nn.Module):
    """Embeds every pixel of an image, of any size divisible by `stride`.

    There is no convolution at full resolution, which would dominate the run time. The
    image is folded to half resolution without loss; residual stages go down and up with
    additive skips; a small network per pixel combines the result with the pixel's own
    color, chromaticity and coordinates, which gives exact outlines.
    """

    embedding_dim: int  # D
    # Channels of the stages, multiples of 8, from half resolution downwards; each stage
    # after the first halves the resolution.
    features: Sequence[int] = (48, 96, 128)
    head_features: int = 32  # channels of the network per pixel

    def __post_init__(self):
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_count("head_features", self.head_features, at_least=1)
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
        """False: the coordinates never repeat."""
        return False

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> dict[str, Any]:
        """Maps an image to named maps."""
        batch, height, width = check_image(image, self.stride)
        middle = None if mask is None else middle_of_image(mask)
        where = pixel_coordinates(height, width, middle=middle)
        image = without_padding(image, mask)
        where = jnp.broadcast_to(where, (batch, height, width, 2))
        pixel = jnp.concatenate([image, chromaticity(image), where], axis=-1)

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
        origins = ((f"stage{i + 1}", grid.origin) for i, grid in enumerate(grids))
        maps["origins"] = Origins(tuple(origins))
        return maps
