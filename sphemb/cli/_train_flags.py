"""The flags of ``sphemb train`` and of ``train.py``, which are the same."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from sphemb.cli._arguments import CHANGES, Defaults
from sphemb.cli._config_flags import read_config, shipped_configs
from sphemb.cli._train import default_workdir, run_training
from sphemb.training import join_processes, noticing_lost


def add_train(verbs: Any) -> None:
    """Adds the verb."""
    train = verbs.add_parser(
        "train",
        help="train what a configuration says, or go on where a run was left",
        epilog=f"{CHANGES}. The configurations that come along: "
        f"{', '.join(shipped_configs())}.",
        formatter_class=Defaults,
        allow_abbrev=False,  # or --config.x would be taken for --config
    )
    train.add_argument(
        "--config",
        required=True,
        metavar="NAME[:VARIANT]",
        help="a configuration that comes along, or a Python file",
    )
    train.add_argument(
        "--workdir", type=pathlib.Path, help="the run's folder (default: runs/NAME)"
    )
    train.add_argument(
        "--skip-bad",
        action="store_true",
        help="go on without the images and masks that cannot be used",
    )
    train.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="process 0 of several, or auto on pods and Slurm",
    )
    train.add_argument("--processes", type=int, help="how many, with HOST:PORT")
    train.add_argument("--process", type=int, help="which of them this is, from 0")


def start_training(flags: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Trains what the flags say.

    Args:
        flags: of `add_train`.
        overrides: of the configuration, see `read_config`.
    """
    # JAX and Orbax tell at INFO what means nothing to whoever trains.
    logging.set_verbosity(logging.ERROR)
    join_processes(
        flags.coordinator, num_processes=flags.processes, process_id=flags.process
    )
    config = read_config(flags.config, overrides)
    config.loader.skip_bad |= flags.skip_bad
    with noticing_lost():  # scores are added up together, too
        run_training(config, flags.workdir or default_workdir(flags.config))
