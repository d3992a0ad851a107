"""Context of several widths at once, by dilated convolutions side by side.

Shape letters: B images, H rows, W columns, C channels, F features.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb.models._backbone import he_normal
from sphemb.models._layers import GROUPS


class AtrousPyramid(nn.Module):
    """Reads a map at several rates, and mixes what they saw.

    A 1 x 1 convolution and a 3 x 3 convolution at each rate, side by side; their
    channels together through a 1 x 1 convolution. The published pyramid has the mean
    over the image as one more branch; here the normalisation sees all of the image.

    Attributes:
        features: F, a multiple of 8, the groups of the normalisation.
        rates: dilations, in cells.
        dtype: that is computed in.

    References:
        Chen et al., "Rethinking atrous convolution for semantic image segmentation",
        2017, section 3.3.
    """

    features: int
    rates: tuple[int, ...]
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, F]."""

        def convolve(x: jax.Array, name: str, side: int = 1, rate: int = 1):
            x = nn.Conv(
                self.features,
                (side, side),
                kernel_dilation=rate,
                use_bias=False,
                kernel_init=he_normal,
                dtype=jnp.dtype(self.dtype),
                name=name,
            )(x)
            norm = nn.GroupNorm(
                GROUPS, dtype=jnp.dtype(self.dtype), name=f"{name}_norm"
            )
            return nn.relu(norm(x))

        branches = [convolve(x, "point")]
        branches += [convolve(x, f"rate{rate}", 3, rate) for rate in self.rates]
        return convolve(jnp.concatenate(branches, axis=-1), "mix")
