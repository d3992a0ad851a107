"""The training loop, for every task."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import math
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from sphemb._checks import InputError
from sphemb._gathering import gather_objects
from sphemb._version import __version__
from sphemb.tasks import compute_scores, measures_on_host, predict_and_measure
from sphemb.training._checkpoints import Checkpoints, checksum
from sphemb.training._devices import (
    data_parallel,
    devices,
    replicate,
    split_batch,
    spread_batch,
)
from sphemb.training._experiment import Experiment
from sphemb.training._labels import check_labels
from sphemb.training._logs import MetricLog, Progress, read_log
from sphemb.training._object_limit import check_object_limit
from sphemb.training._preemption import PreemptedError, Preemption
from sphemb.training._processes import noticing_lost
from sphemb.training._state import TrainState
from sphemb.training._trained import Trained
from sphemb.training._workdir import (
    check_workdir,
    claimed_workdir,
    load_config,
    write_json,
)

_SCORES_SAID = 6  # of a validation; all of them are in the log
_NAMES_SAID = 8
_BARREN = 100  # steps in a row without a valid pixel, before a run stops
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

Evaluate = Callable[[Trained, str], dict[str, float]]
"""(trained network, split) -> scores."""


class NonFiniteLossError(ArithmeticError):
    """The loss, the gradient or the parameters are no numbers any more; says where."""


class NothingValidError(InputError):
    """No pixel of many steps in a row counts; says which images they were."""


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
        evaluate: scores the validation split every ``config.train.eval_every``
            batches of ``config.loader.batch_size`` images.

    Returns:
        The trained network.

    Raises:
        InputError: the configuration, the data or the workdir does not fit, or a
            checkpoint cannot be written.
        NonFiniteLossError: training went astray; the last checkpoint stays.
        NothingValidError: no pixel of many steps in a row counts.
        PreemptedError: a SIGTERM came; the step that was on its way is saved.
        LostProcessError: another process of the run is gone.
    """
    workdir = pathlib.Path(workdir).absolute()
    config = _with_measured_range(config, workdir)
    experiment = Experiment(config)
    check_workdir(workdir, config, experiment.task)
    # What a run starts from need not be there any more when it goes on. It is looked
    # for before the data, which may be gigabytes to fetch.
    goes_on = (workdir / "checkpoints").is_dir()
    state = experiment.init_state() if goes_on else _start_state(experiment)
    batches = experiment.train_batches()
    # What the user may have got wrong shows before anything is written.
    scored = ("validation", "test") if evaluate else ()
    for split in scored:
        if not len(experiment.source(split)):
            raise InputError(f"config.data must have images in the {split} split")
    check_labels(experiment, ("train", *scored))
    if scored:
        check_object_limit(experiment, scored)
    _rehearse(experiment, state)

    with contextlib.ExitStack() as claim:
        problem: InputError | None = None
        # Processes that share a run share its folder; one of them writes.
        if jax.process_index() == 0:
            try:
                claim.enter_context(
                    claimed_workdir(
                        workdir,
                        config,
                        experiment.task,
                        class_names=experiment.class_names,
                    )
                )
            except InputError as error:
                problem = error
        with noticing_lost():
            refused = gather_objects(problem and str(problem))[0]
        if refused is not None:
            raise problem or InputError(refused)
        return _run(experiment, workdir, state, batches, goes_on, evaluate)


def _with_measured_range(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
    """Replaces the intensity ``"range"`` by numbers, so that the run keeps them.

    They are those of the run that is in the folder, or else of the training images.
    """
    if config.data.get("intensity") != "range":
        return config
    config = config.copy_and_resolve_references()
    kept = None
    if (workdir / "config.json").is_file():
        kept = load_config(workdir).data.get("intensity")
    if not kept or ".." not in kept:
        kept = Experiment(config).measured_reading.intensity
    config.data.intensity = kept
    return config


def _run(
    experiment: Experiment,
    workdir: pathlib.Path,
    state: TrainState,
    batches: Any,
    goes_on: bool,
    evaluate: Evaluate | None,
) -> Trained:
    """Trains in a folder that is the run's own, from where it was left."""
    config = experiment.config
    settings = config.train
    leads = jax.process_index() == 0
    checkpoints = Checkpoints(workdir / "checkpoints")
    notes: dict[str, Any] = {}
    if checkpoints.latest is not None:
        state, notes = checkpoints.restore(state, batches)
    elif goes_on:
        state = _start_state(experiment)
    step = int(state.step)
    _check_batch_size(experiment, notes)
    state = replicate(state)
    log = MetricLog(workdir, step=step) if leads else None
    earlier = [record["seconds"] for record in read_log(workdir)]
    seconds = earlier[-1] if earlier else 0.0
    progress = Progress(experiment.num_steps, step=step, shown=leads)
    progress.say(_introduction(experiment, state, workdir))

    train_step = data_parallel(
        experiment.train_step, replicated_output=True, donate_state=True
    )
    # The steps since the last record, of which the next one is the mean.
    window: list[dict[str, float]] = notes.get("window", [])
    first, busy = step, 0.0
    barren = notes.get("barren", 0)  # steps in a row without a valid pixel
    update_every, updates = experiment.update_every, []
    start = time.monotonic()

    def write(record: dict[str, float]) -> None:
        if log:
            now = round(seconds + time.monotonic() - start, 3)
            log.write(step, {**record, "seconds": now})

    def updated(state: TrainState) -> TrainState:
        began = time.monotonic()
        state = jax.block_until_ready(update_task_state(experiment, state))
        updates.append(time.monotonic() - began)
        return state

    def due(every: int) -> bool:
        times = experiment.times_due
        return times(every, step) > times(every, step - 1)

    def rate() -> float:
        updates = (step - 1) // config.optimizer.accumulate
        return float(np.asarray(experiment.schedule(updates)))

    def validate(state: TrainState) -> None:
        if not evaluate or not due(settings.eval_every):
            return
        scores = evaluate(_trained(experiment, state), "validation")
        write({f"validation/{k}": v for k, v in scores.items()})
        first_scores = dict(itertools.islice(scores.items(), _SCORES_SAID))
        progress.say(f"step {step}: validation " + _listed(first_scores))

    together = True
    try:
        if notes.get("unscored"):
            with noticing_lost():
                validate(state)
        with noticing_lost(), Preemption() as preemption:
            while step < experiment.num_steps:
                if update_every > 0 and step % update_every == 0:
                    state = updated(state)
                began = time.monotonic()
                batch = next(batches)
                state, scalars = train_step(state, split_batch(batch))
                step += 1
                # Waiting for every step keeps simulated devices from overtaking each
                # other and finds a loss that is no number before it is saved.
                scalars = {k: float(v) for k, v in jax.device_get(scalars).items()}
                if step > first + 1:  # the first step waits for the compiler
                    busy += time.monotonic() - began
                if not all(map(math.isfinite, scalars.values())):
                    raise _astray(step, scalars, rate(), experiment.names(batch))
                barren = 0 if scalars.get("valid_share", 1.0) else barren + 1
                if barren >= _BARREN or barren == step == experiment.num_steps:
                    raise _nothing_valid(step, barren, experiment, batch)
                window.append(scalars)
                progress.advance(scalars["loss"])
                last = step == experiment.num_steps
                if due(settings.log_every) or last:
                    record = {k: _mean(window, k) for k in scalars}
                    write({**record, "learning_rate": rate()})
                    window = []
                if update_every and last:
                    # The task state that is kept is that of the network that is kept.
                    state = updated(state)
                stopping = preemption.asked(step) and not last
                if not stopping:  # scoring may take longer than there is time
                    validate(state)
                # After the records: whatever happened up to a checkpoint is in the log.
                if due(settings.checkpoint_every) or last or stopping:
                    told = {
                        "window": window,
                        "unscored": stopping,
                        "barren": barren,
                        "batch_size": experiment.batch_size,
                    }
                    checkpoints.save(step, state, batches, told)
                if stopping:
                    raise PreemptedError(
                        f"stopped by SIGTERM after step {step}, which is saved; the "
                        "same command goes on from there"
                    )
    except (NonFiniteLossError, NothingValidError, PreemptedError):
        raise  # as every process does after the same step
    except BaseException:
        together = jax.process_count() == 1
        raise
    finally:
        if together:  # as checkpoints are finished, or each would wait for the others
            checkpoints.close()
        if log:
            log.close()
        progress.close()
    if leads and step > first + 1:
        images = (step - first - 1) * experiment.batch_size
        told = _machine(images / busy)
        if update_every > 0 and len(updates) > 1:
            # Of an epoch: a update and the steps up to the next; the first one waits
            # for the compiler.
            cost = sum(updates[1:]) / len(updates[1:])
            epoch = cost + update_every * busy / (step - first - 1)
            told["update_share"] = round(cost / epoch, 4)
        if config.loader.skip_bad:
            told["skipped"] = len(experiment.skipped)
            progress.say(f"{len(experiment.skipped)} examples could not be used")
        write_json(workdir / "training.json", told)
    return _trained(experiment, state)


def _check_batch_size(experiment: Experiment, notes: dict[str, Any]) -> None:
    """Refuses other batches than before: they would start elsewhere in the data."""
    now, count = experiment.batch_size, jax.device_count()
    before = notes.get("batch_size", experiment.config.loader.batch_size)
    if notes and before != now:
        hint = (
            f"set config.loader.images_per_device={before // count}"
            if before % count == 0
            else f"use a number of devices that {before} can be divided by"
        )
        raise InputError(
            f"this run has had {before} images in a step, and cannot go on with {now} "
            f"on the {count} devices that there are now: {hint}"
        )


def _start_state(experiment: Experiment) -> TrainState:
    """The state that training starts from, the same for every process."""
    state = experiment.start_state()
    if len(set(gather_objects(checksum(jax.device_get(state))))) > 1:
        train = experiment.config.train
        raise InputError(
            "the processes of a run must start from the same parameters, but those "
            "that they have differ: config.seed, config.train.init_from "
            f"{train.init_from} and config.train.weights {train.weights} must be the "
            "same for all"
        )
    return state


def _rehearse(experiment: Experiment, state: TrainState) -> None:
    """Traces a step and a prediction, and scores a batch as if nothing were found.

    Nothing is compiled but what a host's metrics compile themselves.
    """
    batch = next(experiment.train_batches())
    step = experiment.train_step
    mapped = jax.vmap(step, axis_name="batch", in_axes=(None, 0), out_axes=None)
    task, task_state = experiment.task, state.task_state
    split, held_out = _first_batch(experiment)

    def predict(params: Any, batch: Any) -> Any:
        apply = functools.partial(experiment.network, params, state.batch_stats)
        return predict_and_measure(task, apply, task_state, batch)

    try:
        jax.eval_shape(mapped, state, split_batch(batch))
        found, metrics = jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(predict, state.params, held_out),
        )
        if measures_on_host(task, len(held_out["image"])):
            metrics = task.metrics(found, held_out)
    except KeyError as error:
        config = experiment.config
        raise InputError(
            f"config.task.name {config.task.name} needs {error}, which neither "
            f"config.model.name {config.model.name} nor config.data.name "
            f"{config.data.name} gives"
        ) from error
    compute_scores(metrics, experiment.class_names, split=split)


def _first_batch(experiment: Experiment) -> tuple[str, dict[str, Any]]:
    """What is scored first, of the training images where none are held out."""
    split, settings = "validation", experiment.config.evaluation
    try:
        indices = experiment.usable(split, settings.num_validation)
    except InputError:
        indices = []
    if not indices:
        split, indices = "train", experiment.usable("train", settings.batch_size)
    batches = experiment.one_pass(split, indices, batch_size=settings.batch_size)
    return split, next(batches)


def _machine(images_per_second: float) -> dict[str, Any]:
    return {
        "images_per_second": round(images_per_second, 2),
        "device": devices(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": {
            "sphemb": __version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def update_task_state(experiment: Experiment, state: TrainState) -> TrainState:
    """Renews what the task remembers, from a pass over the training images.

    Args:
        experiment: whose task and data they are.
        state: placed by `replicate`; the pass and its draws go by its step.

    Returns:
        The state with the new task state.
    """
    task_state = experiment.task.update(
        _trained(experiment, state).apply,
        state.task_state,
        map(spread_batch, experiment.train_pass(int(state.step))),
        jax.random.fold_in(experiment.keys["update"], state.step),
    )
    return replicate(dataclasses.replace(state, task_state=task_state))


def _trained(experiment: Experiment, state: TrainState) -> Trained:
    return Trained(
        experiment,
        state.params,
        state.task_state,
        int(state.step),
        state.batch_stats,
        experiment.class_names,
    )


def _introduction(experiment: Experiment, state: Any, workdir: pathlib.Path) -> str:
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(state.params))
    batch_size = experiment.batch_size
    total = experiment.num_steps
    going_on = f", going on after step {int(state.step)}" if int(state.step) else ""
    return (
        f"{experiment.config.model.name}, {count:,} parameters, on {devices()}; "
        f"{total} steps of {batch_size} images{going_on}; everything is written to "
        f"{workdir}"
    )


def _astray(
    step: int, scalars: dict[str, float], rate: float, names: list[str]
) -> NonFiniteLossError:
    astray = [name for name, value in scalars.items() if not math.isfinite(value)]
    return NonFiniteLossError(
        f"training stopped at step {step}: {', '.join(astray)} not finite, of "
        f"{_listed(scalars)}, at a learning rate of {rate:.4g}, on the images "
        f"{_first_names(names)}; the last checkpoint is kept. A "
        "smaller config.optimizer.learning_rate or config.optimizer.clip_norm may help"
    )


def _nothing_valid(
    step: int, barren: int, experiment: Experiment, batch: dict[str, Any]
) -> NothingValidError:
    maps = " or ".join(m.name for m in experiment.task.label_maps if m.learned)
    return NothingValidError(
        f"training stopped at step {step}: valid_share was 0 in the last {barren} "
        f"steps, {maps} being void in all pixels of their images, the last of which "
        f"are {_first_names(experiment.names(batch))}: look at the labels, "
        "config.data.void and the size of config.augmentation"
    )


def _first_names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SAID} more" if len(names) > _NAMES_SAID else ""
    return ", ".join(names[:_NAMES_SAID]) + more


def _listed(scalars: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())


def _mean(records: list[dict[str, float]], name: str) -> float:
    # A run that an earlier version began may have records without the name.
    values = [record[name] for record in records if name in record]
    return sum(values) / len(values)
