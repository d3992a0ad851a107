"""Learning to group: pixels as points on a sphere, pulled together and apart.

The pure functions of layer 0 are all that this import loads; they need JAX and NumPy
alone. Networks, data, tasks and training are rooms of their own: ``sphemb.models``,
``sphemb.data``, ``sphemb.tasks``, ``sphemb.training``, ``sphemb.evaluation``,
``sphemb.viz``, ``sphemb.cli``.
"""

from sphemb import grouping, instances, losses, metrics, sphere, warps
from sphemb._checks import InputError
from sphemb._labels import VOID
from sphemb._version import __version__
from sphemb.grouping import (
    Grouping,
    accelerated_gbms,
    gbms,
    gbms_step,
    gbms_trajectory,
    label_modes,
    mean_shift,
)
from sphemb.losses import (
    instance_weights,
    margin_loss,
    sample_pixels,
    trajectory_margin_loss,
)

__all__ = [
    "VOID",
    "Grouping",
    "InputError",
    "__version__",
    "accelerated_gbms",
    "gbms",
    "gbms_step",
    "gbms_trajectory",
    "grouping",
    "instance_weights",
    "instances",
    "label_modes",
    "losses",
    "margin_loss",
    "mean_shift",
    "metrics",
    "sample_pixels",
    "sphere",
    "trajectory_margin_loss",
    "warps",
]
