"""The step in flight, and the batch that waits for it.

A device must not wait for its host: while it computes a step, the next batch is sent,
and the scalars of the step before are looked at.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import grain
import jax


class BatchesAhead:
    """Batches (on the host, on the devices), of which the next is sent beforehand.

    An error of the loader is raised where its batch is taken. Attributes:
        waiting: from when to when the last batch was waited for.
        failed: whether the next batch is an error.
    """

    def __init__(
        self, loader: grain.DatasetIterator, send: Callable[[Any], Any]
    ) -> None:
        self._loader, self._send = loader, send
        self._ahead: tuple[Any, Any] | None = None
        self._error: Exception | None = None
        self._taken = self._read = loader.get_state()
        self.waiting = (0.0, 0.0)

    @property
    def failed(self) -> bool:
        return self._error is not None

    def send(self) -> None:
        """Reads the next batch, and begins to send it."""
        began = time.monotonic()
        try:
            batch = next(self._loader)
            self.waiting = began, time.monotonic()
            self._ahead = batch, self._send(batch)
            self._read = self._loader.get_state()
        except Exception as error:
            self._error = error

    def take(self) -> tuple[Any, Any]:
        """Returns the next batch."""
        if self._ahead is None and not self.failed:
            self.send()
        if self._error is not None:
            raise self._error
        batch, self._ahead, self._taken = self._ahead, None, self._read
        assert batch is not None
        return batch

    def get_state(self) -> bytes:
        """The loader's state after the batch taken last, as grain saves it."""
        return json.dumps(self._taken, indent=4).encode()


class Flight:
    """A step whose scalars are on their way to the host.

    Attributes:
        step, batch: its number, and its batch on the host.
        begun, ended: when it was dispatched, and had ended.
        waiting: from when to when the host waited for the batch after it.
    """

    def __init__(
        self, step: int, batch: dict[str, Any], scalars: Any, *, begun: float
    ) -> None:
        """Follows a step that was dispatched."""
        self.step, self.batch, self.begun = step, batch, begun
        self.ended, self.waiting = 0.0, (0.0, 0.0)
        self._scalars: Any = scalars
        self._error: Exception | None = None
        # It knows when the step has ended, whatever the loop does then.
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def _wait(self) -> None:
        try:
            self._scalars = jax.device_get(self._scalars)
        except Exception as error:
            self._error = error
        self.ended = time.monotonic()

    def scalars(self) -> dict[str, float]:
        """Waits for the step to end."""
        self._waiter.join()
        if self._error is not None:
            raise self._error
        return {name: float(value) for name, value in self._scalars.items()}


class Stalls:
    """How long the devices waited for data, of steps that were added in order."""

    def __init__(self) -> None:
        self.seconds: list[float] = []  # of the steps, with the stall before each
        self.shares: list[float] = []  # of these seconds, stalled
        self._before: Flight | None = None

    def add(self, flight: Flight) -> None:
        """Adds a step that has ended; the first one, which is compiled, only begins."""
        before, self._before = self._before, flight
        if before is None:
            return
        began, got = before.waiting
        stall = max(0.0, got - max(began, before.ended))
        seconds = stall + flight.ended - max(flight.begun, before.ended)
        self.seconds.append(seconds)
        self.shares.append(stall / seconds)

    def share(self, first: int = 0) -> float:
        """The stalled share of all steps from one on; 0 without any."""
        total = sum(self.seconds[first:])
        pairs = zip(self.shares[first:], self.seconds[first:], strict=True)
        return sum(share * seconds for share, seconds in pairs) / (total or 1.0)
