"""The configs of photographs, shrunk, train, are scored and drawn."""

import json

import jax
import numpy as np
import pytest

from examples.coco_to_voc import export
from sphemb import InputError
from sphemb.cli import run_training
from sphemb.configs import coco, folder, voc
from sphemb.data import BuilderDataset, prepare_coco
from sphemb.models import DenseEmbedding
from sphemb.tasks import Proposals
from sphemb.training import Experiment, train
from tests.scenes import write_folder
from tests.tiny import proposals_config, shrink


@pytest.fixture(scope="module")
def folder_dir(tmp_path_factory):
    return str(write_folder(tmp_path_factory.mktemp("folder") / "own"))


@pytest.mark.nightly
def test_proposals_of_a_folder_are_trained_scored_and_drawn(folder_dir, tmp_path):
    config = shrink(proposals_config())
    config.data.dir = folder_dir
    summary = run_training(config, tmp_path / "run")
    assert summary["step"] == 1
    assert 0 <= summary["recall@0.5@10"] <= summary["recall@0.5@60"] <= 1
    assert np.isfinite(summary["average_recall_hosang@60"])
    pictures = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert {"grouping.png", "proposals.png", "curves.png"} <= pictures
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["step"] == 1


@pytest.mark.needs_data
@pytest.mark.nightly
def test_voc_is_trained_on_real_images_in_its_layout_and_scored(data_dir, tmp_path):
    prepared = prepare_coco(
        coco_dir=data_dir / "coco128",
        masks="panoptic",
        categories="voc",
        data_dir=tmp_path / "prepared",
    )
    export(BuilderDataset(prepared), tmp_path / "voc")
    config = shrink(voc.get_config())
    config.data.voc_dir = str(tmp_path / "voc")
    config.data.data_dir = str(tmp_path / "prepared")
    config.evaluation.size_multiple = 640  # one size for all
    config.model.output_stride = 32
    with pytest.raises(InputError, match=r"config\.task\.max_objects must be at"):
        run_training(config, tmp_path / "run")
    config.task.max_objects = 64  # only scoring reads it: the run is not trained again
    summary = run_training(config, tmp_path / "run")
    assert summary["num_images"] == 4
    assert 0 <= summary["recall@0.5@60"] <= 1


@pytest.mark.parametrize("variant", voc.VARIANTS)
def test_every_variant_names_a_network_and_a_task_that_exist(variant):
    config = voc.get_config(variant)
    experiment = Experiment(config)
    assert isinstance(experiment.model, DenseEmbedding)
    assert isinstance(experiment.task, Proposals)


@pytest.mark.parametrize("module", [voc, coco])
def test_an_unknown_variant_names_the_known_ones(module):
    with pytest.raises(InputError, match=r"one of r50, r101, lite, mean_shift.*, got"):
        module.get_config("r152")


def test_missing_weights_are_reported_before_data_are_read_or_a_network_compiled(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("SPHEMB_WEIGHTS_DIR", str(tmp_path / "weights"))
    config = shrink(folder.get_config("photographs"))
    config.data.update(dir=str(tmp_path / "missing"), intensity="range")
    config.train.weights = "resnet18"
    with (
        jax.log_compiles(),
        pytest.raises(InputError, match=r"resnet18.* sphemb import-weights"),
    ):
        train(config, tmp_path / "run")
    assert "Compiling" not in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_fixed_backbone_must_start_from_weights_or_a_network(tmp_path):
    config = shrink(voc.get_config("small"))
    config.data.voc_dir = str(tmp_path / "missing")
    with pytest.raises(InputError, match=r"weights or init_from, .*backbone_rate 0"):
        train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())
    config.optimizer.backbone_rate = 0.1
    assert Experiment(config).start_variables() == {}
