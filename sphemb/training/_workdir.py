"""A run's folder: its configuration, its lock, JSON files, the log and checkpoints.

``config.json`` (with the version), ``classes.json``, ``.lock``, ``metrics.jsonl``,
``tensorboard/``, ``checkpoints/``, ``training.json`` (machine and speed),
``pictures/``, ``summary.json``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grain
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
import tensorboardX

from sphemb import __version__
from sphemb._checks import InputError
from sphemb._files import gather_objects, written_whole
from sphemb._model_files import check_version
from sphemb.tasks import Task
from sphemb.training._devices import noticing_lost
from sphemb.training._step import TrainState

_CLASSES, _LOCK = "classes.json", ".lock"
_FOLDERS = ("checkpoints", "damaged", "pictures", "tensorboard")
# Settings that may change when a run resumes, beside those that its task declares:
# nothing that is stored depends on them.
_FREE = (
    "config.evaluation.",
    "config.loader.images_per_device",  # checkpoints have the size of their batches
    "config.loader.num_threads",
    "config.loader.skip_bad",
    "config.train.eval_every",
)


def check_workdir(
    workdir: pathlib.Path, config: ml_collections.ConfigDict, task: Task
) -> None:
    """Checks that a folder is new, or holds a run of this configuration."""
    # First, as another process of the run may be writing its configuration now. A run
    # that was killed at once has a lock, and an unfinished configuration.
    files = workdir.iterdir() if workdir.is_dir() else ()
    started = (p.name == _LOCK or p.match(".config.json.*.part") for p in files)
    foreign = workdir.exists() and not (workdir.is_dir() and all(started))
    if (workdir / "config.json").is_file():
        free = {f"config.task.{name}" for name in task.scoring_settings}
        names = _differences(plain(load_config(workdir)), plain(config)) - free
        if different := sorted(n for n in names if not n.startswith(_FREE)):
            raise InputError(
                f"workdir {workdir} holds a run of another configuration (different: "
                f"{', '.join(different[:4])}): give another --workdir, with "
                f"--config.train.init_from={workdir} to start from its parameters"
            )
        for name in _FOLDERS:
            check_inside(workdir, workdir / name)
    elif foreign:
        raise InputError(
            f"workdir {workdir} must be a new folder or that of a run, but it holds "
            "other things: give another --workdir"
        )


def check_inside(workdir: pathlib.Path, path: pathlib.Path) -> None:
    """Refuses a folder of a run that is a link to a place outside of the run."""
    place = os.path.realpath(path)
    if not pathlib.Path(place).is_relative_to(os.path.realpath(workdir)):
        raise InputError(f"{path} must lie in its run, but it is a link to {place}")


@contextlib.contextmanager
def claimed_workdir(
    workdir: pathlib.Path,
    config: ml_collections.ConfigDict,
    task: Task,
    *,
    class_names: Sequence[str] = (),
) -> Iterator[None]:
    """Creates a run's folder, and locks it against other trainings."""
    check_workdir(workdir, config, task)
    with writing(f"workdir {workdir} cannot be made"):
        workdir.mkdir(parents=True, exist_ok=True)
        lock = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"workdir {workdir} must be of one training at a time, but another one "
                "uses it: wait until it has ended, or stop it"
            ) from error
        except OSError:
            pass  # a network file system without locks
        check_workdir(workdir, config, task)  # another may have begun in the meantime
        with writing(f"workdir {workdir} cannot be made"):
            # First: a folder with other files and without it is not a run.
            write_config(workdir, config)
            if class_names:
                write_json(workdir / _CLASSES, list(class_names))
            (workdir / "pictures").mkdir(exist_ok=True)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def writing(problem: str) -> Iterator[None]:
    """Turns an `OSError`, such as a full disk, into one line that begins so."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{problem}: {error}") from error


def write_config(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes ``config.json``: the version of sphemb, and the configuration."""
    write_json(workdir / "config.json", {"version": __version__, **plain(config)})


def load_config(workdir: str | pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run; one of sphemb 0.1 did not store its version."""
    path = pathlib.Path(workdir) / "config.json"
    if not path.is_file():
        raise InputError(
            f"workdir {workdir} must hold a run, but it has no config.json: train first"
        )
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} must hold a configuration, got {config!r}")
    if (version := config.pop("version", None)) is None:
        raise InputError(
            f"workdir {workdir} holds a run of sphemb 0.1, which this version cannot "
            "read: train again, or use sphemb 0.1"
        )
    check_version(f"workdir {workdir}", version)
    try:
        return ml_collections.ConfigDict(config)
    except (ValueError, TypeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path} must hold a configuration: {line}") from error


def load_class_names(workdir: pathlib.Path) -> tuple[str, ...]:
    """The names of a run's classes, from 0 on; empty for classes without names."""
    path = workdir / _CLASSES
    names = read_json(path) if path.exists() else []
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path} must hold a list of names, got {names!r}")
    return tuple(names)


def read_json(path: pathlib.Path) -> Any:
    """The value in a JSON file; `InputError` names one that cannot be read."""
    try:
        return json.loads(path.read_bytes())  # which may begin with a byte order mark
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a JSON file: {error}") from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all; NaN becomes null."""
    with written_whole(path) as unfinished:
        unfinished.write_text(_to_json(value, indent=2) + "\n")


def _to_json(value: Any, *, indent: int | None = None) -> str:
    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(clean(value), indent=indent, allow_nan=False)


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The configuration as read from JSON: with lists in place of tuples."""
    return json.loads(config.to_json_best_effort())


def _differences(a: Any, b: Any, name: str = "config") -> set[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return {
            difference
            for key in a.keys() | b.keys()
            for difference in _differences(a.get(key), b.get(key), f"{name}.{key}")
        }
    return set() if a == b else {name}


class MetricLog:
    """Appends records to ``metrics.jsonl`` and to TensorBoard's files."""

    def __init__(self, workdir: pathlib.Path, *, step: int = 0):
        """Opens the log after a step; later records are dropped."""
        self._path = workdir / "metrics.jsonl"
        kept = [record for record in read_log(workdir) if record["step"] <= step]
        with self._writing():
            with written_whole(self._path) as unfinished:
                lines = [_to_json(record) + "\n" for record in kept]
                unfinished.write_text("".join(lines))
            self._board = tensorboardX.SummaryWriter(
                str(workdir / "tensorboard"), purge_step=step + 1
            )

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(f"{self._path} cannot be written to")

    def write(
        self, step: int, scalars: dict[str, float], **histograms: Sequence[float]
    ) -> None:
        """Adds one record; histograms, of these values, are for TensorBoard alone."""
        with self._writing():
            with self._path.open("a") as file:
                file.write(_to_json({"step": step, **scalars}) + "\n")
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
            for name, values in histograms.items():
                if len(values):
                    self._board.add_histogram(name, np.asarray(values), step)
            self._board.flush()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        self._board.close()


def read_log(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The records of a run, up to a line that is incomplete or damaged."""
    path, records = pathlib.Path(workdir) / "metrics.jsonl", []
    text = path.read_text(errors="replace") if path.is_file() else ""
    for line in text.split("\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            break
        records.append(record)
    return records


# The errors of Orbax and its libraries.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError)
_UNWRITABLE = (ValueError, OSError)
_NAMES = ocp.path.step.standard_name_format()


class Checkpoints:
    """The newest two checkpoints of a run, which its processes use together."""

    def __init__(self, folder: pathlib.Path):
        """Opens the folder, or creates it."""
        # One process lists the folder: all must agree on the steps in it.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=True, single_host_load_and_broadcast=True
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @property
    def latest(self) -> int | None:
        """The newest step, or None."""
        return self._manager.latest_step()

    def save(
        self, step: int, state: TrainState, iterator: Any, notes: dict[str, Any]
    ) -> None:
        """Saves in the background; an existing checkpoint of the step stays."""
        if step in self._manager.all_steps():
            return
        state = jax.device_get(state)
        notes = {**notes, "checksum": checksum(state)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            iterator=grain.checkpoint.CheckpointSave(iterator),
            notes=ocp.args.JsonSave(notes),
        )
        with self._writing():
            self._manager.save(step, args=args)

    def restore(
        self, like: TrainState, iterator: Any = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Reads the newest checkpoint that every process can read."""
        folder = pathlib.Path(self._manager.directory)
        steps = self._manager.all_steps()
        found, damaged = _newest(folder, steps, like, iterator, gather_objects)
        if iterator is not None and damaged:
            self._move_damaged(folder, damaged)
        return found

    def _move_damaged(self, folder: pathlib.Path, steps: list[int]) -> None:
        problem, aside = "", folder.parent / "damaged"
        try:
            if jax.process_index() == 0:
                aside.mkdir(exist_ok=True)
                for step in steps:
                    number = len([p for p in aside.iterdir() if p.stem == str(step)])
                    (folder / str(step)).rename(aside / f"{step}.{number}")
        except OSError as error:
            problem = f"{steps} of {folder} cannot be moved to {aside}: {error}"
        # All processes wait here until the folders are moved.
        if problems := [problem for problem in gather_objects(problem) if problem]:
            raise InputError(f"the damaged checkpoints {problems[0]}")
        self._manager.reload()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with noticing_lost():  # processes write together
                yield
        except _UNWRITABLE as error:
            line = " ".join(str(error).split())
            raise InputError(
                f"a checkpoint cannot be written to {self._manager.directory}; the "
                f"newest complete one is of step {self.latest}: {line}"
            ) from error

    def close(self) -> None:
        """Waits for checkpoints in the background."""
        try:
            with self._writing():
                self._manager.wait_until_finished()
        finally:
            self._manager.close()


def newest_state(workdir: pathlib.Path, like: TrainState) -> TrainState:
    """The state of a run's newest checkpoint, read by this process alone."""
    folder = workdir.absolute() / "checkpoints"
    steps = [found.step for found in _NAMES.find_all(folder)]
    if not steps:
        raise InputError(f"workdir {workdir} holds no checkpoint yet: train first")
    return _newest(folder, steps, like)[0][0]


def _newest(
    folder: pathlib.Path,
    steps: Iterable[int],
    like: TrainState,
    iterator: Any = None,
    gather: Callable[[str], list[str]] = lambda problem: [problem],
) -> tuple[tuple[TrainState, dict[str, Any]], list[int]]:
    """The newest checkpoint that can be read, and the damaged steps after it."""
    steps = sorted(steps, reverse=True)
    for place, step in enumerate(steps):
        problem, cause, found = "", None, None
        try:
            found = _read(folder / str(step), like, iterator)
        except _UNREADABLE as error:
            problem, cause = " ".join(str(error).split()) or repr(error), error
        problems = [problem for problem in gather(problem) if problem]
        if found is not None and not problems:
            return found, steps[:place]
        message = (
            f"checkpoint {folder / str(step)} cannot be read, it is damaged or of "
            f"another network: {problems[0]}"
        )
        if step == steps[-1]:
            raise InputError(message) from cause
        print(f"warning: {message}; reading the one before", file=sys.stderr)
    raise InputError(f"{folder} must hold a checkpoint, got none")


def _read(
    path: pathlib.Path, like: TrainState, iterator: Any
) -> tuple[TrainState, dict[str, Any]]:
    """Reads one checkpoint without waiting for other processes."""
    target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    args: dict[str, Any] = {
        "state": ocp.args.StandardRestore(target),
        "notes": ocp.args.JsonRestore(),
    }
    if iterator is not None:
        args["iterator"] = grain.checkpoint.CheckpointRestore(iterator)
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    handler = ocp.CompositeCheckpointHandler(composite_options=options)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        restored = reader.restore(path, args=ocp.args.Composite(**args))
    state, notes = restored["state"], restored["notes"]
    if checksum(state) != notes.pop("checksum"):
        raise ValueError("its checksum does not match its arrays")
    return state, notes


def checksum(tree: Any) -> int:
    """The CRC-32 of the bytes of all arrays, which finds flipped bits."""

    def add(total: int, leaf: Any) -> int:
        return zlib.crc32(np.asarray(leaf).tobytes(), total)

    return jax.tree.reduce(add, tree, 0)
