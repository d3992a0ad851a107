"""Losses that train pixels to group.

All functions raise `InputError` for an argument of a wrong shape, dtype or range.
"""

from sphemb.losses._classes import (
    balanced_logistic_loss,
    cluster_weights,
    cross_entropy,
    overclustering_weights,
    prototype_cross_entropy,
)
from sphemb.losses._margin import (
    MarginLossTerms,
    margin_loss,
    margin_loss_terms,
    trajectory_margin_loss,
)
from sphemb.losses._sampling import PixelSample, instance_weights, sample_pixels
from sphemb.losses._spectral import spectral_loss

__all__ = [
    "MarginLossTerms",
    "PixelSample",
    "balanced_logistic_loss",
    "cluster_weights",
    "cross_entropy",
    "instance_weights",
    "margin_loss",
    "margin_loss_terms",
    "overclustering_weights",
    "prototype_cross_entropy",
    "sample_pixels",
    "spectral_loss",
    "trajectory_margin_loss",
]
