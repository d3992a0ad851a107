"""The memory that is foretold beside the memory that is taken."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from sphemb.cli._cost_report import smaller_batch
from sphemb.cli._costs import Cost, fits

ROOT = pathlib.Path(__file__).parents[2]

# In a process of its own: the high-water mark is that of a whole process.
MEASURE = """
import ctypes, pathlib, sys, jax
from sphemb.cli import _costs
from sphemb.training import Experiment
from tests.tiny import tiny_config

def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024

grown = []
def measured(call, number):
    # What the compiler has let go of would be taken again, and not be seen to grow.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    jax.block_until_ready(call())
    grown.append(status("VmHWM") - before)
    return 1.0

_costs._seconds = measured
config = tiny_config(pathlib.Path(sys.argv[1]))
config.data.size = 64
config.loader.batch_size = 64
config.task.update(num_steps=3, num_samples=1024)
cost = _costs.training_cost(Experiment(config))
print(cost.device_bytes, grown[0])
"""


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/clear_refs").exists(), reason="Linux tells the memory"
)
@pytest.mark.nightly
def test_the_memory_of_a_step_is_nearly_what_is_foretold(drawings_dir):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(drawings_dir)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    foretold, taken = map(int, done.stdout.split())
    # On top comes a first call's own, such as pages of XLA's library.
    assert 0.7 * foretold < taken < 1.25 * foretold


def test_a_batch_that_has_no_room_is_halved_until_it_has():
    devices = jax.device_count()
    cost = Cost(
        images=8 * devices,
        size=(64, 48),
        device_bytes=900 * 2**20,
        kept_bytes=100 * 2**20,
        seconds=None,
    )
    assert not smaller_batch(
        "config.evaluation.batch_size", "step", cost, 2**30 + 2**29
    )
    (advice,) = smaller_batch("config.evaluation.batch_size", "step", cost, 2**29)
    # 100 + 2 * 100 MiB are at most four fifths of 512 MiB, 100 + 4 * 100 are not.
    assert advice.value == 2 * devices
    assert "takes 0.88 GiB of the 0.50 GiB that are free" in advice.reason
    setting = "config.loader.images_per_device"
    (advice,) = smaller_batch(setting, "step", cost, 2**29, each=True)
    assert advice.value == 2
    (advice,) = smaller_batch("config.evaluation.batch_size", "step", cost, 2**27)
    assert advice.value == devices
    assert "not even one image of 64 x 48 has room" in advice.reason


def test_memory_that_nobody_knows_is_enough():
    assert fits(800, 1000)
    assert not fits(801, 1000)
    assert fits(801, None)
