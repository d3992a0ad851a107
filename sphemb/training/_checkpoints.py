"""Checkpoints: the train state and the data iterator's place, by Orbax.

The state is kept as host arrays, without a trace of the devices it was on, so that any
number of devices of any kind can go on with it.
"""

from __future__ import annotations

import pathlib
import sys
import zlib
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from sphemb._checks import InputError
from sphemb.training._state import TrainState

# What Orbax and what it stands on raise at files that are damaged or missing, and at
# those that cannot be written.
_UNREADABLE = (ValueError, KeyError, TypeError, OSError)
_UNWRITABLE = (ValueError, OSError)


class Checkpoints:
    """The checkpoints of one run; the newest few are kept.

    Args:
        folder: made if it is missing.
        keep: how many are kept.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2):
        """Opens the folder; see the class."""
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
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
        notes = {**notes, "checksum": _checksum(state)}
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    iterator=grain.checkpoint.CheckpointSave(iterator),
                    notes=ocp.args.JsonSave(notes),
                ),
            )
        except _UNWRITABLE as error:
            raise self._unwritable(error) from error

    def restore(
        self, like: TrainState, iterator: Any = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Reads the newest checkpoint that can be read; a damaged one is named.

        Args:
            like: a state, or a tree, of the same shapes and dtypes.
            iterator: moved to its saved place, if given. Damaged checkpoints are then
                set aside, under ``damaged``, to be written again.

        Returns:
            The saved state, as NumPy arrays, and the notes.

        Raises:
            InputError: no checkpoint can be read, or they are of another network.
        """
        damaged: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._read(step, like, iterator)
            except _UNREADABLE as error:
                line = " ".join(str(error).split())
                where = self._manager.directory / str(step)
                complaint = (
                    f"checkpoint {where} cannot be read, it is damaged or of another "
                    f"network: {line}"
                )
                damaged.append(step)
                if len(damaged) == len(self._manager.all_steps()):
                    raise InputError(complaint) from error
                print(f"warning: {complaint}; taking the one before", file=sys.stderr)
                continue
            if iterator is not None and damaged and jax.process_index() == 0:
                self._set_aside(damaged)
            return found
        raise InputError(f"{self._manager.directory} must hold a checkpoint, got none")

    def _read(
        self, step: int, like: TrainState, iterator: Any
    ) -> tuple[TrainState, dict[str, Any]]:
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        args: dict[str, Any] = {
            "state": ocp.args.StandardRestore(target),
            "notes": ocp.args.JsonRestore(),
        }
        if iterator is not None:
            args["iterator"] = grain.checkpoint.CheckpointRestore(iterator)
        restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        state, notes = restored["state"], restored["notes"]
        if _checksum(state) != notes.pop("checksum"):
            raise ValueError("its numbers are not those that were written")
        return state, notes

    def _set_aside(self, steps: list[int]) -> None:
        folder = pathlib.Path(self._manager.directory)
        aside = folder.parent / "damaged"
        aside.mkdir(exist_ok=True)
        for step in steps:
            before = [path for path in aside.iterdir() if path.stem == str(step)]
            (folder / str(step)).rename(aside / f"{step}.{len(before)}")
        self._manager.reload()

    def _unwritable(self, error: Exception) -> InputError:
        line = " ".join(str(error).split())
        return InputError(
            f"a checkpoint cannot be written to {self._manager.directory}; the newest "
            f"that is whole is of step {self.latest}: {line}"
        )

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
            InputError: it cannot be written.
        """
        try:
            self._manager.wait_until_finished()
        except _UNWRITABLE as error:
            raise self._unwritable(error) from error
        finally:
            self._manager.close()


def newest_state(workdir: pathlib.Path, like: TrainState) -> TrainState:
    """The state of a run's newest checkpoint.

    Args:
        workdir: the run's folder.
        like: see `Checkpoints.restore`.

    Raises:
        InputError: there is no checkpoint yet, or none that can be read.
    """
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder) if folder.is_dir() else None
    if checkpoints is None or checkpoints.latest is None:
        raise InputError(f"workdir {workdir} holds no checkpoint yet: train first")
    try:
        return checkpoints.restore(like)[0]
    finally:
        checkpoints.close()


def _checksum(tree: Any) -> int:
    """Of all bytes of all arrays, so that a flipped bit does not train on."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total = zlib.crc32(np.asarray(leaf).tobytes(), total)
    return total
