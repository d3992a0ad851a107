"""Unit vectors and similarities, against NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError, sphere
from tests.references import sphere as reference


class TestNormalisation:
    x = np.random.default_rng(0).standard_normal((2, 7, 5)).astype(np.float32)

    def test_gives_the_vectors_over_their_lengths(self):
        expected = (
            self.x / np.linalg.norm(self.x.astype(np.float64), axis=-1)[..., None]
        )
        np.testing.assert_allclose(sphere.l2_normalize(self.x), expected, rtol=3e-7)

    def test_works_along_any_axis(self):
        moved = sphere.l2_normalize(np.moveaxis(self.x, -1, 0), axis=0)
        expected = sphere.l2_normalize(self.x)
        np.testing.assert_allclose(np.moveaxis(moved, 0, -1), expected, rtol=3e-7)

    @pytest.mark.parametrize("scale", [1e-34, 1e-30, 1e30, 3.4e38])
    def test_does_not_depend_on_the_scale(self, scale):
        x = self.x / np.abs(self.x).max()
        scaled = sphere.l2_normalize(x * np.float32(scale))
        np.testing.assert_allclose(scaled, sphere.l2_normalize(x), rtol=1e-5, atol=1e-7)

    def test_leaves_zero_vectors_and_their_derivatives_at_zero(self):
        x = jnp.array([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]])

        def f(x):
            return jnp.sum(sphere.l2_normalize(x) * jnp.array([1.0, -2.0, 3.0]))

        assert sphere.l2_normalize(x)[0].tolist() == [0.0, 0.0, 0.0]
        assert jax.grad(f)(x)[0].tolist() == [0.0, 0.0, 0.0]
        hessian = jax.hessian(f)(x)
        assert bool(jnp.isfinite(hessian).all())
        assert bool((hessian[0] == 0).all())
        assert bool((hessian[1, :, 1] != 0).any())

    def test_counts_vectors_within_epsilon_as_zero(self):
        x = jnp.array([[1e-3, 0.0], [1e-1, 0.0]])
        unit = sphere.l2_normalize(x, epsilon=1e-2)
        assert unit.tolist() == [[0.0, 0.0], [1.0, 0.0]]

    def test_has_the_gradient_of_finite_differences(self, x64):
        x = self.x[0, :1].astype(np.float64)
        tilt = np.arange(5.0)
        gradient = jax.grad(lambda x: jnp.sum(sphere.l2_normalize(x) * tilt))(x)
        step = 1e-6 * np.eye(5)
        ahead, behind = (
            np.asarray(sphere.l2_normalize(x + sign * step)) @ tilt for sign in (1, -1)
        )
        np.testing.assert_allclose(gradient[0], (ahead - behind) / 2e-6, rtol=1e-8)

    def test_keeps_half_precision_but_computes_in_single(self):
        x = jnp.full((1, 4), 300.0, jnp.float16)  # whose sum of squares overflows
        unit = sphere.l2_normalize(x)
        assert unit.dtype == jnp.float16
        assert unit.tolist() == [[0.5] * 4]

    def test_lets_nan_through(self):
        assert bool(jnp.isnan(sphere.l2_normalize(jnp.array([jnp.nan, 1.0]))).all())

    @pytest.mark.parametrize("shape", [(1, 3), (256, 16), (64, 64)])
    def test_lets_nan_through_in_arrays_of_any_size(self, shape):
        # The maximum of such rows leaves NaN out where XLA vectorises it.
        everywhere = sphere.l2_normalize(jnp.full(shape, jnp.nan))
        assert bool(jnp.isnan(everywhere).all())
        first = sphere.l2_normalize(jnp.ones(shape).at[:, 0].set(jnp.nan))
        assert bool(jnp.isnan(first).all())

    def test_refuses_integers_and_missing_axes(self):
        with pytest.raises(InputError, match="x must be floating point, got int32"):
            sphere.l2_normalize(jnp.ones(3, jnp.int32))
        with pytest.raises(InputError, match=r"axis must be an axis of x, got 2"):
            sphere.l2_normalize(self.x[0], axis=2)


class TestSimilarity:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 6, 4)).astype(np.float32)
    y = rng.standard_normal((2, 3, 4)).astype(np.float32)

    def test_is_the_cosine_of_vectors_of_any_length(self):
        expected = np.stack(
            [reference.cosine(*xy) for xy in zip(self.x, self.y, strict=True)]
        )
        found = sphere.cosine_similarity(self.x, 1e20 * self.y)
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_is_calibrated_to_the_unit_interval_by_equation_1(self):
        x, y = sphere.l2_normalize(self.x), sphere.l2_normalize(self.y)
        expected = 0.5 * (1.0 + sphere.cosine_similarity(self.x, self.y))
        found = sphere.calibrated_similarity(x, y)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        same, opposite = sphere.calibrated_similarity(x, x), -x
        np.testing.assert_allclose(np.diagonal(same, 0, 1, 2), 1.0, atol=1e-6)
        away = sphere.calibrated_similarity(x, opposite)
        np.testing.assert_allclose(np.diagonal(away, 0, 1, 2), 0.0, atol=1e-6)

    def test_multiplies_at_the_highest_precision_by_default(self):
        def text(**settings):
            dot = jax.jit(lambda x, y: sphere.pairwise_dot(x, y, **settings))
            return dot.lower(self.x, self.y).as_text()

        assert "precision = [HIGHEST, HIGHEST]" in text()
        assert "HIGHEST" not in text(precision=jax.lax.Precision.DEFAULT)

    def test_accumulates_half_precision_in_single(self):
        x = self.x.astype(jnp.bfloat16)
        assert sphere.pairwise_dot(x, x).dtype == jnp.float32

    def test_refuses_shapes_that_do_not_go_together(self):
        with pytest.raises(InputError, match=r"y must have shape \[..., M, D\]"):
            sphere.pairwise_dot(self.x, self.y[..., :3])
        with pytest.raises(InputError, match="to go with x"):
            sphere.cosine_similarity(self.x, self.y[:1])
        with pytest.raises(InputError, match=r"x must have shape \[..., N, D\]"):
            sphere.calibrated_similarity(self.x[0, 0], self.y)

    @pytest.mark.parametrize(
        "similarity", [sphere.cosine_similarity, sphere.pairwise_dot]
    )
    def test_names_the_argument_that_is_a_list(self, similarity):
        with pytest.raises(InputError, match="y must be a JAX or NumPy array"):
            similarity(self.x[0], [[1.0] * self.x.shape[-1]])
