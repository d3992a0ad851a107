"""AP^r against hand-worked cases and a plain implementation of its description."""

import itertools

import numpy as np
import pytest

from sphemb import VOID, InputError
from sphemb.metrics import REGION_LEVELS, RegionPrecision

C = 4
RNG = np.random.default_rng(0)


def image(seed):
    """Six objects of random classes, found more or less, some twice, some not."""
    rng = np.random.default_rng(seed)
    truth = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((8, 8), int))
    truth[::8] = 0
    truth[0:3, 0:3] = VOID
    maps = np.stack([np.roll(truth, rng.integers(-3, 4, 2), (0, 1)) for _ in range(2)])
    return {
        "label_maps": np.maximum(maps, 0),
        "truth": truth,
        "scores": np.where(
            np.arange(7) > 0, np.round(rng.uniform(size=(2, 7)), 1), -np.inf
        ),
        "classes": rng.integers(1, C, (2, 7)),
        "true_classes": np.array([0, 1, 1, 2, 2, 2, 3]),
    }


def metric_of(images):
    total = RegionPrecision.empty(num_classes=C)
    for given in images:
        given = dict(given)
        maps = given.pop("label_maps")
        truth = given.pop("truth")
        one = RegionPrecision.from_image(maps, truth, **given, num_classes=C)
        total = total.merge(one)
    return total


def plain(images, level, c):
    """Precision and recall of one class, written as the benchmark is described."""
    detections, number = [], 0
    for i, given in enumerate(images):
        truth = given["truth"]
        counts = truth >= 0
        objects = {
            q: truth == q
            for q in np.unique(truth[truth > 0])
            if given["true_classes"][q] == c
        }
        number += len(objects)
        for k in range(2):
            for g in range(1, 7):
                mask = (given["label_maps"][k] == g) & counts
                if given["classes"][k, g] == c and mask.any():
                    detections.append((given["scores"][k, g], i, k, g, mask, objects))
    detections.sort(key=lambda d: -d[0])
    taken, right = set(), []
    for _, i, _, _, mask, objects in detections:
        ious = {
            q: np.sum(mask & o) / np.sum(mask | o)
            for q, o in objects.items()
            if (i, q) not in taken
        }
        best = max(ious, key=ious.get, default=None)
        hit = best is not None and ious[best] > level + 1e-12
        if hit:
            taken.add((i, best))
        right.append(hit)
    scores = np.array([d[0] for d in detections])
    points = [(0.0, 1.0)]
    for s in np.unique(scores)[::-1]:
        among = np.array(right)[scores >= s]
        points.append((among.sum() / number, among.mean()))
    area = 0.0
    for (r0, _), (r1, _) in itertools.pairwise(points):
        area += (r1 - r0) * max(p for r, p in points if r >= r1)
    return area


class TestRegionPrecision:
    def test_is_the_benchmark_as_described(self):
        images = [image(seed) for seed in range(4)]
        found = metric_of(images).class_precisions()
        for c in range(1, C):
            for level in (0, 4, 6):
                expected = plain(images, REGION_LEVELS[level], c)
                np.testing.assert_allclose(found[c, level], expected, atol=1e-12)

    def test_three_detections_worked_by_hand(self):
        # Two objects; hit, miss, hit: precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1.
        truth = np.array([[1, 1, 2, 2, 0, 0]])
        scores = RegionPrecision.from_image(
            np.array([[1, 1, 3, 3, 2, 2]]),
            truth,
            scores=np.array([-np.inf, 0.9, 0.8, 0.7]),
            classes=np.array([0, 1, 1, 1]),
            true_classes=np.array([0, 1, 1]),
            num_classes=2,
        ).compute()
        np.testing.assert_allclose(scores["ap_r@0.5"], 0.5 * 1 + 0.5 * 2 / 3)
        np.testing.assert_allclose(scores["ap_r_vol"], 0.5 * 1 + 0.5 * 2 / 3)

    def test_truth_itself_is_perfect_and_absent_classes_are_nan(self):
        given = image(0)
        metric = RegionPrecision.from_image(
            given["truth"],
            given["truth"],
            scores=np.where(np.arange(7) > 0, 0.5, -np.inf),
            classes=np.array([0, 1, 1, 2, 2, 2, 2]),
            true_classes=np.array([0, 1, 1, 2, 2, 2, 2]),
            num_classes=C,
        )
        scores = metric.compute(["background", "a", "b", "c"])
        assert scores["ap_r@0.5"] == scores["ap_r_vol"] == 1.0
        assert np.isnan(scores["ap_r@0.5/c"])

    def test_the_order_of_images_changes_nothing(self):
        images = [image(seed) for seed in range(4)]
        there, back = metric_of(images).compute(), metric_of(images[::-1]).compute()
        assert there == pytest.approx(back)

    def test_a_duplicate_never_helps(self):
        given = image(1)
        once = metric_of([given]).compute()
        twice = {
            **given,
            "label_maps": np.concatenate([given["label_maps"]] * 2),
            "scores": np.concatenate([given["scores"], given["scores"] - 0.01]),
            "classes": np.concatenate([given["classes"]] * 2),
        }
        again = metric_of([twice]).compute()
        assert all(again[k] <= once[k] + 1e-12 for k in once)
        assert again["ap_r_vol"] < once["ap_r_vol"]

    def test_crowds_and_void_count_nowhere(self):
        given = image(2)
        # What is detected in a crowd is neither right nor wrong.
        crowd = {**given, "true_classes": np.array([0, 1, 1, 2, 2, 2, VOID])}
        void = {
            **given,
            "truth": np.where(given["truth"] == 6, VOID, given["truth"]),
            "true_classes": given["true_classes"][:6],
        }
        assert metric_of([crowd]).compute() == pytest.approx(
            metric_of([void]).compute(), nan_ok=True
        )

    def test_objects_without_detections_and_images_without_objects(self):
        given = image(3)
        nothing = {**given, "scores": np.full((2, 7), -np.inf)}
        assert metric_of([nothing]).compute()["ap_r@0.5"] == 0.0
        empty = {**given, "truth": np.zeros_like(given["truth"])}
        assert np.isnan(metric_of([empty]).compute()["ap_r@0.5"])
        both = metric_of([given, empty]).compute()["ap_r_vol"]
        assert 0 < both < metric_of([given]).compute()["ap_r_vol"]

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"scores": np.full((2, 7), np.nan)}, "scores must be numbers"),
            ({"classes": np.full((2, 7), C)}, "classes must be numbers below 4"),
            (
                {"true_classes": np.array([0, 1])},
                "true_classes must have a class for every object, got 2",
            ),
            ({"truth": np.zeros((3, 3), int)}, "label_maps must have shape"),
        ],
    )
    def test_bad_input_is_named(self, change, match):
        with pytest.raises(InputError, match=match):
            metric_of([image(0) | change])

    def test_other_metrics_are_not_merged(self):
        with pytest.raises(
            InputError, match=r"same shape of num_objects, \(4,\), got \(5,\)"
        ):
            RegionPrecision.empty(num_classes=4).merge(
                RegionPrecision.empty(num_classes=5)
            )
