"""The training loop, for every task."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from sphemb._checks import check_count
from sphemb.training._checkpoints import Checkpoints
from sphemb.training._devices import data_parallel, devices, replicate, split_batch
from sphemb.training._experiment import Experiment, Trained
from sphemb.training._logs import MetricLog, Progress, read_log
from sphemb.training._state import TrainState
from sphemb.training._step import make_train_step
from sphemb.training._workdir import claim_workdir

Evaluate = Callable[[Trained, str], dict[str, float]]
"""(trained network, split) -> scores."""


class NonFiniteLossError(ArithmeticError):
    """The loss or the gradient is no number any more; says where."""


def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    evaluate: Evaluate | None = None,
) -> Trained:
    """Trains what a configuration says, or goes on where it was left.

    Args:
        config: see ``configs/common.py``.
        workdir: the run's folder. If it holds a run of the same configuration, that run
            is continued exactly: parameters, optimiser, order of the data, draws.
        evaluate: scores the validation split every ``config.train.eval_every`` steps.

    Returns:
        The trained network.

    Raises:
        InputError: the configuration or the workdir does not fit.
        NonFiniteLossError: training went astray; the last checkpoint stays.
    """
    settings = config.train
    for name in ("num_steps", "log_every", "checkpoint_every"):
        check_count(f"config.train.{name}", settings[name], at_least=1)
    check_count("config.train.eval_every", settings.eval_every)
    workdir = pathlib.Path(workdir).absolute()
    experiment = Experiment(config)
    # Everything that the user may have got wrong is built before anything is written.
    task, optimizer = experiment.task, experiment.optimizer
    batches = experiment.train_batches()
    state = experiment.start_state()
    claim_workdir(workdir, config)

    checkpoints = Checkpoints(workdir / "checkpoints")
    if checkpoints.latest is not None:
        state = checkpoints.restore(state, batches)
    state = replicate(state)
    step = int(state.step)
    seconds = read_log(workdir)[-1]["seconds"] if step else 0.0
    log = MetricLog(workdir, step=step)
    progress = Progress(settings.num_steps, step=step)
    progress.say(_introduction(experiment, state, workdir))

    train_step = data_parallel(
        make_train_step(task, experiment.network, optimizer, experiment.key),
        replicated_output=True,
        donate_state=True,
    )
    window: list[dict[str, float]] = []
    start = time.monotonic()
    try:
        while step < settings.num_steps:
            if task.refresh_every and step % task.refresh_every == 0:
                state = _refreshed(experiment, state)
            state, scalars = train_step(state, split_batch(next(batches)))
            step += 1
            # Waiting for every step keeps simulated devices from overtaking each other
            # and finds a loss that is no number before it is saved.
            scalars = {k: float(v) for k, v in jax.device_get(scalars).items()}
            _check_finite(step, scalars)
            window.append(scalars)
            progress.advance(scalars["loss"])
            now = seconds + time.monotonic() - start
            last = step == settings.num_steps
            if step % settings.log_every == 0 or last:
                record = {k: _mean(window, k) for k in scalars}
                record["learning_rate"] = float(
                    np.asarray(experiment.schedule(step - 1))
                )
                log.write(step, {**record, "seconds": round(now, 3)})
                window = []
            if step % settings.checkpoint_every == 0 or last:
                checkpoints.save(step, state, batches)
            if evaluate and settings.eval_every and step % settings.eval_every == 0:
                scores = evaluate(_trained(experiment, state), "validation")
                named = {f"validation/{k}": v for k, v in scores.items()}
                now = seconds + time.monotonic() - start
                log.write(step, {**named, "seconds": round(now, 3)})
                progress.say(f"step {step}: validation " + _listed(scores))
    finally:
        checkpoints.close()
        log.close()
        progress.close()
    return _trained(experiment, state)


def _refreshed(experiment: Experiment, state: TrainState) -> TrainState:
    """The state with its task's memory renewed; the key is the step's own."""
    memory = experiment.task.refresh(
        _trained(experiment, state).apply,
        state.memory,
        experiment.train_pass(),
        jax.random.fold_in(experiment.key, state.step),
    )
    return replicate(dataclasses.replace(state, memory=memory))


def _trained(experiment: Experiment, state: TrainState) -> Trained:
    return Trained(experiment, state.params, state.memory, int(state.step))


def _introduction(experiment: Experiment, state: Any, workdir: pathlib.Path) -> str:
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(state.params))
    batch_size = experiment.config.loader.batch_size
    total = experiment.config.train.num_steps
    going_on = f", going on after step {int(state.step)}" if int(state.step) else ""
    return (
        f"{experiment.config.model.name}, {count:,} parameters, on {devices()}; "
        f"{total} steps of {batch_size} images{going_on}; everything is written to "
        f"{workdir}"
    )


def _check_finite(step: int, scalars: dict[str, float]) -> None:
    astray = [name for name, value in scalars.items() if not math.isfinite(value)]
    if astray:
        raise NonFiniteLossError(
            f"training stopped at step {step}: {', '.join(astray)} not finite, of "
            f"{_listed(scalars)}; the last checkpoint is kept. A smaller "
            "config.optimizer.learning_rate or config.optimizer.clip_norm may help"
        )


def _listed(scalars: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())


def _mean(records: list[dict[str, float]], name: str) -> float:
    return sum(record[name] for record in records) / len(records)
