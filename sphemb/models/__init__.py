"""Networks: an image comes in, named maps go out.

* `Hourglass`: a small residual network with full-resolution output.
* `space_to_depth`, `depth_to_space`, `pixel_coordinates`, `chromaticity`,
  `ResidualBlock`: what networks are made of.

A model is a Flax module whose ``__call__(image) -> dict[str, jax.Array]``; the entry
``"embedding"`` is what the grouping tasks read.
"""

from sphemb.models._hourglass import Hourglass
from sphemb.models._layers import (
    ResidualBlock,
    chromaticity,
    depth_to_space,
    pixel_coordinates,
    space_to_depth,
)

__all__ = [
    "Hourglass",
    "ResidualBlock",
    "chromaticity",
    "depth_to_space",
    "pixel_coordinates",
    "space_to_depth",
]
