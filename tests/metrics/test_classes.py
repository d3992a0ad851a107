"""Scores of classes against scikit-learn, SciPy and hand-worked cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import confusion_matrix, jaccard_score

from sphemb import VOID, InputError
from sphemb.metrics import MeanIoU, TrimapIoU

B, H, W, K = 3, 20, 24, 5
RNG = np.random.default_rng(0)
# Class 4 is never there, and found now and then.
TRUTH = np.kron(RNG.integers(-1, 4, (B, H // 4, W // 4)), np.ones((1, 4, 4), int))
FOUND = np.where(
    RNG.uniform(size=TRUTH.shape) < 0.7, TRUTH, RNG.integers(0, K, (B, H, W))
)
FOUND = np.maximum(FOUND, 0)

score = jax.jit(lambda found, truth, valid: MeanIoU.from_batch(
    found, truth, num_classes=K, valid=valid
))  # fmt: skip
EVERY = np.ones(B, bool)


class TestMeanIoU:
    def test_is_scikit_learns(self):
        counts = TRUTH >= 0
        metric = score(FOUND, TRUTH, EVERY)
        expected = confusion_matrix(TRUTH[counts], FOUND[counts], labels=range(K))
        np.testing.assert_array_equal(metric.confusion[:, :K], expected)
        ious = jaccard_score(
            TRUTH[counts], FOUND[counts], labels=range(4), average=None
        )
        scores = metric.compute([str(k) for k in range(K)])
        np.testing.assert_allclose(scores["mean_iou"], ious.mean())
        np.testing.assert_allclose([scores[f"iou/{k}"] for k in range(4)], ious)
        assert np.isnan(scores["iou/4"])
        right = np.mean(TRUTH[counts] == FOUND[counts])
        np.testing.assert_allclose(scores["pixel_accuracy"], right)

    def test_truth_itself_is_perfect_and_void_counts_nowhere(self):
        wild = np.where(TRUTH == VOID, RNG.integers(0, K, TRUTH.shape), TRUTH)
        scores = score(wild, TRUTH, EVERY).compute()
        assert scores["mean_iou"] == scores["mean_accuracy"] == 1.0

    def test_batches_add_up_in_any_order_and_padding_adds_nothing(self):
        whole = score(FOUND, TRUTH, EVERY)
        parts = [score(FOUND, TRUTH, np.arange(B) == i) for i in (2, 0, 1)]
        merged = parts[0].merge(parts[1]).merge(parts[2])
        np.testing.assert_array_equal(merged.confusion, whole.confusion)

    def test_relabelling_truth_and_found_alike_changes_nothing(self):
        order = np.array([2, 0, 4, 1, 3, VOID])
        renamed = score(order[FOUND], order[TRUTH], EVERY).compute()
        assert renamed["mean_iou"] == score(FOUND, TRUTH, EVERY).compute()["mean_iou"]

    def test_nothing_to_score_is_nan(self):
        scores = score(FOUND, np.full_like(TRUTH, VOID), EVERY).compute()
        assert all(np.isnan(value) for value in scores.values())

    def test_a_pixel_for_which_nothing_was_found_is_wrong(self):
        metric = MeanIoU.from_batch(
            jnp.array([[0, VOID]]), jnp.array([[0, 0]]), num_classes=2
        )
        assert metric.compute()["mean_iou"] == 0.5

    def test_a_class_beyond_their_number_is_named(self):
        metric = score(FOUND, TRUTH + 4 * (TRUTH > 0), EVERY)
        with pytest.raises(
            InputError, match="num_classes must be as large as the labels need"
        ):
            metric.compute()
        with pytest.raises(InputError, match="names must be those of 5 classes"):
            score(FOUND, TRUTH, EVERY).compute(["a"])


class TestTrimapIoU:
    def expected(self, width, inside):
        """The mean IoU of the band, one width at a time, by brute force."""
        total = np.zeros((K, K))
        for truth, found in zip(TRUTH, FOUND, strict=True):
            cross = ndimage.generate_binary_structure(2, 1)
            largest = ndimage.maximum_filter(truth, footprint=cross, mode="nearest")
            least = ndimage.minimum_filter(truth, footprint=cross, mode="nearest")
            distance = ndimage.distance_transform_edt(largest == least)
            band = (distance < width) == inside
            counts = band & (truth >= 0)
            if counts.any():
                total += confusion_matrix(truth[counts], found[counts], labels=range(K))
        union = total.sum(axis=0) + total.sum(axis=1) - np.diag(total)
        there = total.sum(axis=1) > 0
        return np.mean(np.diag(total)[there] / union[there]) if there.any() else np.nan

    def metric(self, max_width=6):
        empty = TrimapIoU.empty(num_classes=K, max_width=max_width)
        for found, truth in zip(FOUND, TRUTH, strict=True):
            empty = empty.merge(
                TrimapIoU.from_image(found, truth, num_classes=K, max_width=max_width)
            )
        return empty

    def test_every_width_of_one_pass_is_that_width_alone(self):
        curve = self.metric().curve()
        for width, inside, outside in zip(*curve, strict=True):
            np.testing.assert_allclose(inside, self.expected(width, True))
            np.testing.assert_allclose(outside, self.expected(width, False))

    def test_the_scores_are_on_the_curve(self):
        metric = self.metric()
        scores, curve = metric.compute(), metric.curve()
        assert scores["iou_inside@5"] == curve.inside[4]
        assert scores["iou_outside@2"] == curve.outside[1]
        assert "iou_inside@10" not in scores

    def test_without_a_boundary_everything_is_outside(self):
        plain = np.ones((6, 7), int)
        curve = TrimapIoU.from_image(plain, plain, num_classes=2, max_width=3).curve()
        assert np.isnan(curve.inside).all()
        np.testing.assert_array_equal(curve.outside, 1.0)

    def test_bad_input_is_named(self):
        with pytest.raises(InputError, match="max_width must be"):
            TrimapIoU.from_image(FOUND[0], TRUTH[0], num_classes=K, max_width=0)
        with pytest.raises(InputError, match="truth must have shape"):
            TrimapIoU.from_image(FOUND[0], TRUTH[0, 1:], num_classes=K, max_width=1)
