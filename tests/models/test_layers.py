"""Layers: normalization, depthwise convolutions, the pyramid, rearrangements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from sphemb import InputError
from sphemb.models import (
    AtrousPyramid,
    BatchNorm,
    _layers,
    chromaticity,
    depth_to_space,
    pixel_coordinates,
    space_to_depth,
)

X = np.random.default_rng(0).normal(2, 3, (4, 3, 5, 6)).astype(np.float32)


def variables(dtype=np.float32):
    rng = np.random.default_rng(1)
    uniform = lambda: rng.uniform(0.5, 2, 6).astype(dtype)  # noqa: E731
    return {
        "params": {"scale": uniform(), "bias": uniform()},
        "batch_stats": {"mean": uniform(), "var": uniform()},
    }


def normalized(x, mean, var, v, epsilon=1e-5):
    x, params = np.asarray(x, np.float64), v["params"]
    return (x - mean) / np.sqrt(var + epsilon) * params["scale"] + params["bias"]


class TestFixed:
    def test_the_given_moments_are_used_and_kept_in_training(self):
        v = variables()
        stats = v["batch_stats"]
        wanted = normalized(X, stats["mean"], stats["var"], v)
        for train in (False, True):
            y, new = BatchNorm().apply(v, X, train=train, mutable=["batch_stats"])
            np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
            jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], stats)

    def test_scale_and_bias_have_a_gradient(self):
        v = variables()

        def total(params):
            return BatchNorm().apply({**v, "params": params}, X, train=True).sum()

        gradient = jax.grad(total)(v["params"])
        stats = v["batch_stats"]
        plain = (X - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
        np.testing.assert_allclose(gradient["bias"], 60, rtol=1e-5)
        np.testing.assert_allclose(gradient["scale"], plain.sum((0, 1, 2)), rtol=1e-4)

    def test_half_precision_is_left_for_the_arithmetic(self):
        v = variables()
        v["batch_stats"]["mean"] = np.full(6, 200.5, np.float32)
        x = jnp.full((1, 2, 2, 6), 201, jnp.bfloat16)
        y = BatchNorm().apply(v, x)
        assert y.dtype == jnp.bfloat16
        wanted = normalized(x, 200.5, v["batch_stats"]["var"], v)
        np.testing.assert_allclose(y.astype(np.float32), wanted, rtol=2**-8)


class TestTrained:
    def test_the_batch_is_normalized_over_all_devices(self):
        v = variables()
        layer = BatchNorm("trained", epsilon=1e-3, momentum=0.25)

        def step(x):
            return layer.apply(v, x, train=True, mutable=["batch_stats"])

        y, new = jax.pmap(step, "batch")(X[:, None])
        mean, var = X.mean((0, 1, 2)), X.var((0, 1, 2))
        wanted = normalized(X, mean, var, v, epsilon=1e-3)
        np.testing.assert_allclose(y[:, 0], wanted, rtol=1e-4, atol=1e-4)
        unbiased = var * 60 / 59
        for name, moment in {"mean": mean, "var": unbiased}.items():
            wanted = 0.75 * v["batch_stats"][name] + 0.25 * moment
            found = new["batch_stats"][name]
            np.testing.assert_allclose(found[0], wanted, rtol=1e-5)
            np.testing.assert_array_equal(found[0], found[3])

    def test_the_running_moments_are_torchs(self):
        torch = pytest.importorskip("torch")
        v = variables()
        peer = torch.nn.BatchNorm2d(6)
        names = ("weight", "bias", "running_mean", "running_var")
        arrays = (*v["params"].values(), *v["batch_stats"].values())
        for name, array in zip(names, arrays, strict=True):
            getattr(peer, name).data = torch.tensor(array)
        wanted = peer(torch.tensor(X.transpose(0, 3, 1, 2))).detach().numpy()
        layer = BatchNorm("trained", axis_name=None)
        y, new = layer.apply(v, X, train=True, mutable=["batch_stats"])
        np.testing.assert_allclose(y, wanted.transpose(0, 2, 3, 1), atol=1e-5)
        stats = new["batch_stats"]
        np.testing.assert_allclose(stats["mean"], peer.running_mean, rtol=1e-6)
        np.testing.assert_allclose(stats["var"], peer.running_var, rtol=1e-6)

    def test_after_training_the_running_moments_are_used(self):
        v = variables()
        stats = v["batch_stats"]
        y = BatchNorm("trained").apply(v, X)
        wanted = normalized(X, stats["mean"], stats["var"], v)
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)

    def test_a_batch_that_is_not_mapped_is_refused(self):
        with pytest.raises(InputError, match="axis_name 'batch' is not bound"):
            BatchNorm("trained").apply(
                variables(), X, train=True, mutable=["batch_stats"]
            )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "frozen"}, "mode must be one of 'fixed', 'trained', got 'frozen'"),
        ({"epsilon": 0.0}, "epsilon must satisfy 0 < epsilon"),
        ({"momentum": 2.0}, "momentum must satisfy 0 <= momentum <= 1"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        BatchNorm(**settings)


B, C = 2, 8
SETTINGS = [
    # side of the kernel, stride, dilation, (height, width)
    (3, 1, 1, (9, 12)),
    (3, 2, 1, (8, 9)),
    (5, 1, 2, (7, 6)),
    (5, 2, 1, (10, 7)),
    (3, 1, 4, (5, 5)),
]


@pytest.mark.parametrize(("side", "stride", "dilation", "size"), SETTINGS)
def test_they_are_xlas_grouped_convolution_and_so_is_their_gradient(
    side, stride, dilation, size
):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (B, *size, C))
    kernel = jax.random.normal(keys[1], (side, side, 1, C))
    settings = {"stride": stride, "dilation": dilation}

    def both(function):
        def loss(x, kernel):
            out = function(x, kernel, **settings)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, kernel)

    wanted = both(_layers._grouped_convolution)
    found = both(_layers._shifted_products)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_their_gradient_is_typed_under_shard_map():
    x, kernel = jnp.ones((8, 4, 4, C)), jnp.ones((3, 3, 1, C))

    def loss(kernel, x):
        return jnp.sum(_layers._shifted_products(x, kernel, 1, 1))

    def summed(x, kernel):
        kernel = jax.lax.pcast(kernel, "batch", to="varying")
        return jax.lax.psum(jax.grad(loss)(kernel, x), "batch")

    mesh = Mesh(np.asarray(jax.devices()), ("batch",))
    cut, whole = PartitionSpec("batch"), PartitionSpec()
    sharded = jax.shard_map(summed, mesh=mesh, in_specs=(cut, whole), out_specs=whole)
    np.testing.assert_allclose(jax.jit(sharded)(x, kernel), jax.grad(loss)(kernel, x))


def test_on_a_cpu_no_convolution_is_left():
    x, kernel = jnp.ones((1, 4, 4, C)), jnp.ones((3, 3, 1, C))
    lowered = jax.jit(_layers.depthwise_convolution).lower(x, kernel)
    assert "convolution(" not in lowered.compile().as_text()


class TestAtrousPyramid:
    def test_every_rate_widens_what_a_cell_sees(self):
        pyramid = AtrousPyramid(8, (1, 3))
        x = jnp.zeros((1, 9, 9, 4))
        variables = pyramid.init(jax.random.key(0), x)
        kernels = variables["params"]
        assert kernels["point"]["kernel"].shape == (1, 1, 4, 8)
        assert kernels["rate1"]["kernel"].shape == (3, 3, 4, 8)
        assert kernels["mix"]["kernel"].shape == (1, 1, 24, 8)
        expected = jax.lax.conv_general_dilated(
            jnp.eye(81)[40].reshape(1, 9, 9, 1).repeat(4, axis=3),
            kernels["rate3"]["kernel"],
            (1, 1),
            "SAME",
            rhs_dilation=(3, 3),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        seen = np.argwhere(np.abs(expected).sum(axis=(0, 3)) > 0)
        assert {tuple(s) for s in seen} == {
            (r, c) for r in (1, 4, 7) for c in (1, 4, 7)
        }
        _, maps = pyramid.apply(
            variables,
            jnp.eye(81)[40].reshape(1, 9, 9, 1).repeat(4, axis=3),
            capture_intermediates=True,
        )
        found = maps["intermediates"]["rate3"]["__call__"][0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_folding_keeps_each_patch_together():
    image = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    folded = np.asarray(space_to_depth(jnp.asarray(image)))
    np.testing.assert_array_equal(folded[1, 1, 2], image[1, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(depth_to_space(jnp.asarray(folded)), image)


def test_coordinates_are_centered_and_measured_in_pixels():
    small, large = pixel_coordinates(4, 4), pixel_coordinates(8, 12)
    np.testing.assert_allclose(small.mean((0, 1)), 0, atol=1e-7)
    np.testing.assert_allclose(large[1, 0] - large[0, 0], [1 / 32, 0], atol=1e-7)
    np.testing.assert_allclose(small[0, 1] - small[0, 0], [0, 1 / 32], atol=1e-7)


def test_chromaticity_forgets_brightness_and_keeps_black():
    color = jnp.array([0.8, 0.4, 0.0])
    bright, faint = chromaticity(color), chromaticity(0.1 * color)
    np.testing.assert_allclose(bright, faint, atol=0.05)
    assert not np.any(chromaticity(jnp.zeros(3)))
