"""The configs of PiCIE, shrunk: train, go on, are scored, drawn, and predict."""

import jax
import numpy as np
import pytest
from PIL import Image

from sphemb import InputError
from sphemb.cli import Predict, run_training
from sphemb.configs import picie_coco, picie_digits, picie_folder, picie_semantic
from sphemb.models import FeaturePyramid
from sphemb.tasks import Picie
from sphemb.training import Experiment, load_run, read_log, train
from tests.data.test_folder import write


def shrink(config):
    config.augmentation.size = (32, 32)
    config.loader.update(batch_size=8, num_threads=0)
    config.model.update(backbone="resnet18", embedding_dim=4)
    config.task.update(num_clusters=3, cluster_pixels=16, start_images=8, start_steps=2)
    config.task.cluster_images = 16
    config.train.update(num_steps=3, log_every=1, checkpoint_every=1, eval_every=0)
    config.train.weights = None
    config.evaluation.update(
        batch_size=1, num_validation=1, num_test=2, size_multiple=32
    )
    return config


@pytest.fixture(scope="module")
def folder_dir(tmp_path_factory):
    """Twenty images and nothing else, in folders within a folder."""
    root = tmp_path_factory.mktemp("images") / "own"
    write(root / "monday", 12, size=(40, 50))
    write(root / "tuesday", 8, size=(36, 33))
    return root


def folder_config(folder_dir):
    config = shrink(picie_folder.get_config())
    config.data.dir = str(folder_dir)
    return config


@pytest.mark.nightly
def test_a_folder_without_any_label_file_is_trained_on_drawn_and_predicted(
    folder_dir, tmp_path, capsys
):
    before = {path.suffix for path in folder_dir.rglob("*") if path.is_file()}
    assert before == {".png"}
    summary = run_training(folder_config(folder_dir), tmp_path / "run")
    assert (summary["step"], summary["num_images"]) == (3, 2)
    assert not any(name.startswith("accuracy") for name in summary)
    pictures = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert pictures == {"clusters.png", "curves.png"}
    terms = read_log(tmp_path / "run")[0]
    assert {"loss/within", "loss/cross", "largest_cluster"} < set(terms)

    images = str(folder_dir / "tuesday")
    assert Predict((images,), tmp_path / "run", tmp_path / "out").run() == 8
    assert " cluster" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "0_labels.png") as image:
        labels = np.asarray(image)
    assert labels.shape == (36, 33)
    assert labels.min() >= 1
    assert labels.max() <= 3


@pytest.mark.needs_data
@pytest.mark.nightly
def test_a_semantic_network_starts_from_what_was_learned_without_labels(
    data_dir, folder_dir, tmp_path
):
    learned = train(folder_config(folder_dir), tmp_path / "picie")
    config = picie_semantic.get_config()
    config.data.update(
        coco_dir=str(data_dir / "coco128"), data_dir=str(tmp_path / "prepared")
    )
    config.model.backbone = "resnet18"
    config.train.weights = str(tmp_path / "picie")
    state = Experiment(config).start_state()
    jax.tree.map(
        np.testing.assert_array_equal,
        state.params["backbone"],
        learned.params["backbone"],
    )
    assert "lateral4" not in state.params
    config.train.weights = str(tmp_path / "none")
    with pytest.raises(InputError, match=r"weights"):
        Experiment(config).start_state()


@pytest.mark.nightly
def test_a_run_without_a_backbone_is_no_start(drawings_dir, folder_dir, tmp_path):
    train(digits_config(drawings_dir), tmp_path / "digits")
    config = folder_config(folder_dir)
    config.train.weights = str(tmp_path / "digits")
    with pytest.raises(InputError, match=r"whose network has a backbone, got .* Hour"):
        Experiment(config).start_state()


def digits_config(drawings_dir):
    config = picie_digits.get_config()
    config.data.update(size=32, train=24, validation=8, test=8)
    config.data.data_dir = str(drawings_dir)
    config.loader.update(batch_size=8, num_threads=0)
    config.model.update(embedding_dim=4, features=(8, 16), head_features=8)
    config.task.update(num_clusters=3, cluster_pixels=16, start_images=8)
    config.train.update(num_steps=1, log_every=1, checkpoint_every=1)
    config.evaluation.update(num_validation=8, num_test=6, size_multiple=32)
    return config


def assert_same(found, expected):
    """Bit by bit; networks of two runs are two functions, so not by structure."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.nightly
def test_an_interrupted_run_resumes_bitwise_centroids_included(drawings_dir, tmp_path):
    class CutOffError(Exception):
        pass

    def cut(trained, split):
        raise CutOffError

    config = digits_config(drawings_dir)
    # Epochs of two steps: the run is cut off in the middle of one, and just before one.
    config.task.update_every = 2
    config.train.num_steps = 6
    unbroken = train(config, tmp_path / "unbroken")
    assert int(unbroken.task_state.epoch) == 4  # the last one when training ended
    for step in (3, 4):
        config.train.eval_every = step
        workdir = tmp_path / f"cut{step}"
        with pytest.raises(CutOffError):
            train(config, workdir, evaluate=cut)
        resumed = train(config, workdir, evaluate=lambda *_: {})
        for name in ("params", "task_state", "batch_stats"):
            assert_same(getattr(resumed, name), getattr(unbroken, name))
        assert_same(load_run(workdir).task_state, unbroken.task_state)


def test_an_epoch_has_every_image_once_by_default(folder_dir):
    config = folder_config(folder_dir)
    experiment = Experiment(config)
    images = len(experiment.source("train"))
    assert experiment.update_every == -(-images // 8)
    seen = [
        index
        for batch in experiment.train_pass(5)
        for index in batch["index"][batch["valid"]].tolist()
    ]
    assert sorted(seen) == list(range(images))
    again = next(experiment.train_pass(5))["index"].tolist()
    assert again == seen[:8]
    assert next(experiment.train_pass(6))["index"].tolist() != again
    config.task.update_every = 7
    assert Experiment(config).update_every == 7


def test_digits_need_no_download_and_are_scored(drawings_dir, tmp_path):
    summary = run_training(digits_config(drawings_dir), tmp_path / "run")
    assert 0 <= summary["mean_iou"] <= summary["accuracy"] <= 1


@pytest.mark.needs_data
@pytest.mark.nightly
def test_coco_with_finer_clusters_takes_its_first_steps(data_dir, tmp_path):
    config = shrink(picie_coco.get_config("small_over"))
    config.data.update(
        coco_dir=str(data_dir / "coco128"), data_dir=str(tmp_path / "prepared")
    )
    config.task.num_overclusters = 5
    trained = train(config, tmp_path / "run")
    assert trained.step == 3
    assert [c.shape for c in trained.task_state.centroids] == [(2, 3, 4), (2, 5, 4)]


@pytest.mark.parametrize("variant", picie_coco.VARIANTS)
def test_every_variant_names_a_network_and_a_task_that_exist(variant):
    config = picie_coco.get_config(variant)
    experiment = Experiment(config)
    assert isinstance(experiment.model, FeaturePyramid)
    task = experiment.task
    assert isinstance(task, Picie)
    assert task.embedding_dim == experiment.model.embedding_dim
    assert task.views == (1 if "single" in variant else 2)
    assert task.num_overclusters == (100 if "over" in variant else 0)


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(InputError, match=r"one of r18, over, single, .*got 'r50'"):
        picie_coco.get_config("r50")
