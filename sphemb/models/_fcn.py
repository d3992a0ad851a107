"""A fully convolutional network with skips at strides 8, 16 and 32, on any backbone.

Shape letters: B images, H rows, W columns, D channels of a pixel's output.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._checks import check_choice, check_count
from sphemb._grid import extended, resample
from sphemb.models._backbone import he_normal, last_map_at
from sphemb.models._backbones import OnBackbone

_STRIDES = (32, 16, 8)


class FCN8(OnBackbone):
    """Scores maps of three strides and adds them up, enlarged bilinearly.

    Every map is read by a 1 x 1 convolution and nothing else, so that the network has
    as many parameters for D classes as for D dimensions of an embedding: whether its
    output is taken for the one or the other is the task's affair. The last step, from
    stride 8 to the image, is bilinear too, and the tasks take it: before unit length,
    or the softmax.

    There are no coordinates. Equal objects in different places are told apart by what
    is around them, as far as the network sees, and by the image's border.

    Those of `OnBackbone` come on top.

    Attributes:
        output_stride: 32; there is no other.
        embedding_dim: D, 21 as in the paper: as many as VOC has classes.
        head_features: 0 reads the last map as it is. Otherwise two convolutions of so
            many channels come first, where the original has VGG's fully connected
            layers; the paper's has 4096.
        dtype: that the backbone computes in, ``"float32"`` or ``"bfloat16"``;
            parameters and scores are float32.

    Raises:
        InputError: a setting that makes no network.

    References:
        Long, Shelhamer & Darrell, "Fully convolutional networks for semantic
        segmentation", CVPR 2015; Barnes & Dubrawski, "Deep spectral clustering for
        object instance segmentation", ICLR 2018 workshop, section 3.
    """

    output_stride: int = _STRIDES[0]
    embedding_dim: int = 21
    head_features: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_count("embedding_dim", self.embedding_dim, at_least=1)
        check_count("head_features", self.head_features)
        check_choice("output_stride", self.output_stride, _STRIDES[:1])

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
            The backbone's maps, as `feature_maps` says; ``embedding`` and ``logits``,
            the same [B, H / 8, W / 8, D] in float32, of any length.

        Raises:
            InputError: the image is no [B, H, W, 3] or not divisible by `stride`.
        """
        maps = self.backbone_maps(image, train=train)
        read = [last_map_at(self.feature_maps, stride) for stride in _STRIDES]
        coarse, *finer = (maps[m.name].astype(jnp.float32) for m in read)
        for i, size in enumerate(((3, 3), (1, 1)) if self.head_features else ()):
            name = f"head{i}"
            convolve = nn.Conv(
                self.head_features, size, kernel_init=he_normal, name=name
            )
            coarse = nn.relu(convolve(coarse))
        # Not zero at first, as the original's: a zero vector has no direction, and no
        # gradient either.
        total = nn.Dense(self.embedding_dim, name=f"score{_STRIDES[0]}")(coarse)
        grid = read[0].grid
        for found, x in zip(read[1:], finer, strict=True):
            scores = nn.Dense(self.embedding_dim, name=f"score{found.stride}")(x)
            size = scores.shape[1:3]
            total = scores + resample(extended(total, mask), grid, found.grid, size)
            grid = found.grid
        maps["embedding"] = maps["logits"] = total
        maps["origins"] = maps["origins"].also(
            embedding=grid.origin, logits=grid.origin
        )
        return maps
