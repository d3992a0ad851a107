"""Trains what a configuration says: ``python train.py --config=configs/digits.py``."""

from absl import app, flags, logging
from ml_collections import config_flags

from sphemb import InputError
from sphemb.cli import default_workdir, door, parse_flags, run_training
from sphemb.training import join_processes

_CONFIG = config_flags.DEFINE_config_file("config", help_string="a file of configs/")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "the run's folder; runs/NAME by default"
)
_SKIP_BAD = flags.DEFINE_bool(
    "skip-bad", False, "go on without the images and masks that cannot be used"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0 of several, or auto on pods and Slurm"
)
_PROCESSES = flags.DEFINE_integer("processes", None, "how many, with HOST:PORT")
_PROCESS = flags.DEFINE_integer("process", None, "which of them this is, from 0")


def main(argv: list[str]) -> None:
    """Parses the flags and trains."""
    # JAX and Orbax tell at INFO what means nothing to whoever trains.
    logging.set_verbosity(logging.ERROR)
    if len(argv) > 1:
        raise InputError(f"unknown argument {argv[1]!r}")
    join_processes(
        _COORDINATOR.value, num_processes=_PROCESSES.value, process_id=_PROCESS.value
    )
    config = _CONFIG.value
    config.loader.skip_bad |= _SKIP_BAD.value
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    run_training(config, _WORKDIR.value or default_workdir(name))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    with door(interrupted="stopped; the same command goes on from the last checkpoint"):
        app.run(main, flags_parser=parse_flags)
