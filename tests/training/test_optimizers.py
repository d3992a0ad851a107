"""Schedules and optimisers by name."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sphemb import InputError
from sphemb.training import make_optimizer, poly_schedule


def test_the_poly_policy_is_the_papers():
    schedule = poly_schedule(2.5e-4, 1000)
    for step in (0, 1, 500, 999):
        expected = 2.5e-4 * (1 - step / 1000) ** 0.9
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-4)
    assert float(schedule(1000)) == 0.0


def test_the_warm_up_rises_to_the_policy_and_stays_on_it():
    schedule, bare = poly_schedule(1.0, 100, warmup_steps=10), poly_schedule(1.0, 100)
    rates = [float(schedule(step)) for step in range(12)]
    assert rates[0] < 0.1
    assert rates[:10] == sorted(rates[:10])
    np.testing.assert_allclose(rates[10:], [bare(10), bare(11)], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_gradient_is_clipped_before_the_optimiser_sees_it(name):
    optimizer = make_optimizer(poly_schedule(1.0, 10), name=name, clip_norm=1.0)
    params = {"w": jnp.zeros(4)}
    state = optimizer.init(params)
    huge, _ = optimizer.update({"w": jnp.full(4, 1e6)}, state, params)
    unit, _ = optimizer.update({"w": jnp.full(4, 0.5)}, state, params)
    np.testing.assert_allclose(huge["w"], unit["w"], rtol=1e-5)
    assert float(optax.tree.norm(huge)) > 0


def test_an_unknown_optimiser_names_the_known_ones():
    with pytest.raises(InputError, match="must be one of 'sgd', 'adamw', got 'lion'"):
        make_optimizer(poly_schedule(1.0, 10), name="lion")
