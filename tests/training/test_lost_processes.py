"""One of two processes is killed, or told to stop: what becomes of the other."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.processes import flags_for
from tests.runs import assert_same_runs

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 120  # seconds after which whoever is left must have ended, too
_CODE = """
import os, pathlib, signal, sys, time
from sphemb.cli import one_line_errors
from sphemb.training import join_processes, train
from tests.tiny import tiny_config
workdir, data_dir, address, number, step, name = sys.argv[1:]
def hit(trained, split):
    if name and trained.step == int(step):
        os.kill(os.getpid(), getattr(signal, name))
    if name == "SIGTERM" and trained.step >= int(step):
        time.sleep(0.2)  # JAX looks for signals once in a second
    return {}
with one_line_errors():
    if address:
        join_processes(address, num_processes=2, process_id=int(number))
    config = tiny_config(pathlib.Path(data_dir))
    config.train.update(num_steps=60, log_every=5, checkpoint_every=10, eval_every=1)
    train(config, workdir, evaluate=hit)
"""


def pair(workdir, data_dir, *, victim=0, step=0, name=""):
    """Two processes of one run, of which one may be hit.

    Returns:
        The exit status of each, what each said on stderr, and the seconds that the
        second to end took longer than the first.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", _CODE, str(workdir), str(data_dir), address),
                *(str(number), str(step), name if number == victim else ""),
            ],
            env={**os.environ, "XLA_FLAGS": flags_for(1), "JAX_PLATFORMS": "cpu"},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    first, second = processes[victim], processes[1 - victim]
    try:
        told = {victim: first.communicate(timeout=600)[1]}
        began = time.monotonic()
        told[1 - victim] = second.communicate(timeout=PATIENCE)[1]
    finally:
        first.kill()
        second.kill()
    seconds = time.monotonic() - began
    print(f"process {victim}, {name or 'undisturbed'}: the other after {seconds:.1f} s")
    return [p.returncode for p in processes], [told[0], told[1]], seconds


@pytest.mark.nightly
def test_a_run_of_two_that_are_hit_one_after_the_other_ends_as_if_they_had_not_been(
    drawings_dir, tmp_path
):
    straight, workdir = tmp_path / "straight", tmp_path / "run"
    status, told, _ = pair(straight, drawings_dir)
    assert status == [0, 0], told

    # The other says in one line what has happened, and does not wait.
    status, told, _ = pair(workdir, drawings_dir, victim=1, step=19, name="SIGKILL")
    assert status == [75, -signal.SIGKILL], told
    lines = [line for line in told[0].splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: another process of this run has ended or does")
    assert "Traceback" not in told[0]

    # Both take the same step, save it, and say so, whichever was told to stop.
    status, told, _ = pair(workdir, drawings_dir, victim=0, step=25, name="SIGTERM")
    assert status == [143, 143], told
    steps = {
        re.findall(r"stopped by SIGTERM after step (\d+),", text)[0] for text in told
    }
    assert len(steps) == 1
    assert 25 < int(*steps) < 60
    assert steps <= saved(workdir)

    # With process 0 goes JAX's own service, which may end the other before it speaks.
    status, told, _ = pair(workdir, drawings_dir, victim=0, step=55, name="SIGKILL")
    assert status[0] == -signal.SIGKILL
    assert status[1] in (75, -signal.SIGABRT), told
    assert re.search(
        "error: another process of this run has ended|Terminating process because the "
        "JAX distributed service detected fatal errors",
        told[1],
    )

    status, told, _ = pair(workdir, drawings_dir)
    assert status == [0, 0], told
    assert_same_runs(workdir, straight)


def saved(workdir):
    return {path.name for path in (workdir / "checkpoints").iterdir()}
