"""Training: one loop and one step for every task, runs, export.

`train` trains what a configuration says or resumes it; `load_model` reads a run, a
file of `save_model`, or a network that comes with the package.
"""

from sphemb._errors import LostProcessError, NonFiniteLossError, PreemptedError
from sphemb._model_files import ModelCard, load_card, model_names, model_path
from sphemb.training._devices import (
    data_parallel,
    devices,
    join_processes,
    noticing_lost,
    replicate,
    split_batch,
    spread_batch,
)
from sphemb.training._experiment import (
    Experiment,
    Trained,
    load_model,
    load_run,
    save_model,
)
from sphemb.training._export import PLATFORMS, describe_export, export_prediction
from sphemb.training._loop import duration, train, update_task_state
from sphemb.training._step import (
    TrainState,
    make_optimizer,
    make_train_step,
    poly_schedule,
)
from sphemb.training._workdir import (
    check_inside,
    load_class_names,
    load_config,
    read_json,
    read_log,
    write_config,
    write_json,
)

__all__ = [
    "PLATFORMS",
    "Experiment",
    "LostProcessError",
    "ModelCard",
    "NonFiniteLossError",
    "PreemptedError",
    "TrainState",
    "Trained",
    "check_inside",
    "data_parallel",
    "describe_export",
    "devices",
    "duration",
    "export_prediction",
    "join_processes",
    "load_card",
    "load_class_names",
    "load_config",
    "load_model",
    "load_run",
    "make_optimizer",
    "make_train_step",
    "model_names",
    "model_path",
    "noticing_lost",
    "poly_schedule",
    "read_json",
    "read_log",
    "replicate",
    "save_model",
    "split_batch",
    "spread_batch",
    "train",
    "update_task_state",
    "write_config",
    "write_json",
]
