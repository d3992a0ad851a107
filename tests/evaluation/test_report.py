"""The page about an evaluation: what is on it, for tasks of every kind."""

import dataclasses
import json
import re

import numpy as np
import pytest

from sphemb.evaluation import Evaluation, ScoredImage, evaluate, write_report
from sphemb.training import Experiment, Trained
from tests.tiny import tiny_config

RECORDS = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


@pytest.fixture(scope="module")
def trained(drawings_dir):
    config = tiny_config(drawings_dir)
    config.evaluation.num_test = config.data.test = 20  # some without an object
    experiment = Experiment(config)
    state = experiment.init_state()
    return Trained(experiment, state.params, state.task_state, 0)


@pytest.fixture(scope="module")
def evaluation(trained):
    return evaluate(trained, "test", num_samples=1, num_extremes=2)


@pytest.fixture(scope="module")
def page(trained, evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(trained, evaluation, RECORDS, path, split="test", facts=["a fact"])
    return path.read_text(encoding="utf-8")


def scenes_of(page):
    found = re.search(r'id="spheres">(.*?)</script>', page, re.DOTALL)
    return json.loads(found.group(1))


def test_the_worst_and_the_best_images_are_shown_with_their_scores(page, evaluation):
    assert page.count("<figcaption>truth</figcaption>") == 4
    assert page.count("<figcaption>embedding</figcaption>") == 4
    shown = [
        float(value) for value in re.findall(r'"note">mean_best_iou ([0-9.]+)<', page)
    ]
    scores = [image.scores["mean_best_iou"] for image in evaluation.ranked]
    np.testing.assert_allclose(
        shown, [scores[0], scores[1], scores[-1], scores[-2]], atol=5e-5
    )
    assert "a fact" in page
    assert 'alt="The training"' in page
    assert len(page.encode()) < 3_000_000


def test_every_step_of_the_mean_shift_is_on_the_sphere(page, trained):
    scenes = scenes_of(page)
    assert len(scenes) == 4
    for scene in scenes:
        assert scene["steps"] == trained.experiment.task.predict_steps + 1
        assert scene["number"] == 32 * 32
        assert list(scene["colors"]) == ["truth", "found", "image"]
        assert "Of 4 dimensions, the three principal ones" in scene["note"]
        assert "normalized to length one" in scene["note"]


def test_a_single_image_is_the_worst_and_there_is_no_best(
    trained, evaluation, tmp_path
):
    one = dataclasses.replace(evaluation, ranked=evaluation.ranked[:1])
    path = write_report(trained, one, [], tmp_path / "r.html", split="test")
    page = path.read_text(encoding="utf-8")
    assert "The worst images" in page
    assert "The best images" not in page
    assert "The training" not in page
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


@dataclasses.dataclass
class Other:
    """A run of a task that shifts nothing, on the drawings' source."""

    config: object
    task: object
    source: object


def test_boundaries_and_classes_are_shown_too(trained, tmp_path):
    from sphemb.tasks import Boundaries, BoundaryMap, ClassMap, Semantic

    rng = np.random.default_rng(0)
    size = (12, 20)
    mask = np.ones(size, bool)
    mask[:, 15:] = False
    common = {"image": rng.random((*size, 3), np.float32), "mask": mask}
    branches = rng.standard_normal((2, *size, 5)).astype(np.float32)
    kinds = {
        Boundaries: (
            {"boundaries": rng.integers(0, 2, (3, *size)).astype(np.int8)},
            BoundaryMap(rng.random(size, np.float32), branches),
        ),
        Semantic: (
            {"semantic": rng.integers(0, 3, size)},
            ClassMap(rng.integers(0, 3, size), branches[0]),
        ),
    }
    for kind, (maps, prediction) in kinds.items():
        settings = {"num_classes": 3} if kind is Semantic else {}
        other = Other(
            trained.experiment.config, kind(**settings), trained.experiment.source
        )
        run = Trained(other, {}, (), 0)
        image = ScoredImage(0, {"mean_iou": 0.5}, common | maps, prediction)
        scored = Evaluation({"mean_iou": 0.5}, 1, {}, {}, None, "mean_iou", (image,))
        path = write_report(run, scored, [], tmp_path / "r.html", split="test")
        page = path.read_text(encoding="utf-8")
        captions = re.findall("<figcaption>(.*?)</figcaption>", page)
        scenes = scenes_of(page)
        if kind is Boundaries:
            assert captions == [
                "image",
                "annotators",
                "boundaries found",
                "embedding of the finest branch",
            ]
            assert scenes == []
        else:
            assert captions == ["image", "truth", "found", "embedding"]
            assert [scene["steps"] for scene in scenes] == [1]
            assert scenes[0]["number"] == 12 * 15
            assert "shifts no points" in scenes[0]["note"]
