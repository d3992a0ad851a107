"""Feasible margins: theorems, tables, bounds, and the numerical search."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import betaincinv

from sphemb import InputError, sphere
from sphemb.sphere._packing import least_largest_cosine
from tests.references import sphere as reference

# Calibrated similarity of the closest pair, of the literature, to four places.
_TAMMES = {
    4: 0.3333,
    5: 0.5,
    6: 0.5,
    7: 0.6051,
    8: 0.6306,
    9: 0.6667,
    10: 0.7022,
    11: 0.7236,
    12: 0.7236,
    13: 0.7713,
    14: 0.7820,
    15: 0.7963,
    16: 0.8061,
    17: 0.8140,
    18: 0.8243,
    19: 0.8366,
    20: 0.8382,
}


class TestMarginFor:
    @pytest.mark.parametrize(("n", "margin"), _TAMMES.items())
    def test_has_the_known_values_in_three_dimensions(self, n, margin):
        found = sphere.margin_for(n, 3)
        assert found.margin == pytest.approx(margin, abs=6e-5)
        assert found.exact == (n <= 14)
        assert found.lower_bound <= found.margin

    @pytest.mark.parametrize("n", [5, 7, 8, 9, 10, 12, 14, 16, 18, 20])
    def test_is_reached_but_not_beaten_by_the_search(self, n):
        found = 0.5 * (1.0 + least_largest_cosine(n, 3))
        margin = sphere.margin_for(n, 3).margin
        assert margin - 1e-7 <= found <= margin + 3e-4

    @pytest.mark.parametrize(("n", "dim"), [(4, 4), (6, 5), (7, 4), (8, 4), (9, 2)])
    def test_agrees_with_the_search_where_a_theorem_holds(self, n, dim):
        found = 0.5 * (1.0 + least_largest_cosine(n, dim))
        exact = sphere.margin_for(n, dim)
        assert exact.exact
        assert found == pytest.approx(exact.margin, abs=1e-4)

    def test_is_the_simplex_up_to_one_more_group_than_dimensions(self):
        points = reference.simplex(6)
        cosines = reference.cosine(points, points)[~np.eye(6, dtype=bool)]
        expected = 0.5 * (1.0 + cosines.max())
        assert sphere.margin_for(6, 5).margin == pytest.approx(expected)
        assert sphere.margin_for(6, 64).margin == pytest.approx(expected)

    def test_is_one_half_up_to_twice_the_dimension_and_more_beyond(self):
        assert sphere.margin_for(128, 64).margin == 0.5
        beyond = sphere.margin_for(9, 4)
        assert beyond.margin > 0.5
        assert not beyond.exact
        assert beyond.lower_bound > 0.5

    def test_knows_the_trivial_cases(self):
        assert sphere.margin_for(1, 3).margin == 0.0
        assert sphere.margin_for(2, 1).margin == 0.0
        assert sphere.margin_for(3, 1).margin == 1.0

    def test_finds_the_same_twice(self):
        first = least_largest_cosine(11, 4)
        least_largest_cosine.cache_clear()
        assert least_largest_cosine(11, 4) == first

    def test_refuses_values_that_are_not_counts(self):
        with pytest.raises(InputError, match=r"n must be a Python int .* got 2\.5"):
            sphere.margin_for(2.5, 3)
        with pytest.raises(InputError, match="dim must be >= 1, got 0"):
            sphere.margin_for(3, 0)


class TestBound:
    """Where there are too many groups for a search, nothing is searched."""

    def test_many_groups_are_answered_with_bounds(self):
        before = least_largest_cosine.cache_info()
        for n, dim in ((300, 3), (300, 20), (1000, 20), (10**9, 1000)):
            found = sphere.margin_for(n, dim)
            assert not found.exact
            assert found.reason == "greedy packing"
            assert 0.5 <= found.lower_bound < found.margin < 1
        for n, margin in ((300, 0.7), (300, 0.55), (1000, 0.7), (10**6, 0.9)):
            dim = sphere.min_dimension(n, margin)
            assert sphere.margin_for(n, dim).margin <= margin
            assert sphere.margin_for(n, dim - 1).margin > margin
        assert least_largest_cosine.cache_info() == before

    def test_a_margin_grows_with_the_groups_and_falls_with_the_dimension(self):
        counts, dims = (129, 200, 300, 1000), (2, 3, 4, 12, 30, 64, 65, 100, 150, 999)
        table = sphere.feasible_margin_table(dims=dims, counts=counts).margin
        assert (np.diff(table, axis=0) <= 0).all()
        assert (np.diff(table, axis=1) >= 0).all()
        margins = (0.52, 0.6, 0.7, 0.8, 0.99)
        needed = [[sphere.min_dimension(n, m) for m in margins] for n in counts]
        assert (np.diff(needed, axis=0) >= 0).all()
        assert (np.diff(needed, axis=1) <= 0).all()

    @pytest.mark.parametrize(("n", "dim"), [(9, 4), (20, 3), (12, 5)])
    def test_what_is_found_lies_between_the_bounds(self, n, dim):
        sine = betaincinv((dim - 1) / 2, 0.5, 2 / n)
        found = sphere.margin_for(n, dim)
        assert 1 - sine <= found.lower_bound <= found.margin
        assert found.margin <= 0.5 * (1 + np.sqrt(1 - sine))

    def test_a_cap_of_the_greedy_angle_is_one_nth_of_the_sphere(self):
        n, dim = 300, 3
        cosine = 2 * sphere.margin_for(n, dim).margin - 1
        assert (1 - cosine) / 2 == pytest.approx(1 / n)  # Archimedes
        dim = 6
        cosine = 2 * sphere.margin_for(n, dim).margin - 1
        angles = np.linspace(0, np.pi, 200_001)
        density = np.sin(angles) ** (dim - 2)
        share = density[angles <= np.arccos(cosine)].sum() / density.sum()
        assert share == pytest.approx(1 / n, rel=1e-3)


class TestTableAndDimension:
    def test_the_table_holds_the_margins_of_its_rows_and_columns(self):
        table = sphere.feasible_margin_table(dims=(1, 2, 3), counts=(2, 4, 7, 15))
        assert table.dims.tolist() == [1, 2, 3]
        assert table.counts.tolist() == [2, 4, 7, 15]
        for row, dim in enumerate(table.dims.tolist()):
            for column, n in enumerate(table.counts.tolist()):
                cell = sphere.margin_for(n, dim)
                assert table.margin[row, column] == cell.margin
                assert table.exact[row, column] == cell.exact

    def test_a_higher_dimension_never_needs_a_larger_margin(self):
        margin = sphere.feasible_margin_table(
            dims=(2, 3, 4, 5, 8), counts=tuple(range(2, 11))
        ).margin
        assert (np.diff(margin, axis=0) <= 1e-6).all()
        assert (np.diff(margin, axis=1) >= -1e-6).all()

    def test_ten_groups_at_one_half_need_five_dimensions(self):
        assert sphere.min_dimension(10, 0.5) == 5
        assert sphere.min_dimension(10, sphere.margin_for(10, 3).margin) == 3
        assert sphere.min_dimension(128, 0.5) == 64
        assert sphere.min_dimension(1, 0.0) == 1

    @pytest.mark.parametrize("n", [2, 5, 8, 9])
    def test_the_dimension_is_enough_and_one_less_is_not(self, n):
        for margin in (0.5, 0.62, 0.9):
            dim = sphere.min_dimension(n, margin)
            assert sphere.margin_for(n, dim).margin <= margin
            assert dim == 1 or sphere.margin_for(n, dim - 1).margin > margin

    def test_a_margin_without_any_dimension_is_refused(self):
        with pytest.raises(InputError, match=r"at least 0\.4444 for 10 groups"):
            sphere.min_dimension(10, 0.1)
        with pytest.raises(InputError, match="margin"):
            sphere.min_dimension(10, 1.1)


class TestBounds:
    x = np.random.default_rng(0).standard_normal((3, 9, 4)).astype(np.float32)

    def test_total_similarity_is_the_sum_over_pairs_and_above_its_bound(self):
        expected = [reference.total_similarity(x.astype(np.float64)) for x in self.x]
        found = sphere.total_similarity(self.x)
        bound = sphere.total_similarity_bound(self.x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert bool((found >= bound).all())

    def test_total_similarity_reaches_its_bound_when_the_sum_is_zero(self):
        balanced = self.x - self.x.mean(axis=1, keepdims=True)
        found = sphere.total_similarity(balanced)
        bound = sphere.total_similarity_bound(balanced)
        np.testing.assert_allclose(found, bound, rtol=1e-5)
        points = reference.simplex(5).astype(np.float32)
        assert float(sphere.total_similarity(points)) == pytest.approx(-5, abs=1e-5)

    def test_the_papers_numbers_are_necessary_but_not_enough(self):
        found = [round(sphere.necessary_margin(n), 3) for n in (4, 5, 6, 7)]
        assert found == [0.093, 0.274, 0.395, 0.482]
        for n in range(3, 21):
            weak, strong = sphere.necessary_margin(n), sphere.fejes_toth_margin(n)
            assert weak < strong <= sphere.margin_for(n, 3).margin + 1e-9

    @pytest.mark.parametrize("n", [3, 4, 6, 12])
    def test_fejes_toth_is_exact_for_the_regular_bodies(self, n):
        expected = sphere.margin_for(n, 3).margin
        assert sphere.fejes_toth_margin(n) == pytest.approx(expected, abs=1e-12)
