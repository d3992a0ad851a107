"""Checkpoints by Orbax: the train state as host arrays, and the data iterator.

The arrays have no trace of their devices: any number of devices can resume.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from sphemb._checks import InputError
from sphemb._gathering import gather_objects
from sphemb.training._devices import noticing_lost
from sphemb.training._step import TrainState

# The errors of Orbax and its libraries.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError)
_UNWRITABLE = (ValueError, OSError)
_NAMES = ocp.path.step.standard_name_format()


class Checkpoints:
    """The newest two checkpoints of a run, which its processes use together."""

    def __init__(self, folder: pathlib.Path):
        """Opens the folder, or creates it."""
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=True,
                # One process lists the folder: all must agree on the steps in it.
                single_host_load_and_broadcast=True,
            ),
        )

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
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    iterator=grain.checkpoint.CheckpointSave(iterator),
                    notes=ocp.args.JsonSave(notes),
                ),
            )

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
        problem = ""
        if jax.process_index() == 0:
            aside = folder.parent / "damaged"
            try:
                aside.mkdir(exist_ok=True)
                for step in steps:
                    number = len([p for p in aside.iterdir() if p.stem == str(step)])
                    (folder / str(step)).rename(aside / f"{step}.{number}")
            except OSError as error:
                problem = (
                    f"the damaged checkpoints {steps} of {folder} cannot be moved to "
                    f"{aside}: {error}"
                )
        # All processes wait here until the folders are moved.
        if problems := [problem for problem in gather_objects(problem) if problem]:
            raise InputError(problems[0])
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
    with ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
        ),
        multiprocessing_options=alone,
    ) as reader:
        restored = reader.restore(path, args=ocp.args.Composite(**args))
    state, notes = restored["state"], restored["notes"]
    if checksum(state) != notes.pop("checksum"):
        raise ValueError("its checksum does not match its arrays")
    return state, notes


def checksum(tree: Any) -> int:
    """The CRC-32 of the bytes of all arrays, which finds flipped bits."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total = zlib.crc32(np.asarray(leaf).tobytes(), total)
    return total
