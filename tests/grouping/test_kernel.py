"""The exponential of the kernel: its error, its derivatives, its edges."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb.grouping import _step

EPSILON = 2.0**-24  # half a unit in the last place of 1


@pytest.fixture(scope="module")
def exponents() -> np.ndarray:
    return -np.concatenate([[0.0], np.geomspace(1e-9, 87.0, 200_000)]).astype("f")


class TestFallingExp:
    def test_its_error_is_pinned_beside_float64(self, exponents):
        found = np.float64(jax.jit(_step.falling_exp)(exponents))
        true = np.exp(np.float64(exponents))
        # What the polynomial adds, and what the rounding of t log2(e) does to exp.
        allowed = 1.8e-7 + 2 * EPSILON * np.abs(np.float64(exponents))
        assert (np.abs(found / true - 1.0) <= allowed).all()

    def test_it_is_one_at_zero_and_never_above(self, exponents):
        found = jax.jit(_step.falling_exp)(exponents)
        assert float(found[0]) == 1.0
        assert float(found.max()) == 1.0

    @pytest.mark.parametrize("t", [-90.0, -1e4, -np.inf])
    def test_far_below_it_is_nothing(self, t):
        assert 0.0 <= float(_step.falling_exp(jnp.float32(t))) < 1.2e-38

    def test_nan_stays_nan(self):
        payload = np.array([0x7FC00000, 0x7FC00123, 0xFFFFFFFF], np.uint32)
        payload = np.resize(payload, 4096).view("f")
        assert np.isnan(_step.falling_exp(jnp.asarray(payload))).all()
        assert np.isnan(jax.jit(_step.falling_exp)(payload)).all()

    def test_rows_that_are_too_long_do_not_wrap_around(self):
        found = jax.jit(_step.falling_exp)(jnp.array([1.0, 80.0, 125.0, 1e9]))
        np.testing.assert_allclose(found[:2], np.exp([1.0, 80.0]), rtol=2e-5)
        assert np.isinf(found[2:]).all()

    def test_its_derivatives_are_itself(self):
        t = jnp.float32(-1.25)
        value = _step.falling_exp(t)
        for derive in (jax.grad, jax.jacfwd):
            assert derive(_step.falling_exp)(t) == value
            assert derive(derive(_step.falling_exp))(t) == value

    def test_float64_takes_the_full_precision(self, x64):
        t = jnp.linspace(-50.0, 0.0, 64)
        np.testing.assert_allclose(_step.falling_exp(t), np.exp(t), rtol=1e-15)

    @pytest.mark.parametrize("platform", ["cuda", "tpu"])
    def test_accelerators_get_their_own_instruction(self, platform):
        t = jax.ShapeDtypeStruct((8,), jnp.float32)
        exported = jax.export.export(jax.jit(_step.falling_exp), platforms=[platform])
        text = exported(t).mlir_module()
        assert "stablehlo.exponential" in text
        assert "round_nearest_even" not in text


def test_the_kernel_holds_no_branch_on_a_cpu():
    x = jax.ShapeDtypeStruct((8, 3), jnp.float32)

    def kernel(x):
        return _step.kernel(x, x, 25.0, precision=jax.lax.Precision.HIGHEST)

    text = jax.jit(kernel).lower(x).compile().as_text()
    assert "conditional" not in text
    assert "round-nearest-even" in text
