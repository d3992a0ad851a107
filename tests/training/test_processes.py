"""Several processes train as one process with as many devices does."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from sphemb import InputError
from sphemb.training import join_processes, read_log

ROOT = pathlib.Path(__file__).parents[2]
_CODE = """
import json, pathlib, sys
import jax
import numpy as np
from sphemb.evaluation import evaluate
from sphemb.evaluation._score import _gathered
from sphemb.metrics import RegionPrecision
from sphemb.training import join_processes, train
from tests.configs.test_picie import digits_config
from tests.tiny import tiny_config
task, workdir, data_dir, address, count, number = sys.argv[1:]
if int(count) > 1:
    join_processes(address, num_processes=int(count), process_id=int(number))
assert jax.device_count() == 2 and jax.process_count() == int(count)
make = {"proposals": tiny_config, "picie": digits_config}[task]
config = make(pathlib.Path(data_dir))
config.train.update(num_steps=4, checkpoint_every=2)
trained = train(config, workdir)
scores = evaluate(trained, "test").scores
for i, leaf in enumerate(jax.tree.leaves(trained.memory)):
    scores[f"memory {i}"] = np.asarray(leaf).tolist()
if int(number) == 0:
    (pathlib.Path(workdir) / "scores.json").write_text(json.dumps(scores))
# A metric whose rows differ in number: one of the first process, two of the second.
rows = int(number) + 1
mine = RegionPrecision(
    np.arange(rows) + 0.5,
    np.ones(rows, int),
    np.ones((rows, 9), bool),
    np.array([0, 3]),
)
if int(count) > 1:
    every = _gathered(mine)
    assert every.scores.tolist() == [0.5, 0.5, 1.5] and every.num_objects[1] == 6
"""


def start(task, workdir, data_dir, address, count, number):
    devices = f"--xla_force_host_platform_device_count={2 // count}"
    arguments = [task, workdir, data_dir, address, str(count), str(number)]
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, *arguments],
        env={**os.environ, "XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    for process in processes:
        try:
            told, _ = process.communicate(timeout=240)
        finally:
            process.kill()
        assert process.returncode == 0, told


@pytest.mark.parametrize(
    "task", ["proposals", pytest.param("picie", marks=pytest.mark.nightly)]
)
def test_two_processes_have_the_losses_of_one_with_two_devices(
    task, drawings_dir, tmp_path
):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    together, alone = tmp_path / "together", tmp_path / "alone"
    # One after the other, so that the drawings are there for the two to share.
    finish(start(task, alone, drawings_dir, address, 1, 0))
    finish(*(start(task, together, drawings_dir, address, 2, i) for i in range(2)))
    losses = [[r["loss"] for r in read_log(workdir)] for workdir in (alone, together)]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    norms = [
        [r["gradient_norm"] for r in read_log(workdir)] for workdir in (alone, together)
    ]
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-4)
    scores = [json.loads((w / "scores.json").read_text()) for w in (alone, together)]
    for name, score in scores[0].items():
        # Centroids follow a network that was trained in another order of adding up.
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if task == "picie" else {"rtol": 1e-5}
        np.testing.assert_allclose(scores[1][name], score, err_msg=name, **tolerance)
    told = json.loads((together / "training.json").read_text())
    assert told["device"].startswith("2 cpu devices")
    assert {p.name for p in (together / "checkpoints").iterdir()} == {"2", "4"}


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"process_id": 0}, "must come with coordinator=HOST:PORT"),
            ({"coordinator": "a:1"}, "must come with num_processes and process_id"),
            (
                {"coordinator": "a:1", "num_processes": 2, "process_id": 2},
                "process_id must be below num_processes = 2, got 2",
            ),
        ],
    )
    def test_those_that_do_not_go_together_are_named(self, settings, words):
        with pytest.raises(InputError, match=words):
            join_processes(**settings)
