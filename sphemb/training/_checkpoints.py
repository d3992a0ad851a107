"""Checkpoints: the train state and the data iterator's place, by Orbax.

The state is kept as host arrays, without a trace of the devices it was on, so that any
number of devices of any kind can go on with it.
"""

from __future__ import annotations

import pathlib
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from sphemb._checks import InputError
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
                state=ocp.args.StandardSave(jax.device_get(state)),
                iterator=grain.checkpoint.CheckpointSave(iterator),
            ),
        )

    def restore(self, like: TrainState, iterator: Any = None) -> TrainState:
        """Reads the newest checkpoint.

        Args:
            like: a state, or a tree, of the same shapes and dtypes.
            iterator: moved to its saved place, if given.

        Returns:
            The saved state, as NumPy arrays.

        Raises:
            InputError: the checkpoint is damaged, or of another network.
        """
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
        args: dict[str, Any] = {"state": ocp.args.StandardRestore(target)}
        if iterator is not None:
            args["iterator"] = grain.checkpoint.CheckpointRestore(iterator)
        try:
            restored = self._manager.restore(
                self.latest, args=ocp.args.Composite(**args)
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(
                f"checkpoint {self._manager.directory / str(self.latest)} cannot be "
                f"read, it is damaged or of another network: {error}"
            ) from error
        return restored["state"]

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()
