"""One image's pixels on several devices: the same loss as on one, in less memory."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sphemb import VOID, grouping, losses
from sphemb._checks import InputError
from tests.references import sphere as sphere_reference
from tests.spread import ALL, DEVICES, POINTS, assert_same, cut, pmapped, spread

B, N, D = 2, 24, 3
_rng = np.random.default_rng(0)
X = sphere_reference.unit_rows(_rng, B, N, D)
# In order, so that every device knows other instances, and other numbers of them.
LABELS = np.sort(_rng.choice([VOID, 0, 2, 77, 2**31 - 1], size=(B, N)), axis=1)
LABELS = LABELS.astype(np.int32)
MASK = _rng.uniform(size=(B, N)) < 0.8
WEIGHTS = _rng.uniform(0.5, 1.5, size=(B, N))
MARGIN = 0.4


def loss(x, weights, margin, labels, mask, **settings):
    """One loss for each image, added up."""
    settings = {"negative_weight": 2.0, "block_size": 4} | settings
    return losses.margin_loss(
        x, labels, margin=margin, weights=weights, mask=mask, **settings
    ).sum()


SHARDED = (POINTS, POINTS, ALL, POINTS, POINTS)


def arguments(dtype):
    return X.astype(dtype), WEIGHTS.astype(dtype), dtype(MARGIN), LABELS, MASK


def both(function, **settings):
    """The function on one device, and on this one of several."""
    on_one = functools.partial(function, **settings)
    return on_one, functools.partial(on_one, axis_name="points")


@pytest.mark.usefixtures("x64")
class TestGradients:
    @pytest.mark.parametrize(
        ("power", "normalize", "check_vma"),
        [
            (1, "terms", True),
            (2, "pixels", False),
            pytest.param(1, "terms", False, marks=pytest.mark.nightly),
            pytest.param(2, "pixels", True, marks=pytest.mark.nightly),
        ],
    )
    def test_taken_outside_is_that_of_one_device(self, power, normalize, check_vma):
        on_one, here = both(loss, power=power, normalize=normalize)
        args, which = arguments(np.float64), (0, 1, 2)
        here = spread(here, SHARDED, ALL, check_vma=check_vma)
        found = jax.jit(jax.value_and_grad(here, which))(*args)
        expected = jax.jit(jax.value_and_grad(on_one, which))(*args)
        assert_same(found, expected, 1e-10)

    @pytest.mark.parametrize(("power", "normalize"), [(1, "pairs"), (2, "pixels")])
    def test_taken_inside_is_that_of_one_device(self, power, normalize):
        on_one, here = both(loss, power=power, normalize=normalize)
        args, which = arguments(np.float64), (0, 1, 2)
        inside = spread(
            lambda *args: jax.grad(here, which)(*args), SHARDED, (POINTS, POINTS, ALL)
        )
        found = jax.jit(inside)(*args)
        assert_same(found, jax.jit(jax.grad(on_one, which))(*args), 1e-10)

    def test_taken_inside_without_check_vma_is_too_large_by_the_devices(self):
        on_one, here = both(loss)
        args = arguments(np.float64)

        def inside(*args):
            x_bar, weights_bar, margin_bar = jax.grad(here, (0, 1, 2))(*args)
            margin_bar = jax.lax.pmean(margin_bar, "points")
            return x_bar / DEVICES, weights_bar / DEVICES, margin_bar

        expected = jax.jit(jax.grad(on_one, (0, 1, 2)))(*args)
        unchecked = spread(inside, SHARDED, (POINTS, POINTS, ALL), check_vma=False)
        assert_same(jax.jit(unchecked)(*args), expected, 1e-10)
        mapped = pmapped(inside, (1, 1, None, 1, 1), (1, 1, None))
        x, weights, margin, labels, mask = args
        found = mapped(cut(x), cut(weights), margin, cut(labels), cut(mask))
        assert_same(found, expected, 1e-10)

    def test_taken_outside_of_pmap_is_that_of_one_device(self):
        on_one, here = both(loss)
        x, weights, margin, labels, mask = arguments(np.float64)
        mapped = pmapped(here, (1, 1, None, 1, 1))
        found = jax.value_and_grad(lambda *args: mapped(*args)[0], (0, 1, 2))(
            cut(x), cut(weights), margin, cut(labels), cut(mask)
        )
        expected = jax.value_and_grad(on_one, (0, 1, 2))(
            x, weights, margin, labels, mask
        )
        assert_same(found, expected, 1e-10)

    @pytest.mark.parametrize("power", [1, 2])
    def test_hessian_vector_products_are_those_of_one_device(self, power):
        def product(function):
            def along(x, *rest):
                slope = jax.grad(lambda x: function(x, *rest))
                return jax.jvp(slope, (x,), (jnp.cos(x),))[1]

            return along

        on_one, here = both(loss, power=power)
        args = arguments(np.float64)
        found = jax.jit(product(spread(here, SHARDED, ALL)))(*args)
        assert_same(found, jax.jit(product(on_one))(*args), 1e-10)

    def test_mean_shift_and_a_loss_on_every_step_of_it(self):
        def taught(x, kappa, margin, labels, mask, axis_name=None):
            settings = {"mask": mask, "block_size": 4, "axis_name": axis_name}
            steps = grouping.gbms_trajectory(
                x, concentration=kappa, num_steps=2, **settings
            )
            return losses.trajectory_margin_loss(
                steps, labels, margin=margin, normalize="pairs", **settings
            ).sum()

        margins = np.array([MARGIN, 0.2, 0.1])
        args = (X, np.float64(10.0), margins, LABELS, MASK)
        specs = (POINTS, ALL, ALL, POINTS, POINTS)
        on_one, here = both(taught)
        found = jax.jit(jax.value_and_grad(spread(here, specs, ALL), (0, 1, 2)))(*args)
        expected = jax.jit(jax.value_and_grad(on_one, (0, 1, 2)))(*args)
        assert_same(found, expected, 1e-10)


class TestValues:
    def test_single_precision_keeps_its_digits(self):
        on_one, here = both(loss)
        args = arguments(np.float32)
        found = jax.jit(jax.value_and_grad(spread(here, SHARDED, ALL), (0, 1)))(*args)
        expected = jax.jit(jax.value_and_grad(on_one, (0, 1)))(*args)
        assert_same(found, expected, 1e-5)

    def test_both_terms_with_default_weights(self):
        def terms(x, labels, mask, axis_name=None):
            settings = {"mask": mask, "axis_name": axis_name}
            weights = losses.instance_weights(labels, **settings)
            return weights, losses.margin_loss_terms(
                x, labels, margin=MARGIN, **settings
            )

        x = X.astype(np.float32)
        on_one, here = both(terms)
        here = spread(here, (POINTS,) * 3, (POINTS, losses.MarginLossTerms(ALL, ALL)))
        found, expected = jax.jit(here)(x, LABELS, MASK), on_one(x, LABELS, MASK)
        np.testing.assert_array_equal(found[0], expected[0])
        assert_same(found[1], expected[1], 1e-5)

    def test_tight_instances_keep_their_digits(self):
        near = np.eye(D)[np.clip(LABELS, 0, 2)] + 1e-4 * _rng.normal(size=X.shape)
        x = (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32)

        def positive(x, labels, axis_name=None):
            settings = {"margin": MARGIN, "axis_name": axis_name}
            return losses.margin_loss_terms(x, labels, **settings).positive

        labels = np.clip(LABELS, 0, 2)
        on_one, here = both(positive)
        found = jax.jit(spread(here, (POINTS, POINTS), ALL))(x, labels)
        np.testing.assert_allclose(found, on_one(x, labels), atol=1e-11)

    def test_images_and_pixels_are_spread_together(self):
        def each(x, labels, mask, axis_name=None):
            settings = {"mask": mask, "axis_name": axis_name}
            return losses.margin_loss(x, labels, margin=MARGIN, **settings)

        images = P("images", "points")
        grid = {"images": 2, "points": 2}
        x = X.astype(np.float32)
        on_one, here = both(each)
        here = spread(here, (images,) * 3, P("images"), grid=grid)
        assert_same(jax.jit(here)(x, LABELS, MASK), on_one(x, LABELS, MASK), 1e-5)

    def test_without_valid_points_the_loss_is_zero(self):
        void = np.full((B, N), VOID, np.int32)
        _, here = both(loss)
        args = (*arguments(np.float32)[:3], void, MASK)
        value, slope = jax.jit(jax.value_and_grad(spread(here, SHARDED, ALL)))(*args)
        assert float(value) == 0.0
        assert not slope.any()


class TestMemory:
    many, devices = 4096, 8

    @pytest.mark.parametrize("power", [1, 2])
    def test_no_device_holds_all_pixels(self, power):
        def here(x, labels):
            settings = {"margin": MARGIN, "power": power, "block_size": 64}
            return losses.margin_loss(x, labels, axis_name="points", **settings)

        grid = {"points": self.devices}
        here = spread(here, (P("points"), P("points")), ALL, grid=grid)
        x = jax.ShapeDtypeStruct((self.many, 16), jnp.float32)
        labels = jax.ShapeDtypeStruct((self.many,), jnp.int32)
        program = jax.jit(jax.grad(here)).lower(x, labels).compile().as_text()
        shapes = " ".join(re.findall(r"\b[a-z]+\d+\[[\d,]*\]", program))
        part = self.many // self.devices
        assert f"f32[{part},16]" in shapes
        assert str(self.many) not in re.findall(r"\d+", shapes)
        assert f"f32[{self.devices},{part}" not in shapes  # every visitor, kept


def test_a_wrong_name_is_named():
    x, labels = X[0].astype(np.float32), LABELS[0]
    message = "axis_name 'points' is not bound: call inside jax.shard_map or jax.pmap"
    for call in (
        lambda name: losses.margin_loss(x, labels, margin=0.4, axis_name=name),
        lambda name: losses.margin_loss_terms(x, labels, margin=0.4, axis_name=name),
        lambda name: losses.trajectory_margin_loss(
            x[None], labels, margin=0.4, axis_name=name
        ),
        lambda name: losses.instance_weights(labels, axis_name=name),
    ):
        with pytest.raises(InputError, match=message):
            call("points")
