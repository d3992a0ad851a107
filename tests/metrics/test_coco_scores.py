"""COCO's scores with classes, and the matching of AP^r beside that of pycocotools."""

import contextlib
import copy
import io
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode

from sphemb.metrics import REGION_LEVELS, RegionPrecision, coco_file_scores

C = 4
NAMES = ("background", "cat", "dog", "cow")


def drawn(images=6, seed=0):
    """Blocks of random classes, found shifted and twice, with scores that differ."""
    rng = np.random.default_rng(seed)
    given = {"maps": [], "truth": [], "scores": [], "classes": [], "true_classes": []}
    ranks = rng.permutation(images * 14).reshape(images, 2, 7) / (images * 14.0)
    for i in range(images):
        truth = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((9, 11), int))
        truth[::9] = 0
        shifts = rng.integers(-2, 3, (2, 2))
        maps = np.stack([np.roll(truth, shift, (0, 1)) for shift in shifts])
        true_classes = np.append(0, rng.integers(1, C, 6))
        right = rng.random((2, 7)) < 0.8
        other = rng.integers(1, C, (2, 7))
        given["maps"].append(maps)
        given["truth"].append(truth)
        given["scores"].append(np.where(np.arange(7) > 0, ranks[i], -np.inf))
        given["classes"].append(np.where(right, true_classes, other))
        given["true_classes"].append(true_classes)
    return given


def files(given):
    """The same as COCO's files, encoded here."""
    objects, results = [], []
    for i, truth in enumerate(given["truth"]):
        for q in range(1, 7):
            mask = encode(np.asfortranarray(truth == q, np.uint8))
            objects.append(
                {
                    "id": len(objects),  # begins at 0, as some files do
                    "image_id": i,
                    "category_id": 10 * int(given["true_classes"][i][q]),
                    "segmentation": mask,
                    "area": float(np.sum(truth == q)),
                    "iscrowd": 0,
                }
            )
        for k, g in np.argwhere(np.isfinite(given["scores"][i])):
            mask = encode(np.asfortranarray(given["maps"][i][k] == g, np.uint8))
            results.append(
                {
                    "image_id": i,
                    "category_id": 10 * int(given["classes"][i][k, g]),
                    "segmentation": mask,
                    "score": float(given["scores"][i][k, g]),
                }
            )
    height, width = given["truth"][0].shape
    content = {
        "images": [
            {"id": i, "height": height, "width": width}
            for i in range(len(given["truth"]))
        ],
        "annotations": objects,
        "categories": [{"id": 10 * c, "name": NAMES[c]} for c in range(1, C)],
    }
    return content, results


def by_hand(content, results, levels=None):
    """An evaluation as pycocotools' own demonstration runs it."""
    content, results = copy.deepcopy(content), copy.deepcopy(results)
    for annotation in content["annotations"]:
        annotation["id"] += 1
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        if levels is not None:
            evaluation.params.iouThrs = levels
        evaluation.evaluate()
        evaluation.accumulate()
        if levels is None:
            evaluation.summarize()
    return evaluation


def scored(given):
    return coco_file_scores(*files(given))


class TestFiles:
    def test_they_score_as_by_pycocotools(self):
        content, results = files(drawn())
        expected = by_hand(content, results).stats
        found = coco_file_scores(content, results)
        assert found["AP"] == pytest.approx(expected[0])
        assert found["AR@100"] == pytest.approx(expected[8])
        assert 0.05 < found["AP"] < 0.95

    @pytest.mark.parametrize("area", [None, "9", float("nan")])
    def test_an_area_that_a_file_leaves_out_is_that_of_the_mask(self, area):
        content, results = files(drawn())
        expected = coco_file_scores(content, results)
        for annotation in content["annotations"]:
            del annotation["area"]
            annotation |= {"area": area} if area else {}
        before = copy.deepcopy(content)
        found = coco_file_scores(content, results)
        assert found == pytest.approx(expected, nan_ok=True)
        assert content == before

    def test_the_mean_is_that_of_the_classes(self):
        scores = scored(drawn())
        classes = [scores[f"AP/{name}"] for name in NAMES[1:]]
        assert scores["AP"] == pytest.approx(np.mean(classes))

    def test_an_absent_class_is_nan_and_in_no_mean(self):
        given = drawn()
        given["true_classes"] = [np.minimum(c, 2) for c in given["true_classes"]]
        scores = scored(given)
        assert np.isnan(scores["AP/cow"])
        assert scores["AP"] == pytest.approx(
            np.mean([scores["AP/cat"], scores["AP/dog"]])
        )

    def test_files_are_left_as_they_are(self):
        content, results = files(drawn(images=2))
        before = copy.deepcopy((content, results))
        coco_file_scores(content, results)
        assert (content, results) == before

    def test_no_results_score_zero(self):
        content, _ = files(drawn(images=2))
        assert coco_file_scores(content, [])["AP"] == 0.0

    def test_detections_in_a_crowd_are_neither_right_nor_wrong(self):
        content, results = files(drawn(images=2))
        results = [
            {**{k: v for k, v in a.items() if k not in ("id", "area", "iscrowd")}}
            | {"score": 0.5}
            for a in content["annotations"]
        ]
        assert coco_file_scores(content, results)["AP"] == 1.0
        results[3]["category_id"] = 10 + results[3]["category_id"] % 30
        assert coco_file_scores(content, results)["AP"] < 1.0
        content["annotations"][3] |= {"iscrowd": 1}
        content["annotations"][3]["category_id"] = results[3]["category_id"]
        assert coco_file_scores(content, results)["AP"] == 1.0

    def test_a_class_without_objects_is_nan_and_nothing_is_printed(self, capsys):
        content, results = files(drawn(images=2))
        scores = coco_file_scores({**content, "annotations": []}, results)
        assert all(math.isnan(value) for value in scores.values())
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""


class TestMatching:
    @pytest.mark.parametrize("seed", range(3))
    def test_ap_r_takes_the_same_turns_as_pycocotools(self, seed):
        """Where no IoU is a level itself, and scores differ, both match alike."""
        given = drawn(seed=seed)
        content, results = files(given)
        evaluation = by_hand(content, results, REGION_LEVELS + 1e-9)
        expected = {}
        for found in evaluation.evalImgs:
            if found is None or found["aRng"] != evaluation.params.areaRng[0]:
                continue
            rows = zip(found["dtScores"], found["dtMatches"].T > 0, strict=True)
            expected |= dict(rows)
        total = RegionPrecision.empty(num_classes=C)
        for i, truth in enumerate(given["truth"]):
            one = RegionPrecision.from_image(
                given["maps"][i],
                truth,
                scores=given["scores"][i],
                classes=given["classes"][i],
                true_classes=given["true_classes"][i],
                num_classes=C,
            )
            total = total.merge(one)
        assert len(total.scores) == len(expected)
        for score, right in zip(total.scores, total.right, strict=True):
            np.testing.assert_array_equal(right, expected[score])
        assert 0 < total.right.mean() < 1
