"""What a run has left, in a form that two runs can be compared in."""

from __future__ import annotations

import pathlib
from typing import Any

import chex
import jax

from sphemb.training import Experiment, TrainState, load_config, read_log
from sphemb.training._workdir import Checkpoints

CLOCK = ("seconds", "stall")  # in a record


def records(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The log but for the clock; scores that were made up for come in their place."""
    kept = [{k: v for k, v in r.items() if k not in CLOCK} for r in read_log(workdir)]
    return sorted(kept, key=lambda r: (r["step"], "loss" not in r))


def last_state(workdir: pathlib.Path) -> TrainState:
    """The state of the newest checkpoint, the optimiser's included."""
    like = Experiment(load_config(workdir)).abstract_state
    checkpoints = Checkpoints(workdir / "checkpoints")
    try:
        return checkpoints.restore(like)[0]
    finally:
        checkpoints.close()


def assert_same_runs(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Bit by bit: parameters, moments, optimiser, task state, step and records."""
    # Leaves: PiCIE's state has a function of its run, which equals no other.
    a, b = (jax.tree.leaves(last_state(run)) for run in (found, expected))
    chex.assert_trees_all_equal(a, b, strict=True)  # with their dtypes
    assert records(found) == records(expected)
