"""The command ``sphemb``: `main` reads a verb, a dataclass of its flags, and runs it.

`one_line_errors` gives any program the same errors and exit statuses.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sphemb.cli._errors import one_line_errors
from sphemb.cli._flags import parse_flags, shipped_configs
from sphemb.cli._main import VERBS, main
from sphemb.cli._verbs import (
    Advise,
    CheckData,
    Evaluate,
    Export,
    ImportWeights,
    Info,
    Predict,
    ScoreBoundaries,
    ScoreClasses,
    ScoreInstances,
    Train,
)

if TYPE_CHECKING:
    from sphemb.cli._configs import read_config
    from sphemb.cli._runs import default_workdir, run_evaluation, run_training

__all__ = [
    "VERBS",
    "Advise",
    "CheckData",
    "Evaluate",
    "Export",
    "ImportWeights",
    "Info",
    "Predict",
    "ScoreBoundaries",
    "ScoreClasses",
    "ScoreInstances",
    "Train",
    "default_workdir",
    "main",
    "one_line_errors",
    "parse_flags",
    "read_config",
    "run_evaluation",
    "run_training",
    "shipped_configs",
]

_LAZY = {
    "read_config": "_configs",
    **dict.fromkeys(("default_workdir", "run_evaluation", "run_training"), "_runs"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"sphemb.cli.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sphemb.cli' has no attribute {name!r}")
