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

from sphemb import VOID, InputError
from sphemb.metrics import REGION_LEVELS, RegionPrecision, coco_file_scores, coco_scores

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


def scored(given, **settings):
    return coco_scores(
        given["maps"],
        given["truth"],
        given["scores"],
        classes=given["classes"],
        true_classes=given["true_classes"],
        **settings,
    )


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


class TestWithClasses:
    def test_label_maps_and_files_score_alike_and_as_pycocotools(self):
        given = drawn()
        content, results = files(given)
        expected = by_hand(content, results).stats
        from_maps = scored(given, names=NAMES)
        from_files = coco_file_scores(content, results)
        assert from_maps == pytest.approx(from_files, nan_ok=True)
        assert from_maps["AP"] == pytest.approx(expected[0])
        assert from_maps["AR@100"] == pytest.approx(expected[8])
        assert 0.05 < from_maps["AP"] < 0.95

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
        scores = scored(drawn(), names=NAMES)
        classes = [scores[f"AP/{name}"] for name in NAMES[1:]]
        assert scores["AP"] == pytest.approx(np.mean(classes))

    def test_a_class_is_scored_as_if_alone(self):
        given = drawn(seed=1)
        alone = {
            **given,
            "classes": [np.where(c == 2, 2, 0) for c in given["classes"]],
            "true_classes": [np.where(c == 2, 2, 0) for c in given["true_classes"]],
        }
        # Objects of the others are void now, and what lies in them counts nowhere.
        ours = scored(given, names=NAMES)["AP/dog"]
        assert scored(alone, names=NAMES)["AP"] >= ours
        alone["truth"] = [
            np.where(c[t] == 2, t, 0)
            for c, t in zip(alone["true_classes"], given["truth"], strict=True)
        ]
        assert scored(alone, names=NAMES)["AP"] == pytest.approx(ours)

    def test_an_absent_class_is_nan_and_in_no_mean(self):
        given = drawn()
        given["true_classes"] = [np.minimum(c, 2) for c in given["true_classes"]]
        scores = scored(given, names=NAMES)
        assert np.isnan(scores["AP/cow"])
        assert scores["AP"] == pytest.approx(
            np.mean([scores["AP/cat"], scores["AP/dog"]])
        )

    def test_what_lies_in_the_void_is_ignored_whatever_its_class(self):
        given = drawn()
        perfect = {
            **given,
            "maps": [t[None] for t in given["truth"]],
            "scores": [np.append(-np.inf, np.full(6, 0.5)) for _ in given["truth"]],
            "classes": [c.copy() for c in given["true_classes"]],
        }
        assert scored(perfect)["AP"] == 1.0
        for classes in perfect["classes"]:
            classes[6] = 1 + classes[6] % 3  # wrong, but nobody knows
        void = [np.where(t == 6, VOID, t) for t in given["truth"]]
        assert scored({**perfect, "truth": void})["AP"] == 1.0
        assert scored(perfect)["AP"] < 1.0

    def test_files_are_left_as_they_are(self):
        content, results = files(drawn(images=2))
        before = copy.deepcopy((content, results))
        coco_file_scores(content, results)
        assert (content, results) == before

    def test_no_results_score_zero(self):
        content, _ = files(drawn(images=2))
        assert coco_file_scores(content, [])["AP"] == 0.0

    def test_complaints_say_what_is_missing(self):
        given = drawn(images=2)
        with pytest.raises(InputError, match="must be given together"):
            coco_scores(
                given["maps"], given["truth"], given["scores"], classes=given["classes"]
            )
        with pytest.raises(InputError, match="names must be those of 4 classes, got 2"):
            scored(given, names=NAMES[:2])
        with pytest.raises(InputError, match=r"classes\[0\] must have shape"):
            scored({**given, "classes": [c[:, 1:] for c in given["classes"]]})
        short = [c[:3] for c in given["true_classes"]]
        with pytest.raises(InputError, match=r"true_classes\[0\] must have a class"):
            scored({**given, "true_classes": short})


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


LEVELS = np.linspace(0.5, 0.95, 10)


def blocks(seed=0, images=5):
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


class TestWithoutClasses:
    def test_agrees_with_a_plain_evaluation(self):
        maps, truths, scores = blocks(1)
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
        _, truths, _ = blocks(2)
        scores = [np.array([-np.inf, 0.5, 0.5, 0.5, 0.5]) for _ in truths]
        found = coco_scores(truths, truths, scores)
        assert found["AP"] == found["AP50"] == found["AR@100"] == 1.0
        assert found["AP_small"] == found["AR_small"] == 1.0
        assert math.isnan(found["AP_large"])
        assert math.isnan(found["AR_medium"])

    def test_nothing_is_printed(self, capsys):
        coco_scores(*blocks(3))
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
        maps, truths, scores = blocks(4)
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
