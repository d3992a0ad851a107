"""Checkpoints: the train state and the data iterator's place, by Orbax.

The state is kept as host arrays, without a trace of the devices it was on, so that any
number of devices of any kind can go on with it.
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
from sphemb.training._processes import noticing_lost
from sphemb.training._state import TrainState

# What Orbax and what it stands on raise at files that are damaged or missing, and at
# those that cannot be written.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError)
_UNWRITABLE = (ValueError, OSError)
_NAMES = ocp.path.step.standard_name_format()


class Checkpoints:
    """The checkpoints of one run; the newest few are kept.

    The processes that share a run open, save and restore them together.

    Args:
        folder: made if it is missing.
        keep: how many are kept.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2):
        """Opens the folder; see the class."""
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                # All processes go by what one of them lists, or they would not agree
                # on what is there already and need not be saved.
                single_host_load_and_broadcast=True,
            ),
        )

    @property
    def latest(self) -> int | None:
        """The newest step that is there, None if there is none."""
        return self._manager.latest_step()

    def save(
        self, step: int, state: TrainState, iterator: Any, notes: dict[str, Any]
    ) -> None:
        """Saves in the background; a step that is there already is left alone.

        Args:
            step: its number.
            state: the state after it.
            iterator: of the data.
            notes: what else the loop needs to go on, as JSON has it.

        Raises:
            InputError: this checkpoint, or the one before it that was still being
                written, cannot be written.
        """
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
        """Reads the newest checkpoint that every process can read.

        One that is damaged for any of them is named, and passed over by all.

        Args:
            like: a state, or a tree, of the same shapes and dtypes.
            iterator: moved to its saved place, if given. Damaged checkpoints are then
                set aside, under ``damaged``, to be written again.

        Returns:
            The saved state, as NumPy arrays, and the notes.

        Raises:
            InputError: no checkpoint can be read, or they are of another network; or
                a damaged one cannot be set aside.
        """
        folder = pathlib.Path(self._manager.directory)
        steps = self._manager.all_steps()
        found, damaged = _newest(folder, steps, like, iterator, gather_objects)
        if iterator is not None and damaged:
            self._set_aside(folder, damaged)
        return found

    def _set_aside(self, folder: pathlib.Path, steps: list[int]) -> None:
        problem = ""
        if jax.process_index() == 0:
            aside = folder.parent / "damaged"
            try:
                aside.mkdir(exist_ok=True)
                for step in steps:
                    before = [
                        path for path in aside.iterdir() if path.stem == str(step)
                    ]
                    (folder / str(step)).rename(aside / f"{step}.{len(before)}")
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
                f"newest that is whole is of step {self.latest}: {line}"
            ) from error

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
            InputError: it cannot be written.
        """
        try:
            with self._writing():
                self._manager.wait_until_finished()
        finally:
            self._manager.close()


def newest_state(workdir: pathlib.Path, like: TrainState) -> TrainState:
    """The state of a run's newest checkpoint.

    One process can read it without the others.

    Args:
        workdir: the run's folder.
        like: see `Checkpoints.restore`.

    Raises:
        InputError: there is no checkpoint yet, or none that can be read.
    """
    folder = workdir.absolute() / "checkpoints"
    steps = [found.step for found in _NAMES.find_all(folder)]
    if not steps:
        raise InputError(f"workdir {workdir} holds no checkpoint yet: train first")
    (state, _), _ = _newest(folder, steps, like)
    return state


def _newest(
    folder: pathlib.Path,
    steps: Iterable[int],
    like: TrainState,
    iterator: Any = None,
    everyones: Callable[[str], list[str]] = lambda problem: [problem],
) -> tuple[tuple[TrainState, dict[str, Any]], list[int]]:
    """The newest checkpoint that can be read, and the damaged ones after it."""
    steps = sorted(steps, reverse=True)
    for place, step in enumerate(steps):
        problem, cause, found = "", None, None
        try:
            found = _read(folder / str(step), like, iterator)
        except _UNREADABLE as error:
            problem, cause = " ".join(str(error).split()) or repr(error), error
        problems = [problem for problem in everyones(problem) if problem]
        if found is not None and not problems:
            return found, steps[:place]
        complaint = (
            f"checkpoint {folder / str(step)} cannot be read, it is damaged or of "
            f"another network: {problems[0]}"
        )
        if step == steps[-1]:
            raise InputError(complaint) from cause
        print(f"warning: {complaint}; taking the one before", file=sys.stderr)
    raise InputError(f"{folder} must hold a checkpoint, got none")


def _read(
    path: pathlib.Path, like: TrainState, iterator: Any
) -> tuple[TrainState, dict[str, Any]]:
    """Reads one checkpoint; no other process takes part, or it might wait for it."""
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
        raise ValueError("its checksum is another than when it was written")
    return state, notes


def checksum(tree: Any) -> int:
    """The CRC-32 of all bytes of all arrays: a flipped bit does not train on."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total = zlib.crc32(np.asarray(leaf).tobytes(), total)
    return total
