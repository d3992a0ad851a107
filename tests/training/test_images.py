"""Training on photographs: batch norm, accumulated steps, bad and empty images."""

import jax
import numpy as np
import pytest
from PIL import Image

from sphemb import VOID, InputError
from sphemb.training import (
    Experiment,
    data_parallel,
    load_run,
    replicate,
    split_batch,
    train,
)
from tests.scenes import write_folder
from tests.tiny import proposals_config, shrink, small_resnet


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with small_resnet():
        yield


@pytest.fixture(scope="module")
def folder_dir(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder") / "own")


def small(folder_dir, **model):
    config = shrink(proposals_config())
    config.data.dir = str(folder_dir)
    config.model.update(**model)
    config.task.budgets = ()
    config.train.num_steps = 2
    return config


def step_of(config):
    experiment = Experiment(config)
    # The loop's own program, which is compiled once for all tests.
    settings = {"replicated_output": True, "donate_state": True}
    return experiment, data_parallel(experiment.train_step, **settings)


@pytest.fixture(scope="module")
def fixed(folder_dir):
    """A network with fixed moments: its start, its step and a batch."""
    experiment, step = step_of(small(folder_dir))
    start = jax.device_get(experiment.init_state())
    return start, step, next(experiment.train_batches())


class TestFixedMoments:
    def test_they_stay_and_scales_and_offsets_learn(self, fixed):
        start, step, batch = fixed
        after, _ = step(replicate(start), split_batch(batch))
        assert jax.tree.leaves(start.batch_stats)
        jax.tree.map(
            np.testing.assert_array_equal, after.batch_stats, start.batch_stats
        )
        moved = jax.tree.map(
            lambda a, b: bool(np.any(np.asarray(a) != b)), after.params, start.params
        )
        assert moved["backbone"]["stem_norm"] == {"bias": True, "scale": True}

    def test_images_without_instances_and_empty_crops_give_finite_numbers(self, fixed):
        start, step, batch = fixed
        for value in (0, VOID):
            instances = np.full_like(batch["instances"], value)
            instances[0, :4] = 1
            empty = {**batch, "instances": instances}
            state, scalars = step(replicate(start), split_batch(empty))
            for name, scalar in jax.device_get(scalars).items():
                assert np.isfinite(scalar), name
            for leaf in jax.tree.leaves(jax.device_get(state.params)):
                assert np.isfinite(leaf).all()


def test_trained_moments_move_are_kept_and_are_handed_on(folder_dir, tmp_path):
    config = small(folder_dir, batch_norm="trained")
    trained = train(config, tmp_path / "first")
    moments = jax.device_get(trained.batch_stats)
    start = Experiment(config).init_state().batch_stats
    moved = jax.tree.map(lambda a, b: np.any(a != np.asarray(b)), moments, start)
    assert all(jax.tree.leaves(moved))
    loaded = load_run(tmp_path / "first")
    jax.tree.map(np.testing.assert_array_equal, loaded.batch_stats, moments)
    config.train.init_from = str(tmp_path / "first")
    second = Experiment(config).start_state()
    jax.tree.map(np.testing.assert_array_equal, second.batch_stats, moments)


class TestBadFiles:
    @pytest.fixture
    def damaged(self, tmp_path):
        root = write_folder(tmp_path / "own")
        whole = (root / "images" / "3.png").read_bytes()
        (root / "images" / "3.png").write_bytes(whole[: len(whole) // 2])
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks" / "5.png")
        return root

    def test_training_names_the_file(self, damaged, tmp_path):
        config = small(damaged)
        config.loader.batch_size = 16
        with pytest.raises(InputError, match=r"3\.png|5\.png"):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_training_skips_it_with_skip_bad(self, damaged, tmp_path, capsys):
        config = small(damaged)
        config.loader.skip_bad = True
        assert train(config, tmp_path / "run").step == 2
        told = capsys.readouterr()
        assert 1 <= told.err.count("skipped: ") <= 2
        assert "examples could not be used" in told.out
