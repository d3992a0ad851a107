"""Grouping: from embeddings to groups, by recurrent mean shift on the sphere.

* :func:`gbms`, :func:`gbms_step`, :func:`gbms_trajectory`: Gaussian blurring mean
  shift, every point moving on the density of all, with its true gradient in memory
  that is linear in N.
* :func:`mean_shift`: seeds climbing a density that stays.
* :func:`label_modes`, :class:`Grouping`: labels, modes and sizes read off the result.
"""

from __future__ import annotations

from sphemb.grouping._blurring import gbms, gbms_step, gbms_trajectory
from sphemb.grouping._modes import Grouping, label_modes
from sphemb.grouping._seeded import mean_shift

__all__ = [
    "Grouping",
    "gbms",
    "gbms_step",
    "gbms_trajectory",
    "label_modes",
    "mean_shift",
]
