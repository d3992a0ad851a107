"""A run's folder: which configuration it belongs to, and what is written there.

``config.json``, ``.lock``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/``,
``training.json`` (machine and speed), ``pictures/``, ``summary.json``.
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

from sphemb._checks import InputError
from sphemb._whole_files import written_whole
from sphemb.tasks import Task

_CLASSES = "classes.json"
_LOCK = ".lock"
_FOLDERS = ("checkpoints", "damaged", "pictures", "tensorboard")
# What may change when a run resumes, beside what its task declares: nothing that is
# stored depends on it.
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
    """Makes sure that a folder is new, or that of a run with this configuration.

    Args:
        workdir: the folder.
        config: of the run.
        task: its task, whose ``scoring_settings`` may differ.

    Raises:
        InputError: it holds a run of another configuration (what scoring alone reads
            may differ), links that lead out of it, or something that is no run; nothing
            is touched.
    """
    path = workdir / "config.json"
    # First, as another process of the run may be writing its configuration now.
    foreign = workdir.exists() and (not workdir.is_dir() or _foreign(workdir))
    if path.is_file():
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
    """Whether there is more than what a run leaves that was killed as it began."""
    return any(
        path.name != _LOCK and not path.match(".config.json.*.part")
        for path in workdir.iterdir()
    )


def check_inside(workdir: pathlib.Path, path: pathlib.Path) -> None:
    """Refuses a folder of a run that links lead out of it.

    Somebody else's run may hold such links; what is written to it stays in it.

    Raises:
        InputError: as above.
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
    """Makes a folder the run's own, and keeps other trainings out of it.

    The lock is the operating system's, on a file in the folder, and goes with the
    process however it ends. Where a file system knows no locks, there is none.

    Args:
        workdir: the folder.
        config: of the run.
        task: its task.
        class_names: what the run goes by when its data are out of reach.

    Raises:
        InputError: see `check_workdir`; the folder cannot be made; or another training
            is at work in it.
    """
    check_workdir(workdir, config, task)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise _not_made(workdir, error) from error
    try:
        _take(lock, workdir)
        check_workdir(workdir, config, task)  # another may have begun in the meantime
        try:
            # First, as a folder with anything else and without it is no run.
            write_json(workdir / "config.json", _plain(config))
            if class_names:
                write_json(workdir / _CLASSES, list(class_names))
            (workdir / "pictures").mkdir(exist_ok=True)
        except OSError as error:
            raise _not_made(workdir, error) from error
        yield
    finally:
        os.close(lock)


def _not_made(workdir: pathlib.Path, error: OSError) -> InputError:
    return InputError(f"workdir {workdir} cannot be made: {error}")


def _take(lock: int, workdir: pathlib.Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"workdir {workdir} must be of one training at a time, but another one is "
            "at work in it: wait until it has ended, or stop it"
        ) from error
    except OSError:  # of network file systems, not all have locks
        return


def load_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of a run.

    Raises:
        InputError: there is none.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise InputError(
            f"workdir {workdir} must hold a run, but it has no config.json: train first"
        )
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} must hold a configuration, got {config!r}")
    try:
        return ml_collections.ConfigDict(_of_this_version(config))
    except (ValueError, TypeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path} must hold a configuration: {line}") from error


def _of_this_version(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that an earlier version wrote, with what has been added."""
    added: dict[str, dict[str, Any]] = {
        "loader": {"images_per_device": 0},
        "train": {"num_epochs": 0.0},
    }
    sections = {
        name: {**new, **config[name]}
        for name, new in added.items()
        if isinstance(config.get(name), dict)
    }
    if sections.get("loader", {}).get("batch_size", 0) is None:
        sections["loader"].update(batch_size=1, images_per_device=1)
    return config | sections


def load_class_names(workdir: pathlib.Path) -> tuple[str, ...]:
    """The names of a run's classes, from 0 on; none where it has no names.

    Raises:
        InputError: its file holds something else.
    """
    path = workdir / _CLASSES
    names = read_json(path) if path.exists() else []
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path} must hold a list of names, got {names!r}")
    return tuple(names)


def read_json(path: pathlib.Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())  # which may begin with a byte order mark
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a JSON file: {error}") from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all; see `to_json`."""
    with written_whole(path) as unfinished:
        unfinished.write_text(to_json(value, indent=2) + "\n")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """The JSON text of a value; JSON knows no NaN, so a score without one is null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v) for v in value]
        is_number = not isinstance(value, float) or math.isfinite(value)
        return value if is_number else None

    return json.dumps(clean(value), indent=indent, allow_nan=False)


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The configuration as JSON gives it back: tuples have become lists."""
    return json.loads(config.to_json_best_effort())


def _differences(a: Any, b: Any, name: str = "config") -> set[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return {
            difference
            for key in a.keys() | b.keys()
            for difference in _differences(a.get(key), b.get(key), f"{name}.{key}")
        }
    return set() if a == b else {name}
