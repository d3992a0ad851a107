"""Warps: changes of images as pure functions of a small tree of numbers.

* Where pixels are: :func:`sample_geometric`, :class:`GeometricTransform`,
  :func:`apply_geometric` for images and feature maps, :func:`apply_geometric_labels`.
* What colour they have: :func:`sample_photometric`, :class:`PhotometricTransform`,
  :func:`apply_photometric`.

A transform is drawn once and applied as often as one likes, to maps of any size: its
box is continuous, in shares of the image's sides. Leading axes of a transform are batch
axes; ``jax.vmap(sample_geometric)(keys)`` draws many.
"""

from sphemb.warps._geometric import (
    GeometricTransform,
    apply_geometric,
    apply_geometric_labels,
    sample_geometric,
)
from sphemb.warps._photometric import (
    PhotometricTransform,
    apply_photometric,
    sample_photometric,
)

__all__ = [
    "GeometricTransform",
    "PhotometricTransform",
    "apply_geometric",
    "apply_geometric_labels",
    "apply_photometric",
    "sample_geometric",
    "sample_photometric",
]
