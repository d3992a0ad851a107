"""Whatever stops a run, and whatever its task: what comes after is the same.

A copy of a run's folder is what a kill at that moment leaves behind.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time
import zlib

import jax
import numpy as np
import pytest

from sphemb.configs import bsds, voc_instances, voc_semantic
from sphemb.training import PreemptedError, _loop, train
from tests.configs import test_boundaries, test_picie, test_recognition, test_spectral
from tests.data.test_bsds import write_tree
from tests.runs import assert_same_runs
from tests.scenes import write_coco
from tests.tiny import tiny_config

STEPS = 6  # records are means of two, and every second step is saved
# Within Orbax's thread: called with what is about to be renamed.
_before_renaming = []


@sys.addaudithook
def _tell(event, arguments):
    if event == "os.rename":
        for listener in _before_renaming:
            listener(os.fsdecode(arguments[0]))


def proposals(root, drawings_dir):
    return tiny_config(drawings_dir)


def spectral(root, drawings_dir):
    return test_spectral.tiny_spectral(drawings_dir)


def picie(root, drawings_dir):
    config = test_picie.digits_config(drawings_dir)
    config.task.update_every = 3  # so that checkpoints are within epochs
    return config


def of_coco(config, root):
    config = test_recognition.small(config)
    coco_dir = write_coco(root / "coco", 12)
    config.data.update(
        coco_dir=str(coco_dir), data_dir=str(root / "prepared"), masks="instances"
    )
    config.model.batch_norm = "trained"
    return config


def semantic(root, drawings_dir):
    config = of_coco(voc_semantic.get_config("small"), root)
    config.model.atrous_rates = (1,)
    return config


def instances(root, drawings_dir):
    config = of_coco(voc_instances.get_config("small"), root)
    config.task.update(fit_images=4, update_every=3)
    return config


def boundaries(root, drawings_dir):
    tree = write_tree(root / "tree")
    return test_boundaries.shrink(bsds.get_config(), tree, root / "prepared")


TASKS = [
    proposals,
    pytest.param(picie, marks=pytest.mark.nightly),
    pytest.param(spectral, marks=pytest.mark.nightly),
    pytest.param(semantic, marks=pytest.mark.nightly),
    pytest.param(instances, marks=pytest.mark.nightly),
    pytest.param(boundaries, marks=pytest.mark.nightly),
]


@dataclasses.dataclass
class Run:
    """A run without a stop, and what two kills would have left of it."""

    config: object
    root: pathlib.Path
    workdir: pathlib.Path
    seen: list


def scored(trained, split):
    return {"sum": float(sum(np.abs(x).sum() for x in jax.tree.leaves(trained.params)))}


def trained_seeing(config, workdir, evaluate=scored):
    """Trains; returns digests of the batches that were learned from, in order."""
    seen, flight = [], _loop.Flight

    def looking(step, batch, *args, **settings):
        content = b"".join(batch[k].tobytes() for k in ("index", "image", "instances"))
        seen.append(zlib.crc32(content))
        return flight(step, batch, *args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_loop, "Flight", looking)
        with contextlib.suppress(PreemptedError):
            train(config, workdir, evaluate=evaluate)
    return seen


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.__name__)
def straight(request, drawings_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    config = request.param(root, drawings_dir)
    config.train.update(num_steps=STEPS, log_every=2, checkpoint_every=2, eval_every=1)
    workdir = root / "straight"

    def while_saving(source):
        if re.fullmatch(rf"{workdir}/checkpoints/4\.[^/]*", source):
            shutil.copytree(workdir, root / "saving", dirs_exist_ok=True)

    def after(trained, split):
        if trained.step == 5:
            while not (workdir / "checkpoints" / "4").is_dir():
                time.sleep(0.01)  # it is written in the background
            shutil.copytree(workdir, root / "mid-epoch")
        return scored(trained, split)

    _before_renaming.append(while_saving)
    seen = trained_seeing(config, workdir, after)
    _before_renaming.clear()
    assert len(set(seen)) == STEPS
    return Run(config, root, workdir, seen)


def assert_same(workdir, straight):
    assert_same_runs(workdir, straight.workdir)
    assert place(workdir) == place(straight.workdir)


def place(workdir):
    """In the stream of data, after the last step."""
    folder = workdir / "checkpoints" / str(STEPS) / "iterator"
    (file,) = folder.rglob("*.json")
    return json.loads(file.read_text())


class TestStops:
    @pytest.mark.nightly  # test_stops has it for proposals
    def test_at_the_end_of_a_step(self, straight, tmp_path):
        def terminate(trained, split):
            if trained.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return scored(trained, split)

        workdir = tmp_path / "terminated"
        seen = trained_seeing(straight.config, workdir, terminate)
        assert (workdir / "checkpoints" / "3").is_dir()
        assert seen == straight.seen[:3]
        assert trained_seeing(straight.config, workdir) == straight.seen[3:]
        assert_same(workdir, straight)

    @pytest.mark.nightly
    def test_in_the_middle_of_an_epoch_after_steps_that_were_not_saved(
        self, straight, tmp_path
    ):
        workdir = shutil.copytree(straight.root / "mid-epoch", tmp_path / "run")
        assert trained_seeing(straight.config, workdir) == straight.seen[4:]
        assert_same(workdir, straight)

    @pytest.mark.nightly
    def test_while_a_checkpoint_is_being_written(self, straight, tmp_path):
        workdir = shutil.copytree(straight.root / "saving", tmp_path / "run")
        there = {path.name for path in (workdir / "checkpoints").iterdir()}
        assert "2" in there
        assert "4" not in there
        assert any(name.startswith("4.") for name in there)
        assert trained_seeing(straight.config, workdir) == straight.seen[2:]
        assert_same(workdir, straight)
