"""Gradients of the blurring mean shift against finite differences and autodiff."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb.grouping as grouping
from tests.references import grouping as reference
from tests.references.derivatives import finite_differences

N, D, STEPS = 20, 3, 5
KAPPA, ETA = 9.0, 0.8


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return reference.sphere_points(np.random.default_rng(1), N, D, spread=0.5)[0]


@pytest.fixture(scope="module")
def targets() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(N, D))


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return np.random.default_rng(3).uniform(size=N) < 0.7


def dense(x, kappa, eta, mass):
    """The definition in one N x N piece, for JAX to differentiate by itself."""
    for _ in range(STEPS):
        kernel = jnp.exp(kappa * (x @ x.T - 1.0)) * mass
        mean = kernel @ x / kernel.sum(axis=1, keepdims=True)
        y = (1.0 - eta) * x + eta * mean
        moved = y / jnp.linalg.norm(y, axis=1, keepdims=True)
        x = jnp.where(mass[:, None] > 0, moved, x)
    return x


def objective(targets, mask, **settings):
    def loss(x, kappa, eta):
        moved = grouping.gbms(
            x,
            concentration=kappa,
            step_size=eta,
            num_steps=STEPS,
            mask=mask,
            block_size=8,
            **settings,
        )
        return jnp.sum(jnp.asarray(targets) * moved)

    return loss


def dense_objective(targets, mask):
    mass = jnp.ones(N) if mask is None else jnp.asarray(mask) * 1.0

    def loss(x, kappa, eta):
        return jnp.sum(jnp.asarray(targets) * dense(x, kappa, eta, mass))

    return loss


def assert_close(found, expected, rtol):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # In NumPy: outside of its context JAX would round float64 arrays again.
        a, b = np.asarray(a), np.asarray(b)
        assert np.linalg.norm(a - b) <= rtol * np.linalg.norm(b)


@pytest.mark.usefixtures("x64")
class TestFirstOrder:
    @pytest.mark.parametrize("masked", [False, True])
    def test_it_is_the_slope_of_the_definition(self, points, targets, mask, masked):
        counts = mask if masked else None

        def value(x, kappa, eta):
            steps = reference.gbms(
                x, concentration=kappa, step_size=eta, num_steps=STEPS, mask=counts
            )
            return np.sum(targets * steps[-1])

        slopes = (
            finite_differences(lambda x: value(x, KAPPA, ETA), points),
            finite_differences(lambda k: value(points, k, ETA), KAPPA),
            finite_differences(lambda e: value(points, KAPPA, e), ETA),
        )
        slope = jax.jit(jax.grad(objective(targets, counts), (0, 1, 2)))
        found = slope(points, KAPPA, ETA)
        assert_close(found, slopes, 1e-7)

    @pytest.mark.parametrize(
        ("custom_gradient", "masked"),
        [
            (True, True),
            (False, True),
            pytest.param(True, False, marks=pytest.mark.nightly),
            pytest.param(False, False, marks=pytest.mark.nightly),
        ],
    )
    def test_it_is_what_autodiff_makes_of_the_dense_form(
        self, points, targets, mask, masked, custom_gradient
    ):
        counts = mask if masked else None
        loss = objective(targets, counts, custom_gradient=custom_gradient)
        found = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(points, KAPPA, ETA)
        expected = jax.value_and_grad(dense_objective(targets, counts), (0, 1, 2))
        assert_close(found, jax.jit(expected)(points, KAPPA, ETA), 1e-10)

    def test_the_loss_may_stand_on_every_step(self, points):
        weights = np.random.default_rng(4).normal(size=(STEPS + 1, N, D))

        def loss(x):
            steps = grouping.gbms_trajectory(x, concentration=KAPPA, num_steps=STEPS)
            return jnp.sum(weights * steps)

        def value(x):
            steps = reference.gbms(x, concentration=KAPPA, num_steps=STEPS)
            return np.sum(weights * steps)

        slope = finite_differences(value, points)
        assert_close(jax.jit(jax.grad(loss))(points), slope, 1e-7)

    def test_masked_rows_hand_their_cotangent_on(self, points, targets, mask):
        x = np.where(mask[:, None], points, np.nan)
        slope = jax.jit(jax.grad(objective(targets, mask)))
        found, whole = slope(x, KAPPA, ETA), slope(points, KAPPA, ETA)
        np.testing.assert_array_equal(found[~mask], targets[~mask])
        np.testing.assert_allclose(found[mask], whole[mask], rtol=1e-12)

    @pytest.mark.parametrize("custom_gradient", [True, False])
    def test_a_point_of_weight_n_is_n_points(self, points, targets, custom_gradient):
        counts = np.random.default_rng(5).integers(0, 4, size=N)
        settings = dict(concentration=KAPPA, step_size=ETA, block_size=8)
        settings["custom_gradient"] = custom_gradient
        merged = grouping.gbms(points, weights=1.0 * counts, num_steps=2, **settings)
        copies = np.repeat(points, counts, axis=0)
        spread = grouping.gbms(copies, num_steps=2, **settings)
        np.testing.assert_allclose(
            np.repeat(merged, counts, axis=0), spread, atol=1e-12
        )
        np.testing.assert_array_equal(merged[counts == 0], points[counts == 0])

        def value(weights):
            moved = [reference.shifted(x, points, weights, KAPPA, ETA) for x in points]
            return np.sum(targets * np.stack(moved))

        weights = counts + 1.0
        found = jax.grad(
            lambda w: jnp.sum(
                targets * grouping.gbms_step(points, weights=w, **settings)
            )
        )(jnp.asarray(weights))
        assert_close(found, finite_differences(value, weights), 1e-7)

    @pytest.mark.parametrize("custom_gradient", [True, False])
    def test_each_image_has_its_concentration(self, points, targets, custom_gradient):
        x = np.stack([points, -points[::-1], points[:, ::-1]]).reshape(3, 1, N, D)
        kappas, y = np.array([4.0, 9.0, 30.0])[:, None], targets[None, None]

        def loss(x, kappa):
            settings = dict(concentration=kappa, custom_gradient=custom_gradient)
            end = grouping.gbms(x, num_steps=2, step_size=ETA, block_size=8, **settings)
            path = grouping.gbms_trajectory(x, num_steps=2, **settings)
            step = grouping.gbms_step(x, **settings)
            return jnp.sum(y * end) + jnp.sum(y * path) + jnp.sum(y * step)

        both = jax.jit(jax.value_and_grad(loss, (0, 1)))
        value, (x_bar, kappa_bar) = both(x, kappas)
        one = jax.jit(jax.value_and_grad(loss, (0, 1)))
        alone = [one(*image) for image in zip(x, kappas[:, 0], strict=True)]
        np.testing.assert_allclose(value, sum(v for v, _ in alone), rtol=1e-12)
        np.testing.assert_allclose(x_bar, [g[0] for _, g in alone], atol=1e-10)
        np.testing.assert_allclose(
            kappa_bar[:, 0], [g[1] for _, g in alone], atol=1e-10
        )

    def test_the_repaired_formulas_of_the_supplement_give_it(self, points, targets):
        settings = dict(concentration=KAPPA, step_size=ETA)

        def shift(x):
            kernel = np.exp(KAPPA * (x @ x.T))
            p = kernel / kernel.sum(axis=1, keepdims=True)
            return np.sum(targets * ((1 - ETA) * x + ETA * p @ x))

        slope = finite_differences(shift, points)
        true = reference.step_gradient(points, targets, **settings)
        assert_close(true, slope, 1e-7)
        for part in ({"symmetric": False}, {"direct": False}):
            printed = reference.step_gradient(points, targets, **settings, **part)
            assert np.linalg.norm(printed - true) > 0.1 * np.linalg.norm(true)


@pytest.mark.usefixtures("x64")
class TestOtherModes:
    def test_reverse_over_reverse_is_the_dense_hessian_vector_product(
        self, points, targets, mask
    ):
        direction = np.random.default_rng(6).normal(size=(N, D))

        def product(loss):
            def slope(x, kappa, eta):
                x_bar, kappa_bar, eta_bar = jax.grad(loss, (0, 1, 2))(x, kappa, eta)
                return jnp.sum(direction * x_bar) + kappa_bar - eta_bar

            return jax.jit(jax.grad(slope, (0, 1, 2)))(points, KAPPA, ETA)

        expected = product(dense_objective(targets, mask))
        assert_close(product(objective(targets, mask)), expected, 1e-9)

    def test_the_hessian_is_the_dense_one(self, points, targets, mask):
        x = points[:6]
        hessians = [
            jax.hessian(lambda x, loss=loss: loss(x, KAPPA, ETA))(x)
            for loss in (
                objective(targets[:6], mask[:6]),
                dense_objective(targets[:6], mask[:6]),
            )
        ]
        assert_close(*hessians, 1e-9)

    def test_forward_mode_wants_the_option(self, points, targets):
        args = (points, KAPPA, ETA)
        tangents = (targets, 0.3, -0.2)
        loss = objective(targets, None, custom_gradient=False)

        def derivative(loss):
            return jax.jit(lambda args, tangents: jax.jvp(loss, args, tangents))(
                args, tangents
            )

        found = derivative(loss)
        expected = derivative(dense_objective(targets, None))
        assert_close(found, expected, 1e-10)
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(objective(targets, None), args, tangents)
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jacfwd(objective(targets, None))(*args)

    def test_vmap_of_the_gradient_is_a_loop(self, points, targets):
        slope = jax.jit(jax.grad(objective(targets, None), (0, 1)))
        x = np.stack([points, points[::-1]])
        kappas = jnp.array([4.0, 16.0])
        mapped = jax.vmap(slope, in_axes=(0, 0, None))(x, kappas, ETA)
        for index in range(2):
            alone = slope(x[index], kappas[index], ETA)
            assert_close([leaf[index] for leaf in mapped], alone, 1e-12)


class TestSinglePrecision:
    @pytest.mark.parametrize(
        "kappa", [6.0, pytest.param(36.0, marks=pytest.mark.nightly), 100.0]
    )
    def test_it_keeps_five_digits_of_the_value_and_four_of_the_gradient(self, kappa):
        rng = np.random.default_rng(7)
        x, _ = reference.sphere_points(rng, 64, 16, spread=0.1)
        weights = rng.normal(size=x.shape)

        @jax.jit
        def value_and_grad(x, kappa, weights):
            def loss(x, kappa, eta):
                steps = grouping.gbms_trajectory(
                    x, concentration=kappa, step_size=eta, num_steps=5, block_size=32
                )
                return jnp.sum(weights * steps), steps

            return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(x, kappa, ETA)

        single = [np.float32(a) for a in (x, kappa, weights)]
        (_, steps), slopes = value_and_grad(*single)
        with jax.enable_x64(True):
            (_, exact_steps), exact_slopes = value_and_grad(x, kappa, weights)
        assert steps.dtype == np.float32
        assert exact_steps.dtype == np.float64
        assert_close(steps, exact_steps, 1e-5)
        assert_close(slopes, exact_slopes, 1e-4)
