"""Values of the blurring mean shift: the definition, its symmetries, its edges."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb.grouping as grouping
from sphemb._checks import InputError
from tests.references import grouping as reference

N, D = 48, 4
KAPPA = 12.0


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    x, _ = reference.sphere_points(np.random.default_rng(1), N, D)
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return np.random.default_rng(2).uniform(size=N) < 0.7


class TestValues:
    @pytest.mark.parametrize("step_size", [1.0, 0.5, 1.7])
    def test_every_step_is_that_of_the_definition(self, points, step_size):
        steps = grouping.gbms_trajectory(
            points, concentration=KAPPA, num_steps=5, step_size=step_size
        )
        expected = reference.gbms(
            points, concentration=KAPPA, num_steps=5, step_size=step_size
        )
        assert steps.shape == (6, N, D)
        np.testing.assert_allclose(steps, expected, atol=1e-5)

    def test_the_mask_silences_points_and_leaves_them_where_they_are(
        self, points, mask
    ):
        steps = grouping.gbms_trajectory(
            points, concentration=KAPPA, num_steps=5, mask=mask
        )
        expected = reference.gbms(points, concentration=KAPPA, num_steps=5, mask=mask)
        np.testing.assert_allclose(steps, expected, atol=1e-5)
        np.testing.assert_array_equal(steps[-1][~mask], points[~mask])

    def test_gbms_is_the_end_of_its_trajectory(self, points):
        steps = grouping.gbms_trajectory(points, concentration=KAPPA, num_steps=5)
        last = grouping.gbms(points, concentration=KAPPA, num_steps=5)
        one = grouping.gbms_step(points, concentration=KAPPA)
        np.testing.assert_array_equal(steps[0], points)
        np.testing.assert_allclose(last, steps[-1], atol=1e-6)
        np.testing.assert_allclose(one, steps[1], atol=1e-6)

    def test_one_step_is_self_attention_put_back_on_the_sphere(self, points):
        x = jnp.asarray(points)[None, :, None, :]
        attended = jax.nn.dot_product_attention(x, x, x, scale=KAPPA)[0, :, 0]
        attended /= jnp.linalg.norm(attended, axis=1, keepdims=True)
        one = grouping.gbms_step(points, concentration=KAPPA)
        np.testing.assert_allclose(one, attended, atol=5e-6)

    def test_no_step_and_no_point_change_nothing(self, points):
        same = grouping.gbms(points, concentration=KAPPA, num_steps=0)
        np.testing.assert_array_equal(same, points)
        none = grouping.gbms_trajectory(points[:0], concentration=KAPPA, num_steps=3)
        assert none.shape == (4, 0, D)

    def test_half_precision_goes_in_and_comes_out(self, points):
        half = jnp.asarray(points, jnp.bfloat16)
        moved = grouping.gbms(half, concentration=KAPPA, num_steps=5)
        expected = reference.gbms(half, concentration=KAPPA, num_steps=5)[-1]
        assert moved.dtype == jnp.bfloat16
        np.testing.assert_allclose(moved.astype(jnp.float32), expected, atol=1e-2)


class TestSymmetries:
    def run(self, x, **settings):
        return np.asarray(
            grouping.gbms(x, concentration=KAPPA, num_steps=5, **settings)
        )

    def test_rotating_the_input_rotates_the_output(self, points):
        rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(D, D)))
        rotation = rotation.astype(np.float32)
        turned = self.run(points @ rotation)
        np.testing.assert_allclose(turned, self.run(points) @ rotation, atol=2e-5)

    def test_the_order_of_the_points_does_not_matter(self, points):
        order = np.random.default_rng(4).permutation(N)
        np.testing.assert_allclose(
            self.run(points[order]), self.run(points)[order], atol=2e-5
        )

    def test_padding_changes_nothing_whatever_it_holds(self, points):
        padded = np.concatenate([points, np.full((9, D), np.nan, np.float32)])
        counts = np.arange(N + 9) < N
        moved = self.run(padded, mask=counts)
        np.testing.assert_allclose(moved[:N], self.run(points), atol=2e-6)
        assert np.isnan(moved[N:]).all()

    @pytest.mark.parametrize("block_size", [1, 7, 16, N, 1000])
    def test_the_block_size_changes_nothing(self, points, mask, block_size):
        tiled = self.run(points, mask=mask, block_size=block_size)
        np.testing.assert_allclose(tiled, self.run(points, mask=mask), atol=2e-6)


class TestComposition:
    @pytest.mark.parametrize("num_points", [24, 1])
    def test_batch_axes_are_a_loop_over_images(self, points, mask, num_points):
        x = points.reshape(2, 24, D)[:, None, :num_points]
        x = np.concatenate([x, -x[:, :, ::-1]], axis=1)
        counts = mask.reshape(2, 1, 24)[..., :num_points].repeat(2, axis=1)
        settings = dict(concentration=KAPPA, num_steps=3)
        together = grouping.gbms_trajectory(x, mask=counts, **settings)
        assert together.shape == (4, *x.shape)
        for index in np.ndindex(2, 2):
            alone = grouping.gbms_trajectory(x[index], mask=counts[index], **settings)
            np.testing.assert_allclose(together[:, *index], alone, atol=2e-6)

    def test_vmap_over_the_settings_is_a_loop(self, points):
        def run(kappa, eta):
            return grouping.gbms(
                points, concentration=kappa, step_size=eta, num_steps=3, block_size=16
            )

        kappas, etas = jnp.array([1.0, 5.0, 25.0]), jnp.array([1.0, 0.5, 1.5])
        mapped = jax.vmap(run)(kappas, etas)
        for row, kappa, eta in zip(mapped, kappas, etas, strict=True):
            np.testing.assert_allclose(row, run(kappa, eta), atol=2e-6)

    def test_a_shape_is_traced_once(self, points):
        traces = []

        @jax.jit
        def run(x, kappa, eta):
            traces.append(x.shape)
            return grouping.gbms(x, concentration=kappa, step_size=eta, num_steps=3)

        for kappa, eta in ((1.0, 1.0), (9.0, 0.5), (25.0, 1.5)):
            run(points * 1.0, kappa, eta)
        assert len(traces) == 1

    def test_eight_devices_do_what_one_does(self):
        assert jax.device_count() >= 8
        rng = np.random.default_rng(5)
        x = np.stack([reference.sphere_points(rng, 16, D)[0] for _ in range(8)])
        x = x.astype(np.float32)

        def value_and_grad(x, kappa):
            def loss(x, kappa):
                moved = grouping.gbms(x, concentration=kappa, num_steps=3, block_size=8)
                return jnp.sum(moved[..., 0] ** 3)

            return jax.value_and_grad(loss, (0, 1))(x, kappa)

        one = jax.jit(value_and_grad)
        alone = [one(image, KAPPA) for image in x]
        mapped = jax.pmap(value_and_grad, in_axes=(0, None))(x, jnp.float32(KAPPA))
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("batch",))
        spec = jax.sharding.PartitionSpec

        def shard(x, kappa):
            value, (x_bar, kappa_bar) = value_and_grad(x[0], kappa)
            return value[None], (x_bar[None], kappa_bar[None])

        sharded = jax.jit(
            jax.shard_map(
                shard,
                mesh=mesh,
                in_specs=(spec("batch"), spec()),
                out_specs=spec("batch"),
                check_vma=False,
            )
        )(x, jnp.float32(KAPPA))
        expected = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
        for found in (mapped, sharded):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
                found,
                expected,
            )


class TestEdges:
    @pytest.mark.parametrize("kappa", [1e-3, 25.0, 1e4])
    @pytest.mark.parametrize("custom_gradient", [True, False])
    def test_zero_rows_and_extreme_kernels_stay_finite(
        self, points, kappa, custom_gradient
    ):
        x = points.copy()
        x[3] = 0.0
        x[7] = -x[8]

        def loss(x, kappa, eta):
            moved = grouping.gbms(
                x,
                concentration=kappa,
                step_size=eta,
                num_steps=3,
                custom_gradient=custom_gradient,
            )
            return jnp.sum(moved[:, 0] ** 2)

        value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(x, kappa, 1.0)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(slope).all() for slope in slopes)

    def test_opposite_points_that_meet_at_the_center_do_not_divide_by_zero(self):
        x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
        step = jax.grad(
            lambda x: grouping.gbms_step(x, concentration=1e-9, step_size=1.0).sum()
        )
        assert jnp.isfinite(step(x)).all()

    def test_without_valid_points_nothing_moves(self, points):
        counts = np.zeros(N, bool)
        moved = grouping.gbms(points, concentration=KAPPA, num_steps=3, mask=counts)
        np.testing.assert_array_equal(moved, points)


X = np.zeros((4, 9, 3), np.float32)


@pytest.mark.parametrize(
    ("embeddings", "settings", "message"),
    [
        (X[0, 0], {}, r"embeddings must have shape \[\.\.\., N, D\], got \(3,\)"),
        (X.astype(int), {}, "embeddings must be floating point, got int"),
        (X, {"concentration": 0.0}, "concentration must satisfy 0.0 < .* got 0.0"),
        (X, {"concentration": float("nan")}, "concentration must satisfy .* got nan"),
        (X, {"concentration": "6"}, "concentration must be a number, got '6'"),
        (
            X,
            {"concentration": np.ones(5)},
            r"must broadcast to .* \(4,\) .* got \(5,\)",
        ),
        (X, {"step_size": 2.5}, "step_size must satisfy 0.0 < step_size <= 2.0, got"),
        (X, {"num_steps": 2.0}, "num_steps must be a Python int .* got 2.0"),
        (X, {"num_steps": -1}, "num_steps must be >= 0, got -1"),
        (X, {"block_size": 0}, "block_size must be >= 1, got 0"),
        (X, {"mask": np.ones((4, 3, 3), bool)}, r"mask must have shape .*\(4, 3, 3\)"),
        (X, {"mask": np.ones((4, 9), int)}, "mask must be bool .*got int"),
        (X, {"custom_gradient": "any"}, "must be True or False, got"),
    ],
)
def test_a_mistake_is_named(embeddings, settings, message):
    settings = {"concentration": 6.0, "num_steps": 2} | settings
    with pytest.raises(InputError, match=message):
        grouping.gbms(embeddings, **settings)
