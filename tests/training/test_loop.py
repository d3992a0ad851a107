"""The loop: what it writes, how it goes on, when it stops."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb.tasks
from sphemb import InputError
from sphemb.training import NonFiniteLossError, load_run, read_log, train
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def unbroken(drawings_dir, tmp_path_factory):
    """A run of four steps, and its result."""
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    return workdir, train(tiny_config(drawings_dir), workdir)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


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

    def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
        self, unbroken, drawings_dir, tmp_path
    ):
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
        seen = []
        resumed = train(config, workdir, evaluate=lambda *a: seen.append(a) or {})
        assert_same(resumed.params, unbroken[1].params)
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

    def test_a_run_is_loaded_without_its_data(self, unbroken):
        workdir, trained = unbroken
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

    def test_a_folder_of_other_things_is_refused(self, drawings_dir, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="it holds other things"):
            train(tiny_config(drawings_dir), tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_loss_that_is_no_number_stops_the_run_and_says_where(
        self, drawings_dir, tmp_path
    ):
        config = tiny_config(drawings_dir)
        config.optimizer.update(name="sgd", learning_rate=1e38, clip_norm=None)
        message = (
            r"stopped at step [234]: .*gradient_norm.* not finite, of gradient_norm nan"
            r", loss .*, loss/step0 .*, loss/step1 .*; the last checkpoint is kept"
        )
        with pytest.raises(NonFiniteLossError, match=message):
            train(config, tmp_path / "astray")


def test_a_task_renews_its_memory_on_schedule_and_keeps_it_in_checkpoints(
    drawings_dir, tmp_path, monkeypatch
):
    class Counting(sphemb.tasks.Proposals):
        """Remembers how many images each refresh saw."""

        def init(self, key):
            return jnp.zeros((), jnp.int32)

        def refresh(self, apply, memory, batches, key):
            seen = sum(int(batch["valid"].sum()) for batch in batches)
            return memory + seen

    monkeypatch.setattr(sphemb.tasks, "Proposals", Counting)
    config = tiny_config(drawings_dir)
    with config.unlocked():
        config.task.refresh_every = 3
    trained = train(config, tmp_path / "run")
    assert int(trained.memory) == 2 * 24
    assert int(load_run(tmp_path / "run").memory) == 2 * 24


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

    def test_a_batch_that_the_devices_cannot_share_is_named(
        self, drawings_dir, tmp_path
    ):
        config = tiny_config(drawings_dir)
        config.loader.batch_size = 12
        with pytest.raises(InputError, match=r"divisible by the number of devices, 8"):
            train(config, tmp_path / "run")
