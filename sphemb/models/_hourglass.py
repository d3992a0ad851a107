"""A residual hourglass with full-resolution output, cheap enough for two CPU cores.

Shape letters: B images, H rows, W columns, C channels, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_count, check_number, check_shape
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
    ResidualBlock,
    chromaticity,
    depth_to_space,
    pixel_coordinates,
    space_to_depth,
)


class Hourglass(nn.Module):
    """Embeds every pixel of an image, of any size divisible by `stride`.

    Convolutions at full resolution are what such networks spend their time on. Here
    none is: the image is folded to half resolution without loss, residual stages go
    down and up again with additive skips, and what comes back to full resolution meets
    the pixel's own colour, chromaticity and coordinates in a small network per pixel,
    which draws the exact outline.

    Attributes:
        embedding_dim: D.
        features: channels of the stages, multiples of 8, from half resolution
            downwards; each stage after the first halves the resolution.
        head_features: channels of the network per pixel.
        coordinate_unit: pixels per unit of the coordinate channels.

    Raises:
        InputError: a setting that makes no network.
    """

    embedding_dim: int
    features: Sequence[int] = (48, 96, 128)
    head_features: int = 32
    coordinate_unit: float = 32.0

    def __post_init__(self):
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_count("head_features", self.head_features, at_least=1)
        check_number("coordinate_unit", self.coordinate_unit, above=0)
        features = self.features
        if not isinstance(features, Sequence) or not features:
            raise InputError(
                f"features must name the channels of each stage, got {features!r}"
            )
        for number in features:
            check_count("features", number, at_least=1)
            if number % GROUPS:
                raise InputError(
                    f"features must be multiples of {GROUPS}, the groups of the "
                    f"normalisation, got {features!r}"
                )
        super().__post_init__()

    @property
    def stride(self) -> int:
        """What H and W must be divisible by."""
        return 2 ** len(self.features)

    @property
    def shiftable(self) -> bool:
        """No: it is told coordinates that never come again."""
        return False

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> dict[str, Any]:
        """Maps an image to named maps.

        Args:
            image: [B, H, W, 3] in [0, 1].
            train: makes no difference: groups of channels are normalised, not batches.
            mask: bool [B, H, W], False where pixels are padding, see `apply_masked`.

        Returns:
            ``stage{i}``: [B, H / 2^i, W / 2^i, C_i], the stages going down;
            ``decoded``: [B, H / 2, W / 2, C_1], the last stage coming up;
            ``embedding``: [B, H, W, D], of any length: normalise it before use.

        Raises:
            InputError: the image is no [B, H, W, 3] or not divisible by `stride`.
        """
        dims = check_shape("image", image, "B H W 3")
        height, width = dims["H"], dims["W"]
        if height % self.stride or width % self.stride:
            raise InputError(
                f"image must have height and width divisible by {self.stride}, got "
                f"({height}, {width}): pad it first"
            )
        middle = None if mask is None else middle_of_image(mask)
        where = pixel_coordinates(
            height, width, unit=self.coordinate_unit, middle=middle
        )
        image = without_padding(image, mask)
        where = jnp.broadcast_to(where, (dims["B"], height, width, 2))
        pixel = jnp.concatenate([image, chromaticity(image), where], axis=-1)

        maps: dict[str, Any] = {}
        grid, grids = Grid(2), []
        folded = space_to_depth(pixel)
        x = nn.Conv(self.features[0], (3, 3), use_bias=False)(folded)
        x = nn.relu(nn.GroupNorm(GROUPS)(x))
        for i, features in enumerate(self.features):
            stride = 1 if i == 0 else 2
            x = maps[f"stage{i + 1}"] = ResidualBlock(features, stride=stride)(x)
            grid = ResidualBlock.moved(grid, stride)
            grids.append(grid)
        for i in reversed(range(len(self.features) - 1)):
            x = nn.Conv(self.features[i], (1, 1), use_bias=False)(x)
            finer = maps[f"stage{i + 1}"]
            x = extended(x, mask)
            x = resample(x, grids[i + 1], grids[i], finer.shape[1:3])
            x = ResidualBlock(self.features[i])(x + finer)
        maps["decoded"] = x

        x = jnp.concatenate([x, folded], axis=-1)
        x = depth_to_space(nn.Dense(4 * self.head_features)(x))
        x = jnp.concatenate([x, pixel], axis=-1)
        x = nn.relu(nn.Dense(self.head_features)(x))
        x = nn.relu(nn.Dense(self.head_features)(x))
        maps["embedding"] = nn.Dense(self.embedding_dim)(x)
        maps["origins"] = Origins(
            tuple((f"stage{i + 1}", grid.origin) for i, grid in enumerate(grids))
        )
        return maps
