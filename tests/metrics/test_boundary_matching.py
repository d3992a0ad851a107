"""One-to-one matching, beside a dense assignment of all pixels."""

import time

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sphemb._checks import InputError
from sphemb.metrics import match_boundaries
from sphemb.metrics._boundary_pixels import choose_pairs, find_pairs


def maps(seed, shape=(14, 17), share=(0.2, 0.2)):
    rng = np.random.default_rng(seed)
    return [rng.random(shape) < s for s in share]


def dense_assignment(predicted, true, max_distance):
    """The least sum of distances, with 100 max_distance for each pixel without one."""
    p, q = np.argwhere(predicted), np.argwhere(true)
    distance = np.sqrt(((p[:, None] - q) ** 2).sum(-1))
    outlier, never = 100 * max_distance, 1e9
    cost = np.full((len(p) + len(q),) * 2, never)
    cost[: len(p), : len(q)] = np.where(distance <= max_distance, distance, never)
    cost[np.arange(len(p)), len(q) + np.arange(len(p))] = outlier
    cost[len(p) + np.arange(len(q)), np.arange(len(q))] = outlier
    cost[len(p) :, len(q) :] = 0.0
    rows, columns = linear_sum_assignment(cost)
    number = int(np.sum((rows < len(p)) & (columns < len(q))))
    return cost[rows, columns].sum(), number


class TestMatchBoundaries:
    @pytest.mark.parametrize("max_distance", [0.0, 1.0, 2.3, 4.34])
    @pytest.mark.parametrize("share", [(0.2, 0.2), (0.05, 0.4), (0.5, 0.08)])
    def test_cost_and_number_are_those_of_a_dense_assignment(self, max_distance, share):
        for seed in range(6):
            predicted, true = maps(seed, share=share)
            cost, number = dense_assignment(predicted, true, max_distance)
            pairs = find_pairs(predicted, true, max_distance)
            chosen = choose_pairs(pairs, 100 * max_distance)
            for side in (pairs.predicted[chosen], pairs.true[chosen]):
                assert len(set(side.tolist())) == len(chosen)
            alone = predicted.sum() + true.sum() - 2 * len(chosen)
            found = pairs.distance[chosen].sum() + 100 * max_distance * alone
            assert found == pytest.approx(cost)
            if max_distance > 0:
                assert len(chosen) == number
            here, there = match_boundaries(predicted, true, max_distance=max_distance)
            assert here.sum() == there.sum() == len(chosen)
            assert not (here & ~predicted).any()
            assert not (there & ~true).any()

    def test_pairs_are_all_those_within_the_distance(self):
        predicted, true = maps(9, share=(0.5, 0.3))
        pairs = find_pairs(predicted, true, 3.0)
        p, q = np.argwhere(predicted), np.argwhere(true)
        distance = np.sqrt(((p[:, None] - q) ** 2).sum(-1))
        expected = np.argwhere(distance <= 3.0)
        found = np.stack([pairs.predicted, pairs.true], axis=1)
        np.testing.assert_array_equal(
            found[np.lexsort(found.T[::-1])], expected[np.lexsort(expected.T[::-1])]
        )
        np.testing.assert_allclose(
            pairs.distance, distance[pairs.predicted, pairs.true]
        )

    def test_the_same_map_matches_itself(self):
        predicted, _ = maps(1)
        here, there = match_boundaries(predicted, predicted, max_distance=3)
        np.testing.assert_array_equal(here, predicted)
        np.testing.assert_array_equal(there, predicted)

    def test_the_largest_distance_is_allowed_and_no_more(self):
        predicted, true = np.zeros((2, 10, 10), bool)
        predicted[2, 2] = true[5, 6] = True  # 5 pixels apart
        assert match_boundaries(predicted, true, max_distance=5)[0].sum() == 1
        assert match_boundaries(predicted, true, max_distance=4.999)[0].sum() == 0

    def test_empty_maps_match_nothing(self):
        some, none = maps(2)[0], np.zeros((14, 17), bool)
        for pair in ((some, none), (none, some), (none, none)):
            here, there = match_boundaries(*pair, max_distance=3)
            assert not here.any()
            assert not there.any()

    def test_swapping_the_maps_swaps_the_numbers(self):
        predicted, true = maps(3, share=(0.4, 0.1))
        here, there = match_boundaries(predicted, true, max_distance=2.5)
        back, forth = match_boundaries(true, predicted, max_distance=2.5)
        assert here.sum() == forth.sum() == there.sum() == back.sum()

    def test_long_parallel_curves_take_no_time(self):
        # Large parts in which many pixels have no partner: the most to search.
        true = np.zeros((321, 481), bool)
        true[20:300:8] = True
        predicted = np.roll(true, 2, axis=0) | np.roll(true, -2, axis=0)
        predicted[:, ::9] = False
        start = time.perf_counter()
        here, _ = match_boundaries(predicted, true, max_distance=4.34)
        assert time.perf_counter() - start < 20
        # Any gap of one pixel is bridged from the rows beside it.
        assert here.sum() == true.sum()

    def test_complaints_name_the_argument(self):
        predicted, true = maps(0)
        with pytest.raises(InputError, match="predicted must be bool"):
            match_boundaries(predicted * 1.0, true, max_distance=1)
        with pytest.raises(InputError, match="true must have shape"):
            match_boundaries(predicted, true[1:], max_distance=1)
        with pytest.raises(InputError, match="max_distance must satisfy 0 <="):
            match_boundaries(predicted, true, max_distance=-1)
