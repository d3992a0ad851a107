"""What a run tells: one line of JSON per record, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import Any

import tensorboardX
import tqdm

from sphemb._checks import InputError
from sphemb._whole_files import written_whole
from sphemb.training._workdir import to_json

_STEPS_TO_TIME = 5


class MetricLog:
    """Appends records to ``metrics.jsonl`` and to TensorBoard's files.

    Args:
        workdir: of the run.
        step: the step that the run goes on from; records after it, left by a run that
            was cut off, are dropped, for they will be written again.
    """

    def __init__(self, workdir: pathlib.Path, *, step: int = 0):
        """Opens the log; see the class."""
        self._path = workdir / "metrics.jsonl"
        kept = [record for record in read_log(workdir) if record["step"] <= step]
        with written_whole(self._path) as unfinished:
            unfinished.write_text("".join(to_json(record) + "\n" for record in kept))
        self._board = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1
        )

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Adds one record.

        Raises:
            InputError: it cannot be written.
        """
        try:
            with self._path.open("a") as file:
                file.write(to_json({"step": step, **scalars}) + "\n")
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
        except OSError as error:
            raise InputError(f"{self._path} cannot be written to: {error}") from error

    def close(self) -> None:
        """Closes TensorBoard's file."""
        self._board.close()


def read_log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a run, up to a line that was cut off or damaged."""
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


class Progress:
    """A bar with the time left on a terminal; elsewhere a line now and then.

    Args:
        total: steps of the run.
        step: steps taken already.
        shown: False says nothing at all.
    """

    def __init__(self, total: int, *, step: int = 0, shown: bool = True):
        """Starts the clock; see the class."""
        self._total, self._first, self._done = total, step, step
        self._shown = shown
        self._compiled = self._last_line = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            initial=step,
            unit="step",
            disable=not (shown and sys.stderr.isatty()),
            dynamic_ncols=True,
        )

    def advance(self, loss: float) -> None:
        """One step more."""
        self._done += 1
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self._bar.update()
        now = time.monotonic()
        taken = self._done - self._first
        if taken == 1:
            self._compiled = now  # the first step waits for the compiler
        pace = (now - self._compiled) / max(taken - 1, 1)
        left = pace * (self._total - self._done)
        if taken == _STEPS_TO_TIME:
            self.say(
                f"{pace:.2f} s a step: training takes about {duration(left)}, "
                "evaluations come on top"
            )
        elif self._bar.disable and now - self._last_line > 60:
            self._last_line = now
            where = f"step {self._done}/{self._total}"
            self.say(f"{where}, loss {loss:.4f}, {duration(left)} left")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self._shown:
            return
        tqdm.tqdm.write(text)
        sys.stdout.flush()

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(42), duration(250), duration(5400)
    ('42 s', '4 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
