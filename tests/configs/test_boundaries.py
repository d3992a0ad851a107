"""The configs of boundaries, shrunk, train in two stages, are scored and drawn."""

import json

import pytest

from sphemb import InputError
from sphemb.cli import Predict, run_training
from sphemb.configs import bsds, bsds_finetune
from sphemb.data import read_image
from tests.data.test_bsds import write_tree


def shrink(config, tree, data_dir):
    config.data.update(bsds_dir=str(tree), data_dir=str(data_dir))
    config.augmentation.size = (32, 32)
    config.loader.update(batch_size=8, num_threads=0)
    config.model.update(
        backbone="resnet18",
        branches=("stage1", "stage3"),
        output_stride=16,
        decoder_features=8,
        head_features=8,
        fusion_features=4,
    )
    config.task.update(num_samples=64, thresholds=3)
    config.train.update(num_steps=1, log_every=1, checkpoint_every=1)
    config.train.weights = None
    config.optimizer.warmup_steps = 0
    config.evaluation.update(num_validation=1, num_test=2)
    return config


@pytest.mark.nightly
def test_both_stages_train_are_scored_and_drawn_and_predict_maps(tmp_path):
    tree, data_dir = write_tree(tmp_path / "tree"), tmp_path / "tfds"
    run_training(shrink(bsds.get_config(), tree, data_dir), tmp_path / "first")
    config = shrink(bsds_finetune.get_config(), tree, data_dir)
    config.train.init_from = str(tmp_path / "first")
    summary = run_training(config, tmp_path / "second")
    assert 0 <= summary["ods@3"] <= 1
    assert summary["num_images"] == 2
    pictures = {path.name for path in (tmp_path / "second" / "pictures").iterdir()}
    assert {"boundaries.png", "orientations.png", "precision.png"} <= pictures
    assert json.loads((tmp_path / "second" / "summary.json").read_text())["step"] == 1

    out = tmp_path / "maps"
    image = tree / "images" / "test" / "300.jpg"
    assert Predict((str(image),), tmp_path / "second", out).run() == 1
    assert sorted(p.name for p in out.rglob("*.png")) == ["300.png", "300.png"]
    assert read_image(out / "overlays" / "300.png").shape == (8, 12, 3)
    with pytest.raises(InputError, match=r"images\.csv exists already: give"):
        Predict((str(image),), tmp_path / "second", out).run()


@pytest.mark.nightly
@pytest.mark.parametrize("variant", ["logistic", "r50"])
def test_a_variant_takes_its_first_step(variant, tmp_path):
    tree = write_tree(tmp_path / "tree")
    config = shrink(bsds.get_config(variant), tree, tmp_path / "tfds")
    summary = run_training(config, tmp_path / "run")
    assert summary["step"] == 1
    assert {"ods@3", "ois@3", "ap@3"} <= set(summary)
    assert not {"ods", "ois", "ap"} & set(summary)


@pytest.mark.parametrize("variant", bsds.VARIANTS)
def test_scores_are_those_of_the_published_number_of_thresholds(variant):
    assert bsds.get_config(variant).task.thresholds == 99


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(InputError, match=r"one of lite, logistic, r50, got 'hed'"):
        bsds.get_config("hed")
    with pytest.raises(InputError, match=r"one of lite, r50, got 'logistic'"):
        bsds_finetune.get_config("logistic")
