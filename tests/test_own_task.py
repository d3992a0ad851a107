"""A task outside the package is trained, scored, drawn, predicted and exported."""

import json

import numpy as np
import pytest
from PIL import Image

from examples import own_task
from sphemb import InputError
from sphemb.cli import main
from sphemb.evaluation import draw_pictures, evaluate, write_report
from sphemb.training import Experiment, load_run, read_log, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    config = own_task.get_config()
    config.data.update(size=32, train=24, validation=8, test=8)
    config.data.data_dir = str(folder / "data")
    config.loader.update(batch_size=8, num_threads=0)
    config.model.update(embedding_dim=4, features=(8, 16), head_features=8)
    config.task.update(predict_steps=2, max_groups=8)
    config.train.update(num_steps=4, log_every=1, eval_every=0, checkpoint_every=2)
    config.optimizer.warmup_steps = 0
    config.evaluation.update(num_validation=8, num_test=6, size_multiple=32)
    train(config, folder / "run")
    return folder / "run"


def test_it_is_scored_and_drawn(run, tmp_path):
    trained = load_run(run)
    assert isinstance(trained.experiment.task, own_task.Means)
    records = read_log(run)
    assert {"loss/pull", "loss/push"} <= set(records[0])
    evaluation = evaluate(trained, "test", num_samples=2, num_extremes=1)
    assert evaluation.ranked_by == "mean_best_iou"
    files = draw_pictures(trained, evaluation, records, tmp_path)
    drawn = {"grouping", "sphere", "similarities", "gradients", "curves"}
    assert {file.stem for file in files} == drawn
    page = write_report(trained, evaluation, records, tmp_path / "r.html", split="test")
    assert "Every step of the mean shift" in page.read_text(encoding="utf-8")


def test_it_is_predicted_by_tiles(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    out = tmp_path / "out"
    flags = ["--model", run, "--out", out, "--tile", 32, "--halo", 8, "--embeddings"]
    main(["predict", str(tmp_path / "image.png"), *map(str, flags)])
    labels = np.asarray(Image.open(out / "image_labels.png"))
    assert labels.shape == (60, 70)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"][0]["tiles"] > 1
    assert np.load(out / "image_embedding.npz")["embedding"].shape == (60, 70, 4)


@pytest.mark.nightly
def test_it_is_exported(run, tmp_path):
    flags = ["--workdir", str(run), "--out", str(tmp_path / "exported")]
    main(["export", *flags, "--size", "16", "16", "--platforms", "cpu"])
    told = json.loads((tmp_path / "exported" / "export.json").read_text())
    assert {"labels", "embedding", "reached/max_groups"} <= set(told["outputs"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mean", "one of Boundaries, Instances, Objects, Picie, Proposals, Semantic, "),
        ("examples.none:Means", 'or "package.module:Name", got .*No module named'),
        ("examples.own_task:Mean", "config.task.name must .*has no attribute 'Mean'"),
    ],
)
def test_a_wrong_name_is_one_line(name, message):
    config = own_task.get_config()
    config.task.name = name
    with pytest.raises(InputError, match=message):
        _ = Experiment(config).task
