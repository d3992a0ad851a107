"""Clusters against classes: one matching over a whole set."""

import functools
import itertools

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from sphemb import InputError
from sphemb.metrics import MatchedIoU

B, H, W, Q = 3, 9, 11, 4
SIZES = {"num_clusters": Q, "num_classes": Q}
count = jax.jit(functools.partial(MatchedIoU.from_batch, num_things=2, **SIZES))


def drawn(seed, clusters=Q):
    """Truth with void, and clusters that follow it under other names."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, Q, (B, H, W))
    names = rng.permutation(clusters)
    follow = (truth >= 0) & (rng.random(truth.shape) < 0.6)
    noise = rng.integers(0, clusters, truth.shape)
    return np.where(follow, names[np.maximum(truth, 0)], noise), truth


class TestOneToOne:
    @pytest.mark.parametrize("seed", range(4))
    def test_it_is_scikit_learns_score_under_the_best_of_all_names(self, seed):
        clusters, truth = drawn(seed)
        known = truth >= 0
        y, c = truth[known], clusters[known]
        best = max(
            itertools.permutations(range(Q)),
            key=lambda names: accuracy_score(y, np.array(names)[c]),
        )
        found = np.array(best)[c]
        iou = jaccard_score(y, found, average=None, labels=range(Q))
        scores = count(clusters, truth).compute()
        assert scores["accuracy"] == pytest.approx(accuracy_score(y, found))
        assert scores["mean_iou"] == pytest.approx(iou.mean())
        assert scores["mean_iou_things"] == pytest.approx(iou[:2].mean())
        assert scores["mean_iou_stuff"] == pytest.approx(iou[2:].mean())
        thing = y < 2
        right = accuracy_score(y[thing], found[thing])
        assert scores["accuracy_things"] == pytest.approx(right)
        assert scores["num_clusters_used"] == Q

    def test_one_matching_serves_all_batches(self):
        truth = np.zeros((2, H, W), int)
        truth[:, :, 5:] = 1
        clusters = truth.copy()
        clusters[1] = 1 - clusters[1]  # right by itself, under other names
        count = functools.partial(MatchedIoU.from_batch, **SIZES)
        parts = [count(clusters[i : i + 1], truth[i : i + 1]) for i in range(2)]
        assert [p.compute()["accuracy"] for p in parts] == [1.0, 1.0]
        merged = parts[0].merge(parts[1])
        together = count(clusters, truth)
        np.testing.assert_array_equal(merged.table, together.table)
        assert merged.compute()["accuracy"] == pytest.approx(0.5, abs=0.05)

    def test_clusters_left_over_are_wrong_and_take_from_no_class(self):
        truth = np.array([[0] * 6 + [1] * 4])
        clusters = np.array([[0, 0, 0, 0, 2, 2, 1, 1, 1, 3]])
        settings = {"num_clusters": 4, "num_classes": 2}
        metric = MatchedIoU.from_batch(clusters, truth, **settings)
        np.testing.assert_array_equal(metric.assignment(), [0, 1, -1, -1])
        scores = metric.compute()
        assert scores["accuracy"] == pytest.approx(0.7)
        assert scores["mean_iou"] == pytest.approx((4 / 6 + 3 / 4) / 2)

    def test_fewer_clusters_than_classes_leave_classes_without_one(self):
        truth = np.array([[0, 1, 1, 2]])
        metric = MatchedIoU.from_batch(
            np.array([[0, 0, 0, 1]]), truth, num_clusters=2, num_classes=3
        )
        np.testing.assert_array_equal(metric.assignment(), [1, 2])
        assert metric.compute()["accuracy"] == pytest.approx(3 / 4)
        assert metric.compute()["mean_iou"] == pytest.approx((0 + 2 / 3 + 1) / 3)


class TestMajority:
    def test_clusters_may_share_a_class(self):
        truth = np.array([[0] * 6 + [1] * 4])
        clusters = np.array([[0, 0, 0, 0, 2, 2, 1, 1, 1, 2]])
        metric = MatchedIoU.from_batch(
            clusters, truth, num_clusters=5, num_classes=2, matching="majority"
        )
        np.testing.assert_array_equal(metric.assignment(), [0, 1, 0, -1, -1])
        scores = metric.compute()
        assert scores["accuracy"] == pytest.approx(0.9)
        assert scores["mean_iou"] == pytest.approx((6 / 7 + 3 / 4) / 2)
        assert scores["num_clusters_used"] == 3


class TestWhatDoesNotCount:
    def test_void_and_images_that_fill_up_a_batch(self):
        clusters, truth = drawn(5)
        truth[2] = -1
        valid = np.array([True, False, True])
        found = count(clusters, truth, valid=valid)
        expected = count(clusters[:1], truth[:1])
        np.testing.assert_array_equal(found.table, expected.table)

    def test_pixels_in_no_cluster_are_wrong(self):
        truth, clusters = np.zeros((2, 1, 4), int)
        clusters[0, :2] = -1
        scores = count(clusters, truth).compute()
        assert scores["accuracy"] == scores["mean_iou"] == 0.5

    def test_a_class_that_is_nowhere_is_left_out_and_nothing_is_nan(self):
        truth = np.zeros((1, 6), int)
        assert count(truth, truth).compute()["mean_iou"] == 1.0
        empty = count(truth, truth - 1).compute()
        assert np.isnan(empty["accuracy"])
        assert np.isnan(empty["mean_iou"])


class TestErrors:
    def test_a_class_beyond_the_limit_is_refused(self):
        metric = count(np.zeros((1, 4), int), np.full((1, 4), Q))
        message = r"num_classes must be as large as the labels need, got 4 pixels"
        with pytest.raises(InputError, match=message):
            metric.compute()

    def test_other_settings_do_not_merge(self):
        clusters, truth = drawn(0)
        one = MatchedIoU.from_batch(clusters, truth, **SIZES)
        other = MatchedIoU.from_batch(clusters, truth, matching="majority", **SIZES)
        with pytest.raises(
            InputError, match=r"same matching, one_to_one, got majority"
        ):
            one.merge(other)

    def test_a_wrong_argument_is_named(self):
        clusters, truth = drawn(0)
        with pytest.raises(InputError, match=r"truth must have shape .* beside|to go"):
            MatchedIoU.from_batch(clusters, truth[:, :4], **SIZES)
        with pytest.raises(InputError, match=r"matching must be one of 'one_to_one'"):
            MatchedIoU.from_batch(clusters, truth, matching="best", **SIZES)
