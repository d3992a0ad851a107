"""The configs of classes and of their instances, shrunk, train and are scored."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sphemb import InputError
from sphemb.cli import main, run_training
from sphemb.configs import voc_instances, voc_semantic
from sphemb.data import read_size
from sphemb.tasks import Instances, Semantic
from sphemb.training import Experiment, _loop, load_run
from tests.scenes import write_coco
from tests.tiny import shrink


def small(config):
    config = shrink(config)
    config.model.update(decoder_features=8, head_features=8, decoder_stride=4)
    return config


def predict(run, coco_dir, out, *flags):
    image = f"{coco_dir}/val2017/000000000000.jpg"
    main(["predict", "--model", str(run), image, "--out", str(out), *flags])


@pytest.fixture(scope="module")
def coco_dir(tmp_path_factory):
    return str(write_coco(tmp_path_factory.mktemp("coco") / "coco"))


@pytest.mark.parametrize("configs", [voc_semantic, voc_instances])
def test_data_network_and_task_fit_together(configs, coco_dir, tmp_path):
    config = small(configs.get_config("small"))
    config.data.update(coco_dir=coco_dir, data_dir=str(tmp_path), masks="instances")
    experiment = Experiment(config)
    _loop._rehearse(experiment, experiment.init_state())


@pytest.mark.nightly
def test_classes_are_trained_scored_and_drawn(coco_dir, tmp_path):
    config = small(voc_semantic.get_config("small"))
    config.model.atrous_rates = (1,)
    config.data.update(coco_dir=coco_dir, data_dir=str(tmp_path), masks="instances")
    config.task.update(pair_scores=True, max_objects=8)
    summary = run_training(config, tmp_path / "run")
    for name in ("classes/pair_accuracy", "parts/pair_precision"):
        assert 0 <= summary[name] <= 1
    assert 0 <= summary["mean_iou"] <= 1
    assert 0 <= summary["iou_inside@5"] <= 1
    pictures = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert {"classes.png", "trimap.png", "curves.png"} <= pictures
    predict(tmp_path / "run", coco_dir, tmp_path / "out")
    classes = np.asarray(Image.open(tmp_path / "out" / "000000000000_classes.png"))
    assert classes.max() < 21
    assert (tmp_path / "out" / "000000000000_overlay.png").is_file()


@pytest.mark.nightly
def test_instances_get_classes_scores_and_a_line_that_is_kept(coco_dir, tmp_path):
    config = small(voc_instances.get_config("small"))
    config.data.update(coco_dir=coco_dir, data_dir=str(tmp_path), masks="instances")
    summary = run_training(config, tmp_path / "run")
    assert 0 <= summary["ap_r@0.5"] <= 1
    assert summary["ap_r@0.5/person"] == summary["ap_r@0.5"]  # the one that there is
    assert np.isnan(summary["iou/cat"])
    assert 0 <= summary["ap_r_true_classes_vol"] <= 1
    assert 0 <= summary["recall@0.5@10"] <= 1
    assert (tmp_path / "run" / "pictures" / "classes.png").is_file()
    line = load_run(tmp_path / "run").task_state
    assert np.isfinite(line.slope).all()
    # No more the line that training begins with.
    assert np.abs(line.mean).max() > 0
    annotations = f"{coco_dir}/annotations/instances_val2017.json"
    predict(tmp_path / "run", coco_dir, tmp_path / "out", "--annotations", annotations)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {result["image_id"] for result in results} <= {0}
    names = load_run(tmp_path / "run").class_names
    assert names[0] == "background"
    for result in results:
        assert result["category_id"] == 1  # COCO's person, which is VOC's class 15
        assert coco_mask.area(result["segmentation"]) > 0
    with Image.open(tmp_path / "out" / "000000000000_labels.png") as labels:
        assert labels.size == read_size(f"{coco_dir}/val2017/000000000000.jpg")[::-1]


@pytest.mark.parametrize("variant", voc_semantic.VARIANTS)
def test_every_variant_names_a_network_and_a_task_that_exist(variant):
    assert isinstance(Experiment(voc_semantic.get_config(variant)).task, Semantic)
    experiment = Experiment(voc_instances.get_config(variant))
    assert isinstance(experiment.task, Instances)
    assert experiment.model.num_classes == experiment.task.num_classes


@pytest.mark.parametrize("module", [voc_semantic, voc_instances])
def test_an_unknown_variant_names_the_known_ones(module):
    with pytest.raises(InputError, match="one of r50, r101, lite, small, got 'r152'"):
        module.get_config("r152")
