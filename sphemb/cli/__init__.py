# ruff: noqa: F401 (the imports are what is public)
"""The command ``sphemb``: `main` reads a verb, a dataclass of its flags, and runs it.

`one_line_errors` gives any program the same errors and exit statuses.
"""

from sphemb.cli._advise import Advise
from sphemb.cli._flags import one_line_errors, parse_flags, read_config, shipped_configs
from sphemb.cli._main import VERBS, CheckData, ImportWeights, Info, main
from sphemb.cli._predict import Predict
from sphemb.cli._runs import (
    Evaluate,
    Export,
    Train,
    default_workdir,
    run_evaluation,
    run_training,
)
from sphemb.cli._score import ScoreBoundaries, ScoreClasses, ScoreInstances
