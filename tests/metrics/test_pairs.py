"""Pair scores against scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import pair_confusion_matrix

from sphemb import InputError
from sphemb.metrics import PairScores

B, H, W, P, Q = 4, 10, 12, 7, 5
SIZES = {"max_predicted": P, "max_true": Q}
pairs_of = jax.jit(
    functools.partial(PairScores.from_batch, **SIZES), static_argnames="prefix"
)


def drawn(seed=0):
    """Truth in blocks with void, and groups that mostly follow it, with strays."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, Q + 1, (B, 5, 4)), np.ones((1, 2, 3), int))
    follow = rng.random(truth.shape) < rng.uniform(0.5, 1, (B, 1, 1))
    noise = rng.integers(-1, P, truth.shape)
    predicted = np.where(follow, truth, noise)
    return predicted, np.where(rng.random(truth.shape) < 0.05, -1, truth)


def counted(predicted, truth):
    """The labels of what counts; a stray is a group of its own."""
    predicted, truth = predicted.reshape(-1), truth.reshape(-1)
    alone = np.where(predicted < 0, 1000 + np.arange(len(predicted)), predicted)
    return truth[truth >= 0], alone[truth >= 0]


def scores_of(matrix):
    (negative, wrong), (missed, positive) = matrix
    return {
        "pair_accuracy": (positive + negative) / matrix.sum(),
        "pair_precision": positive / (positive + wrong),
        "pair_recall": positive / (positive + missed),
    }


class TestPairScores:
    @pytest.mark.parametrize("seed", range(3))
    def test_agree_with_scikit_learn_pooled_and_image_by_image(self, seed):
        predicted, truth = drawn(seed)
        images = [counted(p, t) for p, t in zip(predicted, truth, strict=True)]
        matrices = [pair_confusion_matrix(*image) for image in images]
        found = pairs_of(predicted, truth)
        np.testing.assert_array_equal(found.pairs, sum(matrices))
        scores = found.compute()
        for name, value in scores_of(sum(matrices)).items():
            assert scores[name] == pytest.approx(value, abs=1e-12)
            mean = np.mean([scores_of(matrix)[name] for matrix in matrices])
            assert scores[f"{name}/image"] == pytest.approx(mean, abs=1e-6)
        ari = [adjusted_rand_score(*image) for image in images]
        assert scores["adjusted_rand_index/image"] == pytest.approx(
            np.mean(ari), abs=1e-6
        )

    def test_of_one_image_the_pooled_index_is_the_images_own(self):
        predicted, truth = drawn(3)
        scores = pairs_of(predicted[:1], truth[:1]).compute()
        expected = adjusted_rand_score(*counted(predicted[0], truth[0]))
        assert scores["adjusted_rand_index"] == pytest.approx(expected, abs=1e-12)

    def test_a_million_pixels_are_counted_exactly(self):
        rng = np.random.default_rng(0)
        truth = rng.integers(0, Q + 1, (2, 1 << 20)) * (rng.random(1 << 20) < 0.01)
        predicted = np.where(rng.random(truth.shape) < 0.9, truth, P - 1)
        expected = sum(
            pair_confusion_matrix(*image)
            for image in zip(truth, predicted, strict=True)
        )
        found = pairs_of(predicted, truth)
        np.testing.assert_array_equal(found.pairs, expected)
        np.testing.assert_array_equal(found.merge(found).pairs, 2 * expected)

    def test_other_names_score_the_same_and_a_perfect_partition_one(self):
        predicted, truth = drawn(4)
        names = np.random.default_rng(1).permutation(P)
        renamed = np.where(predicted < 0, -1, names[predicted])
        plain = pairs_of(predicted, truth).compute()
        assert pairs_of(renamed, truth).compute() == plain
        perfect = pairs_of(names[np.maximum(truth, 0)], truth).compute()
        assert set(perfect.values()) == {1.0}

    def test_exchanging_the_partitions_exchanges_precision_and_recall(self):
        predicted, truth = drawn(5)
        truth = np.maximum(truth, 0)
        predicted = np.clip(predicted, 0, Q)
        one, other = (
            pairs_of(*a).compute() for a in ((predicted, truth), (truth, predicted))
        )
        assert one["pair_precision"] == other["pair_recall"]
        assert one["pair_accuracy"] == other["pair_accuracy"]
        assert one["adjusted_rand_index"] == other["adjusted_rand_index"]

    def test_one_segment_found_whole_or_in_single_pixels(self):
        truth = np.zeros((1, 9), int)
        whole = pairs_of(truth, truth).compute()
        assert set(whole.values()) == {1.0}
        single = pairs_of(truth - 1, truth).compute()
        assert np.isnan(single["pair_precision"])
        assert np.isnan(single["pair_precision/image"])
        assert single["pair_recall"] == single["adjusted_rand_index"] == 0.0
        assert adjusted_rand_score(truth[0], np.arange(9)) == 0.0

    def test_halves_merge_into_the_whole_and_padding_counts_for_nothing(self):
        predicted, truth = drawn(6)
        first = pairs_of(predicted, truth, valid=np.arange(B) < 1)
        second = pairs_of(predicted, truth, valid=np.arange(B) > 1)
        whole = pairs_of(predicted, truth, valid=np.arange(B) != 1)
        assert first.merge(second).compute() == pytest.approx(whole.compute())

    def test_without_pairs_the_scores_are_nan(self):
        predicted, truth = drawn(7)
        empty = pairs_of(predicted, truth, valid=np.zeros(B, bool)).compute()
        assert all(np.isnan(value) for value in empty.values())
        void = pairs_of(predicted, np.full_like(truth, -1)).compute()
        assert all(np.isnan(value) for value in void.values())

    def test_a_prefix_tells_partitions_of_the_same_images_apart(self):
        predicted, truth = drawn(8)
        found = pairs_of(predicted, truth, prefix="parts/")
        assert set(found.merge(found).compute()) == {
            f"parts/{name}" for name in pairs_of(predicted, truth).compute()
        }
        with pytest.raises(InputError, match="same prefix, parts/, got"):
            found.merge(pairs_of(predicted, truth))

    def test_labels_beyond_the_limits_are_refused_when_scores_are_read(self):
        predicted, truth = drawn(9)
        with pytest.raises(InputError, match=r"max_predicted .* pixels"):
            pairs_of(predicted + 1, truth).compute()
        with pytest.raises(InputError, match=r"max_true .* pixels"):
            pairs_of(predicted, truth + 1).compute()

    def test_a_mistake_is_named(self):
        predicted, truth = drawn(0)
        with pytest.raises(InputError, match="predicted must be integers"):
            PairScores.from_batch(predicted * 1.0, truth, **SIZES)
        large = jax.ShapeDtypeStruct((1, (1 << 20) + 1), jnp.int32)
        with pytest.raises(InputError, match="truth must have at most 1,048,576 pix"):
            jax.eval_shape(
                functools.partial(PairScores.from_batch, **SIZES), large, large
            )
