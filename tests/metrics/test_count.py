"""Instances found against instances there are."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.metrics import InstanceCount
from tests.references import metrics as reference

B, H, W, Q = 5, 6, 8, 7
count_of = jax.jit(functools.partial(InstanceCount.from_batch, max_true=Q))


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, rng.integers(1, Q + 2, (B, 1, 1)), (B, H, W))
    return rng.integers(0, Q + 3, B), truth


class TestInstanceCount:
    def test_a_hand_worked_case(self):
        truth = np.array([[0, 1, 3, 3], [0, 0, -1, 0], [2, 2, 2, 2]])
        scores = InstanceCount.from_batch(np.array([4, 0, 0]), truth, max_true=Q)
        assert scores.compute() == {
            "count_absolute_error": 1.0,
            "count_signed_error": pytest.approx(1 / 3),
            "count_exact": pytest.approx(1 / 3),
            "count_found": pytest.approx(4 / 3),
            "count_true": 1.0,
        }

    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_the_float64_oracle(self, seed):
        found, truth = drawn(seed)
        scores = count_of(found, truth).compute()
        expected = reference.instance_count(found, truth)
        assert scores == {k: pytest.approx(v) for k, v in expected.items()}

    def test_no_group_at_all_less_the_background_is_no_instance(self):
        found, truth = drawn(3)
        fewer, none = found.copy(), found.copy()
        fewer[2:], none[2:] = -1, 0
        expected = count_of(none, truth).compute()
        assert count_of(fewer, truth).compute() == expected

    def test_halves_merge_into_the_whole(self):
        found, truth = drawn(4)
        first = InstanceCount.from_batch(found[:2], truth[:2], max_true=Q)
        second = InstanceCount.from_batch(found[2:], truth[2:], max_true=Q)
        assert first.merge(second).compute() == count_of(found, truth).compute()

    def test_padding_of_the_batch_counts_for_nothing(self):
        found, truth = drawn(5)
        valid = np.array([True, False, True, True, False])
        rest = InstanceCount.from_batch(found[valid], truth[valid], max_true=Q)
        padded = count_of(found, truth, valid=valid)
        assert padded.compute() == rest.compute()

    def test_jit_and_eager_agree(self):
        found, truth = drawn(6)
        eager = InstanceCount.from_batch(found, truth, max_true=Q)
        assert eager.compute() == count_of(found, truth).compute()

    def test_without_images_the_scores_are_nan_and_silent(self):
        found, truth = drawn(6)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = count_of(found, truth, valid=np.zeros(B, bool)).compute()
        assert all(np.isnan(value) for value in scores.values())

    def test_labels_beyond_the_limit_are_refused_when_scores_are_read(self):
        found, truth = drawn(7)
        truth[0] = Q + 1
        with pytest.raises(InputError, match=f"max_true .* {H * W} pixels"):
            count_of(found, truth).compute()

    def test_complaints_name_the_argument(self):
        labels = jnp.zeros((B, H, W), jnp.int32)
        with pytest.raises(InputError, match="found must have shape"):
            InstanceCount.from_batch(labels, labels, max_true=Q)
        with pytest.raises(InputError, match="found must be integers"):
            InstanceCount.from_batch(jnp.zeros(B), labels, max_true=Q)
