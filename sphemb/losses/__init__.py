"""Losses that teach pixels to group.

* margin: :func:`margin_loss` (Eq. 2), its halves :func:`margin_loss_terms`, and
  :func:`trajectory_margin_loss` for every step of a mean shift
* classes: :func:`cross_entropy`; :func:`balanced_logistic_loss`, for two of very
  different size
* prototypes: :func:`prototype_cross_entropy` against frozen centroids,
  :func:`cluster_weights` and :func:`overclustering_weights` for it
* affinity: :func:`spectral_loss`, products of embeddings against those of the truth
* pixels: :func:`instance_weights`, :func:`sample_pixels`
"""

from sphemb.losses._cross_entropy import cross_entropy
from sphemb.losses._instances import instance_weights
from sphemb.losses._logistic import balanced_logistic_loss
from sphemb.losses._margin import margin_loss, margin_loss_terms
from sphemb.losses._prototypes import (
    cluster_weights,
    overclustering_weights,
    prototype_cross_entropy,
)
from sphemb.losses._sampling import PixelSample, sample_pixels
from sphemb.losses._spectral import spectral_loss
from sphemb.losses._terms import MarginLossTerms
from sphemb.losses._trajectory import trajectory_margin_loss

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
