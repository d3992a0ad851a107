"""Mean shift of seeds on a density that stays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb.grouping as grouping
from sphemb._checks import InputError
from tests.references import grouping as reference
from tests.references.derivatives import finite_differences

M, N, D = 7, 40, 4
KAPPA, ETA = 12.0, 0.9
SETTINGS = dict(concentration=KAPPA, step_size=ETA, num_steps=4)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(1)
    points, _ = reference.sphere_points(rng, N, D)
    seeds, _ = reference.sphere_points(rng, M, D)
    return seeds, points, rng.uniform(size=N) < 0.7


def as_single(*arrays):
    return [a if a.dtype == bool else a.astype(np.float32) for a in arrays]


class TestValues:
    @pytest.mark.parametrize("block_size", [None, 3, 16])
    def test_it_is_the_definition_at_any_block_size(self, case, block_size):
        seeds, points, mask = as_single(*case)
        moved = grouping.mean_shift(
            seeds, points, mask=mask, block_size=block_size, **SETTINGS
        )
        expected = reference.mean_shift(seeds, points, mask=mask, **SETTINGS)
        np.testing.assert_allclose(moved, expected, atol=1e-5)

    def test_a_seed_opposite_to_every_point_still_finds_the_nearest(self):
        points = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
        seeds = np.array([[-0.8, -0.6]], np.float32)
        settings = dict(concentration=1e4, num_steps=2)
        moved = grouping.mean_shift(seeds, points, **settings)
        np.testing.assert_allclose(moved, [[0.0, 1.0]], atol=1e-6)

    def test_seeds_that_are_the_points_make_the_first_blurring_step(self, case):
        _, points, _ = as_single(*case)
        moved = grouping.mean_shift(points, points, concentration=KAPPA, num_steps=1)
        blurred = grouping.gbms_step(points, concentration=KAPPA)
        np.testing.assert_allclose(moved, blurred, atol=2e-6)

    def test_what_masked_points_hold_does_not_matter(self, case):
        seeds, points, mask = as_single(*case)
        spoilt = np.where(mask[:, None], points, np.nan)
        np.testing.assert_allclose(
            grouping.mean_shift(seeds, spoilt, mask=mask, **SETTINGS),
            grouping.mean_shift(seeds, points, mask=mask, **SETTINGS),
        )

    def test_without_a_point_that_counts_the_seeds_stay(self, case):
        seeds, points, mask = as_single(*case)
        nothing = np.zeros_like(mask)
        moved = grouping.mean_shift(seeds, points, mask=nothing, **SETTINGS)
        np.testing.assert_array_equal(moved, seeds)
        moved = grouping.mean_shift(seeds, points[:0], **SETTINGS)
        np.testing.assert_array_equal(moved, seeds)

    def test_batch_axes_are_a_loop(self, case):
        seeds, points, _ = as_single(*case)
        seeds = np.stack([seeds, -seeds])
        points = np.stack([points, points[::-1]])
        run = jax.jit(lambda s, x: grouping.mean_shift(s, x, **SETTINGS))
        mapped, together = jax.jit(jax.vmap(run)), run(seeds, points)
        for index in range(2):
            alone = run(seeds[index], points[index])
            np.testing.assert_allclose(together[index], alone, atol=2e-6)
        np.testing.assert_allclose(mapped(seeds, points), together, atol=2e-6)


@pytest.mark.usefixtures("x64")
class TestGradient:
    def test_it_is_the_slope_in_seeds_points_and_settings(self, case):
        seeds, points, mask = case
        targets = np.random.default_rng(2).normal(size=(M, D))

        def loss(seeds, points, kappa, eta):
            moved = grouping.mean_shift(
                seeds,
                points,
                concentration=kappa,
                step_size=eta,
                num_steps=4,
                mask=mask,
                block_size=16,
            )
            return jnp.sum(targets * moved)

        def value(seeds, points, kappa, eta):
            moved = reference.mean_shift(
                seeds,
                points,
                concentration=kappa,
                step_size=eta,
                num_steps=4,
                mask=mask,
            )
            return np.sum(targets * moved)

        args = [seeds, points, KAPPA, ETA]
        found = jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*args)
        for index, slope in enumerate(found):

            def along(arg, index=index):
                return value(*args[:index], arg, *args[index + 1 :])

            expected = finite_differences(along, args[index])
            gap = np.linalg.norm(slope - expected)
            assert gap < 1e-7 * np.linalg.norm(expected)
        tangents = [np.ones_like(a) for a in (seeds, points)]
        _, forward = jax.jit(
            lambda s, x, ds, dx: jax.jvp(
                lambda s, x: loss(s, x, KAPPA, ETA), (s, x), (ds, dx)
            )
        )(seeds, points, *tangents)
        backward = sum(np.sum(slope) for slope in found[:2])
        np.testing.assert_allclose(forward, backward, rtol=1e-9)


S, P = np.zeros((4, 3, 2), np.float32), np.zeros((4, 9, 2), np.float32)


@pytest.mark.parametrize(
    ("seeds", "points", "settings", "message"),
    [
        (S[0], P, {}, r"seeds must have shape .* to go with points, got \(3, 2\)"),
        (S[..., :1], P, {}, "seeds must have shape"),
        (S.astype(int), P, {}, "seeds must be floating point, got int"),
        (S, P.astype(int), {}, "points must be floating point, got int"),
        (S, P, {"concentration": -1.0}, "concentration must satisfy"),
        (S, P, {"step_size": 0.0}, "step_size must satisfy"),
        (S, P, {"num_steps": -2}, "num_steps must be >= 0, got -2"),
        (
            S,
            P,
            {"mask": np.ones((4, 3), bool)},
            r"mask must have shape .* got \(4, 3\)",
        ),
        (S, P, {"block_size": 1.5}, "block_size must be a Python int"),
    ],
)
def test_a_mistake_is_named(seeds, points, settings, message):
    settings = {"concentration": 6.0, "num_steps": 2} | settings
    with pytest.raises(InputError, match=message):
        grouping.mean_shift(seeds, points, **settings)
