"""The doors: what people start from a shell.

* `main`: the command ``sphemb``.
* `run_training`, `run_evaluation`, `run_prediction`, `run_export`, `run_import`,
  `run_check`, `run_boundary_scores`, `run_class_scores`, `run_instance_scores`: its
  verbs as functions; `PredictionSettings`.
* `read_config`: a configuration by its name or file; `Parser`, `door`: a mistake in the
  flags, and any other, becomes one line and an exit status.
"""

from sphemb.cli._arguments import Parser
from sphemb.cli._boundary_scores import run_boundary_scores
from sphemb.cli._check import run_check
from sphemb.cli._class_scores import run_class_scores
from sphemb.cli._config_flags import read_config
from sphemb.cli._door import door
from sphemb.cli._export import run_export
from sphemb.cli._instance_scores import run_instance_scores
from sphemb.cli._main import main
from sphemb.cli._predict import run_prediction
from sphemb.cli._prediction_settings import PredictionSettings
from sphemb.cli._train import default_workdir, run_evaluation, run_training
from sphemb.cli._weights import run_import

__all__ = [
    "Parser",
    "PredictionSettings",
    "default_workdir",
    "door",
    "main",
    "read_config",
    "run_boundary_scores",
    "run_check",
    "run_class_scores",
    "run_evaluation",
    "run_export",
    "run_import",
    "run_instance_scores",
    "run_prediction",
    "run_training",
]
