"""Mean best IoU and the recalls of objects by groups."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from sphemb._checks import InputError
from sphemb.metrics import AverageRecall, InstanceCount
from tests.references import metrics as reference

B, H, W, P, Q = 4, 7, 9, 5, 6
SIZES = {"max_predicted": P, "max_true": Q}
recall_of = jax.jit(functools.partial(AverageRecall.from_batch, **SIZES))


def drawn(seed=0):
    """Truth in blocks with void, and predictions that mostly follow it."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 5, (B, 4, 3)), np.ones((1, 2, 3), int))[:, :H]
    truth = np.where(rng.random(truth.shape) < 0.1, -1, truth)
    noise = rng.integers(-1, P, truth.shape)
    follow = (truth >= 0) & (rng.random(truth.shape) < 0.7)
    return np.where(follow, np.minimum(truth, P - 1), noise), truth


def assert_scores(found, expected, rtol=1e-6):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, err_msg=name)


class TestHandWorkedCases:
    def one(self, num_both, num_object, num_group, num_pixels=400):
        """One object and one group of given sizes; the rest is background."""
        truth, predicted = np.zeros((2, 1, num_pixels), int)
        truth[0, :num_object] = 1
        start = num_object - num_both
        predicted[0, start : start + num_group] = 1
        return AverageRecall.from_batch(predicted, truth, **SIZES).compute()

    def test_an_overlap_of_97_hundredths_under_the_three_definitions(self):
        assert_scores(
            self.one(97, 97, 100),
            {
                "mean_best_iou": 0.97,
                "recall@0.5": 1.0,
                "average_recall": 1.0,
                "average_recall_mcg": 10 / 11,
                "average_recall_hosang": 0.94,
                "num_objects": 1.0,
            },
        )

    @pytest.mark.parametrize("level", range(10, 21))
    def test_an_overlap_of_exactly_a_level_reaches_it(self, level):
        scores = self.one(3 * level, 60, 3 * level)
        reached = level - 9
        assert scores["average_recall"] == pytest.approx(min(reached, 10) / 10)
        assert scores["average_recall_mcg"] == pytest.approx(reached / 11)

    def test_an_overlap_just_below_a_half_is_no_recall(self):
        scores = self.one(99, 199, 99)
        assert scores["recall@0.5"] == 0.0
        assert scores["average_recall_hosang"] == 0.0

    def test_one_group_may_serve_two_objects(self):
        truth = np.array([[1] * 10 + [2] * 10])
        scores = AverageRecall.from_batch(np.zeros_like(truth), truth, **SIZES)
        assert scores.compute()["recall@0.5"] == 1.0

    def test_void_pixels_leave_both_masks(self):
        truth = np.array([[1, 1, 1, -1, -1, 0]])
        predicted = np.array([[1, 1, 1, 1, 1, 0]])
        scores = AverageRecall.from_batch(predicted, truth, **SIZES).compute()
        assert scores["mean_best_iou"] == 1.0

    def test_a_stray_pixel_still_belongs_to_its_object(self):
        truth = np.array([[1, 1, 1, 1, 0, 0]])
        predicted = np.array([[1, 1, -1, -1, 0, 0]])
        scores = AverageRecall.from_batch(predicted, truth, **SIZES).compute()
        assert scores["mean_best_iou"] == 0.5


class TestAverageRecall:
    @pytest.mark.parametrize("seed", range(5))
    def test_agrees_with_the_float64_oracle(self, seed):
        predicted, truth = drawn(seed)
        ious = [
            iou
            for p, t in zip(predicted, truth, strict=True)
            for iou in reference.best_ious(p, t)
        ]
        assert_scores(
            recall_of(predicted, truth).compute(), reference.average_recall(ious)
        )

    def test_agrees_with_the_jaccard_scores_of_scikit_learn(self):
        predicted, truth = drawn(9)
        best = []
        for p, t in zip(predicted, truth, strict=True):
            p, t = p[t >= 0], t[t >= 0]
            for q in np.unique(t[t > 0]):
                best.append(max(jaccard_score(t == q, p == g) for g in range(P)))
        found = recall_of(predicted, truth).compute()
        assert found["mean_best_iou"] == pytest.approx(np.mean(best), abs=1e-6)
        assert found["recall@0.5"] == np.mean(np.array(best) >= 0.5)

    def test_a_perfect_prediction_scores_one_everywhere(self):
        _, truth = drawn(1)
        scores = recall_of(np.minimum(np.maximum(truth, 0), 4), truth).compute()
        for name in set(scores) - {"num_objects"}:
            assert scores[name] == 1.0

    def test_renaming_groups_and_reordering_pixels_changes_nothing(self):
        predicted, truth = drawn(2)
        rng = np.random.default_rng(3)
        renamed = np.where(predicted < 0, -1, rng.permutation(P)[predicted])
        order = rng.permutation(H * W)

        def shuffle(x):
            return x.reshape(B, -1)[:, order].reshape(x.shape)

        expected = recall_of(predicted, truth).compute()
        assert_scores(recall_of(renamed, truth).compute(), expected, 1e-7)
        assert_scores(
            recall_of(shuffle(predicted), shuffle(truth)).compute(), expected, 1e-7
        )

    def test_renaming_objects_changes_nothing(self):
        predicted, truth = drawn(2)
        names = np.random.default_rng(4).permutation(np.arange(1, Q + 1))
        renamed = np.where(truth > 0, names[truth - 1], truth)
        assert_scores(
            recall_of(predicted, renamed).compute(),
            recall_of(predicted, truth).compute(),
        )

    def test_halves_merge_into_the_whole_in_any_order(self):
        predicted, truth = drawn(4)
        parts = [
            AverageRecall.from_batch(predicted[i : i + 1], truth[i : i + 1], **SIZES)
            for i in range(B)
        ]
        whole = recall_of(predicted, truth).compute()
        left = functools.reduce(AverageRecall.merge, parts)
        right = parts[3].merge(parts[1]).merge(parts[2].merge(parts[0]))
        assert_scores(left.compute(), whole)
        assert left.compute() == right.compute()
        assert left.sum_best_iou.dtype == np.float64
        assert left.hits.dtype == np.int64

    def test_many_merges_do_not_drift(self):
        predicted, truth = drawn(5)
        one = recall_of(predicted, truth)
        many = functools.reduce(AverageRecall.merge, [one] * 5000)
        assert_scores(
            {k: v for k, v in many.compute().items() if k != "num_objects"},
            {k: v for k, v in one.compute().items() if k != "num_objects"},
            rtol=1e-12,
        )

    def test_merging_inside_jit_adds(self):
        one, other = recall_of(*drawn(5)), recall_of(*drawn(6))
        inside = jax.jit(AverageRecall.merge)(one, other)
        assert_scores(inside.compute(), one.merge(other).compute())

    def test_summing_over_devices_is_merging(self):
        predicted, truth = drawn(5)
        score = functools.partial(AverageRecall.from_batch, **SIZES)
        summed = jax.pmap(
            lambda p, t: jax.lax.psum(score(p, t), "batch"),
            axis_name="batch",
            out_axes=None,
            devices=jax.local_devices()[:B],
        )(predicted[:, None], truth[:, None])
        assert_scores(summed.compute(), recall_of(predicted, truth).compute())

    def test_padding_of_the_batch_counts_for_nothing(self):
        predicted, truth = drawn(6)
        valid = np.array([True, True, False, True])
        padded = recall_of(predicted, truth, valid=valid).compute()
        rest = AverageRecall.from_batch(predicted[valid], truth[valid], **SIZES)
        assert_scores(padded, rest.compute())

    def test_jit_and_eager_agree(self):
        predicted, truth = drawn(6)
        eager = AverageRecall.from_batch(predicted, truth, **SIZES)
        assert_scores(eager.compute(), recall_of(predicted, truth).compute())

    def test_flattened_images_score_the_same(self):
        predicted, truth = drawn(6)
        flat = AverageRecall.from_batch(
            predicted.reshape(B, -1), truth.reshape(B, -1), **SIZES
        )
        assert_scores(flat.compute(), recall_of(predicted, truth).compute())

    @pytest.mark.parametrize("label", [0, -1])
    def test_without_objects_the_scores_are_nan_and_silent(self, label):
        truth = np.full((B, H, W), label)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = recall_of(np.zeros_like(truth), truth).compute()
        assert scores.pop("num_objects") == 0.0
        assert all(np.isnan(value) for value in scores.values())

    def test_an_image_without_objects_changes_nothing(self):
        predicted, truth = drawn(7)
        truth[1:] = 0
        alone = AverageRecall.from_batch(predicted[:1], truth[:1], **SIZES).compute()
        assert_scores(recall_of(predicted, truth).compute(), alone)

    def test_labels_beyond_the_limits_are_refused_when_scores_are_read(self):
        predicted, truth = drawn(8)
        truth[0, 0, :2] = Q + 1
        with pytest.raises(InputError, match=r"max_true .* 2 pixels"):
            recall_of(predicted, truth).merge(recall_of(predicted, truth * 0)).compute()
        predicted, truth = drawn(8)
        truth[0, 0, :3], predicted[0, 0, :3] = 0, P
        with pytest.raises(InputError, match=r"max_predicted .* 3 pixels"):
            recall_of(predicted, truth).compute()

    def test_beyond_the_limits_void_and_padding_do_not_matter(self):
        predicted, truth = drawn(8)
        truth[0], predicted[0], truth[1], predicted[1] = Q + 3, P + 3, -1, P + 3
        valid = np.array([False, True, True, True])
        rest = AverageRecall.from_batch(predicted[2:], truth[2:], **SIZES)
        assert_scores(
            recall_of(predicted, truth, valid=valid).compute(), rest.compute()
        )

    def test_complaints_name_the_argument(self):
        labels = jnp.zeros((B, H, W), jnp.int32)
        with pytest.raises(InputError, match="truth must have shape"):
            AverageRecall.from_batch(labels, labels[:, :3], **SIZES)
        with pytest.raises(InputError, match="first axis counts images"):
            AverageRecall.from_batch(labels[0, 0], labels[0, 0], **SIZES)
        with pytest.raises(InputError, match="predicted must be integers"):
            AverageRecall.from_batch(labels * 1.0, labels, **SIZES)
        with pytest.raises(InputError, match=r"valid must have shape \[B\] = \(4,\)"):
            AverageRecall.from_batch(labels, labels, valid=jnp.ones(3, bool), **SIZES)
        with pytest.raises(InputError, match="other must be AverageRecall"):
            recall_of(labels, labels).merge(
                InstanceCount.from_batch(jnp.zeros(B, int), labels, max_true=Q)
            )
