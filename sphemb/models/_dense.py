"""An embedding for every cell of a grid, from a backbone with weights.

Shape letters: B images, H rows, W columns, C channels, D embedding dimension, S stride
of the embedding.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_choice, check_count, check_number
from sphemb._grid import Grid, extended, middle_of_image, resample, without_padding
from sphemb.models._atrous import AtrousPyramid
from sphemb.models._backbone import last_map_at
from sphemb.models._backbones import OnBackbone
from sphemb.models._decoder import TopDown
from sphemb.models._layers import (
    GROUPS,
    chromaticity,
    depth_to_space,
    pixel_coordinates,
    space_to_depth,
)


class DenseEmbedding(OnBackbone):
    """Embeds an image on a grid of its backbone's output stride, or a finer one.

    Those of `OnBackbone` come on top.

    Attributes:
        embedding_dim: D.
        decoder_stride: None, or 4, 2 or 1: bring the last map back to this stride, with
            the help of the finer ones. At 1 the map of stride 2 is unfolded, and meets
            each pixel's own colour in a small network per pixel, which draws the exact
            outline, as in `Hourglass`.
        decoder_features: channels of the decoder, a multiple of 8.
        head_features: channels of the head, a multiple of 8.
        coordinates: tell the decoder's coarsest cells, and the head, where in the image
            they are. A network that is blind to translation cannot tell two equal
            objects apart.
        coordinate_unit: pixels of the image per unit of the coordinate; an image of 512
            pixels goes from -2 to 2.
        coordinate_period: None, or pixels after which the coordinates repeat; the sine
            and cosine of each are told instead. For objects that need differ from those
            within a period only, in images of any size: no cell is anywhere that
            training crops, of at most a period, have not been.
        atrous_rates: dilations of an `AtrousPyramid` of ``decoder_features`` channels
            between backbone and decoder; none for no pyramid.
        num_classes: K, for one more map with a number for each class; 0 for none.
        classes_from: what the classes are read from, by a linear map: ``"embedding"``;
            ``"features"``, those that the embedding is made of, so that the embedding
            can tell apart what is of one class; or ``"backbone"``, its last map, which
            knows much about classes before any training: so few images teach the most.
        dtype: that backbone and decoder compute in, ``"float32"`` or ``"bfloat16"``;
            parameters, coordinates and embedding are float32.

    Raises:
        InputError: a setting that makes no network.
    """

    embedding_dim: int = 64
    decoder_stride: int | None = None
    decoder_features: int = 64
    head_features: int = 64
    coordinates: bool = True
    coordinate_unit: float = 128.0
    coordinate_period: float | None = None
    atrous_rates: tuple[int, ...] = ()
    num_classes: int = 0
    classes_from: str = "embedding"

    def __post_init__(self):
        super().__post_init__()
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_choice("decoder_stride", self.decoder_stride, (None, 4, 2, 1))
        if self.decoder_stride and self.decoder_stride >= self.output_stride:
            raise InputError(
                f"decoder_stride must be below output_stride {self.output_stride}, got "
                f"{self.decoder_stride}: None is no decoder"
            )
        for name in ("decoder_features", "head_features"):
            number = getattr(self, name)
            check_count(name, number, at_least=1)
            if number % GROUPS:
                raise InputError(
                    f"{name} must be a multiple of {GROUPS}, the groups of the "
                    f"normalisation, got {number}"
                )
        check_choice("coordinates", self.coordinates, (True, False))
        check_number("coordinate_unit", self.coordinate_unit, above=0)
        if self.coordinate_period is not None:
            check_number("coordinate_period", self.coordinate_period, above=0)
        for rate in self.atrous_rates:
            check_count("atrous_rates", rate, at_least=1)
        check_count("num_classes", self.num_classes)
        check_choice(
            "classes_from", self.classes_from, ("embedding", "features", "backbone")
        )

    @property
    def embedding_stride(self) -> int:
        """S: the embedding is [B, H / S, W / S, D]."""
        return self.decoder_stride or self.output_stride

    @property
    def shiftable(self) -> bool:
        """Unless it is told coordinates that never come again."""
        return not self.coordinates or self.coordinate_period is not None

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        middle: jax.Array | None = None,
    ) -> dict[str, Any]:
        """Maps an image to named maps.

        Args:
            image: [B, H, W, 3] in [0, 1].
            train: take the batch's moments where ``batch_norm`` is ``"trained"``.
            mask: bool [B, H, W], False where pixels are padding, see `apply_masked`.
            middle: [2] or [B, 2], row and column of the pixel corner where the
                coordinates are zero; by default the middle of the image. A tile gives
                the middle of the image that it is of.

        Returns:
            The backbone's maps, as `feature_maps` says; ``decoded``: [B, H / S, W / S,
            C], what the head reads, where there is a decoder (of stride 2 where S is
            1); ``embedding``: [B, H / S, W / S, D] in float32, of any length: normalise
            it before use; ``logits``: float32 [B, H / S, W / S, K], where there are
            classes.

        Raises:
            InputError: the image is no [B, H, W, 3] or not divisible by `stride`.
        """
        image = without_padding(image, mask)
        if mask is not None and middle is None:
            middle = middle_of_image(mask)
        maps = self.backbone_maps(image, train=train)
        feature_maps = self.feature_maps
        last = feature_maps[-1]
        x, grid = maps[last.name], last.grid
        if self.atrous_rates:
            x = AtrousPyramid(
                self.decoder_features, self.atrous_rates, self.dtype, name="pyramid"
            )(x)
        if self.decoder_stride:
            if self.coordinates:
                x = self._placed(x, grid, middle)
            read, grids, stride = [x], [grid], self.output_stride // 2
            while stride >= max(self.decoder_stride, 2):
                finer = last_map_at(feature_maps, stride)
                read.append(maps[finer.name])
                grids.append(finer.grid)
                stride //= 2
            decoder = TopDown(self.decoder_features, self.dtype, name="decoder")
            x = maps["decoded"] = decoder(read, grids, mask=mask)[-1]
            grid = grids[-1]
            maps["origins"] = maps["origins"].also(decoded=grid.origin)

        dtype = jnp.dtype(self.dtype)
        x = nn.Dense(self.head_features, use_bias=False, dtype=dtype, name="reduce")(x)
        x = nn.relu(nn.GroupNorm(GROUPS, dtype=dtype, name="reduce_norm")(x))
        # From here in float32: bfloat16 has too few digits for the coordinates of
        # neighbouring cells.
        x = x.astype(jnp.float32)
        if self.decoder_stride == 1:
            pixel = jnp.concatenate([image, chromaticity(image)], axis=-1)
            # To where each cell lies on the two by two pixels that it is unfolded to.
            x = resample(extended(x, mask), grid, Grid(2), x.shape[1:3])
            grid = Grid()
            x = jnp.concatenate([x, space_to_depth(pixel)], axis=-1)
            x = depth_to_space(nn.Dense(4 * self.head_features, name="unfold")(x))
            x = nn.relu(jnp.concatenate([x, pixel], axis=-1))
        features = x
        if self.coordinates:
            x = self._placed(x, grid, middle)
        x = nn.relu(nn.Dense(self.head_features, name="hidden")(x))
        maps["embedding"] = nn.Dense(self.embedding_dim, name="project")(x)
        if self.num_classes:
            read = {
                "embedding": maps["embedding"],
                "features": features,
                "backbone": maps[feature_maps[-1].name].astype(jnp.float32),
            }[self.classes_from]
            logits = nn.Dense(self.num_classes, name="classify")(read)
            if self.classes_from == "backbone":
                size = maps["embedding"].shape[1:3]
                logits = resample(extended(logits, mask), last.grid, grid, size)
            maps["logits"] = logits
        maps["origins"] = maps["origins"].also(
            embedding=grid.origin, logits=grid.origin
        )
        return maps

    def _placed(self, x: jax.Array, grid: Grid, middle: jax.Array | None) -> jax.Array:
        """Adds to each cell where it is: 2 channels, or 4 where they repeat."""
        period = self.coordinate_period
        unit = self.coordinate_unit if period is None else period / (2 * math.pi)
        height, width = x.shape[1:3]
        stride, origin = grid
        if middle is None:
            middle = jnp.asarray([stride * height / 2, stride * width / 2])
        where = pixel_coordinates(
            height, width, unit=unit / stride, middle=(middle - origin) / stride
        )
        if period is not None:
            where = jnp.concatenate([jnp.sin(where), jnp.cos(where)], axis=-1)
        where = jnp.broadcast_to(where.astype(x.dtype), (*x.shape[:3], where.shape[-1]))
        return jnp.concatenate([x, where], axis=-1)
