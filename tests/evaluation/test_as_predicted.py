"""`evaluate` scores what `predict` writes, to the last digit, whatever the size."""

from __future__ import annotations

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sphemb.cli import ScoreBoundaries, ScoreClasses, ScoreInstances
from sphemb.cli._predict_files import files_for
from sphemb.cli._runs import limit_lines
from sphemb.configs import bsds, digits, nuclei, picie_coco, voc_semantic
from sphemb.data import ImageWindows
from sphemb.evaluation import TiledPrediction, draw_pictures, evaluate
from sphemb.metrics import AverageRecall, MatchedIoU, MatchedPrecision
from sphemb.sphere import l2_normalize
from sphemb.tasks import Instances, Proposals, Spectral
from sphemb.training import Experiment, Trained
from tests.tiny import drawn_variables, shrink, small_resnet

SIZES = ((40, 56), (64, 50))  # padded alike: networks are compiled once


class Scenes:
    """Drawn discs with instances, classes and boundaries, of two sizes."""

    class_names = ("background", "red", "blue")

    def __init__(self):
        self.examples = [self._draw(i, size) for i, size in enumerate(SIZES)]

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        return self.examples[index]

    def size(self, index):
        return SIZES[index]

    def _draw(self, seed, size):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[: size[0], : size[1]]
        instances = np.zeros(size, np.int32)
        for number in (1, 2, 3):
            row, column = rng.uniform(0.2, 0.8, 2) * size
            inside = (rows - row) ** 2 + (columns - column) ** 2 < 9**2
            instances[inside & (instances == 0)] = number
        semantic = np.minimum(instances, 2)
        colours = np.array([[60, 60, 60], [200, 40, 40], [40, 40, 200]])
        image = colours[semantic] + rng.integers(0, 50, (*size, 3))
        edges = np.zeros(size, bool)
        edges[:-1] |= instances[1:] != instances[:-1]
        edges[:, :-1] |= instances[:, 1:] != instances[:, :-1]
        return {
            "image": image.astype(np.uint8),
            "instances": instances,
            "semantic": semantic,
            "boundaries": edges[None].astype(np.int8),
            "name": str(seed),
        }


@pytest.fixture(scope="module", autouse=True)
def small():
    with small_resnet():
        yield


@pytest.fixture(scope="module")
def scenes():
    return Scenes()


def experiment_of(config, scenes):
    config.evaluation.update(num_test=len(SIZES), batch_size=1, size_multiple=64)
    experiment = Experiment(config)
    experiment.__dict__["_sources"] = {"test": scenes, "train": scenes}
    return experiment


def trained_of(experiment):
    """With parameters of which none is 0 or 1."""
    state = experiment.abstract_state
    params, batch_stats = drawn_variables((state.params, state.batch_stats), noise=0.1)
    task_state = experiment.task.init(jax.random.key(0), None)
    return Trained(experiment, params, task_state, 1, batch_stats, Scenes.class_names)


def predict(trained, scenes, folder):
    """Writes what is predicted for the images, as the command line does."""
    files, tiled = files_for(trained), TiledPrediction(trained)
    images = folder.parent / "images"
    folder.mkdir()
    images.mkdir()
    found = []
    for example in scenes.examples:
        path = images / f"{example['name']}.png"
        Image.fromarray(example["image"]).save(path)
        image = ImageWindows(path)
        tiles = tiled.tiles(image.size, tile=1024, halo=128)
        found.append(tiled.predict(image, tiles, embedding=True))
        names = [name.format(example["name"], ".png") for name in files.per_image]
        targets = [folder / name for name in names]
        for target in targets:
            target.parent.mkdir(exist_ok=True)
        files.write(targets, image, found[-1])
    files.finish([folder / name for name in files.shared])
    return found


def save(path, labels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


def drawn(trained, evaluation, folder):
    """The names of the pictures of an evaluation."""
    folder.mkdir()
    files = draw_pictures(trained, evaluation, [], folder)
    assert all(Image.open(file).size > (100, 100) for file in files)
    return {file.stem for file in files}


def labels_in(folder, example):
    return np.asarray(Image.open(folder / f"{example['name']}_labels.png"), np.int32)


def merged(metrics):
    first, *others = metrics
    for other in others:
        first = first.merge(other)
    return first.compute()


@pytest.fixture(scope="module")
def embedding(scenes):
    config = digits.get_config()
    config.model.update(embedding_dim=4, features=(8, 16), head_features=8)
    return trained_of(experiment_of(config, scenes))


def with_task(trained, scenes, task):
    """The same network with another task, and what is compiled of it by itself."""
    experiment = experiment_of(trained.experiment.config, scenes)
    experiment.__dict__["task"] = task
    experiment.__dict__["_compiled_network"] = trained.experiment._compiled_network
    task_state = task.init(jax.random.key(0), None)
    return dataclasses.replace(trained, experiment=experiment, task_state=task_state)


@pytest.mark.parametrize(
    "task",
    [
        Proposals(
            num_steps=0,
            concentration=100.0,
            threshold=0.95,
            max_groups=8,
            predict_steps=3,
        ),
        pytest.param(Spectral(max_groups=8, threshold=0.9), marks=pytest.mark.nightly),
    ],
    ids=lambda task: type(task).__name__,
)
def test_instances_without_classes(task, embedding, scenes, tmp_path):
    trained = with_task(embedding, scenes, task)
    scores = evaluate(trained, "test").scores
    found = predict(trained, scenes, tmp_path / "out")
    assert max(one["labels"].max() for one in found) > 1
    recall = merged(
        AverageRecall.from_batch(
            jnp.asarray(labels_in(tmp_path / "out", example))[None],
            jnp.asarray(example["instances"])[None],
            max_predicted=task.max_groups,
            max_true=16,
        )
        for example in scenes.examples
    )
    for name, value in recall.items():
        assert scores[name] == value, name


def test_objects_of_one_kind(scenes, tmp_path):
    config = shrink(nuclei.get_config())
    config.task.update(diameter=16.0, mirrors=False, min_score=0.0, min_size=1)
    trained = trained_of(experiment_of(config, scenes))
    task = trained.experiment.task
    scores = evaluate(trained, "test").scores
    found = predict(trained, scenes, tmp_path / "out")
    assert max(one["labels"].max() for one in found) > 1
    for metric, limits in {
        AverageRecall: {"max_predicted": task.max_groups + 1},
        MatchedPrecision: {"max_predicted": task.max_groups},
    }.items():
        files = merged(
            metric.from_batch(
                jnp.asarray(labels_in(tmp_path / "out", example))[None],
                jnp.asarray(example["instances"])[None],
                max_true=task.max_objects,
                **limits,
            )
            for example in scenes.examples
        )
        assert {name: scores[name] for name in files} == files


def test_connected_components_of_groups(embedding, scenes, tmp_path):
    task = Proposals(
        num_steps=0,
        concentration=100.0,
        threshold=0.95,
        max_groups=8,
        predict_steps=3,
        max_components=16,
        min_size=4,
    )
    trained = with_task(embedding, scenes, task)
    evaluation = evaluate(trained, "test", num_extremes=3)
    found = predict(trained, scenes, tmp_path / "out")
    assert max(one["labels"].max() for one in found) > 1
    assert len(evaluation.ranked) == len(SIZES)
    for image in evaluation.ranked:
        height, width = SIZES[image.index]
        scored = np.maximum(image.prediction.labels, 0)[:height, :width]
        np.testing.assert_array_equal(scored, found[image.index]["labels"])


@pytest.fixture(scope="module")
def recognition(scenes):
    config = shrink(voc_semantic.get_config("small"))
    config.model.update(
        backbone="resnet18", decoder_features=8, head_features=8, decoder_stride=4
    )
    config.model.num_classes = config.task.num_classes = 3
    config.model.atrous_rates = (1,)
    config.model.coordinate_unit = 16.0
    return trained_of(experiment_of(config, scenes))


def test_classes(recognition, scenes, tmp_path):
    evaluation = evaluate(recognition, "test", num_samples=1)
    scores = evaluation.scores
    pictures = drawn(recognition, evaluation, tmp_path / "pictures")
    assert pictures == {"classes", "trimap"}
    found = predict(recognition, scenes, tmp_path / "out")
    assert len(np.unique(found[0]["classes"])) > 1
    for example in scenes.examples:
        save(tmp_path / "truth" / f"{example['name']}.png", example["semantic"])
    files = ScoreClasses(
        tmp_path / "out", tmp_path / "truth", classes=3, trimap=5
    ).run()
    for name in ("mean_iou", "pixel_accuracy"):
        assert scores[name] == files[name], name


def test_instances_with_classes(recognition, scenes, tmp_path):
    task = Instances(
        num_steps=0,
        concentration=25.0,
        predict_steps=3,
        max_groups=8,
        num_classes=3,
        min_size=1,
        min_score=0.0,
    )
    trained = with_task(recognition, scenes, task)
    scores = evaluate(trained, "test").scores
    predict(trained, scenes, tmp_path / "out")
    for example in scenes.examples:
        path = tmp_path / "truth" / f"{example['name']}.png"
        save(path, example["instances"])
        with path.with_suffix(".csv").open("w", newline="") as file:
            rows = [(n, min(n, 2)) for n in np.unique(example["instances"]) if n]
            csv.writer(file).writerows([("label", "class"), *rows])
    (tmp_path / "names.txt").write_text("\n".join(Scenes.class_names))
    files = ScoreInstances(
        tmp_path / "out" / "results.json",
        tmp_path / "truth",
        names=tmp_path / "names.txt",
    ).run()
    assert 0 < scores["ap_r_vol"] == files["ap_r_vol"]


def test_boundaries(scenes, tmp_path):
    config = shrink(bsds.get_config("r50"))
    config.model.update(
        branches=("stem", "stage1"), output_stride=4, embedding_dim=3, head_features=8
    )
    config.task.update(thresholds=9, scales=(1.0, 0.5))
    trained = trained_of(experiment_of(config, scenes))
    evaluation = evaluate(trained, "test", num_samples=1, num_extremes=3)
    scores = evaluation.scores
    pictures = drawn(trained, evaluation, tmp_path / "pictures")
    assert pictures == {"boundaries", "orientations", "precision"}
    found = predict(trained, scenes, tmp_path / "out")
    for image in evaluation.ranked:
        height, width = SIZES[image.index]
        scored = image.prediction.boundary[:height, :width]
        written = found[image.index]["boundary"]
        np.testing.assert_allclose(scored, written, atol=3e-6)
    for example in scenes.examples:
        truth = np.empty((1, 1), object)
        curve = example["boundaries"][0].astype(np.uint8)
        truth[0, 0] = {
            "Segmentation": np.ones(curve.shape, np.uint16),
            "Boundaries": curve,
        }
        (tmp_path / "truth").mkdir(exist_ok=True)
        savemat(tmp_path / "truth" / f"{example['name']}.mat", {"groundTruth": truth})
    files = ScoreBoundaries(
        tmp_path / "out", tmp_path / "truth", thresholds=9, nms=True, processes=1
    ).run()
    assert scores["ods@9"] > 0
    # One level of 65,536 is of the size of what two programs round differently.
    for name in ("ods", "ois", "ap"):
        assert scores[f"{name}@9"] == pytest.approx(files[name], rel=5e-3), name


def test_clusters(scenes, tmp_path):
    config = shrink(picie_coco.get_config("small"))
    config.model.update(output_stride=16, finer_scale=1.0)
    config.task.update(
        num_clusters=3,
        num_overclusters=0,
        embedding_dim=4,
        first_class=0,
        num_classes=3,
        num_things=1,
        predict_scale=0.75,
        scale_multiple=16,
    )
    experiment = experiment_of(config, scenes)
    trained = trained_of(experiment)
    image = scenes.examples[0]["image"][None, :32, :48] / np.float32(255)
    vectors = trained.apply(jnp.asarray(image))["embedding"][0].reshape(-1, 4)
    chosen = vectors[jnp.asarray([[0, 40, 60], [0, 40, 60]])]
    task_state = trained.task_state._replace(centroids=(l2_normalize(chosen),))
    trained = Trained(
        experiment,
        trained.params,
        task_state,
        1,
        trained.batch_stats,
        Scenes.class_names,
    )
    evaluation = evaluate(trained, "test", num_samples=1)
    scores = evaluation.scores
    pictures = drawn(trained, evaluation, tmp_path / "pictures")
    assert pictures == {"clusters"}
    found = predict(trained, scenes, tmp_path / "out")
    assert len(np.unique(found[0]["labels"])) > 1
    matched = merged(
        MatchedIoU.from_batch(
            jnp.asarray(labels_in(tmp_path / "out", example))[None] - 1,
            jnp.asarray(example["semantic"])[None],
            num_clusters=3,
            num_classes=3,
            num_things=1,
        )
        for example in scenes.examples
    )
    for name in ("accuracy", "mean_iou"):
        assert scores[name] == matched[name], name


def test_images_that_prediction_takes_in_tiles_are_named_as_scored_whole(scenes):
    class OneLarge(Scenes):
        def size(self, index):
            return (1024, 1025) if index == 1 else (1024, 1024)

    config = digits.get_config()
    assert limit_lines(experiment_of(config, scenes), "test", {}, 2) == []
    (line,) = limit_lines(experiment_of(config, OneLarge()), "test", {}, 2)
    assert line.startswith("1 of 2 images have more than 1024 x 1024 pixels and are ")
    assert "scored whole" in line
