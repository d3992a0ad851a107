"""Warps: changes of images as pure functions of a small tree of numbers.

A transform is sampled once and applied to any number of maps of any size: its box is in
fractions of the image's sides. Leading axes of a transform are batch axes:
``jax.vmap(sample_geometric)(keys)`` samples many. All functions raise `InputError` for
an argument of a wrong shape, dtype or range.
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
