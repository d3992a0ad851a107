"""Training: one loop and one step for every task.

* `train`: trains what a configuration says, or goes on where it was left.
* `load_run`, `Trained`, `Experiment`: a run's parts, made from its configuration.
* `export_prediction`, `describe_export`: a run as one function that needs JAX alone.
* `make_train_step`, `TrainState`: the step of one device.
* `update_task_state`: what a task does every so many steps, on the host.
* `data_parallel`, `replicate`, `split_batch`, `spread_batch`, `devices`: the step on
  all devices.
* `PreemptedError`: a SIGTERM came; where training was is saved.
* `join_processes`: several processes, one run; `LostProcessError`: one of them is gone,
  and `noticing_lost`, which says so.
* `poly_schedule`, `make_optimizer`: from optax.
* `read_log`, `write_json`, `read_json`: what a run has written; `check_inside`: that it
  lies in the run.
"""

from sphemb.training._checkpoints import Checkpoints
from sphemb.training._devices import (
    data_parallel,
    devices,
    replicate,
    split_batch,
    spread_batch,
)
from sphemb.training._experiment import Experiment
from sphemb.training._export import PLATFORMS, describe_export, export_prediction
from sphemb.training._logs import MetricLog, Progress, duration, read_log
from sphemb.training._loop import NonFiniteLossError, train, update_task_state
from sphemb.training._optimizers import make_optimizer, poly_schedule
from sphemb.training._preemption import PreemptedError
from sphemb.training._processes import (
    LostProcessError,
    join_processes,
    noticing_lost,
)
from sphemb.training._state import TrainState, init_state
from sphemb.training._step import make_train_step
from sphemb.training._trained import Trained, load_run
from sphemb.training._workdir import (
    check_inside,
    claimed_workdir,
    load_config,
    read_json,
    write_json,
)

__all__ = [
    "PLATFORMS",
    "Checkpoints",
    "Experiment",
    "LostProcessError",
    "MetricLog",
    "NonFiniteLossError",
    "PreemptedError",
    "Progress",
    "TrainState",
    "Trained",
    "check_inside",
    "claimed_workdir",
    "data_parallel",
    "describe_export",
    "devices",
    "duration",
    "export_prediction",
    "init_state",
    "join_processes",
    "load_config",
    "load_run",
    "make_optimizer",
    "make_train_step",
    "noticing_lost",
    "poly_schedule",
    "read_json",
    "read_log",
    "replicate",
    "split_batch",
    "spread_batch",
    "train",
    "update_task_state",
    "write_json",
]
