"""What must hold of the scores of classes and regions, whatever is scored."""

import numpy as np
import pytest
from sklearn.metrics import recall_score

from sphemb import VOID
from sphemb.metrics import MeanIoU, RegionPrecision, TrimapIoU
from sphemb.metrics._iou import boundary_distance

H, W, K = 15, 18, 4


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(-1, K - 1, (5, 6)), np.ones((3, 3), int))
    wrong = rng.integers(0, K, truth.shape)
    found = np.where(rng.random(truth.shape) < 0.7, truth, wrong)
    return np.maximum(found, 0), truth


def trimap(found, truth, max_width=4, number=K):
    return TrimapIoU.from_image(found, truth, num_classes=number, max_width=max_width)


class TestClasses:
    def test_mean_accuracy_is_scikit_learns_macro_recall(self):
        found, truth = drawn()
        scores = MeanIoU.from_batch(found[None], truth[None], num_classes=K).compute()
        expected = recall_score(
            truth[truth >= 0], found[truth >= 0], labels=range(K - 1), average="macro"
        )
        assert scores["mean_accuracy"] == pytest.approx(expected)

    def test_many_images_count_beyond_32_bits(self):
        found, truth = drawn()
        one = MeanIoU.from_batch(found[None], truth[None], num_classes=K)
        total = one
        for _ in range(26):  # doubled each time: 2^26 images of 270 pixels
            total = total.merge(total)
        assert total.confusion.sum() == 2**26 * np.sum(truth >= 0) > 2**31
        assert total.compute() == pytest.approx(one.compute())

    def test_what_is_found_of_an_absent_class_costs_those_that_are_there(self):
        _, truth = drawn()
        found = np.where(truth == 0, K - 1, np.maximum(truth, 0))
        names = [str(k) for k in range(K)]
        scores = MeanIoU.from_batch(found[None], truth[None], num_classes=K)
        scores = scores.compute(names)
        assert np.isnan(scores[f"iou/{K - 1}"])
        assert scores["iou/0"] == 0.0
        assert scores["mean_iou"] == pytest.approx((0 + 1 + 1) / 3)


class TestTrimap:
    @pytest.mark.parametrize("seed", range(3))
    def test_the_distance_is_the_least_of_all(self, seed):
        _, truth = drawn(seed)
        padded = np.pad(truth, 1, mode="edge")
        others = [
            padded[1 + y : H + 1 + y, 1 + x : W + 1 + x]
            for y, x in ((0, 1), (0, -1), (1, 0), (-1, 0))
        ]
        edge = np.argwhere(np.any([other != truth for other in others], axis=0))
        pixels = np.argwhere(np.ones((H, W), bool))
        apart = np.linalg.norm(pixels[:, None] - edge, axis=-1).min(axis=1)
        np.testing.assert_allclose(boundary_distance(truth).ravel(), apart)

    def test_a_band_as_wide_as_the_image_is_the_image(self):
        found, truth = drawn()
        curve = trimap(found, truth, max_width=W).curve()
        whole = MeanIoU.from_batch(found[None], truth[None], num_classes=K).compute()
        assert curve.inside[-1] == pytest.approx(whole["mean_iou"])
        assert np.isnan(curve.outside[-1])

    def test_turned_mirrored_and_renamed_images_score_alike(self):
        found, truth = drawn()
        expected = trimap(found, truth).curve()
        order = np.append(np.random.default_rng(0).permutation(K), VOID)
        for other in (
            trimap(found[::-1, ::-1], truth[::-1, ::-1]),
            trimap(found.T, truth.T),
            trimap(order[found], order[truth]),
        ):
            np.testing.assert_allclose(other.curve(), expected)

    def test_what_is_found_in_the_void_counts_nowhere(self):
        found, truth = drawn()
        wild = np.where(truth == VOID, (found + 1) % K, found)
        np.testing.assert_array_equal(
            trimap(wild, truth).confusion, trimap(found, truth).confusion
        )

    def test_small_types_do_not_overflow(self):
        found, truth = drawn()
        small = trimap(found.astype(np.uint8), truth.astype(np.int8), number=100)
        large = trimap(found, truth, number=100)
        np.testing.assert_array_equal(small.confusion, large.confusion)


def regions(seed):
    """Blocks of three classes, found shifted, with scores of their own."""
    rng = np.random.default_rng(seed)
    truth = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((8, 8), int))
    truth[::8] = 0
    maps = np.stack([np.roll(truth, rng.integers(-3, 4, 2), (0, 1)) for _ in range(2)])
    return {
        "label_maps": maps,
        "truth": truth,
        "scores": np.where(
            np.arange(7) > 0, rng.permutation(14).reshape(2, 7) / 14.0, -np.inf
        ),
        "classes": rng.integers(1, K, (2, 7)),
        "true_classes": np.append(0, rng.integers(1, K, 6)),
    }


def precisions(given):
    given = dict(given)
    maps, truth = given.pop("label_maps"), given.pop("truth")
    metric = RegionPrecision.from_image(maps, truth, num_classes=K, **given)
    return metric.class_precisions()


class TestRegions:
    @pytest.mark.parametrize("seed", range(4))
    def test_other_labels_maps_and_classes_in_another_order_change_nothing(self, seed):
        given = regions(seed)
        expected = precisions(given)
        rng = np.random.default_rng(seed + 100)
        names = np.append(0, 1 + rng.permutation(6))  # new label of each old one
        old = np.argsort(names)
        renamed = {
            "label_maps": names[given["label_maps"]][::-1],
            "truth": names[given["truth"]],
            "scores": given["scores"][::-1, old],
            "classes": given["classes"][::-1, old],
            "true_classes": given["true_classes"][old],
        }
        np.testing.assert_allclose(precisions(renamed), expected)
        turned = {
            **given,
            "label_maps": given["label_maps"][:, ::-1, ::-1],
            "truth": given["truth"][::-1, ::-1],
        }
        np.testing.assert_allclose(precisions(turned), expected)
        order = np.append(0, 1 + rng.permutation(K - 1))
        other = {
            **given,
            "classes": order[given["classes"]],
            "true_classes": order[given["true_classes"]],
        }
        np.testing.assert_allclose(precisions(other)[order], expected)

    @pytest.mark.parametrize("seed", range(8))
    def test_duplicates_never_raise_it_from_a_half_on(self, seed):
        """Below .5 a duplicate may overlap a second object enough to find it."""
        given = regions(seed)
        once = precisions(given)[:, 4:]
        twice = {
            **given,
            "label_maps": np.concatenate([given["label_maps"]] * 2),
            "scores": np.concatenate([given["scores"], given["scores"] - 0.01]),
            "classes": np.concatenate([given["classes"]] * 2),
        }
        again = precisions(twice)[:, 4:]
        there = np.isfinite(once)
        np.testing.assert_array_equal(there, np.isfinite(again))
        assert np.all(again[there] <= once[there] + 1e-12)

    @pytest.mark.parametrize("seed", range(4))
    def test_only_the_order_of_scores_matters(self, seed):
        given = regions(seed)
        scores = np.where(
            np.isfinite(given["scores"]), given["scores"] ** 3 - 5, -np.inf
        )
        np.testing.assert_allclose(
            precisions({**given, "scores": scores}), precisions(given)
        )
