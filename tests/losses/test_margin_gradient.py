"""Derivatives of the margin loss: finite differences, and autodiff of a dense form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, losses, margin_loss
from tests.references import losses as reference
from tests.references import sphere as sphere_reference
from tests.references.derivatives import finite_differences

N, D, BLOCK = 11, 3, 4
_rng = np.random.default_rng(3)
X = sphere_reference.unit_rows(_rng, N, D)
LABELS = np.array([1, 1, 2, 2, 2, 5, 5, VOID, 5, 2, 1])
WEIGHTS = _rng.uniform(0.5, 1.5, size=N)
POWERS = pytest.mark.parametrize("power", [1, 2])


def loss(x, weights=WEIGHTS, margin=0.45, *, power=1):
    """The blocked loss, with more than one tile and a part-filled last one."""
    settings = {"normalize": "pairs", "negative_weight": 2.0, "block_size": BLOCK}
    weights = jnp.asarray(weights)
    x = jnp.asarray(x)
    return margin_loss(
        x, LABELS, margin=margin, weights=weights, power=power, **settings
    )


def expected_loss(x, weights=WEIGHTS, margin=0.45, *, power=1):
    settings = {"weights": weights, "normalize": "pairs", "power": power}
    positive, negative = reference.margin_loss_terms(
        x, LABELS, margin=float(margin), **settings
    )
    return positive + 2.0 * negative


def dense_loss(x, weights=WEIGHTS, margin=0.45, *, power=1):
    """All pairs at once, for automatic differentiation."""
    weights = jnp.where(LABELS == VOID, 0.0, weights)
    s = 0.5 * (1.0 + x @ x.T)
    same = LABELS[:, None] == LABELS[None, :]
    cost = jnp.where(same, 1.0 - s**power, 2.0 * jnp.maximum(s - margin, 0.0) ** power)
    return weights @ cost @ weights / weights.sum() ** 2


@pytest.mark.usefixtures("x64")
class TestFirstDerivatives:
    @POWERS
    def test_in_the_embeddings_is_that_of_finite_differences(self, power):
        s = 0.5 * (1.0 + X @ X.T)
        assert np.abs(s - 0.45).min() > 1e-4  # no pair sits at the kink
        found = jax.grad(loss)(X, power=power)
        differences = finite_differences(lambda x: expected_loss(x, power=power), X)
        np.testing.assert_allclose(found, differences, atol=1e-9)

    @POWERS
    def test_in_weights_and_margin_is_that_of_finite_differences(self, power):
        by_weight, by_margin = jax.grad(loss, argnums=(1, 2))(
            X, WEIGHTS, 0.45, power=power
        )
        differences = finite_differences(
            lambda w: expected_loss(X, w, power=power), WEIGHTS
        )
        np.testing.assert_allclose(by_weight, differences, atol=1e-9)
        difference = finite_differences(
            lambda a: expected_loss(X, margin=a, power=power), np.array(0.45)
        )
        np.testing.assert_allclose(by_margin, difference, atol=1e-9)

    @POWERS
    def test_forward_mode_agrees_with_reverse_mode(self, power):
        tangent = _rng.standard_normal(X.shape)
        _, forward = jax.jvp(lambda x: loss(x, power=power), (X,), (tangent,))
        reverse = jnp.sum(jax.grad(loss)(X, power=power) * tangent)
        np.testing.assert_allclose(forward, reverse, rtol=1e-12)

    def test_of_a_batch_is_that_of_its_images(self):
        x = np.stack([X, -X[::-1]])
        labels = np.stack([LABELS, LABELS])

        def total(x, labels):
            return losses.margin_loss(x, labels, margin=0.45).sum()

        found = jax.grad(total)(x, labels)
        alone = [jax.grad(total)(*image) for image in zip(x, labels, strict=True)]
        np.testing.assert_allclose(found, alone, atol=1e-14)
        mapped = jax.vmap(jax.grad(total))(x, labels)
        np.testing.assert_allclose(mapped, alone, atol=1e-14)


@pytest.mark.usefixtures("x64")
class TestSecondDerivatives:
    @POWERS
    def test_the_hessian_is_that_of_the_dense_form(self, power):
        found = jax.hessian(loss)(X, power=power)
        expected = jax.hessian(dense_loss)(X, power=power)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, atol=1e-13)

    @POWERS
    def test_hessian_vector_products_agree_in_all_three_orders(self, power):
        tangent = _rng.standard_normal(X.shape)

        def f(x):
            return loss(x, power=power)

        hessian = jax.hessian(dense_loss)(X, power=power)
        expected = np.einsum("ijkl,kl->ij", hessian, tangent)
        over = {
            "forward over reverse": jax.jvp(jax.grad(f), (X,), (tangent,))[1],
            "reverse over reverse": jax.grad(
                lambda x: jnp.sum(jax.grad(f)(x) * tangent)
            )(X),
            "reverse over forward": jax.grad(lambda x: jax.jvp(f, (x,), (tangent,))[1])(
                X
            ),
        }
        for found in over.values():
            np.testing.assert_allclose(found, expected, atol=1e-13)

    @POWERS
    def test_mixed_derivatives_are_those_of_the_dense_form(self, power):
        def mixed(f):
            slope = jax.grad(f, argnums=(1, 2))
            return jax.jacrev(lambda x: slope(x, WEIGHTS, 0.45, power=power))(X)

        for found, expected in zip(mixed(loss), mixed(dense_loss), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-13)
