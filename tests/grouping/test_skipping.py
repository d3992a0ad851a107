"""Pairs that cannot matter are left out: values and gradients are those of all."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import _tiles, gbms, margin_loss
from sphemb.grouping import _step
from sphemb.losses import _margin
from sphemb.sphere import _blocks
from tests.references import losses as loss_reference
from tests.references.grouping import sphere_points
from tests.references.sphere import unit_rows

N, D = 700, 8
_rng = np.random.default_rng(0)
SPREAD, LABELS = sphere_points(_rng, N, D, spread=0.15)
COTANGENT = _rng.normal(size=(N, D))


@pytest.fixture(autouse=True, scope="module")
def few_points_pay():
    """Few points have few blocks, all of which are listed; batches go one by one."""
    sizes = {"_FEWEST": 0, "_WORTH": 1e9, "_ROWS": 64, "_COLUMNS": 128}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in sizes.items():
            patch.setattr(_blocks, name, value)
        patch.setattr(_tiles, "_num_devices", lambda array: 1)
        jax.clear_caches()
        yield
    jax.clear_caches()


@jax.jit
def exact(x, weights, kappa, cotangent):
    """Two steps by their definition and JAX's own gradient."""

    def step(x, weights, kappa):
        kernel = jnp.exp(kappa * (x @ x.T - 1.0)) * weights
        mean = kernel @ x / kernel.sum(axis=1, keepdims=True)
        return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)

    def both(x, weights, kappa):
        return step(step(x, weights, kappa), weights, kappa)

    found, pull = jax.vjp(both, x, weights, kappa)
    return found, *pull(cotangent)


def at_the_limit():
    """Two groups whose pairs are about where the bound leaves them out."""
    angle = np.arccos(1 - 26 / 36) + 1e-3 * _rng.normal(size=N)
    other = np.arange(N) % 2 == 1
    rows = np.zeros((N, 3))
    rows[:, 0] = np.where(other, np.cos(angle), 1)
    rows[:, 1] = np.where(other, np.sin(angle), 0)
    rows[:, 2] = 1e-3 * _rng.normal(size=N)
    return unit(rows)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def smooth():
    """Two arcs of a circle, which no gap parts but one."""
    angle = np.linspace(0, 4.5, N)
    return np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)


POINTS = {
    "clusters": SPREAD,
    "tight": unit(np.eye(D)[LABELS] + 0.01 * _rng.normal(size=(N, D))),
    "random": unit_rows(_rng, N, 3),
    "at the limit": at_the_limit(),
    "smooth": smooth(),
}
WEIGHTS = {"equal": np.ones(N), "counts": np.exp(_rng.uniform(-7, 7, size=N))}


two_steps = functools.partial(gbms, num_steps=2)


@functools.partial(jax.jit, static_argnames="block_size")
def steps_and_gradient(x, w, kappa, cotangent, block_size):
    def steps(x, w, kappa):
        return two_steps(x, concentration=kappa, weights=w, block_size=block_size)

    found, pull = jax.vjp(steps, x, w, kappa)
    return found, *pull(cotangent)


@pytest.mark.parametrize("kappa", [6.0, 36.0, 400.0])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", POINTS)
def test_steps_and_their_gradient_are_those_of_all_pairs(name, weights, kappa):
    x, w = POINTS[name], WEIGHTS[weights]
    v = COTANGENT[:, : x.shape[1]]
    with jax.enable_x64(True):
        expected = jax.device_get(exact(x, w, kappa, v))

    args = [np.asarray(a, np.float32) for a in (x, w, kappa)]
    errors = []
    for block_size in (None, N):  # with and without
        found = steps_and_gradient(*args, v.astype(np.float32), block_size)
        scales = [np.abs(e).max() for e in expected]
        # The sum that is kappa's gradient may cancel.
        scales[-1] = max(scales[-1], scales[1] / kappa)
        errors.append(
            [
                np.abs(np.asarray(f, np.float64) - e).max() / s
                for f, e, s in zip(found, expected, scales, strict=True)
            ]
        )
    for sparse, dense in zip(*errors, strict=True):
        assert sparse <= 4 * dense + 2e-6


def test_there_is_something_to_leave_out():
    x = jnp.asarray(POINTS["tight"], jnp.float32)
    ids = jnp.asarray(LABELS, jnp.int32)
    for plan in (
        _step._plan(x, jnp.ones(N), 36.0),
        _margin._plan(x, jnp.ones(N), ids, 0.6),
    ):
        blocks = np.sum(plan.blocks.filled)
        assert np.sum(plan.counts) < 0.5 * blocks**2


def test_masked_rows_batches_and_second_derivatives():
    x = np.stack([SPREAD, POINTS["tight"]]).astype(np.float32)
    mask = _rng.uniform(size=(2, N)) < 0.8
    x[~mask] = np.nan

    def moved(x, mask, block_size=None):
        return gbms(
            x, concentration=36.0, num_steps=3, mask=mask, block_size=block_size
        )

    expected = moved(x, mask, N)
    np.testing.assert_allclose(moved(x, mask), expected, atol=2e-6)
    np.testing.assert_allclose(jax.vmap(moved)(x, mask), expected, atol=2e-6)

    def total(kappa, block_size):
        x = SPREAD.astype(np.float32)
        y = two_steps(x, concentration=kappa, block_size=block_size)
        return jnp.sum(COTANGENT.astype(np.float32) * y)

    second = [jax.hessian(total)(25.0, block_size) for block_size in (None, N)]
    np.testing.assert_allclose(*second, rtol=1e-3)


def test_nan_comes_out():
    x = POINTS["tight"].astype(np.float32)
    x[3] = np.nan
    assert np.isnan(two_steps(x, concentration=36.0)).all()


@pytest.mark.parametrize("margin", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("power", [1, 2])
def test_the_margin_loss_is_that_of_all_pairs(margin, power):
    labels = np.where(_rng.uniform(size=N) < 0.05, 0, LABELS + 1)

    def loss(x, margin, block_size):
        settings = {"power": power, "block_size": block_size}
        return margin_loss(x, labels, margin=margin, **settings)

    x = POINTS["tight"].astype(np.float32)
    (value, slopes), (wanted, wanted_slopes) = (
        jax.value_and_grad(loss, (0, 1))(x, margin, block_size)
        for block_size in (None, N)
    )
    np.testing.assert_allclose(value, wanted, rtol=2e-6, atol=1e-9)
    for found, expected in zip(slopes, wanted_slopes, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=4e-6 * scale + 1e-12)
    if power == 1 and margin == 0.5:
        terms = loss_reference.margin_loss_terms(x, labels, margin=margin)
        np.testing.assert_allclose(value, np.sum(terms), rtol=1e-4, atol=1e-8)


def test_rows_of_zeros_that_count_take_part():
    x = POINTS["tight"].astype(np.float32)
    x[5] = 0

    def both(block_size):
        settings = {"block_size": block_size}
        moved = two_steps(x, concentration=36.0, **settings)
        return moved, margin_loss(x, LABELS + 1, margin=0.3, **settings)

    for found, expected in zip(both(None), both(N), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
