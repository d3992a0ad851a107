"""SIGTERM: what a cluster, or a person, sends before it takes the machine away."""

from __future__ import annotations

import signal
import threading
from typing import Any, Self

import jax
from jax.experimental import multihost_utils


class PreemptedError(Exception):
    """Training was asked to stop, saved where it was, and stopped."""


class Preemption:
    """Notes a SIGTERM, so that the step that is on its way is taken and saved.

    A context: within it SIGTERM does not end the process. Of several processes that
    share a run, JAX's own service notes it, whichever of them it reached, and agrees
    with the others on the step to stop after.
    """

    def __init__(self) -> None:
        """Nothing is noted yet."""
        self._asked = False
        self._listens = False
        self._before: Any = None

    def __enter__(self) -> Self:
        """Listens from now on; signals can be listened to in the main thread alone."""
        main = threading.current_thread() is threading.main_thread()
        self._listens = main and jax.process_count() == 1
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """SIGTERM does what it did before."""
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self._asked = True

    def asked(self, step: int) -> bool:
        """Whether to save after this step, and stop; every process must ask."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked
