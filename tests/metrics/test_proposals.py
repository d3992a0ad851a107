"""Recall against the number of proposals."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.instances import pool_proposals
from sphemb.metrics import AverageRecall, ProposalRecall
from tests.references import proposals as reference

B, K, H, W, G, Q = 4, 3, 7, 9, 5, 6
BUDGETS, AREAS = (1, 2, 4, 100), (8, 14)
SIZES = {"max_true": Q, "budgets": BUDGETS, "areas": AREAS}
pool = jax.jit(functools.partial(pool_proposals, max_groups=G, min_size=2))


@jax.jit
def recall_of(maps, truth, valid=None):
    flat = maps.reshape(*maps.shape[:2], -1)
    proposals = pool(flat)
    return ProposalRecall.from_batch(maps, proposals, truth, valid=valid, **SIZES)


@jax.jit
def one_of(maps, truth):
    proposals = pool_proposals(maps, max_groups=1)
    return ProposalRecall.from_batch(maps, proposals, truth, max_true=1, budgets=(1,))


def drawn(seed=0):
    """Truth in blocks with void, and maps that follow it less and less."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 5, (B, 4, 3)), np.ones((1, 2, 3), int))[:, :H]
    truth = np.where(rng.random(truth.shape) < 0.1, -1, truth)
    noise = rng.integers(-1, G, (B, K, H, W))
    share = np.linspace(0.9, 0.6, K)[:, None, None]
    follow = (truth[:, None] >= 0) & (rng.random(noise.shape) < share)
    return np.where(follow, np.minimum(truth, G - 1)[:, None], noise), truth


def assert_scores(found, expected, rtol=1e-6):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, err_msg=name)


class TestProposalRecall:
    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_the_float64_oracle(self, seed):
        maps, truth = drawn(seed)
        flat, true = maps.reshape(B, K, -1), truth.reshape(B, -1)
        pools = [reference.pool(x, G, 0.9, 2) for x in flat]
        expected = reference.proposal_recall(flat, true, pools, BUDGETS, AREAS)
        assert_scores(recall_of(maps, truth).compute(), expected)

    def test_all_groups_of_one_map_are_the_average_recall(self):
        maps, truth = drawn(5)
        proposals = pool_proposals(maps[:, :1].reshape(B, 1, -1), max_groups=G)
        settings = {"max_true": Q, "budgets": (G,)}
        score = jax.jit(functools.partial(ProposalRecall.from_batch, **settings))
        found = score(maps[:, :1], proposals, truth).compute()
        settings = {"max_true": Q, "max_predicted": G}
        score = jax.jit(functools.partial(AverageRecall.from_batch, **settings))
        expected = score(maps[:, 0], truth).compute()
        assert found["num_objects"] == expected.pop("num_objects")
        for name, value in expected.items():
            assert found[f"{name}@{G}"] == pytest.approx(value, rel=1e-6)

    def test_more_proposals_never_cover_less(self):
        scores = recall_of(*drawn(6)).compute()
        for name in ("mean_best_iou", "average_recall", "recall@0.5"):
            values = [scores[f"{name}@{n}"] for n in BUDGETS]
            assert values == sorted(values)

    @pytest.mark.parametrize("level", range(10, 21))
    def test_an_overlap_of_exactly_a_level_reaches_it(self, level):
        truth, maps = np.zeros((1, 400), int), np.full((1, 1, 400), -1)
        truth[0, :60], maps[0, 0, 60 - 3 * level : 60] = 1, 0
        scores = one_of(maps, truth).compute()
        reached = level - 9
        assert scores["average_recall@1"] == pytest.approx(min(reached, 10) / 10)
        assert scores["average_recall_mcg@1"] == pytest.approx(reached / 11)
        assert scores["average_recall@1/small"] == scores["average_recall@1"]

    def test_objects_are_sized_by_their_pixels_in_the_truth(self):
        maps, truth = drawn(0)
        truth[:] = 0
        truth[0, 0, :8], truth[0, 1, :7] = 1, 2
        truth[0, 3:5, :7], truth[0, 5:7, :7] = 3, 4
        truth[0, 6, 0] = -1
        scores = recall_of(maps, truth).compute()
        sizes = [scores[f"num_objects/{s}"] for s in ("small", "medium", "large")]
        assert sizes == [1.0, 2.0, 1.0]

    def test_maps_may_be_enlarged_after_the_pooling(self):
        maps, truth = drawn(7)
        proposals = pool(maps.reshape(B, K, -1))
        large = maps.repeat(2, axis=2).repeat(2, axis=3)
        true = truth.repeat(2, axis=1).repeat(2, axis=2)
        settings = SIZES | {"areas": (4 * AREAS[0], 4 * AREAS[1])}
        score = jax.jit(functools.partial(ProposalRecall.from_batch, **settings))
        found = score(large, proposals, true).compute()
        assert_scores(found, recall_of(maps, truth).compute())

    def test_parts_merge_into_the_whole_and_padding_counts_for_nothing(self):
        maps, truth = drawn(8)
        valid = np.arange(B) != 2
        first = recall_of(maps, truth, np.arange(B) < 2)
        last = recall_of(maps, truth, np.arange(B) > 2)
        merged = first.merge(last)
        assert_scores(merged.compute(), recall_of(maps, truth, valid).compute())
        assert merged.budgets == BUDGETS
        assert merged.hits.dtype == np.int64

    def test_summing_over_devices_is_merging(self):
        maps, truth = drawn(9)

        def score(maps, truth):
            return jax.lax.psum(recall_of(maps, truth), "batch")

        summed = jax.pmap(
            score, axis_name="batch", out_axes=None, devices=jax.local_devices()[:B]
        )(maps[:, None], truth[:, None])
        assert_scores(summed.compute(), recall_of(maps, truth).compute())

    def test_without_objects_the_scores_are_nan_and_silent(self):
        maps, truth = drawn(1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = recall_of(maps, truth * 0).compute()
        assert np.isnan(scores["average_recall@4"])
        assert scores["num_objects"] == 0.0
        assert scores["num_proposals@1"] == 1.0

    def test_labels_beyond_the_limits_are_refused_when_scores_are_read(self):
        maps, truth = drawn(2)
        truth[0, 0, :2] = Q + 1
        with pytest.raises(InputError, match=r"max_true .* 2 pixels"):
            recall_of(maps, truth).compute()
        maps, truth = drawn(2)
        truth[0, 0, :3], maps[0, 1, 0, :3] = 0, G
        with pytest.raises(InputError, match=r"max_groups .* 3 pixels"):
            recall_of(maps, truth).compute()

    def test_complaints_name_the_argument(self):
        maps, truth = (jnp.asarray(x) for x in drawn(3))
        proposals = pool(maps.reshape(B, K, -1))
        score = functools.partial(ProposalRecall.from_batch, maps, proposals)
        with pytest.raises(InputError, match="label_maps must have shape"):
            score(truth[:, :3], max_true=Q)
        with pytest.raises(InputError, match="budgets must rise"):
            score(truth, max_true=Q, budgets=(5, 5))
        with pytest.raises(InputError, match="areas must be two numbers"):
            score(truth, max_true=Q, areas=(5,))
        with pytest.raises(InputError, match="budgets must be a tuple"):
            score(truth, max_true=Q, budgets=10)
        with pytest.raises(InputError, match="proposals must be of the 2 maps"):
            ProposalRecall.from_batch(maps[:, :2], proposals, truth, max_true=Q)
        with pytest.raises(InputError, match="other must have the same budgets"):
            recall_of(maps, truth).merge(one_of(maps[:, :1].reshape(B, 1, -1), truth))
