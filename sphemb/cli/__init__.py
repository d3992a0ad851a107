"""The command ``sphemb`` and its verbs.

A verb is a dataclass of its flags with a method ``run``: `Train`, `Evaluate`,
`Predict`, `Export`, `ImportWeights`, `CheckData`, `Advise`, `ScoreClasses`,
`ScoreInstances`, `ScoreBoundaries`, `Info`. `main` reads one from the command line and
runs it; `one_line_errors` gives any program the same one-line errors and exit statuses;
`read_config` reads a configuration.
"""

from sphemb.cli._advise import Advise
from sphemb.cli._flags import one_line_errors, parse_flags, read_config, shipped_configs
from sphemb.cli._main import VERBS, main
from sphemb.cli._prepare import CheckData, ImportWeights, Info
from sphemb.cli._runs import (
    Evaluate,
    Export,
    Train,
    default_workdir,
    run_evaluation,
    run_training,
)
from sphemb.cli._score import ScoreBoundaries, ScoreClasses, ScoreInstances
from sphemb.cli.predict import Predict

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
