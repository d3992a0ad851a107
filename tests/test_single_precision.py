"""Every path in float32 beside the dense definition in float64, for the defaults."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb
from tests.references import grouping as reference

N, M, STEPS = 320, 24, 3  # more points than a tile has columns
KAPPA, ETA, MARGIN = 25.0, 0.9, 0.5


def dense_mean(x, keys, kappa):
    kernel = jnp.exp(kappa * (x @ keys.T - 1.0))
    return kernel @ keys / kernel.sum(axis=1, keepdims=True)


def dense_move(x, mean, eta):
    moved = (1.0 - eta) * x + eta * mean
    return moved / jnp.linalg.norm(moved, axis=1, keepdims=True)


def dense_gbms(x, kappa, eta):
    for _ in range(STEPS):
        x = dense_move(x, dense_mean(x, x, kappa), eta)
    return x


def dense_seeded(x, kappa, eta):
    seeds = x[:M]
    for _ in range(STEPS):
        seeds = dense_move(seeds, dense_mean(seeds, x, kappa), eta)
    return seeds


def dense_loss(x, labels, power):
    same = labels[:, None] == labels
    weights = 1.0 / same.sum(axis=1)
    s = 0.5 * (1.0 + x @ x.T)
    cost = jnp.where(same, 1.0 - s**power, jnp.maximum(s - MARGIN, 0.0) ** power)
    return weights @ cost @ weights / N


def shift(x, kappa, eta, **settings):
    settings |= {"concentration": kappa, "step_size": eta, "num_steps": STEPS}
    return sphemb.gbms(x, **settings)


def spread_shift(x, kappa, eta):
    spec = jax.sharding.PartitionSpec("points")
    mesh = jax.make_mesh((2,), ("points",), axis_types=(jax.sharding.AxisType.Auto,))
    none = jax.sharding.PartitionSpec()
    return jax.shard_map(
        functools.partial(shift, axis_name="points"),
        mesh=mesh,
        in_specs=(spec, none, none),
        out_specs=spec,
    )(x, kappa, eta)


def seeded_shift(x, kappa, eta):
    settings = {"concentration": kappa, "step_size": eta, "num_steps": STEPS}
    return sphemb.mean_shift(x[:M], x, **settings)


SHIFTS = {
    "gbms": (shift, dense_gbms),
    "gbms, any": (functools.partial(shift, custom_gradient=False), dense_gbms),
    "gbms, spread": (spread_shift, dense_gbms),
    "mean_shift": (seeded_shift, dense_seeded),
}


def relative_error(found, true):
    found, true = np.float64(found), np.asarray(true)
    return np.linalg.norm(found - true) / np.linalg.norm(true)


@pytest.fixture(scope="module", params=[3, 64])
def data(request):
    rng = np.random.default_rng(1)
    dim = request.param
    spread = 0.3 / np.sqrt(dim)
    x, labels = reference.sphere_points(rng, N, dim, spread=spread)
    # What the result is contracted with: where the points were, and one direction. A
    # draw of its own for every point would leave the slopes in kappa and eta, which are
    # sums over all points, to cancellation.
    weights = x + 0.5 * rng.normal(size=dim) / np.sqrt(dim)
    return np.float32(x), labels, np.float32(weights)


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_keep_five_digits_and_their_gradients_four(data, name):
    x, _, weights = data
    ours, dense = SHIFTS[name]

    def slopes(function, weights):
        def loss(x, kappa, eta):
            moved = function(x, kappa, eta)
            return jnp.sum(weights[: len(moved)] * moved), moved

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))

    arguments = [np.float32(a) for a in (x, KAPPA, ETA)]
    (_, found), found_slopes = slopes(ours, weights)(*arguments)
    with jax.enable_x64(True):
        exact = [np.float64(a) for a in arguments]
        (_, true), true_slopes = slopes(dense, np.float64(weights))(*exact)
        true, true_slopes = np.asarray(true), [np.asarray(s) for s in true_slopes]
    assert found.dtype == np.float32
    assert true.dtype == np.float64
    assert relative_error(found, true) < 1e-5
    for slope, true_slope in zip(found_slopes, true_slopes, strict=True):
        assert relative_error(slope, true_slope) < 1e-4


@pytest.mark.parametrize("power", [1, 2])
def test_the_loss_keeps_five_digits_and_its_gradient_four(data, power):
    x, labels, _ = data

    def ours(x):
        return sphemb.margin_loss(x, labels, margin=MARGIN, power=power)

    found, slope = jax.jit(jax.value_and_grad(ours))(x)
    with jax.enable_x64(True):
        dense = jax.jit(jax.value_and_grad(lambda x: dense_loss(x, labels, power)))
        true, true_slope = (np.asarray(a) for a in dense(np.float64(x)))
    assert relative_error(found, true) < 1e-5
    assert relative_error(slope, true_slope) < 1e-4
