"""The training loop, for every task."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from sphemb._errors import InputError, NonFiniteLossError, PreemptedError
from sphemb._files import gather_objects
from sphemb.data import measure_instances
from sphemb.tasks import compute_scores, measures_on_host, predict_and_measure
from sphemb.training._devices import (
    data_parallel,
    devices,
    noticing_lost,
    noticing_sigterm,
    replicate,
    split_batch,
    spread_batch,
    versions,
)
from sphemb.training._experiment import Experiment, Trained
from sphemb.training._flight import BatchesAhead, Flight, Stalls
from sphemb.training._labels import check_labels
from sphemb.training._step import TrainState
from sphemb.training._workdir import (
    Checkpoints,
    MetricLog,
    check_workdir,
    checksum,
    claimed_workdir,
    load_config,
    read_log,
    write_json,
    writing,
)

_SCORES_SHOWN = 6  # of a validation; the log has all of them
_NAMES_SHOWN = 8
_MEASURED = 200  # training images, for the typical diameter
_BARREN = 100  # consecutive steps without a valid pixel, before a run stops
_STALL_BINS = 20  # of the share of a step, in ``training.json``
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

Evaluate = Callable[[Trained, str], dict[str, float]]
"""(trained network, split) -> scores."""


class NothingValidError(InputError):
    """Many consecutive steps had no valid pixel; names their images."""


def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    evaluate: Evaluate | None = None,
) -> Trained:
    """Trains what a configuration says, or resumes a run exactly.

    Args:
        config: see ``configs/common.py``.
        workdir: the run's folder. A run of the same configuration in it is resumed with
            its parameters, optimizer, order of the data and random choices.
        evaluate: scores the validation split every ``config.train.eval_every`` batches
            of ``config.loader.batch_size`` images.

    Raises:
        InputError: the configuration, the data or the workdir does not fit.
        NonFiniteLossError, NothingValidError: training diverged, or has no labels.
        PreemptedError, LostProcessError: after a SIGTERM; another process has ended.
    """
    workdir = pathlib.Path(workdir).absolute()
    config = _with_measured(config, workdir)
    experiment = Experiment(config)
    check_workdir(workdir, config, experiment.task)
    # A resumed run does not need what it started from. A new one looks for it before
    # the data, which may be gigabytes to download.
    resumes = (workdir / "checkpoints").is_dir()
    state = experiment.init_state() if resumes else _start_state(experiment)
    batches = experiment.train_batches()
    scored = ("validation", "test") if evaluate else ()
    for split in scored:
        if not len(experiment.source(split)):
            raise InputError(f"config.data must have images in the {split} split")
    check_labels(experiment, ("train", *scored))
    _rehearse(experiment, state)

    with contextlib.ExitStack() as claim:
        problem: InputError | None = None
        # Processes that share a run share its folder; one of them writes.
        if jax.process_index() == 0:
            names = experiment.class_names
            try:
                claim.enter_context(
                    claimed_workdir(workdir, config, experiment.task, class_names=names)
                )
            except InputError as error:
                problem = error
        with noticing_lost():
            refused = gather_objects(problem and str(problem))[0]
        if refused is not None:
            raise problem or InputError(refused)
        return _run(experiment, workdir, state, batches, resumes, evaluate)


def _with_measured(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
    """Replaces what is measured in the training images by numbers, which a run keeps.

    The intensity ``"range"``, and the diameter None of a task that has one.
    """
    ranged = config.data.get("intensity") == "range"
    sized = getattr(Experiment(config).task, "diameter", 0.0) is None
    if not (ranged or sized):
        return config
    config, kept = config.copy_and_resolve_references(), None
    if (workdir / "config.json").is_file():
        kept = load_config(workdir)
    else:
        Experiment(config).start_variables()  # missing weights are found before
    if ranged:
        intensity = (kept.data.get("intensity") or "") if kept else ""
        if ".." not in intensity:
            intensity = Experiment(config).measured_reading.intensity
        config.data.intensity = intensity
    if sized:
        diameter = kept.task.get("diameter") if kept else None
        with config.unlocked(), config.task.ignore_type():
            config.task.diameter = diameter or _typical_diameter(Experiment(config))
    return config


def _typical_diameter(experiment: Experiment) -> float:
    """The diameter of a typical object of the training images, in pixels."""
    source = experiment.source("train")
    chosen = np.linspace(0, len(source) - 1, min(_MEASURED, len(source))).astype(int)
    sizes = measure_instances(source, indices=chosen.tolist(), strides=())
    if not sizes.areas.size:
        raise InputError(
            "config.task.diameter must be given, because no usable image of the train "
            f"split has objects to measure{': '.join(('', *sizes.unusable[:1]))}"
        )
    return round(sizes.diameter, 1)


def _run(
    experiment: Experiment,
    workdir: pathlib.Path,
    state: TrainState,
    batches: Any,
    resumes: bool,
    evaluate: Evaluate | None,
) -> Trained:
    """Trains in a claimed folder, from its newest checkpoint."""
    config, settings = experiment.config, experiment.config.train
    leads = jax.process_index() == 0
    checkpoints = Checkpoints(workdir / "checkpoints")
    notes: dict[str, Any] = {}
    if checkpoints.latest is not None:
        state, notes = checkpoints.restore(state, batches)
    elif resumes:
        state = _start_state(experiment)
    step = int(state.step)
    _check_batch_size(experiment, notes)
    state = replicate(state)
    log = MetricLog(workdir, step=step) if leads else None
    seconds = ([0.0] + [record["seconds"] for record in read_log(workdir)])[-1]
    progress = Progress(experiment.num_steps, step=step, shown=leads)
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(state.params))
    progress.say(
        f"{config.model.name}, {count:,} parameters, on {devices()}; "
        f"{experiment.num_steps} steps of {experiment.batch_size} images"
        f"{f', resumed after step {step}' if step else ''}; everything is written to "
        f"{workdir}"
    )

    train_step = data_parallel(
        experiment.train_step, replicated_output=True, donate_state=True
    )
    # The steps since the last record; a record is their mean.
    window: list[dict[str, float]] = notes.get("window", [])
    barren = notes.get("barren", 0)  # consecutive steps without a valid pixel
    update_every, updates = experiment.update_every, []
    stalls, logged = Stalls(), 0
    start = time.monotonic()

    def write(step: int, record: dict[str, float], **histograms: list[float]) -> None:
        if log:
            now = round(seconds + time.monotonic() - start, 3)
            log.write(step, {**record, "seconds": now}, **histograms)

    def updated(state: TrainState) -> TrainState:
        began = time.monotonic()
        state = jax.block_until_ready(update_task_state(experiment, state))
        updates.append(time.monotonic() - began)
        return state

    def due(every: int, step: int) -> bool:
        times = experiment.times_due
        return times(every, step) > times(every, step - 1)

    def rate(step: int) -> float:
        update = (step - 1) // config.optimizer.accumulate
        return float(np.asarray(experiment.schedule(update)))

    def look(flight: Flight) -> None:
        """Checks, counts and records a step, which has ended then."""
        nonlocal barren, window, logged
        step, scalars = flight.step, flight.scalars()
        if not all(map(math.isfinite, scalars.values())):
            names = experiment.names(flight.batch)
            raise _not_finite(step, scalars, rate(step), names)
        barren = 0 if scalars.get("valid_share", 1.0) else barren + 1
        if barren >= _BARREN or barren == step == experiment.num_steps:
            raise _nothing_valid(step, barren, experiment, flight.batch)
        window.append(scalars)
        stalls.add(flight)
        progress.advance(step, scalars["loss"])
        if due(settings.log_every, step) or step == experiment.num_steps:
            means = {k: sum(r[k] for r in window) / len(window) for k in scalars}
            means |= {"learning_rate": rate(step), "stall": stalls.share(logged)}
            write(step, means, stalls=stalls.shares[logged:])
            window, logged = [], len(stalls.shares)

    def validate(state: TrainState) -> None:
        if not evaluate or not due(settings.eval_every, step):
            return
        scores = evaluate(_trained(experiment, state), "validation")
        write(step, {f"validation/{k}": v for k, v in scores.items()})
        first_scores = dict(itertools.islice(scores.items(), _SCORES_SHOWN))
        progress.say(f"step {step}: validation " + _listed(first_scores))

    ahead = BatchesAhead(batches, split_batch)
    flight: Flight | None = None
    together = True
    try:
        if notes.get("unscored"):
            with noticing_lost():
                validate(state)
        with noticing_lost(), noticing_sigterm() as stops:
            while step < experiment.num_steps:
                if update_every > 0 and step % update_every == 0:
                    state = updated(state)
                batch, sent = ahead.take()
                began = time.monotonic()
                state, scalars = train_step(state, sent)
                step += 1
                before, flight = flight, Flight(step, batch, scalars, begun=began)
                last = step == experiment.num_steps
                stopping = stops(step) and not last
                if not (last or stopping):
                    ahead.send()
                    flight.waiting = ahead.waiting
                # Two steps at most are dispatched: simulated devices would overtake
                # each other.
                if before:
                    look(before)
                scores = evaluate and due(settings.eval_every, step)
                saves = due(settings.checkpoint_every, step) or last or stopping
                updates_next = update_every > 0 and step % update_every == 0
                if not (scores or saves or updates_next or ahead.failed):
                    continue
                # A state is used, or saved, when its step was looked at.
                look(flight)
                flight = None
                if update_every and last:
                    # The final task state belongs to the final network.
                    state = updated(state)
                if not stopping:  # scoring may take longer than the time left
                    validate(state)
                # After the records: the log has all that happened up to a checkpoint.
                if saves:
                    kept = {"window": window, "unscored": stopping, "barren": barren}
                    kept["batch_size"] = experiment.batch_size
                    checkpoints.save(step, state, ahead, kept)
                if stopping:
                    raise PreemptedError(
                        f"stopped by SIGTERM after step {step}, which is saved; the "
                        "same command resumes there"
                    )
    except (NonFiniteLossError, NothingValidError, PreemptedError):
        raise  # as every process does after the same step
    except BaseException:
        together = jax.process_count() == 1
        raise
    finally:
        if together:  # to finish checkpoints processes wait for each other
            checkpoints.close()
        if log:
            log.close()
        progress.close()
    if leads and stalls.seconds:
        pace = sum(stalls.seconds) / len(stalls.seconds)
        counts, _ = np.histogram(stalls.shares, np.linspace(0, 1, _STALL_BINS + 1))
        facts: dict[str, Any] = {
            "images_per_second": round(experiment.batch_size / pace, 2),
            "stall": round(stalls.share(), 4),
            "stall_histogram": counts.tolist(),
            "device": devices(),
            "machine": platform.platform(),
            "python": platform.python_version(),
            "versions": versions(_PACKAGES),
        }
        if update_every > 0 and len(updates) > 1:
            # The first update waits for the compiler.
            cost = sum(updates[1:]) / len(updates[1:])
            facts["update_share"] = round(cost / (cost + update_every * pace), 4)
        if config.loader.skip_bad:
            facts["skipped"] = len(experiment.skipped)
            progress.say(f"{len(experiment.skipped)} examples could not be used")
        with writing(f"{workdir} cannot be written to"):
            write_json(workdir / "training.json", facts)
    return _trained(experiment, state)


def _check_batch_size(experiment: Experiment, notes: dict[str, Any]) -> None:
    """Refuses other batches than before, whose position in the data would differ."""
    now, count = experiment.batch_size, jax.device_count()
    before = notes.get("batch_size", now)
    if before != now:
        hint = f"set config.loader.images_per_device={before // count}"
        if before % count:
            hint = f"use a number of devices that divides {before}"
        raise InputError(
            f"this run has had {before} images in a step, and cannot resume with {now} "
            f"on {count} devices: {hint}"
        )


def _start_state(experiment: Experiment) -> TrainState:
    """The state that training starts from, equal in all processes."""
    state = experiment.start_state()
    if len(set(gather_objects(checksum(jax.device_get(state))))) > 1:
        train = experiment.config.train
        raise InputError(
            "the processes of a run must start from the same parameters, but theirs "
            f"differ: config.seed, config.train.init_from {train.init_from} and "
            f"config.train.weights {train.weights} must be the same for all"
        )
    return state


def _rehearse(experiment: Experiment, state: TrainState) -> None:
    """Traces a step and a prediction, and scores a batch of zeros; compiles neither."""
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
        shapes = jax.eval_shape(predict, state.params, held_out)
        found, metrics = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
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
    """The first scored batch, of training images if no others are usable."""
    split, settings = "validation", experiment.config.evaluation
    try:
        indices = experiment.usable(split, settings.num_validation)
    except InputError:
        indices = []
    if not indices:
        split, indices = "train", experiment.usable("train", settings.batch_size)
    batches = experiment.one_pass(split, indices, batch_size=settings.batch_size)
    return split, next(batches)


def update_task_state(experiment: Experiment, state: TrainState) -> TrainState:
    """Updates the task state of a replicated state; its step is the pass's seed."""
    task_state = experiment.task.update(
        _trained(experiment, state).apply,
        state.task_state,
        map(spread_batch, experiment.train_pass(int(state.step))),
        jax.random.fold_in(experiment.keys["update"], state.step),
    )
    return replicate(dataclasses.replace(state, task_state=task_state))


def _trained(experiment: Experiment, state: TrainState) -> Trained:
    return Trained.of(experiment, state, experiment.class_names)


def _not_finite(
    step: int, scalars: dict[str, float], rate: float, names: list[str]
) -> NonFiniteLossError:
    bad = [name for name, value in scalars.items() if not math.isfinite(value)]
    return NonFiniteLossError(
        f"training stopped at step {step}: {', '.join(bad)} not finite, of "
        f"{_listed(scalars)}, at a learning rate of {rate:.4g}, on the images "
        f"{_first_names(names)}; the last checkpoint is kept. A smaller "
        "config.optimizer.learning_rate or config.optimizer.clip_norm may help"
    )


def _nothing_valid(
    step: int, barren: int, experiment: Experiment, batch: dict[str, Any]
) -> NothingValidError:
    maps = " or ".join(m.name for m in experiment.task.label_maps if m.learned)
    return NothingValidError(
        f"training stopped at step {step}: valid_share was 0 in the last {barren} "
        f"steps, since {maps} is void in all pixels; the last images are "
        f"{_first_names(experiment.names(batch))}: look at the labels, "
        "config.data.void and the size of config.augmentation"
    )


def _first_names(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _listed(scalars: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())


class Progress:
    """A bar with the time left on a terminal; elsewhere a line every minute."""

    def __init__(self, total: int, *, step: int, shown: bool):
        """Starts the clock at a step."""
        self._total, self._first, self._shown = total, step + 1, shown
        self._compiled = self._last_line = time.monotonic()
        hidden = not (shown and sys.stderr.isatty())
        self._bar = tqdm.tqdm(
            total=total, initial=step, unit="step", disable=hidden, dynamic_ncols=True
        )

    def advance(self, step: int, loss: float) -> None:
        """Counts a step."""
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update()
        now = time.monotonic()
        if step == self._first:
            self._compiled = now  # the first step waits for the compiler
        elif self._bar.disable and now - self._last_line > 60:
            self._last_line = now
            pace = (now - self._compiled) / (step - self._first)
            left = duration(pace * (self._total - step))
            self.say(f"step {step}/{self._total}, loss {loss:.4f}, {left} left")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._shown:
            tqdm.tqdm.write(text)
            sys.stdout.flush()

    def close(self) -> None:
        """Closes the bar."""
        self._bar.close()


def duration(seconds: float) -> str:
    """A duration in words.

    >>> duration(42), duration(250), duration(5400)
    ('42 s', '4 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
