"""Precision of instances that are matched one to one."""

import functools
import warnings

import jax
import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.metrics import MatchedPrecision
from tests.references import proposals as reference

B, H, W, P, Q = 4, 10, 12, 9, 6
SIZES = {"max_predicted": P, "max_true": Q}
precision_of = jax.jit(functools.partial(MatchedPrecision.from_batch, **SIZES))


def drawn(seed=0):
    """Truth in blocks with void, and instances that mostly follow it."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, Q + 1, (B, 5, 4)), np.ones((1, 2, 3), int))
    truth = np.where(rng.random(truth.shape) < 0.05, -1, truth)
    follow = (truth >= 0) & (rng.random(truth.shape) < rng.uniform(0.6, 1))
    noise = rng.integers(-1, P + 1, truth.shape)
    return np.where(follow, truth, noise), truth


class TestMatchedPrecision:
    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_a_matching_of_explicit_masks(self, seed):
        predicted, truth = drawn(seed)
        by_level = [
            np.mean(
                [
                    reference.matched_precision(p, t, level)
                    for p, t in zip(predicted, truth, strict=True)
                ]
            )
            for level in np.linspace(0.5, 0.95, 10)
        ]
        assert precision_of(predicted, truth).compute() == {
            "matched_precision@0.5": pytest.approx(by_level[0]),
            "matched_precision@0.75": pytest.approx(by_level[5]),
            "matched_precision": pytest.approx(np.mean(by_level)),
        }

    def test_a_perfect_prediction_under_other_names_scores_one(self):
        _, truth = drawn(1)
        names = np.array([0, 3, 1, 9, 2, 7, 8])
        scores = precision_of(names[np.maximum(truth, 0)], truth).compute()
        assert set(scores.values()) == {1.0}

    def test_an_overlap_of_exactly_a_half_is_no_match(self):
        truth, predicted = np.zeros((2, B, H, W), int)
        truth[0, 0, :4], predicted[0, 0, :2], predicted[0, 0, 2:4] = 1, 1, 2
        scores = precision_of(predicted[:1], truth[:1]).compute()
        assert scores["matched_precision@0.5"] == 0.0

    def test_an_instance_within_the_void_is_no_false_one(self):
        truth, predicted = np.zeros((2, B, H, W), int)
        truth[:, 0, :4] = predicted[:, 0, :4] = 1
        truth[:, 5, :4], predicted[:, 5, :4] = -1, 2
        assert precision_of(predicted, truth).compute()["matched_precision"] == 1.0

    def test_an_empty_image_counts_one_when_nothing_is_found_and_else_nothing(self):
        truth, predicted = np.zeros((2, B, H, W), int)
        predicted[0, 0, 0] = 1
        scores = precision_of(predicted, truth).compute()
        assert scores["matched_precision@0.5"] == pytest.approx(1 - 1 / B)

    def test_halves_merge_into_the_whole_and_padding_counts_for_nothing(self):
        predicted, truth = drawn(4)
        first = precision_of(predicted, truth, valid=np.arange(B) < 1)
        second = precision_of(predicted, truth, valid=np.arange(B) > 1)
        whole = precision_of(predicted, truth, valid=np.arange(B) != 1)
        assert first.merge(second).compute() == pytest.approx(whole.compute())

    def test_without_images_the_scores_are_nan_and_silent(self):
        predicted, truth = drawn(4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = precision_of(predicted, truth, valid=np.zeros(B, bool)).compute()
        assert all(np.isnan(value) for value in scores.values())

    def test_labels_beyond_the_limits_are_refused_when_scores_are_read(self):
        predicted, truth = drawn(5)
        truth[0], predicted[0] = 0, P + 1
        with pytest.raises(InputError, match=f"max_predicted .* {H * W} pixels"):
            precision_of(predicted, truth).compute()
        with pytest.raises(InputError, match="predicted must be integers"):
            MatchedPrecision.from_batch(predicted * 1.0, truth, **SIZES)
