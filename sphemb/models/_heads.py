"""Networks on a backbone.

Shape letters: B images, H rows, W columns, C channels, D embedding dimension, K classes
or branches, S stride of the embedding.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_choice, check_count, check_number
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
    AtrousPyramid,
    BatchNorm,
    TopDown,
    check_groups,
    chromaticity,
    depth_to_space,
    he_normal,
    pixel_coordinates,
    precise_dense,
    space_to_depth,
)
from sphemb.models.backbones import BACKBONES, Backbone, FeatureMap, last_map_at
from sphemb.models.backbones._base import check_image
from sphemb.sphere import l2_normalize

_FCN_STRIDES = (32, 16, 8)
_PYRAMID_STRIDE = 4  # of the finest map that is summed


class OnBackbone(Backbone):
    """The base of networks that read the maps of a backbone, and return them too.

    The backbone's variables are the sub-tree ``backbone`` of ``params`` and of
    ``batch_stats``; `load_weights` returns these sub-trees. ``dtype`` is that of the
    backbone and of a decoder; coordinates and the network's own maps are float32.

    Attributes:
        backbone: a name of `BACKBONES`.
        normalize_maps: how the maps are normalized before they are read: ``"none"``;
            ``"cells"`` divides every cell by the root of its mean square, so that the
            shallow maps of EfficientNet-Lite0 do not dominate a sum; ``"channels"`` is
            a trained `BatchNorm`, because what the channels have in common everywhere
            slows training.
    """

    backbone: str = "resnet50"
    output_stride: int = field(default=8, kw_only=True)
    normalize_maps: str = "none"

    def __post_init__(self):
        check_choice("backbone", self.backbone, tuple(BACKBONES))
        normalizations = ("none", "cells", "channels")
        check_choice("normalize_maps", self.normalize_maps, normalizations)
        super().__post_init__()

    @property
    def shiftable(self) -> bool:
        """Whether the output at a pixel depends on its surroundings alone."""
        return True

    @property
    def feature_maps(self) -> tuple[FeatureMap, ...]:
        """The backbone's maps from the image inwards."""
        make = BACKBONES[self.backbone]
        return make(output_stride=self.output_stride, parent=None).feature_maps

    def backbone_maps(self, image: jax.Array, *, train: bool) -> dict[str, Any]:
        """Returns the backbone's maps and ``origins``; ``__call__`` calls it once."""
        check_image(image, self.stride)
        maps = BACKBONES[self.backbone](
            output_stride=self.output_stride,
            batch_norm=self.batch_norm,
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="backbone",
        )(image, train=train)
        for name, x in maps.items():
            if self.normalize_maps == "cells":
                wide = x.astype(jnp.float32)
                square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
                # A cell of zeros stays zero.
                maps[name] = x * jax.lax.rsqrt(square + 1e-6).astype(x.dtype)
            elif self.normalize_maps == "channels":
                settings = {"axis_name": self.axis_name, "name": f"{name}_norm"}
                norm = BatchNorm("trained", **settings)
                maps[name] = norm(x, train=train)
        origins = tuple((m.name, m.origin) for m in self.feature_maps)
        return {**maps, "origins": Origins(origins)}


class DenseEmbedding(OnBackbone):
    """Embeds an image on a grid of its backbone's output stride, or a finer one.

    Attributes:
        embedding_dim: D.
        decoder_stride: None, or 8, 4, 2 or 1: bring the last map back to this stride
            with the finer maps, see `TopDown`. At 1 the map of stride 2 is unfolded,
            and a small network per pixel adds the pixel's own color, for exact
            outlines.
        decoder_features: channels of the decoder, a multiple of 8.
        head_features: channels of the head, a multiple of 8.
        coordinates: give them to decoder and head, see `pixel_coordinates`.
        coordinate_unit: pixels of the image per unit of the coordinate; an image of 512
            pixels goes from -2 to 2.
        coordinate_period: None, or pixels after which the coordinates repeat, as sine
            and cosine, so that training crops cover the values of larger images. Equal
            objects a period apart are then not separated.
        atrous_rates: dilations of an `AtrousPyramid` of ``decoder_features`` channels
            between backbone and decoder; empty for none.
        num_classes: K, for an additional map of class scores; 0 for none.
        classes_from: input of the linear map to the scores: ``"embedding"``;
            ``"features"``, its input, so that the embedding can differ within a class;
            or ``"backbone"``, its last map, which is best with few images.
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
        check_choice("decoder_stride", self.decoder_stride, (None, 8, 4, 2, 1))
        if self.decoder_stride and self.decoder_stride >= self.output_stride:
            raise InputError(
                f"decoder_stride must be below output_stride {self.output_stride}, got "
                f"{self.decoder_stride}: None means no decoder"
            )
        check_groups("decoder_features", self.decoder_features)
        check_groups("head_features", self.head_features)
        check_choice("coordinates", self.coordinates, (True, False))
        check_number("coordinate_unit", self.coordinate_unit, above=0)
        if self.coordinate_period is not None:
            check_number("coordinate_period", self.coordinate_period, above=0)
        for rate in self.atrous_rates:
            check_count("atrous_rates", rate, at_least=1)
        check_count("num_classes", self.num_classes)
        sources = ("embedding", "features", "backbone")
        check_choice("classes_from", self.classes_from, sources)

    @property
    def shiftable(self) -> bool:
        """False if coordinates are given that never repeat."""
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
        """Maps an image to named maps, see `sphemb.models`."""
        image = without_padding(image, mask)
        if mask is not None and middle is None:
            middle = middle_of_image(mask)
        maps = self.backbone_maps(image, train=train)
        last = self.feature_maps[-1]
        x, grid = maps[last.name], last.grid
        if self.atrous_rates:
            settings = (self.decoder_features, self.atrous_rates, self.dtype)
            x = AtrousPyramid(*settings, name="pyramid")(x)
        if self.decoder_stride:
            if self.coordinates:
                x = self._with_coordinates(x, grid, middle)
            read, grids, stride = [x], [grid], self.output_stride // 2
            while stride >= max(self.decoder_stride, 2):
                finer = last_map_at(self.feature_maps, stride)
                read.append(maps[finer.name])
                grids.append(finer.grid)
                stride //= 2
            decoder = TopDown(self.decoder_features, self.dtype, name="decoder")
            x = maps["decoded"] = decoder(read, grids, mask=mask)[-1]
            grid = grids[-1]
            maps["origins"] = maps["origins"].also(decoded=grid.origin)

        dtype = jnp.dtype(self.dtype)
        x = precise_dense(
            self.head_features, use_bias=False, dtype=dtype, name="reduce"
        )(x)
        x = nn.relu(nn.GroupNorm(GROUPS, dtype=dtype, name="reduce_norm")(x))
        # From here in float32: bfloat16 has too few digits for the coordinates of
        # neighboring cells.
        x = x.astype(jnp.float32)
        if self.decoder_stride == 1:
            pixel = jnp.concatenate([image, chromaticity(image)], axis=-1)
            # To the middle of the 2 x 2 pixels that each cell is unfolded to.
            x = resample(extended(x, mask), grid, Grid(2), x.shape[1:3])
            grid = Grid()
            x = jnp.concatenate([x, space_to_depth(pixel)], axis=-1)
            x = depth_to_space(precise_dense(4 * self.head_features, name="unfold")(x))
            x = nn.relu(jnp.concatenate([x, pixel], axis=-1))
        features = x
        if self.coordinates:
            x = self._with_coordinates(x, grid, middle)
        x = nn.relu(precise_dense(self.head_features, name="hidden")(x))
        maps["embedding"] = precise_dense(self.embedding_dim, name="project")(x)
        if self.num_classes:
            source = {
                "embedding": maps["embedding"],
                "features": features,
                "backbone": maps[last.name].astype(jnp.float32),
            }[self.classes_from]
            logits = precise_dense(self.num_classes, name="classify")(source)
            if self.classes_from == "backbone":
                size = maps["embedding"].shape[1:3]
                logits = resample(extended(logits, mask), last.grid, grid, size)
            maps["logits"] = logits
        origin = grid.origin
        maps["origins"] = maps["origins"].also(embedding=origin, logits=origin)
        return maps

    def _with_coordinates(
        self, x: jax.Array, grid: Grid, middle: jax.Array | None
    ) -> jax.Array:
        """Appends the coordinates of each cell: 2 channels, or 4 if they repeat."""
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


class FCN8(OnBackbone):
    """Adds up linear maps of three strides, enlarged bilinearly.

    Every map is read by a 1 x 1 convolution alone. The output is class scores or an
    embedding; the task decides. There are no coordinates: the network separates equal
    objects by what surrounds them and by the image's border.

    References:
        Long, Shelhamer & Darrell, "Fully convolutional networks for semantic
        segmentation", CVPR 2015; Barnes & Dubrawski, "Deep spectral clustering for
        object instance segmentation", ICLR 2018 workshop, section 3.
    """

    output_stride: int = field(default=32, kw_only=True)  # the only value
    embedding_dim: int = 21  # D, as in the paper, the number of VOC's classes
    # Channels of two convolutions before the last map is read, where the original has
    # VGG's fully connected layers of 4096; 0 for none.
    head_features: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_count("head_features", self.head_features)
        check_choice("output_stride", self.output_stride, (32,))

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> dict[str, Any]:
        """Maps an image to named maps."""
        maps = self.backbone_maps(image, train=train)
        read = [last_map_at(self.feature_maps, stride) for stride in _FCN_STRIDES]
        coarse, *finer = (maps[m.name].astype(jnp.float32) for m in read)
        for i, side in enumerate((3, 1) if self.head_features else ()):
            settings = {"kernel_init": he_normal, "name": f"head{i}"}
            convolve = nn.Conv(self.head_features, (side, side), **settings)
            coarse = nn.relu(convolve(coarse))
        # The original starts from zero, but a zero vector has no direction and no
        # gradient.
        total = precise_dense(self.embedding_dim, name="score32")(coarse)
        grid = read[0].grid
        for found, x in zip(read[1:], finer, strict=True):
            scores = precise_dense(self.embedding_dim, name=f"score{found.stride}")(x)
            size = scores.shape[1:3]
            total = scores + resample(extended(total, mask), grid, found.grid, size)
            grid = found.grid
        maps["embedding"] = maps["logits"] = total
        origin = grid.origin
        maps["origins"] = maps["origins"].also(embedding=origin, logits=origin)
        return maps


class FeaturePyramid(OnBackbone):
    """Sums the deepest maps of strides 4 to 32, projected to D channels each.

    Each map has a 1 x 1 convolution, ``lateral4`` to ``lateral32``; the sum of the
    coarser maps is enlarged bilinearly. Nothing else follows: at step 0 the embedding
    is a random linear image of the pretrained features, and its clusters are
    meaningful, as PiCIE needs.

    References:
        Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017; Cho et
        al., "PiCIE", CVPR 2021.
    """

    backbone: str = "resnet18"
    embedding_dim: int = 128  # D; the authors use 256 for ResNet-50
    output_stride: int = field(default=32, kw_only=True)  # or 8, 16
    # Factor of the initial weights of all maps but the last. Below 1, the authors'
    # value, the deepest map weighs more, whose clusters follow the objects better.
    finer_scale: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_number("finer_scale", self.finer_scale, above=0)
        if self.output_stride <= _PYRAMID_STRIDE:
            raise InputError(f"output_stride must be above 4, got {self.output_stride}")

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> dict[str, Any]:
        """Maps an image to named maps."""
        maps = self.backbone_maps(image, train=train)
        stride, grid, total = self.output_stride, Grid(), None
        while stride >= _PYRAMID_STRIDE:
            feature_map = last_map_at(self.feature_maps, stride)
            coarser, grid = grid, feature_map.grid
            variance = 1.0 if total is None else self.finer_scale**2
            make = nn.initializers.variance_scaling
            initial = make(variance, "fan_in", "truncated_normal")
            settings = {"kernel_init": initial, "name": f"lateral{stride}"}
            x = maps[feature_map.name].astype(jnp.float32)
            lateral = precise_dense(self.embedding_dim, **settings)(x)
            if total is not None:
                size = lateral.shape[1:3]
                lateral += resample(extended(total, mask), coarser, grid, size)
            total, stride = lateral, stride // 2
        maps["embedding"] = total
        maps["origins"] = maps["origins"].also(embedding=grid.origin)
        return maps


class SideBranches(OnBackbone):
    """Embeds an image from several of its backbone's maps, and fuses the embeddings.

    Each branch reads one map. The fusion reads the unit vectors of all branches,
    enlarged to the image's size bilinearly, and nothing else: a 3 x 3 convolution and
    one number per pixel.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.2; Xie & Tu, ICCV 2015, for the side
        branches.
    """

    # Maps of the backbone, from the image inwards; the paper reads these four.
    branches: tuple[str, ...] = ("stage1", "stage2", "stage3", "stage4")
    embedding_dim: int = 3  # D; three dimensions can be shown as colors
    # 0 lets every branch read its map alone, as in the paper. Otherwise the channels of
    # a `TopDown` decoder, a multiple of 8, which small backbones need.
    decoder_features: int = 0
    head_features: int = 32  # of a branch before its embedding, a multiple of 8
    fusion_features: int = 16  # channels of the fusion's convolution
    # Stop the fusion's gradient at the embeddings: it does not change them.
    detach_fusion: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_groups("decoder_features", self.decoder_features, at_least=0)
        check_groups("head_features", self.head_features)
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_count("fusion_features", self.fusion_features, at_least=1)
        check_choice("detach_fusion", self.detach_fusion, (True, False))
        known = [m.name for m in self.feature_maps]
        wanted = [name for name in known if name in self.branches]
        if not self.branches or list(self.branches) != wanted:
            raise InputError(
                f"branches must be some of {', '.join(known)}, in this order, got "
                f"{self.branches}"
            )

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> dict[str, Any]:
        """Maps an image to named maps."""
        maps = self.backbone_maps(image, train=train)
        grids = [m.grid for m in self.feature_maps if m.name in self.branches]
        read = [maps[name] for name in self.branches]
        if self.decoder_features:
            decoder = TopDown(self.decoder_features, self.dtype, name="decoder")
            read = decoder(read[::-1], grids[::-1], mask=mask)[::-1]

        dtype = jnp.dtype(self.dtype)
        branches, enlarged = [], []
        for name, x, grid in zip(self.branches, read, grids, strict=True):
            x = precise_dense(
                self.head_features, use_bias=False, dtype=dtype, name=f"{name}_reduce"
            )(x)
            x = nn.relu(nn.GroupNorm(GROUPS, dtype=dtype, name=f"{name}_norm")(x))
            x = x.astype(jnp.float32)
            x = precise_dense(self.embedding_dim, name=f"{name}_embed")(x)
            branches.append(x)
            x = resample(extended(x, mask), grid, Grid(), image.shape[1:3])
            enlarged.append(l2_normalize(x))
        maps["branches"] = tuple(branches)
        origins = tuple(grid.origin for grid in grids)
        maps["origins"] = maps["origins"].also(branches=origins)
        if self.detach_fusion:
            enlarged = [jax.lax.stop_gradient(x) for x in enlarged]
        sides = [
            precise_dense(1, name=f"{name}_side")(x)
            for name, x in zip(self.branches, enlarged, strict=True)
        ]
        maps["sides"] = jnp.concatenate(sides, axis=-1)
        settings = {"kernel_init": he_normal, "precision": PRECISE}
        x = nn.Conv(self.fusion_features, (3, 3), name="fusion_conv", **settings)(
            jnp.concatenate(enlarged, axis=-1)
        )
        maps["fused"] = precise_dense(1, name="fusion")(nn.relu(x))[..., 0]
        return maps
