"""Learning to group: unit-vector embeddings of pixels, and recurrent mean shift.

The import loads layer 0 with JAX and NumPy; the other packages load on first access.
"""

import importlib
from typing import Any

from sphemb import grouping, instances, losses, metrics, sphere, warps
from sphemb._checks import VOID, InputError
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

__version__ = "0.2.0"

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

_LAZY = ("cli", "configs", "data", "evaluation", "models", "tasks", "training", "viz")
_USES = {"load_model": "training", "segment": "evaluation"}  # of trained networks


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"sphemb.{name}")
    if name in _USES:
        return getattr(importlib.import_module(f"sphemb.{_USES[name]}"), name)
    raise AttributeError(f"module 'sphemb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, *_LAZY, *_USES))
