"""The loop: what it writes, how it resumes, when it stops."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb
import sphemb.data
import sphemb.tasks
from sphemb import InputError
from sphemb.training import NonFiniteLossError, load_run, read_log, train
from tests.processes import flags_for
from tests.runs import CLOCK
from tests.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unbroken(drawings_dir, tmp_path_factory):
    """A run of four steps, and its result."""
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    return workdir, train(tiny_config(drawings_dir), workdir)


assert_same = chex.assert_trees_all_equal


class TestLoop:
    def test_a_run_leaves_its_configuration_log_and_checkpoints(self, unbroken):
        workdir, trained = unbroken
        assert trained.step == 4
        config = json.loads((workdir / "config.json").read_text())
        assert config["task"]["name"] == "Proposals"
        assert [record["step"] for record in read_log(workdir)] == [1, 2, 3, 4]
        assert {"loss", "loss/step0", "loss/step1", "learning_rate", "seconds"} < set(
            read_log(workdir)[0]
        )
        assert list((workdir / "tensorboard").iterdir())
        assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"2", "4"}

    def test_one_seed_gives_one_result(self, unbroken, drawings_dir, tmp_path):
        again = train(tiny_config(drawings_dir), tmp_path / "again")
        assert_same(again.params, unbroken[1].params)

    def test_weights_are_looked_for_before_data_are_prepared(self, tmp_path):
        config = tiny_config(tmp_path / "prepared")
        config.train.weights = "resnet50"
        with pytest.raises(InputError, match=r"config\.model\.name UNet has none"):
            train(config, tmp_path / "run")
        assert not list(tmp_path.iterdir())

    def test_two_trainings_do_not_share_a_folder(self, unbroken, tmp_path):
        workdir, _ = unbroken
        config = load_run(workdir).experiment.config.copy_and_resolve_references()
        config.train.eval_every = 3

        def meanwhile(trained, split):
            log = tmp_path / "run" / "metrics.jsonl"
            before = log.read_bytes()
            with pytest.raises(InputError, match="another one uses it"):
                train(config, tmp_path / "run")
            assert log.read_bytes() == before
            return {"score": 1.0}

        trained = train(config, tmp_path / "run", evaluate=meanwhile)
        assert_same(trained.params, unbroken[1].params)
        scored = [r["step"] for r in read_log(tmp_path / "run") if len(r) == 3]
        assert scored == [3]
        assert train(config, tmp_path / "run").step == 4  # and it is open again

    def test_an_interrupted_run_resumes_exactly(self, unbroken, drawings_dir, tmp_path):
        class CutOffError(Exception):
            pass

        def cut(trained, split):
            raise CutOffError

        workdir = tmp_path / "cut"
        config = tiny_config(drawings_dir)
        config.train.eval_every = 3
        with pytest.raises(CutOffError):
            train(config, workdir, evaluate=cut)
        assert [record["step"] for record in read_log(workdir)] == [1, 2, 3]
        resumed = train(config, workdir, evaluate=lambda *_: {"score": 1.0})
        assert_same(resumed.params, unbroken[1].params)
        scored = [r["step"] for r in read_log(workdir) if "validation/score" in r]
        assert scored == [3]
        losses = [
            [r["loss"] for r in read_log(w) if "loss" in r]
            for w in (workdir, unbroken[0])
        ]
        assert losses[0] == losses[1]

    def test_a_finished_run_is_left_as_it_is(self, unbroken, drawings_dir):
        workdir, trained = unbroken
        before = (workdir / "metrics.jsonl").read_text()
        assert_same(train(tiny_config(drawings_dir), workdir).params, trained.params)
        assert (workdir / "metrics.jsonl").read_text() == before

    def test_a_run_is_loaded_without_its_data(self, unbroken, monkeypatch):
        def refuse(**settings):
            raise AssertionError("the data was asked for")

        workdir, trained = unbroken
        monkeypatch.setitem(sphemb.data.DATASETS, "digits", refuse)
        loaded = load_run(workdir)
        assert loaded.step == 4
        assert_same(loaded.params, trained.params)

    def test_another_configuration_is_refused_and_nothing_is_touched(
        self, unbroken, drawings_dir
    ):
        workdir, _ = unbroken
        before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
        config = tiny_config(drawings_dir)
        config.task.margin = 0.25
        with pytest.raises(InputError, match=r"different: config\.task\.margin"):
            train(config, workdir)
        assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before

    def test_what_only_scoring_reads_may_change(self, unbroken, drawings_dir):
        workdir, trained = unbroken
        config = tiny_config(drawings_dir)
        config.task.update(max_objects=20, min_size=9, predict_steps=3)
        config.evaluation.num_test = 3
        config.loader.skip_bad = True
        assert_same(train(config, workdir).params, trained.params)
        assert (
            json.loads((workdir / "config.json").read_text())["task"]["min_size"] == 9
        )
        train(tiny_config(drawings_dir), workdir)

    def test_a_folder_of_other_things_is_refused(self, drawings_dir, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="it holds other things"):
            train(tiny_config(drawings_dir), tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]

    @pytest.mark.parametrize("every", [1, 100])  # without one, it is found a step late
    def test_a_loss_that_is_no_number_stops_the_run_and_says_where(
        self, drawings_dir, tmp_path, every
    ):
        config = tiny_config(drawings_dir)
        config.optimizer.update(name="sgd", learning_rate=1e15, clip_norm=None)
        config.train.checkpoint_every = every
        message = (
            r"stopped at step ([234]): .*gradient_norm.* not finite, of gradient_norm "
            r"nan, loss .*, loss/step0 .*, loss/step1 .*, at a learning rate of .*, "
            r"on the images .*; the last checkpoint is kept"
        )
        with pytest.raises(NonFiniteLossError, match=message) as stopped:
            train(config, tmp_path / "astray")
        step = int(re.findall(r"at step (\d)", str(stopped.value))[0])
        assert [r["step"] for r in read_log(tmp_path / "astray")] == [*range(1, step)]
        if every > 1:
            assert not any((tmp_path / "astray" / "checkpoints").iterdir())
            return
        kept = load_run(tmp_path / "astray")
        assert kept.step == step - 1
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept.params))

    def test_an_update_that_overflows_is_not_kept(self, drawings_dir, tmp_path):
        config = tiny_config(drawings_dir)
        # The loss and the gradient of the first step are numbers; decay does the rest.
        config.optimizer.update(name="sgd", learning_rate=1e38, weight_decay=1e5)
        config.train.checkpoint_every = 1
        with pytest.raises(NonFiniteLossError, match="at step 1: parameter_max not"):
            train(config, tmp_path / "far")
        assert not any((tmp_path / "far" / "checkpoints").iterdir())

    def test_a_run_that_was_killed_as_it_began_can_begin_again(
        self, unbroken, drawings_dir, tmp_path
    ):
        (tmp_path / "run").mkdir()
        for name in (".lock", ".config.json.7.part"):
            (tmp_path / "run" / name).touch()
        again = train(tiny_config(drawings_dir), tmp_path / "run")
        assert_same(again.params, unbroken[1].params)


@pytest.mark.parametrize(("update_every", "passes"), [(3, 3), (-1, 1)])
def test_a_task_renews_its_memory_on_schedule_and_at_the_end_and_keeps_it(
    drawings_dir, tmp_path, monkeypatch, update_every, passes
):
    class Counting(sphemb.tasks.Proposals):
        """Remembers how many images each update saw."""

        def init(self, key, apply):
            return jnp.zeros((), jnp.int32)

        def update(self, apply, task_state, batches, key):
            seen = sum(int(batch["valid"].sum()) for batch in batches)
            return task_state + seen

    monkeypatch.setattr(sphemb.tasks, "Proposals", Counting)
    config = tiny_config(drawings_dir)
    with config.unlocked():
        config.task.update_every = update_every
    trained = train(config, tmp_path / "run")
    # Every 3: before the steps 1 and 4, and when training ends.
    assert int(trained.task_state) == passes * 24
    assert int(load_run(tmp_path / "run").task_state) == passes * 24


_MOVED = """
import pathlib, sys
import jax
import numpy as np
from sphemb.training import load_config, load_run, train
workdir, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
assert jax.device_count() == count
trained = load_run(workdir)
assert trained.step == 2
np.savez(workdir / "two.npz", *jax.tree.leaves(trained.params))
config = load_config(workdir)
config.loader.images_per_device = 8 // count  # the batches stay as they are
assert train(config, workdir).step == 4
"""


@pytest.mark.parametrize(
    "count",
    [
        1,
        pytest.param(2, marks=pytest.mark.nightly),
        pytest.param(4, marks=pytest.mark.nightly),
    ],
)
def test_a_run_on_eight_devices_resumes_on_another_number(unbroken, tmp_path, count):
    workdir = shutil.copytree(unbroken[0], tmp_path / "moved")
    shutil.rmtree(workdir / "checkpoints" / "4")
    two = load_run(workdir)
    assert two.step == 2
    done = subprocess.run(
        [sys.executable, "-c", _MOVED, str(workdir), str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XLA_FLAGS": flags_for(count)},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "resumed after step 2" in done.stdout
    with np.load(workdir / "two.npz") as found:
        assert_same(list(found.values()), jax.tree.leaves(two.params))
    # The same images and draws; what is added up is added in another order.
    losses = [[r["loss"] for r in read_log(w)] for w in (workdir, unbroken[0])]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(load_run(workdir).params),
        jax.tree.leaves(unbroken[1].params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_number_of_threads_that_read_changes_nothing(
    unbroken, drawings_dir, tmp_path
):
    # Without threads it is `unbroken`; more than there are cores come last.
    for threads in (1, 4):
        config = tiny_config(drawings_dir)
        config.loader.num_threads = threads
        trained = train(config, tmp_path / f"{threads}")
        assert_same(trained.params, unbroken[1].params)
        logs = [
            [{k: v for k, v in r.items() if k not in CLOCK} for r in read_log(w)]
            for w in (tmp_path / f"{threads}", unbroken[0])
        ]
        assert logs[0] == logs[1]


def test_a_run_starts_from_another_runs_parameters(unbroken, drawings_dir, tmp_path):
    config = tiny_config(drawings_dir)
    config.train.update(init_from=str(unbroken[0]), num_steps=1)
    config.optimizer.learning_rate = 1e-12
    started = train(config, tmp_path / "second")
    for a, b in zip(
        jax.tree.leaves(started.params),
        jax.tree.leaves(unbroken[1].params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    config.model.embedding_dim = 5
    with pytest.raises(InputError, match=r"init_from .* must hold this network's"):
        train(config, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_images_on_each_device_carry_the_recipe_over(drawings_dir, tmp_path):
    config = tiny_config(drawings_dir)
    config.loader.update(batch_size=2, images_per_device=1)  # there are 8 devices
    config.optimizer.power = 0.0
    config.train.update(num_steps=0, num_epochs=2 / 3)  # 16 of 24 images, by twos
    config.train.update(log_every=4, checkpoint_every=4, eval_every=8)
    workdir = tmp_path / "run"
    assert train(config, workdir, evaluate=lambda *_: {"score": 1.0}).step == 2
    records = read_log(workdir)
    assert [r["step"] for r in records if "loss" in r] == [1, 2]
    assert [r["step"] for r in records if "validation/score" in r] == [2]
    assert records[0]["learning_rate"] == pytest.approx(4 * 2e-3)

    # With other batches the place in the data would be another.
    config.loader.images_per_device = 2
    log = (workdir / "metrics.jsonl").read_bytes()
    message = r"8 images in a step, and cannot resume with 16 .*images_per_device=1"
    with pytest.raises(InputError, match=message):
        train(config, workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == log


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, r"holds a run of sphemb 0\.1, which"),
        ("9.1.2", r"run was written by sphemb 9\.1\.2, which sphemb .* cannot read"),
        ("new", "run must name a version of sphemb, got 'new'"),
    ],
)
def test_a_run_of_another_version_is_refused_in_one_line(
    unbroken, drawings_dir, tmp_path, version, message
):
    workdir = shutil.copytree(unbroken[0], tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    assert config.pop("version") == sphemb.__version__
    config |= {"version": version} if version else {}
    (workdir / "config.json").write_text(json.dumps(config))
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    started = tiny_config(drawings_dir)
    started.train.init_from = str(workdir)
    for use in (
        lambda: load_run(workdir),
        lambda: train(tiny_config(drawings_dir), workdir),
        lambda: train(started, tmp_path / "second"),
    ):
        with pytest.raises(InputError, match=message) as e:
            use()
        assert "\n" not in str(e.value)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


class TestConfiguration:
    def test_an_unknown_task_names_the_known_ones(self, drawings_dir, tmp_path):
        config = tiny_config(drawings_dir)
        config.task.name = "Proposal"
        with pytest.raises(InputError, match=r"config\.task\.name .*Proposals.*got"):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("section", ["task", "model", "data"])
    def test_an_unknown_key_is_named(self, drawings_dir, tmp_path, section):
        config = tiny_config(drawings_dir)
        with config.unlocked():
            config[section].colour = "red"
        with pytest.raises(
            InputError, match=rf"unknown config key config\.{section}\.colour"
        ):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_margin_outside_its_range_is_named(self, drawings_dir, tmp_path):
        config = tiny_config(drawings_dir)
        config.task.margin = 1.5
        with pytest.raises(InputError, match=r"config\.task\.margin must satisfy"):
            train(config, tmp_path / "run")

    @pytest.mark.parametrize(
        ("section", "key", "value", "words"),
        [
            ("augmentation", "name", "mosaic", r"must be one of .*, got 'mosaic'"),
            ("evaluation", "batch_size", 0, r"evaluation\.batch_size must be >= 1"),
            ("optimizer", "power", -1.0, "power must satisfy 0 <= power, got -1.0"),
            ("data", "size", 40, r"must have height and width divisible by 16"),
        ],
    )
    def test_an_impossible_setting_is_named_before_anything_is_written(
        self, drawings_dir, tmp_path, section, key, value, words
    ):
        config = tiny_config(drawings_dir)
        if section == "data":
            config.model.features = (8, 16, 16, 16)
        config[section][key] = value
        with pytest.raises(InputError, match=words):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_batch_that_the_devices_cannot_share_is_named(
        self, drawings_dir, tmp_path
    ):
        config = tiny_config(drawings_dir)
        config.loader.batch_size = 12
        with pytest.raises(InputError, match=r"divisible by the number of devices, 8"):
            train(config, tmp_path / "run")
