"""Embeddings at several depths of a backbone, and a map fused from all of them.

Shape letters: B images, H rows, W columns, K branches, s_k the stride of branch k, D
embedding dimension.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_choice, check_count
from sphemb._grid import Grid, extended, resample
from sphemb.models._backbone import he_normal
from sphemb.models._backbones import OnBackbone
from sphemb.models._decoder import TopDown
from sphemb.models._layers import GROUPS
from sphemb.sphere import l2_normalize


class SideBranches(OnBackbone):
    """Embeds an image from several of its backbone's maps, and fuses the embeddings.

    Each branch reads one map. The fusion reads the unit vectors of all branches,
    enlarged to the image's size bilinearly, and nothing else: a 3 x 3 convolution and
    one number per pixel. What it knows is what the embeddings tell.

    Those of `OnBackbone` come on top.

    Attributes:
        branches: names of the backbone's maps, from the image inwards; the paper takes
            the ResNet's blocks 2 to 5, ``stage1`` to ``stage4`` here.
        embedding_dim: D; three can be looked at as colours.
        decoder_features: 0 lets every branch read its map alone, as in the paper.
            Otherwise a decoder of so many channels, a multiple of 8, hands down to each
            what the deeper ones have seen, which small backbones are in need of.
        head_features: channels of a branch before its embedding, a multiple of 8.
        fusion_features: channels of the fusion's convolution.
        detach_fusion: the fusion's gradient ends at the embeddings: what it learns says
            how good they are, and does not change them.
        dtype: that backbone and decoder compute in, ``"float32"`` or ``"bfloat16"``;
            parameters, embeddings and fusion are float32.

    Raises:
        InputError: a setting that makes no network.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.2; Xie & Tu, ICCV 2015, for the side
        branches.
    """

    branches: tuple[str, ...] = ("stage1", "stage2", "stage3", "stage4")
    embedding_dim: int = 3
    decoder_features: int = 0
    head_features: int = 32
    fusion_features: int = 16
    detach_fusion: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name, least in {"decoder_features": 0, "head_features": 1}.items():
            number = getattr(self, name)
            check_count(name, number, at_least=least)
            if number % GROUPS:
                raise InputError(
                    f"{name} must be a multiple of {GROUPS}, the groups of the "
                    f"normalisation, got {number}"
                )
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
            The backbone's maps; ``branches``: a tuple of [B, H / s_k, W / s_k, D]
            embeddings of any length; ``sides``: float32 [B, H, W, K], a linear reading
            of each branch's unit vectors; ``fused``: float32 [B, H, W].

        Raises:
            InputError: the image is no [B, H, W, 3] or not divisible by `stride`.
        """
        maps = self.backbone_maps(image, train=train)
        height, width = image.shape[1:3]
        grids = [m.grid for m in self.feature_maps if m.name in self.branches]
        read = [maps[name] for name in self.branches]
        if self.decoder_features:
            decoder = TopDown(self.decoder_features, self.dtype, name="decoder")
            read = decoder(read[::-1], grids[::-1], mask=mask)[::-1]

        dtype = jnp.dtype(self.dtype)
        branches, enlarged = [], []
        for name, x, grid in zip(self.branches, read, grids, strict=True):
            x = nn.Dense(
                self.head_features, use_bias=False, dtype=dtype, name=f"{name}_reduce"
            )(x)
            x = nn.relu(nn.GroupNorm(GROUPS, dtype=dtype, name=f"{name}_norm")(x))
            x = nn.Dense(self.embedding_dim, name=f"{name}_embed")(
                x.astype(jnp.float32)
            )
            branches.append(x)
            x = resample(extended(x, mask), grid, Grid(), (height, width))
            enlarged.append(l2_normalize(x))
        maps["branches"] = tuple(branches)
        origins = tuple(grid.origin for grid in grids)
        maps["origins"] = maps["origins"].also(branches=origins)
        if self.detach_fusion:
            enlarged = [jax.lax.stop_gradient(x) for x in enlarged]
        maps["sides"] = jnp.concatenate(
            [
                nn.Dense(1, name=f"{name}_side")(x)
                for name, x in zip(self.branches, enlarged, strict=True)
            ],
            axis=-1,
        )
        x = nn.Conv(
            self.fusion_features, (3, 3), kernel_init=he_normal, name="fusion_conv"
        )(jnp.concatenate(enlarged, axis=-1))
        maps["fused"] = nn.Dense(1, name="fusion")(nn.relu(x))[..., 0]
        return maps
