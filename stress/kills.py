"""Kills a training run at random moments, again and again, and compares how it ends.

    python -m stress.kills --workdir DIR [--times 50] [--signal KILL]

A small run on drawn digits, with scores, records and a checkpoint every few steps, is
trained once without disturbance. Then the same run is started and killed until it has
been hit so many times; a run that ends is compared with the undisturbed one, parameters
and records bit by bit, and the next one begins. Nothing may differ, and every start
must go on.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np

from sphemb.training import load_run, read_log

_SETTINGS = {
    "data.size": 32,
    "data.train": 200,
    "data.validation": 16,
    "data.test": 16,
    "loader.batch_size": 8,
    "model.embedding_dim": 4,
    "model.features": "(8, 16)",
    "model.head_features": 8,
    "task.num_samples": 64,
    "task.max_groups": 8,
    "train.num_steps": 600,
    "train.log_every": 7,
    "train.checkpoint_every": 10,
    "train.eval_every": 100,
    "evaluation.num_validation": 16,
    "evaluation.num_test": 16,
}


def command(
    workdir: pathlib.Path, data_dir: pathlib.Path, **changed: object
) -> list[str]:
    """The command of a small run; ``changed`` are settings of it by their path."""
    settings = {**_SETTINGS, "data.data_dir": data_dir, **changed}
    return [
        *(sys.executable, "train.py", "--config=configs/digits.py"),
        *(f"--config.{name}={value}" for name, value in settings.items()),
        f"--workdir={workdir}",
    ]


def same(a: pathlib.Path, b: pathlib.Path) -> bool:
    """Whether two runs ended alike, but for the clock."""

    def records(workdir: pathlib.Path) -> list[dict]:
        kept = ({**r, "seconds": None} for r in read_log(workdir))
        return sorted(kept, key=lambda r: (r["step"], "loss" not in r))

    leaves = [
        jax.tree.leaves((run.params, run.task_state))
        for run in (load_run(a), load_run(b))
    ]
    equal = all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))
    return equal and records(a) == records(b)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    flags.workdir.mkdir(parents=True)
    number = getattr(signal, f"SIG{flags.signal}")
    chance = random.Random(flags.seed)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}

    unbroken, data_dir = flags.workdir / "unbroken", flags.workdir / "data"
    began = time.monotonic()
    subprocess.run(command(unbroken, data_dir), check=True, **quiet)
    seconds = time.monotonic() - began
    hits = starts = ended = different = refused = 0
    while hits < flags.times or not ended:
        workdir = flags.workdir / f"run{ended}"
        starts += 1
        fresh, began = not workdir.exists(), time.monotonic()
        with subprocess.Popen(command(workdir, data_dir), **quiet) as process:
            patience = chance.uniform(0, seconds)
            try:
                told = process.communicate(
                    timeout=None if hits >= flags.times else patience
                )[1]
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                told = process.communicate()[1]
                hits += 1
                if process.returncode not in (-number, 143, 0):
                    refused += 1
                    print(told, flush=True)
                if process.returncode:
                    continue
        if process.returncode:
            refused += 1
            print(told, flush=True)
            break
        if fresh:  # the first run compiles, and the machine may have been busy
            seconds = min(seconds, time.monotonic() - began)
        different += not same(workdir, unbroken)
        ended += 1
        print(f"{hits} of {flags.times} hits, {ended} runs ended", flush=True)
    result = {
        "signal": flags.signal,
        "hits": hits,
        "starts": starts,
        "runs that ended": ended,
        "of them different": different,
        "starts that failed": refused,
        "seconds of an undisturbed run": round(seconds, 1),
    }
    print(json.dumps(result, indent=2))
    sys.exit(bool(different or refused))


if __name__ == "__main__":
    main()
