"""Concentration, bandwidth and margin, in the conventions of the sources."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError, sphere


def test_the_four_sources_have_6_and_36_and_25_and_100_at_a_margin_of_one_half():
    from_margin = sphere.concentration_from_margin
    from_bandwidth = sphere.concentration_from_bandwidth
    found = [
        from_margin(0.5, convention="paper"),
        from_margin(0.5, convention="supplement"),
        from_bandwidth(0.2),
        from_bandwidth(0.1),
    ]
    np.testing.assert_allclose(found, [6.0, 36.0, 25.0, 100.0], rtol=1e-6)


def test_a_bandwidth_is_the_deviation_of_the_gaussian_in_chord_distance():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5))
    x, y, b = x / np.linalg.norm(x), y / np.linalg.norm(y), 0.7
    gaussian = np.exp(-((x - y) @ (x - y)) / (2.0 * b**2))
    kappa = float(sphere.concentration_from_bandwidth(b))
    assert np.exp(kappa * (x @ y - 1.0)) == pytest.approx(gaussian, rel=1e-5)


@pytest.mark.parametrize("convention", ["supplement", "paper"])
def test_margins_and_bandwidths_come_back_from_their_concentrations(convention):
    margins = jnp.array([0.0, 0.1, 0.5, 0.9])
    kappa = sphere.concentration_from_margin(margins, convention=convention)
    found = sphere.margin_from_concentration(kappa, convention=convention)
    np.testing.assert_allclose(found, margins, atol=1e-6)
    bandwidths = jnp.array([0.05, 0.2, 1.0])
    kappa = sphere.concentration_from_bandwidth(bandwidths)
    found = sphere.bandwidth_from_concentration(kappa)
    np.testing.assert_allclose(found, bandwidths, rtol=1e-6)


def test_the_margin_is_three_deviations_of_the_supplements_kernel():
    kappa = sphere.concentration_from_margin(0.4)
    assert float(3.0 * sphere.bandwidth_from_concentration(kappa)) == pytest.approx(0.6)


def test_a_margin_of_one_half_is_a_right_angle():
    margins = jnp.array([0.0, 0.5, 1.0])
    angles = sphere.margin_angle(margins)
    np.testing.assert_allclose(angles, [np.pi, np.pi / 2, 0.0], atol=1e-6)
    np.testing.assert_allclose(sphere.margin_from_angle(angles), margins, atol=1e-6)


def test_everything_can_be_traced_and_differentiated():
    slope = jax.jit(jax.grad(sphere.concentration_from_margin))(0.5)
    assert float(slope) == pytest.approx(2 * 9 / 0.5**3)
    slope = jax.jit(jax.grad(sphere.concentration_from_bandwidth))(0.5)
    assert float(slope) == pytest.approx(-2 / 0.5**3)


def test_numbers_out_of_range_are_refused_by_name():
    with pytest.raises(InputError, match=r"0 <= margin < 1, got 1"):
        sphere.concentration_from_margin(1)
    with pytest.raises(InputError, match=r"margin.*got 1\.5"):
        sphere.margin_angle(1.5)
    with pytest.raises(InputError, match=r"bandwidth.*got 0"):
        sphere.concentration_from_bandwidth(0)
    with pytest.raises(InputError, match=r"concentration.*got -1"):
        sphere.bandwidth_from_concentration(-1)
    with pytest.raises(InputError, match="one of 'supplement', 'paper', got 'code'"):
        sphere.concentration_from_margin(0.5, convention="code")
