"""The fused kernels, interpreted, beside dense arithmetic in float32 and float64."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError, grouping
from sphemb.grouping import _fused
from sphemb.grouping._fused import Plan
from tests.references import grouping as reference

N, STEPS, ETA = 72, 4, 0.9
KAPPAS, DRAWS = (25.0, 36.0, 100.0), 12
PLANS = {  # several blocks of rows and columns, several chunks, padding
    "cuda": (
        Plan("cuda", 32, 16, chunks=2, interpret=True),
        Plan("cuda", 32, 16, interpret=True),
    ),
    "tpu": (Plan("tpu", 128, 128, interpret=True),) * 2,
}


def dense(x, weights, kappa, eta):
    """The definition in one N x N piece, for JAX to differentiate by itself."""
    product = functools.partial(jnp.matmul, precision="highest")

    def body(x, _):
        kernel = jnp.exp(kappa * (product(x, x.T) - 1.0)) * weights
        mean = product(kernel, x) / kernel.sum(axis=1, keepdims=True)
        y = (1.0 - eta) * x + eta * mean
        moved = y / jnp.linalg.norm(y, axis=1, keepdims=True)
        return jnp.where(weights[:, None] > 0, moved, x), None

    return jax.lax.scan(body, x, None, length=STEPS)[0]


def fused(plans, x, weights, kappa, eta):
    def body(x, _):
        return _fused.step(plans, x, weights, kappa, eta), None

    return jax.lax.scan(body, x, None, length=STEPS)[0]


@functools.cache
def draws(dim):
    """Points, weights (masked, or of a wide range) and targets of all images."""
    rng = np.random.default_rng(dim)
    images = []
    for index in range(len(KAPPAS) * DRAWS):
        x, _ = reference.sphere_points(rng, N, dim, spread=0.45 / np.sqrt(dim))
        mask = rng.uniform(size=N) < 0.8
        weights = rng.integers(1, 500, N) ** (index % 2) * mask
        images.append((x, weights, rng.normal(size=x.shape)))
    arrays = [np.stack(a).astype(np.float32) for a in zip(*images, strict=True)]
    return *arrays, np.repeat(np.float32(KAPPAS), DRAWS)


def value_and_slopes(move, dim, dtype):
    x, weights, targets, kappas = (jnp.asarray(a, dtype) for a in draws(dim))

    def one(x, weights, targets, kappa, eta):
        moved, pull = jax.vjp(move, x, weights, kappa, eta)
        return moved, *pull(targets)

    eta = jnp.full_like(kappas, ETA)
    return jax.device_get(jax.jit(jax.vmap(one))(x, weights, targets, kappas, eta))


def errors(found, true):
    """Medians over the draws, [results, kappas]; some draws are nearly singular."""
    out = []
    for a, b in zip(found, true, strict=True):
        a, b = (np.float64(v).reshape(len(KAPPAS), DRAWS, -1) for v in (a, b))
        relative = np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)
        out.append(np.median(relative, axis=1))
    return np.array(out)


@functools.cache
def true_and_dense_errors(dim):
    with jax.enable_x64(True):
        true = value_and_slopes(dense, dim, jnp.float64)
    return true, errors(value_and_slopes(dense, dim, jnp.float32), true)


@pytest.mark.parametrize("platform", PLANS)
@pytest.mark.parametrize("dim", [3, 16, 64])
def test_errors_are_at_most_four_times_those_of_dense_float32(dim, platform):
    true, dense_errors = true_and_dense_errors(dim)
    move = functools.partial(fused, PLANS[platform])
    found = errors(value_and_slopes(move, dim, jnp.float32), true)
    ratios = found / dense_errors
    points, numbers = ratios[:3], found[3:].max(axis=1) / dense_errors[3:].max(axis=1)
    assert (points < 4).all(), ratios  # points, and slopes in points and weights
    assert (numbers < 4).all(), ratios  # slopes in kappa and eta, worst over kappa


class TestImplementation:
    X = draws(3)[0][:2]
    MASK = draws(3)[1][:2] > 0
    KAPPA = np.array([25.0, 36.0], np.float32)

    def slopes(self, implementation):
        def loss(x, kappa, eta):
            settings = dict(concentration=kappa, step_size=eta, mask=self.MASK)
            settings["implementation"] = implementation
            path = grouping.gbms_trajectory(x, num_steps=2, **settings)
            return jnp.sum(path**3)

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))

    def test_it_is_that_of_the_tiles_for_a_batch_with_masks(self):
        x = np.where(self.MASK[..., None], self.X, np.nan)
        found = self.slopes("pallas")(self.X, self.KAPPA, ETA)
        true = self.slopes("xla")(self.X, self.KAPPA, ETA)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
            assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(b)
        settings = dict(concentration=25.0, mask=self.MASK)
        moved = grouping.gbms_step(x, implementation="pallas", **settings)
        np.testing.assert_array_equal(np.isnan(moved[..., 0]), ~self.MASK)

    def test_without_weights_nothing_moves(self):
        nothing = np.zeros(self.X.shape[:2], bool)
        settings = dict(concentration=25.0, implementation="pallas", mask=nothing)
        moved = grouping.gbms_step(self.X, **settings)
        np.testing.assert_array_equal(moved, self.X)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"implementation": "triton"}, "implementation must be one of"),
            ({"attention": lambda q, k, v, mask: q}, "needs attention None"),
            ({"custom_gradient": False}, "needs custom_gradient True, got False"),
        ],
    )
    def test_what_the_kernel_cannot_do_is_refused(self, settings, message):
        settings = {"implementation": "pallas", "concentration": 9.0, **settings}
        with pytest.raises(InputError, match=message):
            grouping.gbms_step(self.X, **settings)

    def test_so_are_shapes_and_dtypes(self, x64):
        settings = {"implementation": "pallas", "concentration": 9.0}
        with pytest.raises(InputError, match="needs D <= 128, got 129: use"):
            grouping.gbms_step(jnp.ones((4, 129), jnp.float32), **settings)
        with pytest.raises(InputError, match="needs float32 or less, got 'float64'"):
            grouping.gbms_step(jnp.eye(4), **settings)
