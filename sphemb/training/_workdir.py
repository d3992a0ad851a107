"""A run's folder: its configuration, its lock, JSON files and the log.

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
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
import tensorboardX

from sphemb import __version__
from sphemb._checks import InputError
from sphemb._files import written_whole
from sphemb.tasks import Task

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
    # First, as another process of the run may be writing its configuration now.
    foreign = workdir.exists() and (not workdir.is_dir() or _foreign(workdir))
    if (workdir / "config.json").is_file():
        different = sorted(
            name
            for name in _differences(_plain(load_config(workdir)), _plain(config))
            if not _is_free(name, task)
        )
        if different:
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


def _is_free(name: str, task: Task) -> bool:
    section, _, setting = name.rpartition(".")
    if section == "config.task":
        return setting in task.scoring_settings
    return name.startswith(_FREE)


def _foreign(workdir: pathlib.Path) -> bool:
    """Whether the folder has more than the files of a run that was killed at once."""
    return any(
        path.name != _LOCK and not path.match(".config.json.*.part")
        for path in workdir.iterdir()
    )


def check_inside(workdir: pathlib.Path, path: pathlib.Path) -> None:
    """Refuses a folder of a run that is a link to a place outside of the run.

    The run of another person may have such links.
    """
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
        _take(lock, workdir)
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


def _take(lock: int, workdir: pathlib.Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"workdir {workdir} must be of one training at a time, but another one "
            "uses it: wait until it has ended, or stop it"
        ) from error
    except OSError:  # a network file system without locks
        return


@contextlib.contextmanager
def writing(problem: str) -> Iterator[None]:
    """Turns an `OSError`, such as a full disk, into one line that begins so."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{problem}: {error}") from error


def write_config(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes ``config.json``: the version of sphemb, and the configuration."""
    write_json(workdir / "config.json", {"version": __version__, **_plain(config)})


def load_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run; one of sphemb 0.1 did not store its version."""
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(
            f"workdir {workdir} must hold a run, but it has no config.json: train first"
        )
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} must hold a configuration, got {config!r}")
    if config.pop("version", None) is None:
        raise InputError(
            f"workdir {workdir} holds a run of sphemb 0.1, which this version cannot "
            "read: train again, or use sphemb 0.1"
        )
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
        is_number = not isinstance(value, float) or math.isfinite(value)
        return value if is_number else None

    return json.dumps(clean(value), indent=indent, allow_nan=False)


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
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

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Adds one record."""
        with self._writing():
            with self._path.open("a") as file:
                file.write(_to_json({"step": step, **scalars}) + "\n")
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        self._board.close()


def read_log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a run, up to a line that is incomplete or damaged."""
    path = workdir / "metrics.jsonl"
    records = []
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
