"""Mean shift by another library's attention kernel, opted into by handing it in."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import grouping
from sphemb._checks import InputError
from tests.references import grouping as reference

N, D, STEPS = 32, 8, 3
KAPPA, ETA = 25.0, 0.8
full = functools.partial(jax.nn.dot_product_attention, scale=1.0)


def half(query, key, value, *, mask):
    """What the kernels of accelerators take: bfloat16."""
    query, key, value = (a.astype(jnp.bfloat16) for a in (query, key, value))
    return full(query, key, value, mask=mask).astype(jnp.float32)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    x, _ = reference.sphere_points(np.random.default_rng(1), N, D)
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return np.random.default_rng(2).uniform(size=N) < 0.8


def value_and_slopes(x, mask, attention):
    weights = np.random.default_rng(3).normal(size=x.shape).astype(x.dtype)

    def loss(x, kappa, eta):
        moved = grouping.gbms(
            x,
            concentration=kappa,
            step_size=eta,
            num_steps=STEPS,
            mask=mask,
            attention=attention,
        )
        return jnp.sum(weights * moved), moved

    slope = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (_, moved), slopes = slope(x, KAPPA, ETA)
    return np.asarray(moved), [np.asarray(s) for s in slopes]


def errors(points, mask, attention):
    with jax.enable_x64(True):
        moved, slopes = value_and_slopes(np.float64(points), mask, None)
    found, found_slopes = value_and_slopes(points, mask, attention)
    pairs = zip([found, *found_slopes], [moved, *slopes], strict=True)
    return [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]


class TestErrorsBesideFloat64:
    def test_a_kernel_in_float32_is_as_exact_as_the_tiles(self, points, mask):
        value, x, kappa, eta = errors(points, mask, full)
        assert value < 1e-5
        assert max(x, kappa, eta) < 1e-4
        value, x, kappa, eta = errors(points, mask, None)
        assert value < 1e-5
        assert max(x, kappa, eta) < 1e-4

    def test_a_kernel_in_bfloat16_is_off_by_percents_and_has_to_be_handed_in(
        self, points, mask
    ):
        value, x, _, _ = errors(points, mask, half)
        assert 1e-4 < value < 2e-2
        assert 1e-3 < x < 2e-1


def test_a_batch_goes_to_the_kernel_in_one_piece(points):
    shapes = []

    def spy(query, key, value, *, mask):
        shapes.append(query.shape)
        return full(query, key, value, mask=mask)

    x = np.stack([points, points[::-1]])
    together = grouping.gbms(x, concentration=KAPPA, num_steps=2, attention=spy)
    for one, image in zip(together, x, strict=True):
        alone = grouping.gbms(image, concentration=KAPPA, num_steps=2)
        np.testing.assert_allclose(one, alone, atol=1e-5)
    assert set(shapes) == {(1, N, 1, D)}  # seen below vmap, traced once
    assert len(shapes) == 1


def test_masked_rows_stay(points, mask):
    spoilt = np.where(mask[:, None], points, np.nan)
    settings = {"concentration": KAPPA, "num_steps": 2, "mask": mask}
    moved = grouping.gbms(spoilt, attention=full, **settings)
    assert np.isnan(moved[~mask]).all()
    exact = grouping.gbms(points, **settings)
    np.testing.assert_allclose(moved[mask], exact[mask], atol=1e-5)


def test_a_mistake_is_named(points):
    settings = {"concentration": KAPPA, "num_steps": 2}
    with pytest.raises(InputError, match="attention must be a function, got 'cudnn'"):
        grouping.gbms(points, attention="cudnn", **settings)
    with pytest.raises(InputError, match="weights must be None where attention"):
        grouping.gbms(points, attention=full, weights=np.ones(N), **settings)
    mesh = jax.make_mesh((2,), ("points",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("points")
    shift = functools.partial(
        grouping.gbms, attention=full, axis_name="points", **settings
    )
    shift = jax.shard_map(shift, mesh=mesh, in_specs=spec, out_specs=spec)
    with pytest.raises(InputError, match="attention must be None where axis_name"):
        shift(points)
