"""Weighted means over a data set."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.metrics import Average

average_of = jax.jit(Average.from_batch)


class TestAverage:
    def drawn(self):
        rng = np.random.default_rng(0)
        return rng.normal(size=(4, 8)), rng.random((4, 8))

    def test_agrees_with_numpy(self):
        values, weights = self.drawn()
        assert average_of(values).compute()["mean"] == pytest.approx(
            np.mean(values), abs=1e-6
        )
        assert average_of(values, weights=weights).compute()["mean"] == pytest.approx(
            np.average(values, weights=weights), abs=1e-6
        )

    def test_halves_merge_into_the_whole_whatever_their_sizes(self):
        values, weights = self.drawn()
        parts = [
            Average.from_batch(values[rows], weights=weights[rows])
            for rows in (slice(0, 1), slice(1, 4))
        ]
        merged = functools.reduce(Average.merge, parts).compute()["mean"]
        whole = average_of(values, weights=weights).compute()["mean"]
        assert merged == pytest.approx(whole, abs=1e-6)

    def test_what_has_no_weight_may_be_nan(self):
        values, weights = self.drawn()
        values[1], weights[1] = np.nan, 0.0
        kept = np.array([0, 2, 3])
        assert average_of(values, weights=weights).compute()["mean"] == pytest.approx(
            np.average(values[kept], weights=weights[kept]), abs=1e-6
        )

    def test_a_nan_with_weight_is_not_hidden(self):
        values, weights = self.drawn()
        values[1, 1] = np.nan
        assert np.isnan(average_of(values, weights=weights).compute()["mean"])

    def test_a_mask_serves_as_weights_and_an_empty_one_gives_nan(self):
        values, _ = self.drawn()
        mask = values > 0
        found = average_of(values, weights=mask).compute()["mean"]
        assert found == pytest.approx(values[mask].mean(), abs=1e-6)
        assert np.isnan(average_of(values, weights=mask & ~mask).compute()["mean"])

    def test_a_single_number_is_its_own_mean(self):
        assert Average.from_batch(jnp.float32(0.25)).compute() == {"mean": 0.25}

    def test_complaints_name_the_argument(self):
        with pytest.raises(InputError, match="weights must have shape"):
            Average.from_batch(jnp.ones(3), weights=jnp.ones(2))
        with pytest.raises(InputError, match="values must be real"):
            Average.from_batch(jnp.ones(3, complex))
