"""A light decoder that carries what a deep map knows to finer grids.

Shape letters: B images, H rows, W columns, C channels, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._grid import Grid, extended, resample
from sphemb.models._backbone import he_normal
from sphemb.models._depthwise import DepthwiseConv
from sphemb.models._layers import GROUPS


class TopDown(nn.Module):
    """Adds finer and finer maps to a coarse one (Lin et al., CVPR 2017).

    Each map enters through a 1 x 1 convolution; what comes from above is read where the
    cells of the finer map lie, bilinearly. A separable 3 x 3 convolution after the sum
    smooths it (a full one would be what the network spends its time on).

    Attributes:
        features: F, a multiple of 8, the groups of the normalisation.
        dtype: that is computed in.
    """

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        maps: Sequence[jax.Array],
        grids: Sequence[Grid] | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Goes from the coarsest map to the finest.

        Args:
            maps: [B, H, W, C], [B, s H, s W, C'], ...: each a whole multiple of the one
                before it, or as large.
            grids: where their cells lie among the pixels; by default those of all maps
                lie in the middle of the pixels that they stand for.
            mask: bool [B, H', W'], False where pixels are padding, see `apply_masked`.

        Returns:
            [B, H, W, F], [B, s H, s W, F], ...: one for each map, as large as that.
        """

        def convolve(x, name):
            return nn.Conv(
                self.features,
                (1, 1),
                use_bias=False,
                kernel_init=he_normal,
                dtype=jnp.dtype(self.dtype),
                name=name,
            )(x)

        if grids is None:
            grids = [Grid(maps[-1].shape[1] // x.shape[1]) for x in maps]
        x = convolve(maps[0], "lateral0")
        levels = [x]
        for i, finer in enumerate(maps[1:], start=1):
            x = extended(x, mask)
            x = resample(x, grids[i - 1], grids[i], finer.shape[1:3])
            x = x + convolve(finer, f"lateral{i}")
            x = DepthwiseConv(3, dtype=self.dtype, name=f"smooth{i}")(x)
            x = convolve(x, f"mix{i}")
            x = nn.GroupNorm(GROUPS, dtype=jnp.dtype(self.dtype), name=f"norm{i}")(x)
            x = nn.relu(x)
            levels.append(x)
        return levels
