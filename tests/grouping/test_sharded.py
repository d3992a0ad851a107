"""One image's points on several devices: the same as on one, in less memory."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import sphemb.grouping as grouping
from sphemb._checks import InputError
from tests.references import grouping as reference
from tests.spread import ALL, POINTS, assert_same, cut, pmapped, spread

B, N, D = 2, 24, 3
_rng = np.random.default_rng(0)
X = np.stack([reference.sphere_points(_rng, N, D)[0] for _ in range(B)])
MASK = _rng.uniform(size=(B, N)) < 0.7
MASK[:, : N // 4] = False  # nothing counts on the first device
X[0, 1] = np.nan
KAPPA, ETA = 12.0, 0.8
PULL = _rng.normal(size=(B, N, D))


def moved(x, kappa, eta, mask, **settings):
    settings = {"num_steps": 2, "block_size": 4} | settings
    return grouping.gbms(x, concentration=kappa, step_size=eta, mask=mask, **settings)


def share(x, kappa, eta, mask, pull, **settings):
    """What the points that are here add to a loss."""
    y = jnp.where(mask[..., None], moved(x, kappa, eta, mask, **settings), 0.0)
    return jnp.sum(y * pull + y**3)


ON_ONE = jax.value_and_grad(share, (0, 1, 2))
HERE = functools.partial(share, axis_name="points")
SHARDED = (POINTS, ALL, ALL, POINTS, POINTS)


def arguments(dtype):
    return (X.astype(dtype), dtype(KAPPA), dtype(ETA), MASK, PULL.astype(dtype))


def summed(*args, **settings):
    return jax.lax.psum(HERE(*args, **settings), "points")


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True):
        return jax.jit(ON_ONE)(*arguments(np.float64))


@pytest.mark.usefixtures("x64")
class TestGradients:
    @pytest.mark.parametrize(
        ("custom_gradient", "check_vma"), [(True, True), (True, False), (False, True)]
    )
    def test_taken_outside_is_that_of_one_device(
        self, expected, custom_gradient, check_vma
    ):
        total = functools.partial(summed, custom_gradient=custom_gradient)
        total = spread(total, SHARDED, ALL, check_vma=check_vma)
        found = jax.jit(jax.value_and_grad(total, (0, 1, 2)))(*arguments(np.float64))
        assert_same(found, expected, 1e-10)

    @pytest.mark.parametrize("loss", [HERE, summed], ids=["share", "sum"])
    def test_taken_inside_is_that_of_one_device(self, expected, loss):
        inside = spread(
            lambda *args: jax.grad(loss, (0, 1, 2))(*args), SHARDED, (POINTS, ALL, ALL)
        )
        found = jax.jit(inside)(*arguments(np.float64))
        assert_same(found, expected[1], 1e-10)

    def test_taken_inside_without_check_vma_is_right_for_a_share(self, expected):
        def inside(*args):
            x_bar, *shared = jax.grad(HERE, (0, 1, 2))(*args)
            return x_bar, *jax.lax.psum(shared, "points")

        inside = spread(inside, SHARDED, (POINTS, ALL, ALL), check_vma=False)
        found = jax.jit(inside)(*arguments(np.float64))
        assert_same(found, expected[1], 1e-10)

    def test_taken_outside_of_pmap_is_that_of_one_device(self, expected):
        mapped = pmapped(HERE, (1, None, None, 1, 1))
        x, kappa, eta, mask, pull = arguments(np.float64)
        found = jax.value_and_grad(lambda *args: mapped(*args).sum(), (0, 1, 2))(
            cut(x), kappa, eta, cut(mask), cut(pull)
        )
        assert_same(found, expected, 1e-10)

    def test_forward_mode_agrees(self):
        def slope(function):
            def along(x, kappa, eta, mask, pull):
                def of(x, kappa, eta):
                    return function(x, kappa, eta, mask, custom_gradient=False)

                return jax.jvp(of, (x, kappa, eta), (pull, kappa, eta))[1]

            return along

        args = jax.tree.map(jnp.asarray, arguments(np.float64))
        here = functools.partial(moved, axis_name="points")
        found = jax.jit(spread(slope(here), SHARDED, POINTS))(*args)
        expected = jax.jit(slope(moved))(*args)
        keep = MASK[..., None]
        assert_same(jnp.where(keep, found, 0), jnp.where(keep, expected, 0), 1e-10)


class TestValues:
    def test_single_precision_keeps_its_digits(self):
        args = arguments(np.float32)
        total = spread(summed, SHARDED, ALL)
        found = jax.jit(jax.value_and_grad(total, (0, 1, 2)))(*args)
        assert_same(found, jax.jit(ON_ONE)(*args), 1e-5)

    def test_every_step_is_that_of_one_device(self):
        def steps(x, mask, axis_name=None):
            settings = {"concentration": KAPPA, "mask": mask, "axis_name": axis_name}
            return (
                grouping.gbms_trajectory(x, num_steps=3, **settings),
                grouping.gbms_step(x, **settings),
            )

        x = X[1].astype(np.float32)  # one image, no batch axis
        here = functools.partial(steps, axis_name="points")
        results = (P(None, "points"), P("points"))
        found = jax.jit(spread(here, P("points"), results))(x, MASK[1])
        assert_same(found, steps(x, MASK[1]), 1e-5)

    @pytest.mark.parametrize("check_vma", [True, False])
    def test_images_and_points_are_spread_together(self, check_vma):
        args = arguments(np.float32)[:4]
        both = P("images", "points")
        here = spread(
            functools.partial(moved, axis_name="points"),
            (both, ALL, ALL, both),
            both,
            check_vma=check_vma,
            grid={"images": 2, "points": 2},
        )
        assert_same(jnp.nan_to_num(jax.jit(here)(*args)), _one_device(*args), 1e-5)

    def test_the_points_are_spread_along_two_axes(self):
        args = arguments(np.float32)[:4]
        names = ("hosts", "chips")
        points = P(None, names)
        here = spread(
            functools.partial(moved, axis_name=names),
            (points, ALL, ALL, points),
            points,
            grid={"hosts": 2, "chips": 2},
        )
        assert_same(jnp.nan_to_num(jax.jit(here)(*args)), _one_device(*args), 1e-5)

    def test_images_alone_need_no_name(self):
        images = P("points")
        args = arguments(np.float32)
        here = spread(
            lambda *args: jax.lax.psum(share(*args), "points"),
            (images, ALL, ALL, images, images),
            ALL,
            grid={"points": 2},
        )
        found = jax.jit(jax.value_and_grad(here, (0, 1, 2)))(*args)
        assert_same(found, jax.jit(ON_ONE)(*args), 1e-5)


def _one_device(*args):
    return jnp.nan_to_num(moved(*args))


class TestModes:
    near = np.nan_to_num(X) + 0.3 * _rng.normal(size=X.shape)
    near = (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32)

    @pytest.mark.parametrize(
        ("unassigned", "max_groups", "check_vma"),
        [("nearest", 3, True), ("void", 16, True), ("nearest", 16, False)],
    )
    def test_groups_are_those_of_one_device(self, unassigned, max_groups, check_vma):
        def read(x, mask, axis_name=None):
            return grouping.label_modes(
                x,
                max_groups=max_groups,
                threshold=0.8,
                min_size=2,
                unassigned=unassigned,
                mask=mask,
                axis_name=axis_name,
            )

        expected = read(self.near, MASK)
        assert (expected.num_groups > 1).all()
        here = spread(
            functools.partial(read, axis_name="points"),
            (POINTS, POINTS),
            grouping.Grouping(POINTS, ALL, ALL, ALL, ALL),
            check_vma=check_vma,
        )
        found = jax.jit(here)(self.near, MASK)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.sizes, expected.sizes)
        np.testing.assert_array_equal(found.num_groups, expected.num_groups)
        np.testing.assert_array_equal(found.num_left, expected.num_left)
        np.testing.assert_allclose(found.modes, expected.modes, atol=1e-6)


class TestMemory:
    many, devices = 4096, 8

    def compiled(self, devices, axis_name):
        def loss(x, kappa):
            settings = {"concentration": kappa, "num_steps": 2, "block_size": 64}
            y = grouping.gbms(x, axis_name=axis_name, **settings)
            return jax.lax.psum(jnp.sum(y**3), "points")

        grid = {"points": devices}
        loss = spread(loss, (P("points"), ALL), ALL, grid=grid)
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((self.many, 16), ())]
        return jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()

    def test_no_device_holds_all_points(self):
        alone = self.compiled(1, None)
        assert re.search(rf"f32\[{self.many},", alone.as_text())
        shared = self.compiled(self.devices, "points")
        assert str(self.many) not in re.findall(r"\d+", _shapes(shared))
        part = self.many // self.devices
        assert f"[{self.devices},{part}," not in shared.as_text()  # all visitors, kept
        sizes = [p.memory_analysis().temp_size_in_bytes for p in (alone, shared)]
        assert sizes[1] < sizes[0] / 5


def _shapes(program):
    return " ".join(re.findall(r"\b[a-z]+\d+\[[\d,]*\]", program.as_text()))


@pytest.mark.parametrize(
    ("axis_name", "message"),
    [
        ("points", "axis_name 'points' is not bound: call inside jax.shard_map or"),
        (("points", "rows"), "axis_name 'points' is not bound"),
        ((), r"axis_name must be the name of a mesh axis or a tuple .* got \(\)"),
        (0, "axis_name must be the name of a mesh axis or a tuple of names, got 0"),
    ],
)
def test_a_wrong_name_is_named(axis_name, message):
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(InputError, match=message):
        grouping.gbms(x, concentration=1.0, num_steps=0, axis_name=axis_name)
    with pytest.raises(InputError, match=message):
        grouping.label_modes(x, max_groups=3, axis_name=axis_name)
