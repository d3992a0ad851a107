"""The boundary benchmark: counts of an image, and ODS, OIS and AP of many."""

import warnings

import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.metrics import BoundaryScores, boundary_counts, match_boundaries
from sphemb.metrics._boundary_benchmark import spread_thresholds

SHAPE = (40, 60)  # a diagonal of 72 pixels
PIXEL = 1 / np.hypot(*SHAPE)


def annotators(number=3, seed=0):
    """Closed curves, a different one for each annotator."""
    rng = np.random.default_rng(seed)
    curves = np.zeros((number, *SHAPE), bool)
    for curve in curves:
        top, left = rng.integers(4, 9, 2)
        bottom, right = rng.integers(25, 33), rng.integers(35, 52)
        curve[[top, bottom], left : right + 1] = True
        curve[top : bottom + 1, [left, right]] = True
    return curves


def soft(truth, seed=0):
    noise = np.random.default_rng(seed).random(SHAPE)
    return np.clip(truth.mean(axis=0) * noise**0.3 + 0.2 * noise**4, 0, 1)


def plain_best(thresholds, recall, precision):
    """The largest F, threshold by threshold and place by place between them."""
    best = (0.0, thresholds[0], recall[0], precision[0])
    for t in range(len(thresholds)):
        for w in np.linspace(0, 1, 100):
            last = max(t - 1, 0)
            x, r, p = (
                w * v[t] + (1 - w) * v[last] for v in (thresholds, recall, precision)
            )
            f = 2 * r * p / (r + p) if r + p > 0 else 0.0
            if f > best[0]:
                best = (f, x, r, p)
    return best


class TestBoundaryCounts:
    def test_counts_are_those_of_each_threshold_alone(self):
        truth = annotators()
        found = boundary_counts(soft(truth), truth, thresholds=9, tolerance=2 * PIXEL)
        for level, counts in zip(np.arange(1, 10) / 10, found, strict=True):
            alone = boundary_counts(
                (soft(truth) >= level) * 1.0, truth, thresholds=[0.5],
                tolerance=2 * PIXEL,
            )  # fmt: skip
            np.testing.assert_array_equal(counts, alone[0])

    def test_a_predicted_pixel_counts_with_any_annotator_a_true_one_with_its_own(self):
        truth = annotators()
        binary = soft(truth) >= 0.3
        found = boundary_counts(
            binary * 1.0, truth, thresholds=1, tolerance=2 * PIXEL, thin=False
        )
        matches = [match_boundaries(binary, t, max_distance=2.0) for t in truth]
        expected = [
            sum(there.sum() for _, there in matches),
            truth.sum(),
            np.any([here for here, _ in matches], axis=0).sum(),
            binary.sum(),
        ]
        np.testing.assert_array_equal(found, [expected])

    def test_the_order_of_annotators_does_not_matter(self):
        truth = annotators()
        first, second = (
            boundary_counts(soft(truth), t, thresholds=9, tolerance=2 * PIXEL)
            for t in (truth, truth[::-1].astype(np.uint8))
        )
        np.testing.assert_array_equal(first, second)

    def test_a_shifted_map_is_right_up_to_the_tolerance_and_wrong_beyond(self):
        y, x = np.mgrid[:40, :60]
        truth = (abs(np.hypot(y - 20, x - 30) - 12) < 0.5)[None]
        line = np.zeros((1, *SHAPE), bool)
        line[0, 20] = True
        for shift in range(6):
            moved = np.roll(line[0], shift, axis=0) * 1.0
            counts = boundary_counts(
                moved, line, thresholds=1, tolerance=3.001 * PIXEL
            )[0]
            right = 60 if shift <= 3 else 0
            np.testing.assert_array_equal(counts, [right, 60, right, 60])
        recalls = []
        for shift in range(0, 12, 2):
            moved = np.roll(truth[0], shift, axis=1) * 1.0
            counts = boundary_counts(
                moved, truth, thresholds=1, tolerance=3 * PIXEL, thin=False
            )[0]
            recalls.append(counts[0] / counts[1])
        assert recalls[0] == 1.0
        assert recalls == sorted(recalls, reverse=True)
        assert recalls[-1] < 0.5

    def test_complaints_name_the_argument(self):
        truth = annotators()
        with pytest.raises(InputError, match="boundary_map must be floating point"):
            boundary_counts(truth[0], truth)
        with pytest.raises(InputError, match="boundaries must have shape"):
            boundary_counts(soft(truth), truth[:, 1:])
        with pytest.raises(InputError, match="boundaries must be bool or integers"):
            boundary_counts(soft(truth), truth * 1.0)
        with pytest.raises(InputError, match="boundary_map must be numbers, got NaN"):
            boundary_counts(soft(truth) * np.nan, truth)
        with pytest.raises(InputError, match="rising numbers"):
            boundary_counts(soft(truth), truth, thresholds=[0.5, 0.2])
        with pytest.raises(InputError, match="thresholds must be >= 1"):
            boundary_counts(soft(truth), truth, thresholds=0)


@pytest.fixture(scope="module")
def counts():
    found = []
    for seed in range(4):
        truth = annotators(seed=seed)
        found.append(
            boundary_counts(
                soft(truth, seed), truth, thresholds=19, tolerance=2 * PIXEL
            )
        )
    return np.stack(found)


class TestBoundaryScores:
    def test_ods_is_the_best_f_of_pooled_counts_between_thresholds(self, counts):
        scores = BoundaryScores.from_counts(counts, thresholds=19).compute()
        pooled = counts.sum(axis=0)
        recall, precision = pooled[:, 0] / pooled[:, 1], pooled[:, 2] / pooled[:, 3]
        expected = plain_best(spread_thresholds(19), recall, precision)
        names = ("ods", "ods_threshold", "ods_recall", "ods_precision")
        np.testing.assert_allclose([scores[name] for name in names], expected)

    def test_ois_pools_each_image_at_its_own_best_threshold(self, counts):
        scores = BoundaryScores.from_counts(counts, thresholds=19).compute()
        chosen = []
        for c in counts:
            recall, precision = c[:, 0] / c[:, 1], c[:, 2] / np.maximum(c[:, 3], 1)
            f = 2 * recall * precision / np.maximum(recall + precision, 1e-9)
            chosen.append(c[np.argmax(f)])
        a, b, c, d = np.sum(chosen, axis=0)
        assert scores["ois_recall"] == pytest.approx(a / b)
        assert scores["ois_precision"] == pytest.approx(c / d)
        assert scores["ois"] == pytest.approx(2 * a / b * c / d / (a / b + c / d))
        assert scores["ois"] >= scores["ods"]

    def test_ap_is_the_area_under_precision_over_recall(self):
        # Precision 1 up to a recall of .5, then falling to .5 at a recall of .9.
        counts = np.array([[[90, 100, 50, 100], [50, 100, 50, 50], [1, 100, 1, 1]]])
        scores = BoundaryScores.from_counts(counts, thresholds=3).compute()
        falling = 1.0 - 0.5 * (np.arange(51, 91) - 50) / 40
        assert scores["ap"] == pytest.approx(0.01 * (50 + falling.sum()))

    def test_perfect_maps_score_one(self):
        truth = np.repeat(annotators(1), 3, axis=0)
        # Some pixels fainter than others: every recall is reached.
        faint = truth[0] * np.random.default_rng(0).random(SHAPE)
        for map_ in (truth[0] * 1.0, faint):
            counts = boundary_counts(map_, truth, tolerance=2 * PIXEL, thin=False)
            scores = BoundaryScores.from_counts(counts[None]).compute()
            assert scores["ods"] == pytest.approx(1.0, abs=0.02)
            assert scores["ois"] == pytest.approx(1.0, abs=0.02)
        assert scores["ap"] == pytest.approx(1.0, abs=0.03)

    def test_an_empty_map_scores_zero_without_a_warning(self):
        truth = annotators()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            counts = boundary_counts(np.zeros(SHAPE), truth)
            metric = BoundaryScores.from_counts(counts[None])
            scores = metric.compute()
            curve = metric.curve()
        assert scores["ods"] == scores["ois"] == scores["ap"] == 0.0
        assert scores["num_images"] == 1.0
        assert not curve.precision.any()

    def test_merging_is_scoring_together_and_images_have_no_order(self, counts):
        together = BoundaryScores.from_counts(counts, thresholds=19)
        parts = [
            BoundaryScores.from_counts(part, thresholds=19)
            for part in (counts[2:], counts[:2])
        ]
        assert parts[0].merge(parts[1]).compute() == together.compute()

    def test_only_99_thresholds_are_reported_by_the_published_names(self):
        counts = np.array([[[8, 10, 8, 16], [5, 10, 5, 5], [1, 10, 1, 1]] * 33])
        few, many = (
            BoundaryScores.from_counts(counts[:, :n], thresholds=n).report()
            for n in (33, 99)
        )
        assert {"ods", "ods_threshold", "ois", "ap", "num_images"} <= set(many)
        published = set(many) - {"num_images"}
        assert set(few) == {f"{name}@33" for name in published} | {"num_images"}

    def test_ods_alone_may_lie_between_thresholds(self):
        counts = np.array([[[10, 10, 10, 20], [5, 10, 5, 5]]])
        scores = BoundaryScores.from_counts(counts, thresholds=2).compute()
        assert scores["ods"] == pytest.approx(0.75, abs=1e-4)
        assert scores["ois"] == pytest.approx(2 / 3)

    def test_complaints_name_the_argument(self, counts):
        with pytest.raises(InputError, match="counts must have shape"):
            BoundaryScores.from_counts(counts)
        with pytest.raises(InputError, match="counts must be integers"):
            BoundaryScores.from_counts(counts * 1.0, thresholds=19)
        with pytest.raises(InputError, match="at least one image"):
            BoundaryScores.from_counts(counts[:0], thresholds=19).compute()
        with pytest.raises(InputError, match="other must have the same thresholds"):
            BoundaryScores.from_counts(counts, thresholds=19).merge(
                BoundaryScores.from_counts(counts, thresholds=np.arange(19) / 30)
            )


@pytest.fixture(scope="module")
def bench(data_dir):
    """Five images with the outputs of the original code."""
    folder = data_dir / "bsds_bench"
    if not folder.is_dir():
        pytest.skip("no bsds_bench in the development data")
    return folder


@pytest.fixture(scope="module")
def bench_counts(bench):
    from PIL import Image

    from sphemb.data import read_boundaries

    found = []
    for path in sorted(bench.glob("png/*.png")):
        values = np.asarray(Image.open(path)) / 255.0
        truth = read_boundaries(bench / "groundTruth" / f"{path.stem}.mat")
        found.append(boundary_counts(values, truth, thresholds=5))
    return np.stack(found)


@pytest.mark.needs_data
class TestTheBenchmarksOwnImages:
    def test_ods_ois_and_ap_are_the_original_ones(self, bench, bench_counts):
        scores = BoundaryScores.from_counts(bench_counts, thresholds=5).compute()
        names = (
            "ods_threshold", "ods_recall", "ods_precision", "ods",
            "ois_recall", "ois_precision", "ois", "ap",
        )  # fmt: skip
        expected = np.loadtxt(bench / "test_2" / "eval_bdry.txt")
        found = np.array([scores[name] for name in names])
        np.testing.assert_allclose(found, expected, atol=6e-4)
        scored = [names.index(name) for name in ("ods", "ois", "ap")]
        np.testing.assert_allclose(found[scored], expected[scored], atol=2e-4)

    def test_the_curve_and_every_image_are_the_original_ones(self, bench, bench_counts):
        curve = BoundaryScores.from_counts(bench_counts, thresholds=5).curve()
        found = np.stack([curve.threshold, curve.recall, curve.precision, curve.f], 1)
        expected = np.loadtxt(bench / "test_2" / "eval_bdry_thr.txt")
        np.testing.assert_allclose(found, expected, atol=6e-4)

        names = ("ods_threshold", "ods_recall", "ods_precision", "ods")
        expected = np.loadtxt(bench / "test_2" / "eval_bdry_img.txt")
        for counted, row in zip(bench_counts, expected, strict=True):
            scores = BoundaryScores.from_counts(counted[None], thresholds=5).compute()
            found = [scores[name] for name in names]
            np.testing.assert_allclose(found, row[1:], atol=1.2e-3)
