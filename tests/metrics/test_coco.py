"""COCO's scores by pycocotools, beside a small evaluation of our own."""

import math

import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.metrics import coco_scores

pytest.importorskip("pycocotools")

LEVELS = np.linspace(0.5, 0.95, 10)


def drawn(seed=0, images=5):
    """Images of many sizes, with maps that mostly follow the truth, and scores."""
    rng = np.random.default_rng(seed)
    label_maps, truths, scores = [], [], []
    for _ in range(images):
        high, wide = rng.integers(3, 7, 2)
        truth = np.kron(rng.integers(0, 5, (high, wide)), np.ones((3, 3), int))
        maps = []
        for share in (0.95, 0.8):
            noise = rng.integers(0, 6, truth.shape)
            maps.append(np.where(rng.random(truth.shape) < share, truth, noise))
        label_maps.append(np.stack(maps))
        truths.append(truth)
        score = rng.permutation(12).reshape(2, 6) / 12.0
        score[:, 0] = -np.inf
        scores.append(score)
    return label_maps, truths, scores


def precision_and_recall(label_maps, truths, scores, level):
    """AP with 101 points and recall, by the greedy matching that COCO describes."""
    marks, num_objects = [], 0
    for maps, truth, score in zip(label_maps, truths, scores, strict=True):
        objects = [truth == q for q in np.unique(truth[truth > 0])]
        num_objects += len(objects)
        free = set(range(len(objects)))
        for k, g in sorted(np.argwhere(np.isfinite(score)), key=lambda i: -score[*i]):
            mask = maps[k] == g
            if not mask.any():
                continue
            ious = {
                q: np.sum(mask & objects[q]) / np.sum(mask | objects[q]) for q in free
            }
            best = max(ious, key=lambda q: ious[q], default=None)
            hit = best is not None and ious[best] >= level - 1e-10
            free -= {best} if hit else set()
            marks.append((score[k, g], hit))
    marks.sort(key=lambda mark: -mark[0])
    hits = np.cumsum([hit for _, hit in marks])
    recall = hits / num_objects
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return np.mean(np.append(envelope, 0.0)[places]), recall[-1]


class TestCocoScores:
    def test_agrees_with_a_plain_evaluation(self):
        maps, truths, scores = drawn(1)
        # Scores that never tie over images, so that the order is one.
        scores = [s + 1e-4 * i for i, s in enumerate(scores)]
        found = coco_scores(maps, truths, scores)
        pairs = [precision_and_recall(maps, truths, scores, x) for x in LEVELS]
        precisions, recalls = np.transpose(pairs)
        assert found["AP"] == pytest.approx(precisions.mean())
        assert found["AP50"] == pytest.approx(precisions[0])
        assert found["AP75"] == pytest.approx(precisions[5])
        assert found["AR@100"] == pytest.approx(recalls.mean())
        assert 0 < found["AR@1"] < found["AR@10"]

    def test_the_truth_itself_scores_one_and_absent_sizes_are_nan(self):
        _, truths, _ = drawn(2)
        scores = [np.array([-np.inf, 0.5, 0.5, 0.5, 0.5]) for _ in truths]
        found = coco_scores(truths, truths, scores)
        assert found["AP"] == found["AP50"] == found["AR@100"] == 1.0
        assert found["AP_small"] == found["AR_small"] == 1.0
        assert math.isnan(found["AP_large"])
        assert math.isnan(found["AR_medium"])

    def test_nothing_is_printed(self, capsys):
        coco_scores(*drawn(3))
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""

    def test_a_detection_within_the_void_is_neither_right_nor_wrong(self):
        truth = np.zeros((8, 8), int)
        truth[:4, :4], truth[5:] = 1, -1
        found = np.where(truth == -1, 2, truth)
        scores = np.array([-np.inf, 0.5, 0.9])
        ignored = coco_scores([found], [truth], [scores])["AP"]
        assert ignored == pytest.approx(1.0)
        assert coco_scores([found], [np.maximum(truth, 0)], [scores])["AP"] < 1.0

    def test_no_detections_score_zero_and_no_objects_nan(self):
        truth = np.eye(6, dtype=int)
        none = np.full(2, -np.inf)
        assert coco_scores([truth], [truth], [none])["AP"] == 0.0
        scores = coco_scores([truth], [truth * 0], [np.zeros(2)])
        assert all(math.isnan(value) for value in scores.values())

    def test_complaints_name_the_image(self):
        maps, truths, scores = drawn(4)
        with pytest.raises(InputError, match=r"truth must have one entry per image"):
            coco_scores(maps, truths[:2], scores)
        with pytest.raises(InputError, match=r"scores\[0\] must be numbers or -inf"):
            coco_scores(maps, truths, [s * np.nan for s in scores])
        with pytest.raises(
            InputError, match=r"scores\[0\] must have a score for every"
        ):
            coco_scores(maps, truths, [s[:, :3] for s in scores])
        with pytest.raises(InputError, match=r"label_maps\[0\] must have shape"):
            coco_scores([m[:, :2] for m in maps], truths, scores)
