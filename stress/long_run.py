"""Trains for an hour and watches memory, threads and open files (Linux).

    python -m stress.long_run --workdir DIR [--minutes 60] [--out FILE.png]

The drawn digits at a small size, with scores every 100 steps and a checkpoint every 50,
in a process of their own. Every five seconds its memory, threads and open files are
read. After so many minutes it is told to end (SIGTERM), which saves. Memory is judged
by a line through the second half of the readings: what it would grow in an hour. The
first half is left to caches and the allocator.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
from matplotlib.figure import Figure

from sphemb.training import read_log
from sphemb.viz import save_figure
from stress.kills import command

_MIB = 2**20
_EVERY = 5.0  # seconds between two readings
_ALLOWED = 32.0  # MiB that an hour may add
_SETTINGS = {
    "train.num_steps": 10_000_000,
    "train.checkpoint_every": 50,
    "train.log_every": 20,
    "train.eval_every": 100,
}


def reading(pid: int) -> tuple[float, int, int]:
    """Resident MiB, threads and open files of a process."""
    folder = pathlib.Path("/proc", str(pid))
    lines = (folder / "status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    resident = int(fields["VmRSS"].split()[0]) * 1024 / _MIB
    return resident, int(fields["Threads"]), len(list((folder / "fd").iterdir()))


def growth(seconds: np.ndarray, values: np.ndarray) -> float:
    """What the second half of the values grows in an hour.

    >>> minutes = np.arange(120.0)
    >>> round(growth(60 * minutes, 100 + minutes), 6)
    60.0
    """
    half = len(values) // 2
    return float(np.polyfit(seconds[half:], values[half:], 1)[0]) * 3600


def watch(argv: list[str], minutes: float) -> tuple[np.ndarray, int]:
    """Runs a command for so many minutes and then ends it.

    Returns:
        [T, 4] readings: seconds, MiB, threads, files; and the exit status.
    """
    rows = []
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 60 * minutes:
            rows.append((time.monotonic() - began, *reading(process.pid)))
            time.sleep(_EVERY)
        process.send_signal(signal.SIGTERM)
    return np.array(rows), process.returncode


def draw(rows: np.ndarray, out: pathlib.Path) -> None:
    """Memory, threads and open files against time."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    names = ("memory (MiB)", "threads", "open files")
    for axes, name, values in zip(
        figure.subplots(3, 1, sharex=True), names, rows.T[1:], strict=True
    ):
        axes.plot(rows[:, 0] / 60, values, linewidth=1)
        axes.set_ylabel(name)
        axes.set_ylim(0, 1.15 * values.max())
    axes.set_xlabel("minutes")
    save_figure(figure, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=pathlib.Path, help="for the picture")
    flags = parser.parse_args()
    workdir = flags.workdir / "run"
    argv = command(workdir, flags.workdir / "data", **_SETTINGS)
    rows, status = watch(argv, flags.minutes)
    draw(rows, flags.out or flags.workdir / "long_run.png")
    half = rows[len(rows) // 2 :]
    hourly = growth(rows[:, 0], rows[:, 1])
    steps = max((r["step"] for r in read_log(workdir)), default=0)
    result = {
        "minutes": round(rows[-1, 0] / 60, 1),
        "steps": steps,
        "evaluations": steps // _SETTINGS["train.eval_every"],
        "checkpoints": steps // _SETTINGS["train.checkpoint_every"],
        "exit status": status,
        "MiB at the middle and the end": [round(half[0, 1]), round(half[-1, 1])],
        "MiB more in an hour": round(hourly, 1),
        "threads, fewest and most": [int(half[:, 2].min()), int(half[:, 2].max())],
        "files, fewest and most": [int(half[:, 3].min()), int(half[:, 3].max())],
    }
    print(json.dumps(result, indent=2))
    sys.exit(status != 128 + signal.SIGTERM or hourly > _ALLOWED)


if __name__ == "__main__":
    main()
