"""Every map says where its cells lie, and what reads it, adds it or mirrors it does so.

Kernels are averages, but in the last test: the gradient of a cell's value is then
where the cell looks, without a sign, and its centroid is the center of the cell. The
ResNet has a block a stage and few channels: where its cells lie depends on neither.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.transform

from sphemb._grid import Grid
from sphemb.models import (
    BACKBONES,
    FCN8,
    DenseEmbedding,
    FeaturePyramid,
    SideBranches,
    UNet,
    load_weights,
)
from sphemb.tasks._pixels import enlarged, placed_map, placed_maps
from sphemb.warps import GeometricTransform, apply_geometric
from tests.tiny import small_resnet

SIDE = 256


@pytest.fixture(autouse=True)
def small():
    with small_resnet():
        yield


def averaging(model):
    """Variables: kernels that average, and normalisations that do nothing."""

    def value(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return jnp.full(leaf.shape, 1 / np.prod(leaf.shape[:-1]), leaf.dtype)
        one = name in ("scale", "var")
        return jnp.full(leaf.shape, float(one), leaf.dtype)

    image = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.tree_util.tree_map_with_path(value, shapes)


def noise():
    """An image whose values are positive where convolutions read them."""
    values = np.random.default_rng(0).uniform(size=(1, SIDE, SIDE, 3))
    return jnp.asarray(0.9 + 0.1 * values, jnp.float32)


def without_normalization(call, args, kwargs, context):
    if isinstance(context.module, nn.GroupNorm):
        call(*args, **kwargs)
        return args[0]
    return call(*args, **kwargs)


def centroid(gradient):
    """Row and column of the middle of what is in a gradient [1, H, W, 3]."""
    share = np.abs(np.asarray(gradient, np.float64)).sum(axis=(0, 3))
    places = np.arange(SIDE)
    return np.array([share.sum(axis=1) @ places, share.sum(axis=0) @ places]) / (
        share.sum()
    )


def test_a_cell_looks_where_its_map_says():
    model = BACKBONES["resnet18"](output_stride=8)
    image = noise()
    variables = averaging(model)

    @jax.jit
    def look(variables, image, cotangents):
        maps, pull = jax.vjp(lambda x: model.apply(variables, x), image)
        return pull({name: cotangents[name].astype(maps[name].dtype) for name in maps})

    shapes = jax.eval_shape(lambda x: model.apply(variables, x), image)
    zeros = {name: jnp.zeros(s.shape) for name, s in shapes.items()}
    for feature_map in model.feature_maps:
        # Several, since a pooling takes now this cell and now that one.
        name = feature_map.name
        centers = feature_map.grid.centers(SIDE // feature_map.stride)
        middle = int(jnp.argmin(jnp.abs(centers - SIDE / 2)))
        some = slice(middle - 2, middle + 3)
        one = zeros[name].at[0, some, some].set(1)
        (gradient,) = look(variables, image, {**zeros, name: one})
        wanted = float(centers[some].mean())
        np.testing.assert_allclose(centroid(gradient), wanted, atol=0.5, err_msg=name)
    for output_stride in (4, 8, 16, 32):
        maps = BACKBONES["resnet18"](output_stride=output_stride).feature_maps
        assert [m.origin for m in maps] == [(1 - m.stride) / 2 for m in maps]


def test_dilated_cells_lie_where_those_of_the_undilated_network_do():
    # Of two, four or eight dilated cells the last is the undilated one.
    make = BACKBONES["efficientnet_lite0"]
    undilated = make(output_stride=32).feature_maps
    assert all(m.origin == 0 for m in undilated)
    for dilated, one in zip(make(output_stride=8).feature_maps, undilated, strict=True):
        number = one.stride // dilated.stride
        last = dilated.grid.centers(number)[-1]
        assert last == one.grid.centers(1)[0]


COMMON = {"backbone": "resnet18", "embedding_dim": 4, "head_features": 8}
NETWORKS = {
    "map": DenseEmbedding(**COMMON, output_stride=8, coordinates=False),
    "decoder": DenseEmbedding(
        **COMMON, output_stride=16, decoder_stride=4, decoder_features=8
    ),
    "decoder to pixels": DenseEmbedding(
        **COMMON, output_stride=8, decoder_stride=1, decoder_features=8
    ),
    "fcn": FCN8(**COMMON),
    "pyramid": FeaturePyramid(
        backbone="resnet18", embedding_dim=4, output_stride=16, finer_scale=0.01
    ),
    "branches": SideBranches(
        **COMMON,
        branches=("stage1", "stage2", "stage3"),
        output_stride=16,
        decoder_features=8,
    ),
    "unet": UNet(4, features=(8, 16, 16), head_features=8),
}


def coarse_alone(params):
    """Without what reads the pixel itself, or shallow maps, beside the deepest one."""
    params = dict(params)
    for name, kept in (("unfold", 8), ("hidden", 8), ("Dense_0", 8), ("Dense_1", 8)):
        if name in params:
            kernel = params[name]["kernel"]
            params[name] = {**params[name], "kernel": kernel.at[kept:].set(0)}
    # Stride 32 sees beyond the image: that of FCN8 is read at 16.
    for name in ("lateral4", "lateral8", "score8", "score32"):
        if name in params:
            params[name] = jax.tree.map(lambda x: 1e-3 * x, params[name])
    if "decoder" in params:
        params["decoder"] = {
            name: jax.tree.map(
                lambda x, n=name: 1e-3 * x if n in ("lateral1", "lateral2") else x,
                found,
            )
            for name, found in params["decoder"].items()
        }
    return params


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pixel_is_read_off_where_it_is(name):
    model = NETWORKS[name]
    image = noise()
    variables = averaging(model)
    variables["params"] = coarse_alone(variables["params"])

    def read(variables, image, row, column):
        with nn.intercept_methods(without_normalization):
            maps = model.apply(variables, image)
        batch = {"image": image}
        if "fused" in maps:
            found = placed_maps(maps, "branches", batch)
            total = sum(enlarged(branch, (SIDE, SIDE)).sum(-1) for branch in found)
        else:
            total = enlarged(placed_map(maps, "embedding", batch), (SIDE, SIDE)).sum(-1)
        return total[0, row, column]

    gradient = jax.jit(jax.grad(read, argnums=1))
    offsets = []
    for row, column in ((128, 128), (131, 125), (134, 138)):
        found = centroid(gradient(variables, image, row, column))
        offsets.append(found - np.array([row, column]))
    np.testing.assert_allclose(np.mean(offsets, axis=0), 0, atol=0.5)


def test_the_map_of_a_mirrored_image_is_the_mirrored_map():
    # Kernels that average know no left and right; paddings do, at the image's ends.
    model = FeaturePyramid(backbone="resnet18", embedding_dim=4, output_stride=16)
    values = np.random.default_rng(0).uniform(0.5, 1.0, size=(1, 1, 16, 3))
    image = jax.image.resize(jnp.asarray(values, jnp.float32), (1, 32, 512, 3), "cubic")
    apply = jax.jit(model.apply)
    maps, mirrored = (apply(averaging(model), x) for x in (image, image[:, :, ::-1]))
    whole = GeometricTransform(0.0, 0.0, 1.0, True)
    inside = (0, slice(None), slice(28, -28), 0)
    wanted = np.asarray(mirrored["embedding"])[inside]

    def error(offset):
        found = apply_geometric(maps["embedding"], whole, offset=offset)
        return np.abs(np.asarray(found)[inside] - wanted).mean()

    origin = maps["origins"].of("embedding")
    assert origin == -1.5
    assert error(origin / 4) < 0.25 * error(0.0)


def test_a_grid_is_that_of_the_paddings_before_it():
    even = Grid().strided(kernel=2, stride=2, before=0)
    assert even == Grid(2)  # two pixels each, in their middle
    assert Grid(4, 1.0).strided(kernel=3, stride=1, before=1) == Grid(4, 1.0)
    assert Grid(4).cells(Grid(4).centers(5)).tolist() == [0, 1, 2, 3, 4]
    assert Grid(4, -1.5).pixels(12).tolist() == [0, 4, 8]


@pytest.mark.nightly
def test_imagenet_weights_look_where_their_maps_say_and_not_where_paddings_do():
    # A mirrored copy of each photograph cancels what lies in one half of it.
    photographs = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photograph = getattr(skimage.data, name)()[..., :3]
        side = min(photograph.shape[:2])
        photograph = skimage.transform.resize(photograph[:side, :side], (160, 160))
        photographs += [photograph[::i, ::j] for i in (1, -1) for j in (1, -1)]
    image = jnp.asarray(np.stack(photographs), jnp.float32)
    model = BACKBONES["efficientnet_lite0"](output_stride=16)
    variables = load_weights("efficientnet_lite0", backbone="efficientnet_lite0")
    maps = {m.name: m for m in model.feature_maps if m.name in ("stage3", "stage7")}

    @jax.jit
    def look(image, cotangents):
        def read(image):
            found = model.apply(variables, image)
            return {name: found[name] for name in maps}

        return jax.vjp(read, image)[1](cotangents)[0]

    shapes = {
        name: (len(image), 160 // m.stride, 160 // m.stride, m.channels)
        for name, m in maps.items()
    }
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    rng = np.random.default_rng(0)
    pixels = np.arange(160)
    for name, feature_map in maps.items():
        some = slice(shapes[name][1] // 2 - 1, shapes[name][1] // 2 + 1)
        cotangent = zeros[name].copy()
        cotangent[:, some, some] = rng.normal(size=cotangent[:, some, some].shape)
        energy = np.square(np.asarray(look(image, {**zeros, name: cotangent})))
        energy = energy.astype(np.float64).sum(-1)
        total = energy.sum((1, 2))
        found = [(energy.sum(2) @ pixels) / total, (energy.sum(1) @ pixels) / total]
        stated = float(np.mean(feature_map.grid.centers(shapes[name][1])[some]))
        paddings = stated - feature_map.origin + (feature_map.stride - 1) / 2
        error = np.mean(found) - stated
        assert abs(error) < 0.3 * abs(paddings - stated), (name, error)
