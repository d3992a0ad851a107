"""Checkpoints: the train state, the data iterator's place and the step, by Orbax."""

from __future__ import annotations

import pathlib
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp

from sphemb.training._state import TrainState


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

    def save(self, step: int, state: TrainState, iterator: Any) -> None:
        """Saves in the background; a step that is there already is left alone."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                iterator=grain.checkpoint.CheckpointSave(iterator),
            ),
        )

    def restore(self, like: TrainState, iterator: Any = None) -> TrainState:
        """Reads the newest checkpoint onto the placement of ``like``.

        Args:
            like: a state of the same shapes, placed as the result shall be.
            iterator: moved to its saved place, if given.

        Returns:
            The saved state.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args: dict[str, Any] = {"state": ocp.args.StandardRestore(target)}
        if iterator is not None:
            args["iterator"] = grain.checkpoint.CheckpointRestore(iterator)
        restored = self._manager.restore(self.latest, args=ocp.args.Composite(**args))
        return restored["state"]

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()
