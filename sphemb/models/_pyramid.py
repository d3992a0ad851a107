"""A feature pyramid with nothing in it but projections and sums.

Shape letters: B images, H rows, W columns, D embedding dimension.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_count, check_number
from sphemb._grid import Grid, extended, resample
from sphemb.models._backbone import last_map_at
from sphemb.models._backbones import OnBackbone

_FINEST = 4


class FeaturePyramid(OnBackbone):
    """Sums the deepest maps of strides 4 to 32, projected to D channels each.

    There is a 1 x 1 convolution for every map, and what comes from above is enlarged
    bilinearly: no smoothing, no normalisation, no nonlinearity. So at step 0 the
    embedding is a random linear image of what the pretrained backbone knows, and
    clusters of it mean something already, which clustering to learn has to start from.

    The variables of the convolutions are ``lateral4`` to ``lateral32``.

    Those of `OnBackbone` come on top.

    Attributes:
        embedding_dim: D; the authors take 128 for ResNet-18 and 256 for ResNet-50.
        output_stride: of the backbone's last map: 8, 16 or 32.
        finer_scale: what the first weights of all maps but the last are multiplied by.
            The authors have 1. Below it the embedding begins as an image of what is
            deepest, and clusters of it say more of what things are.
        dtype: that the backbone computes in, ``"float32"`` or ``"bfloat16"``; the
            projections, their sums and all parameters are float32.

    Raises:
        InputError: a setting that makes no network.

    References:
        Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017; Cho et
        al., "PiCIE", CVPR 2021, for what is left out.
    """

    backbone: str = "resnet18"
    embedding_dim: int = 128
    output_stride: int = 32
    finer_scale: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_number("finer_scale", self.finer_scale, above=0)
        if self.output_stride <= _FINEST:
            raise InputError(
                f"output_stride must be above {_FINEST}, the stride of the finest map "
                f"that is summed, got {self.output_stride}"
            )

    @property
    def embedding_stride(self) -> int:
        """The embedding is [B, H / 4, W / 4, D]."""
        return _FINEST

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
            train: take the batch's moments where ``batch_norm`` is ``"trained"``.
            mask: bool [B, H, W], False where pixels are padding, see `apply_masked`.

        Returns:
            The backbone's maps, as `feature_maps` says; ``embedding``:
            [B, H / 4, W / 4, D] in float32, of any length: normalise it before use.

        Raises:
            InputError: the image is no [B, H, W, 3] or not divisible by `stride`.
        """
        maps = self.backbone_maps(image, train=train)
        stride = self.output_stride
        total = None
        grid = Grid()
        while stride >= _FINEST:
            feature_map = last_map_at(self.feature_maps, stride)
            found = maps[feature_map.name]
            above, grid = grid, feature_map.grid
            scale = 1.0 if total is None else self.finer_scale**2  # of the variance
            lateral = nn.Dense(
                self.embedding_dim,
                kernel_init=nn.initializers.variance_scaling(
                    scale, "fan_in", "truncated_normal"
                ),
                name=f"lateral{stride}",
            )(found.astype(jnp.float32))
            if total is not None:
                finer = lateral.shape[1:3]
                lateral += resample(extended(total, mask), above, grid, finer)
            total, stride = lateral, stride // 2
        maps["embedding"] = total
        maps["origins"] = maps["origins"].also(embedding=grid.origin)
        return maps
