"""The gallery: its order is that of the scores, and its rows are what they say."""

import numpy as np
import pytest

from benchmarks.gallery import ROWS, best_proposals, blocks, draw, rank, views
from sphemb.evaluation import ScoredImage, evaluate
from sphemb.tasks import Detections, Groups
from sphemb.training import Experiment, Trained
from sphemb.viz import label_rgb
from tests.references.metrics import best_ious
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def trained(drawings_dir):
    config = tiny_config(drawings_dir)
    config.evaluation.num_test = config.data.test = 20  # some without an object
    experiment = Experiment(config)
    state = experiment.init_state()
    return Trained(experiment, state.params, state.task_state, 0)


@pytest.fixture(scope="module")
def ranked(trained):
    (title, ranked), *others = rank(trained, "test", 32).items()
    assert (title, others) == ("groups, mean_best_iou", [])
    return ranked


def test_images_are_ranked_by_their_scores(trained, ranked):
    scores = {}

    def score(image):
        truth = trained.experiment.source("test")[image.index]["instances"]
        if truth.any():
            ious = best_ious(image.prediction.labels, truth)
            scores[image.index] = np.mean(ious)

    evaluate(trained, "test", num_samples=1, on_image=score)
    assert sorted(one.index for one in ranked) == sorted(scores)
    assert [one.score for one in ranked] == sorted(one.score for one in ranked)
    for one in ranked:
        assert one.score == pytest.approx(scores[one.index], rel=1e-5)


def test_the_middle_is_around_the_median_and_no_block_overlaps(ranked):
    chosen = blocks(ranked[:9], 2)
    assert chosen == {"worst": ranked[:2], "middle": ranked[3:5], "best": ranked[7:9]}
    assert blocks(ranked[:4], 10) == {
        "worst": ranked[:1],
        "middle": ranked[1:2],
        "best": ranked[3:4],
    }


def test_the_rows_are_image_truth_and_found(trained, ranked):
    source, chosen = trained.experiment.source("test"), blocks(ranked, 2)
    figure = draw(chosen, "the title", source)
    grid = np.reshape(figure.axes, (3, len(ROWS), 2))
    for part, (name, block) in zip(grid, chosen.items(), strict=True):
        rows = [axes.get_ylabel() for axes in part[:, 0]]
        assert rows == [f"{name}: image", f"{name}: truth", f"{name}: found"]
        for column, one in zip(part.T, block, strict=True):
            example = source[one.index]
            truth = np.rint(255 * label_rgb(example["instances"]))
            shown = [np.asarray(axes.images[0].get_array()) for axes in column]
            np.testing.assert_array_equal(shown[0], example["image"])
            np.testing.assert_array_equal(shown[1], truth)
            assert shown[2].shape == truth.shape
            assert column[0].get_xlabel() == example["name"]
            assert column[2].get_xlabel() == f"{one.score:.3f} "


def test_the_best_proposal_has_the_number_of_its_object():
    truth = np.array([[1, 1, 1, 2, 2, 0, 0, -1]])
    maps = np.array([[[4, 4, 4, 4, 0, 0, -1, 4]], [[7, 7, 7, -1, 9, 9, 9, 7]]])
    # Of the second object 4, 0 and 9 have IoUs of 1/5, 1/3 and 1/4.
    np.testing.assert_array_equal(
        best_proposals(maps, truth), [[1, 1, 1, 0, 2, 2, 0, -1]]
    )


def test_instances_with_classes_have_three_kinds(trained):
    truth = np.array([[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 0]])
    classes = np.array([0, 2, 1])[truth]
    mask = np.ones((3, 4), bool)
    mask[2] = False
    maps = {"image": np.zeros((3, 4, 3)), "instances": truth, "semantic": classes}
    labels = np.array([[0, 0, -1, 1], [0, 0, -1, -1], [2, 2, 2, 2]])
    found = Detections(
        Groups(labels, np.int32(3), np.zeros((3, 4, 2)), {}, None, labels[None]),
        np.where(mask, classes, -1),
        proposal_classes=np.array([[2, 1, 1]]),
        proposal_scores=np.array([[0.5, 0.9, -np.inf]]),
    )
    scores = {"mean_best_iou@1": 0.1, "mean_best_iou@9": 0.2, "mean_best_iou": 0.3}
    scores |= {"mean_iou": 0.4, "ap_r_vol": 0.5}
    shown = views(trained, ScoredImage(0, scores, maps | {"mask": mask}, found))
    named = {kind: name for kind, (name, *_) in shown.items()}
    assert named == {
        "proposals": "mean_best_iou@9",
        "classes": "mean_iou",
        "instances": "ap_r_vol",
    }
    for kind, (true, seen) in {k: pair for k, (_, pair, _) in shown.items()}.items():
        expected = classes if kind == "classes" else truth
        np.testing.assert_array_equal(true, expected[:2])
        if kind != "classes":  # the second object is half found
            expected = np.where([[0, 0, 0, 0], [0, 0, 0, 1]], 0, truth[:2])
        np.testing.assert_array_equal(seen, expected[:2])
    of_truth, of_found = shown["instances"][2]
    assert set(of_truth) == {1, 2}
    assert set(of_found) == {1, 2}
