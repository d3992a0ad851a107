"""Several processes train as one process with as many devices does."""

import json

import numpy as np
import pytest

from sphemb import InputError
from sphemb.training import join_processes, read_log
from tests.processes import finish, run_processes

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
config.train.update(num_steps=2, checkpoint_every=1)
trained = train(config, workdir)
scores = evaluate(trained, "test").scores
for i, leaf in enumerate(jax.tree.leaves(trained.task_state)):
    scores[f"task_state {i}"] = np.asarray(leaf).tolist()
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
    assert len(losses[0]) == 2
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
    assert {p.name for p in (together / "checkpoints").iterdir()} == {"1", "2"}


_DAMAGED_FOR_BOTH = """
import pathlib, sys
import jax
import numpy as np
from jax.experimental import multihost_utils
from sphemb.training import train
from tests.tiny import tiny_config
workdir, data_dir = map(pathlib.Path, sys.argv[1:])
config = tiny_config(data_dir)
config.loader.batch_size = 2
config.train.update(num_steps=2, checkpoint_every=1)
first = train(config, workdir)
multihost_utils.sync_global_devices("trained")
if number == 0:
    (workdir / "checkpoints" / "2" / "notes" / "metadata").unlink()
multihost_utils.sync_global_devices("damaged")
again = train(config, workdir)
assert again.step == 2
jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
"""


@pytest.mark.nightly
def test_two_train_on_from_before_a_damaged_checkpoint_and_save_its_step_again(
    drawings_dir, tmp_path
):
    finish(_DAMAGED_FOR_BOTH, tmp_path / "run", drawings_dir)
    assert (tmp_path / "run" / "damaged" / "2.0").is_dir()
    assert (tmp_path / "run" / "checkpoints" / "2" / "notes" / "metadata").is_file()


_DAMAGED_FOR_ONE = """
import pathlib, sys
import grain
import numpy as np
from jax.experimental import multihost_utils
from sphemb import InputError
from sphemb.training import TrainState
from sphemb.training._workdir import Checkpoints, newest_state
folder = pathlib.Path(sys.argv[1])
state = TrainState(np.int32(0), {"w": np.arange(3.0)}, {}, (), ())
numbers = lambda: iter(grain.MapDataset.range(9).to_iter_dataset())

def save(step):
    checkpoints, iterator = Checkpoints(folder), numbers()
    for _ in range(step):
        next(iterator)
    checkpoints.save(step, state, iterator, {"of": step})
    checkpoints.close()

def damage(file):
    multihost_utils.sync_global_devices("saved")
    if number == 0:
        next(folder.glob(file)).write_text("?")
    multihost_utils.sync_global_devices("damaged")

def restored():
    checkpoints, iterator = Checkpoints(folder), numbers()
    try:
        _, notes = checkpoints.restore(state, iterator)
        return notes["of"], next(iterator), checkpoints.latest
    finally:
        checkpoints.close()

for step in (1, 2):
    save(step)
for file in ("process_0-*", "process_1-*"):
    damage(f"2/iterator/{file}")
    assert restored() == (1, 1, 1)  # both, though only one of them sees the damage
    save(2)
    assert restored() == (2, 2, 2)
if number == 0:  # one reads without the other, as for pictures
    assert newest_state(folder.parent, state).params["w"].tolist() == [0, 1, 2]
damage("1/iterator/process_1-*")
damage("2/iterator/process_0-*")
try:
    restored()
except InputError as error:
    assert "/1 cannot be read, it is damaged" in str(error), error
else:
    raise AssertionError("there is nothing that both can read")
"""


def test_a_checkpoint_that_is_damaged_for_one_of_two_is_passed_over_by_both(tmp_path):
    finish(_DAMAGED_FOR_ONE, tmp_path / "checkpoints", timeout=120)
    assert {path.name for path in (tmp_path / "damaged").iterdir()} == {"2.0", "2.1"}


_FAILING = """
import pathlib, sys
from sphemb import InputError
from sphemb.cli import one_line_errors
from sphemb.training import train
from tests.tiny import tiny_config
workdir, data_dir, who = map(pathlib.Path, sys.argv[1:])

def fail(trained, split):
    if str(number) in str(who):
        raise InputError(f"process {number} cannot read an image")
    return {}

with one_line_errors():
    config = tiny_config(data_dir)
    config.loader.batch_size = 2
    config.train.update(num_steps=9, checkpoint_every=1, eval_every=1)
    train(config, workdir, evaluate=fail)
"""


@pytest.mark.nightly
def test_a_mistake_of_one_process_ends_both_and_each_says_why(drawings_dir, tmp_path):
    other, failing = run_processes(_FAILING, tmp_path / "one", drawings_dir, 1)
    assert failing[0] == 2, failing[1]
    assert "error: process 1 cannot read an image" in failing[1]
    assert other[0] == 75, other[1]
    assert "error: another process of this run has ended" in other[1]


_WAITING = """
import sys
from sphemb import InputError
from sphemb._files import gather_objects
from sphemb.cli import one_line_errors
from sphemb.training import noticing_lost
with one_line_errors(), noticing_lost():
    if str(number) in sys.argv[1]:
        raise InputError("no such folder")
    gather_objects("here")
"""


def test_a_mistake_of_one_process_leaves_no_other_waiting():
    other, failing = run_processes(_WAITING, "1", timeout=60)
    assert failing[0] == 2, failing[1]
    assert failing[1].count("error: no such folder") == 1
    assert other[0] == 75, other[1]
    assert "error: another process of this run has ended" in other[1]


def test_a_mistake_that_all_make_ends_each_with_its_status():
    for status, printed in run_processes(_WAITING, "01", timeout=60):
        assert status == 2, printed
        assert printed.count("error: no such folder") == 1


_REFUSED = """
import fcntl, pathlib, sys
from jax.experimental import multihost_utils
from sphemb import InputError
from sphemb.training import train
from tests.tiny import tiny_config
workdir, data_dir = map(pathlib.Path, sys.argv[1:])

def refused(words, **settings):
    config = tiny_config(data_dir)
    config.loader.batch_size = 2
    config.update(settings)
    try:
        train(config, workdir)
    except InputError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)

refused("must start from the same parameters", seed=number)
assert not workdir.exists()
multihost_utils.sync_global_devices("refused")
if number == 0:  # as another training does
    workdir.mkdir()
    lock = open(workdir / ".lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
multihost_utils.sync_global_devices("locked")
refused("another one uses it")
"""


@pytest.mark.nightly
def test_what_one_of_two_finds_wrong_before_training_refuses_both(
    drawings_dir, tmp_path
):
    finish(_REFUSED, tmp_path / "run", drawings_dir)


@pytest.mark.nightly
def test_a_process_that_is_busy_for_a_while_is_waited_for():
    code = "import time\nfrom sphemb._files import gather_objects\n"
    code += "time.sleep(40 * number)\nassert gather_objects(number) == [0, 1]\n"
    finish(code, timeout=120)


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
