"""Accelerated blurring mean shift: the ends of the exact one, with less work."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, grouping
from sphemb._checks import InputError
from sphemb.grouping import _accelerated
from tests.references import grouping as reference

N, D = 1200, 16
KAPPA = 25.0
# The last group holds one point in a hundred and twenty.
SHARES = np.array([0.7, 0.15, 0.1, 0.04, 0.0083])
EXACT = {"concentration": KAPPA, "num_steps": 12}
FAST = EXACT | {"max_points": 256}


def clusters(spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = np.round(SHARES * N).astype(int)
    sizes[0] += N - sizes.sum()
    labels = rng.permutation(np.repeat(np.arange(len(SHARES)), sizes))
    x = np.linalg.qr(rng.normal(size=(D, D)))[0][labels]
    x = x + spread / np.sqrt(D) * rng.normal(size=(N, D))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), labels


def label(x, mask=None):
    return grouping.label_modes(x, max_groups=16, mask=mask).labels


def represent(x, mass):
    precision = jax.lax.Precision.HIGHEST
    return _accelerated.represent(jnp.asarray(x), mass, 64, precision=precision)


class TestAgreement:
    @pytest.mark.parametrize("spread", [0.2, 0.4])
    def test_labels_are_those_of_the_exact_mean_shift(self, spread):
        x, truth = clusters(spread)
        exact = label(grouping.gbms(x, **EXACT))
        fast = label(grouping.accelerated_gbms(x, **FAST))
        assert int(exact.max()) == len(SHARES) - 1
        np.testing.assert_array_equal(fast, exact)
        np.testing.assert_array_equal(fast, truth)  # the groups are numbered by size

    def test_modes_are_close_to_the_exact_ones(self):
        x, _ = clusters(0.2)
        exact = grouping.gbms(x, **EXACT)
        fast = grouping.accelerated_gbms(x, **FAST)
        np.testing.assert_allclose(np.linalg.norm(fast, axis=1), 1.0, atol=1e-6)
        assert np.linalg.norm(fast - exact, axis=1).max() < 0.02

    def test_few_points_take_the_exact_steps(self):
        x, _ = clusters(0.4)
        exact = grouping.gbms(x[:200], concentration=KAPPA, num_steps=3)
        settings = {"tolerance": 0.0, "max_points": 256}
        fast = grouping.accelerated_gbms(
            x[:200], concentration=KAPPA, num_steps=3, **settings
        )
        np.testing.assert_allclose(fast, exact, atol=1e-6)
        expected = reference.gbms(x[:200], concentration=KAPPA, num_steps=3)[-1]
        np.testing.assert_allclose(fast, expected, atol=1e-5)

    def test_points_that_lie_together_already_need_no_step_among_all(self):
        x, _ = clusters(0.2)
        twins = np.repeat(x[:100], 12, axis=0)
        fast = grouping.accelerated_gbms(twins, **FAST | {"tolerance": 0.0})
        alone = grouping.gbms(x[:100], **EXACT)
        np.testing.assert_allclose(fast[::12], alone, atol=1e-5)

    def test_it_stops_when_nothing_moves_any_more(self):
        x, _ = clusters(0.2)
        settings = _accelerated._Settings(50, 256, jax.lax.Precision.HIGHEST)
        numbers = tuple(jnp.float32(v) for v in (KAPPA, 1.0, 1e-4, 0.01))
        taken = _accelerated._images(x, None, numbers, settings=settings)[1]
        assert 2 <= int(taken) < 10


class TestProperties:
    def test_masked_points_stay_and_do_not_attract(self):
        x, truth = clusters(0.2)
        mask = np.random.default_rng(2).uniform(size=N) < 0.8
        spoilt = np.where(mask[:, None], x, np.nan)
        fast = grouping.accelerated_gbms(spoilt, mask=mask, **FAST)
        assert np.isnan(fast[~mask]).all()
        labels = label(fast, mask=mask)
        assert (labels[~mask] == VOID).all()
        np.testing.assert_array_equal(labels[mask], truth[mask])
        whole = label(grouping.gbms(x, mask=mask, **EXACT), mask=mask)
        np.testing.assert_array_equal(labels, whole)

    def test_the_order_of_the_points_does_not_matter(self):
        x, _ = clusters(0.4)
        order = np.random.default_rng(3).permutation(N)
        straight = label(grouping.accelerated_gbms(x, **FAST))
        shuffled = label(grouping.accelerated_gbms(x[order], **FAST))
        np.testing.assert_array_equal(shuffled, straight[order])

    def test_a_batch_is_a_loop_over_images_under_jit_too(self):
        x = np.stack([clusters(0.2)[0], clusters(0.4)[0]])
        together = jax.jit(lambda x: grouping.accelerated_gbms(x, **FAST))(x)
        for one, image in zip(together, x, strict=True):
            alone = grouping.accelerated_gbms(image, **FAST)
            np.testing.assert_allclose(one, alone, atol=2e-6)

    def test_points_that_do_not_meet_come_back_after_the_last_step(self):
        x, _ = clusters(1.0)
        settings = {"concentration": 20.0, "max_points": 64}
        once = grouping.accelerated_gbms(x, num_steps=1, **settings)
        twice = grouping.accelerated_gbms(x, num_steps=2, **settings)
        for before, after in ((x, once), (once, twice)):
            assert np.linalg.norm(after - before, axis=1).min() > 1e-3
        np.testing.assert_allclose(np.linalg.norm(twice, axis=1), 1.0, atol=1e-6)
        # Nothing was merged: the points differ still, but for those about to meet.
        assert len(np.unique(np.round(twice, 6), axis=0)) > 0.9 * N

    def test_images_may_be_spread_over_devices(self):
        x = np.stack([clusters(0.2)[0], clusters(0.4)[0]])
        mesh = jax.make_mesh(
            (2,), ("images",), axis_types=(jax.sharding.AxisType.Auto,)
        )
        spec = jax.sharding.PartitionSpec("images")

        @jax.jit
        @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
        def group(x):
            return label(grouping.accelerated_gbms(x, **FAST))

        alone = [label(grouping.accelerated_gbms(image, **FAST)) for image in x]
        np.testing.assert_array_equal(group(x), alone)

    def test_it_may_stand_in_a_loss_whose_gradient_it_does_not_touch(self):
        x, _ = clusters(0.2)

        def loss(x, kappa):
            settings = {"concentration": kappa, "num_steps": 3, "max_points": 256}
            return jnp.sum(grouping.accelerated_gbms(x, **settings))

        slopes = jax.grad(loss, (0, 1))(x, 25.0)
        assert all(not slope.any() for slope in map(np.asarray, slopes))

    def test_nan_comes_out_and_does_not_hang(self):
        x, _ = clusters(0.2)
        x[5] = np.nan
        assert np.isnan(grouping.accelerated_gbms(x, **FAST)).any()

    def test_nothing_to_do_changes_nothing(self):
        x, _ = clusters(0.2)
        none = np.zeros(N, bool)
        fast = grouping.accelerated_gbms(x, mask=none, **FAST)
        np.testing.assert_array_equal(fast, x)
        settings = {"concentration": KAPPA, "num_steps": 0}
        np.testing.assert_array_equal(grouping.accelerated_gbms(x, **settings), x)
        assert grouping.accelerated_gbms(x[:0], **FAST).shape == (0, D)

    def test_memory_is_linear_in_the_points(self):
        def group(x):
            return grouping.accelerated_gbms(x, concentration=25.0, num_steps=10)

        x = jax.ShapeDtypeStruct((262_144, 64), jnp.float32)
        program = jax.jit(group).lower(x).compile()
        memory = program.memory_analysis()
        held = memory.temp_size_in_bytes + memory.output_size_in_bytes
        assert held + memory.argument_size_in_bytes < 2**29


class TestCells:
    def gathered(self, x, mass, side=0.2, most=64):
        codes = _accelerated.encode(_accelerated.project(x), jnp.float32(side))
        return codes, _accelerated.gather(x, mass, codes, most)

    def test_cells_hold_the_weight_and_the_mean_of_their_points(self):
        x = clusters(0.2)[0][:64, :3]
        mass = np.random.default_rng(4).integers(0, 3, size=64).astype(np.float32)
        codes, cells = self.gathered(x, mass)
        index = np.asarray(cells.index)
        assert int(_accelerated.count_cells(codes, mass > 0)) == int(cells.number)
        np.testing.assert_allclose(cells.weights.sum(), mass.sum())
        for cell in range(int(cells.number)):
            inside = index == cell
            weights = mass[inside]
            np.testing.assert_allclose(cells.weights[cell], weights.sum())
            mean = weights @ x[inside] / weights.sum()
            np.testing.assert_allclose(cells.means[cell], mean, atol=1e-6)
        assert (index[mass == 0] >= int(cells.number)).all()

    def test_points_of_a_cell_are_no_farther_apart_than_its_diagonal(self):
        x = clusters(0.4)[0][:256, :3]
        _, cells = self.gathered(x, np.ones(256, np.float32), most=256)
        for cell in range(int(cells.number)):
            inside = x[np.asarray(cells.index) == cell]
            gaps = np.linalg.norm(inside[:, None] - inside, axis=-1)
            assert gaps.max() <= 0.2 * np.sqrt(3) + 1e-6

    def test_cells_beyond_the_limit_are_dropped_and_counted(self):
        x = clusters(1.0)[0][:64]
        _, cells = self.gathered(x, np.ones(64, np.float32), side=0.01, most=8)
        assert int(cells.number) == 64
        assert float(cells.weights.sum()) == 8.0


class TestRepresentatives:
    def test_every_point_gets_nearly_its_nearest_representative(self):
        x, _ = clusters(0.4)
        mass = np.ones(N, np.float32)
        index = np.asarray(represent(x, mass))
        means, masses = _accelerated.average(x, mass, index, 64)
        assert (np.asarray(masses) > 0).all()
        np.testing.assert_allclose(masses.sum(), N)
        # No point is nearer to another cell's mean by much: they are near-Voronoi.
        away = np.linalg.norm(x[:, None] - np.asarray(means), axis=-1)
        own = away[np.arange(N), index]
        assert own.mean() < 1.1 * away.min(axis=1).mean()

    def test_the_smallest_group_has_cells_of_its_own(self):
        x, truth = clusters(0.4)
        index = np.asarray(represent(x, np.ones(N, np.float32)))
        for cell in np.unique(index[truth == len(SHARES) - 1]):
            assert set(truth[index == cell]) == {len(SHARES) - 1}

    def test_invalid_points_are_never_sampled(self):
        x, truth = clusters(0.2)
        counts = (truth == 0).astype(np.float32)
        index = np.asarray(represent(x, counts))
        cells, sizes = np.unique(index[truth == 0], return_counts=True)
        assert len(cells) == 64
        assert sizes.sum() == counts.sum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concentration": 0.0}, "concentration must satisfy 0.0 < .* got 0.0"),
        ({"max_points": 7}, "max_points must be >= 8, got 7"),
        ({"max_points": 8.0}, "max_points must be a Python int"),
        ({"merge_distance": 0.0}, "merge_distance must satisfy 0.0 < .* got 0.0"),
        ({"tolerance": -1.0}, "tolerance must satisfy 0.0 <= tolerance, got -1.0"),
        ({"num_steps": -1}, "num_steps must be >= 0, got -1"),
        ({"mask": np.ones(3, bool)}, r"mask must have shape .*\(3,\)"),
    ],
)
def test_a_mistake_is_named(settings, message):
    with pytest.raises(InputError, match=message):
        grouping.accelerated_gbms(np.eye(4, dtype=np.float32), **FAST | settings)
