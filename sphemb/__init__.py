"""Learning to group: unit-vector embeddings of pixels, and recurrent mean shift.

Every package loads on first access: layer 0 with JAX and NumPy alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphemb import grouping, instances, losses, metrics, sphere, warps
    from sphemb._checks import VOID, InputError
    from sphemb.evaluation import segment as segment
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
    from sphemb.training import load_model as load_model

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

_LAYER_0 = ("grouping", "instances", "losses", "metrics", "sphere", "warps")
_UPPER = ("cli", "configs", "data", "evaluation", "models", "tasks", "training", "viz")
_HOMES = ("_checks", "grouping", "losses")  # of the other names
_USES = {"load_model": "training", "segment": "evaluation"}  # of trained networks


def __getattr__(name: str) -> Any:
    if name in (*_LAYER_0, *_UPPER):
        return importlib.import_module(f"sphemb.{name}")
    if name in (*__all__, *_USES):
        homes = (_USES[name],) if name in _USES else _HOMES
        modules = (importlib.import_module(f"sphemb.{home}") for home in homes)
        return next(getattr(m, name) for m in modules if hasattr(m, name))
    raise AttributeError(f"module 'sphemb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, *_UPPER, *_USES))
