"""Several processes train as one process with as many devices does."""

import json

import numpy as np
import pytest

from sphemb import InputError
from sphemb.training import join_processes, read_log
from tests.processes import finish

_CODE = """
import json, pathlib, sys
import jax
import numpy as np
from sphemb.evaluation import evaluate
from sphemb.training import train
from tests.configs.test_picie import digits_config
from tests.tiny import tiny_config
task, workdir, data_dir = sys.argv[1:]
assert jax.device_count() == 2 and jax.process_count() == count
make = {"proposals": tiny_config, "picie": digits_config}[task]
config = make(pathlib.Path(data_dir))
config.train.update(num_steps=4, checkpoint_every=2)
trained = train(config, workdir)
scores = evaluate(trained, "test").scores
for i, leaf in enumerate(jax.tree.leaves(trained.memory)):
    scores[f"memory {i}"] = np.asarray(leaf).tolist()
if number == 0:
    (pathlib.Path(workdir) / "scores.json").write_text(json.dumps(scores))
"""


@pytest.mark.parametrize(
    "task", ["proposals", pytest.param("picie", marks=pytest.mark.nightly)]
)
def test_two_processes_have_the_losses_of_one_with_two_devices(
    task, drawings_dir, tmp_path
):
    together, alone = tmp_path / "together", tmp_path / "alone"
    # One after the other, so that the drawings are there for the two to share.
    finish(_CODE, task, alone, drawings_dir, count=1, devices=2)
    finish(_CODE, task, together, drawings_dir)
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
