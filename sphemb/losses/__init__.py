"""Losses that train pixels to group.

* margin: :func:`margin_loss` (Eq. 2), :func:`margin_loss_terms`,
  :func:`trajectory_margin_loss` for every step of a mean shift
* affinity: :func:`spectral_loss`
* classes: :func:`cross_entropy`, :func:`balanced_logistic_loss`; against fixed
  centroids :func:`prototype_cross_entropy` with :func:`cluster_weights` and
  :func:`overclustering_weights`
* pixels: :func:`instance_weights`, :func:`sample_pixels`

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
