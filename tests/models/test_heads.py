"""Networks on a backbone: their maps, their variables, their numbers, their errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sphemb import InputError
from sphemb._grid import Grid
from sphemb.models import (
    BACKBONES,
    FCN8,
    DenseEmbedding,
    FeaturePyramid,
    Origins,
    SideBranches,
)
from sphemb.models.backbones import last_map_at
from tests.tiny import drawn_variables, small_efficientnet, small_resnet

DEEP = ("resnet34", "resnet101")  # as ResNet-18 and ResNet-50
DENSE = {"backbone": "resnet18", "embedding_dim": 4, "head_features": 8}
CLASSES = {**DENSE, "decoder_features": 8, "output_stride": 16, "decoder_stride": 4}
BRANCHES = {"backbone": "resnet18", "head_features": 8, "fusion_features": 4}
PAIR = np.random.default_rng(0).uniform(size=(2, 16, 24, 3)).astype(np.float32)
IMAGE = np.random.default_rng(0).uniform(size=(1, 64, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def small_backbones():
    """The stages of the ResNets have 16 channels."""
    with small_resnet(), small_efficientnet():
        yield


def shapes(model, size=(64, 32)):
    """Variables and maps of two images; nothing is computed."""
    image = np.zeros((2, *size, 3))
    variables = jax.eval_shape(model.init, jax.random.key(1), image)
    return variables, jax.eval_shape(model.apply, variables, image)


def dense_shapes(**settings):
    return shapes(DenseEmbedding(**{**DENSE, **settings}))


def enlarged(x):
    """[h, w, D] to twice the size by scipy: cell i of a ResNet lies at pixel i s."""
    sides = [np.arange(2 * n) / 2 for n in x.shape[:2]]
    positions = np.meshgrid(*sides, indexing="ij")
    channels = np.moveaxis(np.asarray(x, np.float64), -1, 0)
    read = [
        ndimage.map_coordinates(c, positions, order=1, mode="nearest") for c in channels
    ]
    return np.stack(read, axis=-1)


def sum_of_projections(model, params, maps, name, strides, *, normalized=False):
    """The linear maps of several strides, added up from the coarsest."""
    total = None
    for stride in strides:
        x = np.float64(maps[last_map_at(model.feature_maps, stride).name][0])
        if normalized:
            x /= np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
        layer = params[f"{name}{stride}"]
        projected = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        total = projected if total is None else projected + enlarged(total)
    return total


@pytest.fixture(scope="module")
def dense():
    """A network in half precision, with random numbers for its variables."""
    model = DenseEmbedding(
        **DENSE, decoder_stride=4, decoder_features=8, dtype="bfloat16"
    )
    tree = jax.eval_shape(model.init, jax.random.key(1), PAIR)
    variables = drawn_variables(tree)
    apply = jax.jit(model.apply)
    return variables, apply, apply(variables, PAIR)


class TestDenseEmbedding:
    def test_the_backbones_maps_and_the_embedding_are_returned(self):
        _, maps = dense_shapes()
        assert isinstance(maps.pop("origins"), Origins)
        assert {name: m.shape for name, m in maps.items()} == {
            "stem": (2, 32, 16, 64),
            "stage1": (2, 16, 8, 16),
            "stage2": (2, 8, 4, 16),
            "stage3": (2, 8, 4, 16),
            "stage4": (2, 8, 4, 16),
            "embedding": (2, 8, 4, 4),
        }

    @pytest.mark.parametrize(
        ("coarse", "fine", "backbone"),
        [
            (4, 2, "resnet18"),
            (8, 4, "efficientnet_lite0"),
            (32, 2, "resnet18"),
            (16, 1, "efficientnet_lite0"),
            (16, 8, "efficientnet_lite0"),
        ],
    )
    def test_the_decoder_goes_up_from_any_stride(self, backbone, coarse, fine):
        settings = {"output_stride": coarse, "decoder_stride": fine}
        _, maps = dense_shapes(backbone=backbone, decoder_features=16, **settings)
        decoded = max(fine, 2)  # the last step is a network per pixel
        assert maps["decoded"].shape == (2, 64 // decoded, 32 // decoded, 16)
        assert maps["embedding"].shape == (2, 64 // fine, 32 // fine, 4)

    @pytest.mark.nightly
    def test_at_stride_1_a_pixels_own_color_draws_the_outline(self):
        model = DenseEmbedding(**DENSE, decoder_stride=1, decoder_features=8)
        image = jnp.full((1, 16, 16, 3), 0.5)
        variables = jax.jit(model.init)(jax.random.key(0), image)
        params = dict(variables["params"])
        params["unfold"] = jax.tree.map(jnp.zeros_like, params["unfold"])
        variables = {**variables, "params": params}  # blind to all but the pixel
        apply = jax.jit(lambda image: model.apply(variables, image)["embedding"])
        change = apply(image.at[0, 5, 7].set(1.0)) - apply(image)
        changed = np.argwhere(np.abs(np.asarray(change[0])).max(axis=-1) > 0)
        assert changed.tolist() == [[5, 7]]

    def test_the_last_map_is_described(self):
        model = DenseEmbedding(**DENSE, output_stride=16)
        assert model.stride == 16
        assert model.feature_maps[-1] == ("stage4", 16, 16, -7.5)

    def test_an_image_of_the_stride_is_enough(self):
        image = jnp.zeros((1, 8, 8, 3))
        model = DenseEmbedding(**DENSE, decoder_stride=4)
        maps, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
        assert maps["embedding"].shape == (1, 2, 2, 4)

    def test_the_backbone_has_its_own_tree(self):
        variables, _ = dense_shapes()
        assert set(variables) == {"params", "batch_stats"}
        assert set(variables["batch_stats"]) == {"backbone"}
        heads = {"reduce", "reduce_norm", "hidden", "project"}
        assert set(variables["params"]) == {"backbone", *heads}

    def test_the_variables_do_not_depend_on_the_strides(self):
        # Of ResNets as small as here the shortcuts do.
        whole = {"backbone": "efficientnet_lite0"}
        trees = [
            jax.tree.map(
                lambda leaf: leaf.shape, dense_shapes(**whole, output_stride=stride)[0]
            )
            for stride in (4, 16)
        ]
        assert trees[0] == trees[1]

    @pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
    def test_the_setting_of_batch_normalization_reaches_the_layers(self, backbone):
        image = np.zeros((1, 8, 8, 3))

        def train(batch_norm, axis_name="batch"):
            model = DenseEmbedding(backbone, batch_norm=batch_norm, axis_name=axis_name)
            variables = jax.eval_shape(model.init, jax.random.key(0), image)

            def apply(variables):
                return model.apply(
                    variables, image, train=True, mutable=["batch_stats"]
                )

            return variables, jax.eval_shape(apply, variables)[1]

        # Only moments that are trained are averaged over the devices.
        for batch_norm, axis_name in (("fixed", "batch"), ("trained", None)):
            variables, updated = train(batch_norm, axis_name)
            assert updated["batch_stats"] == variables["batch_stats"]
        with pytest.raises(InputError, match="axis_name 'batch' is not bound"):
            train("trained")

    def test_a_network_in_half_precision_embeds_in_single(self, dense):
        variables, _, maps = dense
        assert maps["stage4"].dtype == maps["decoded"].dtype == jnp.bfloat16
        assert maps["embedding"].dtype == jnp.float32
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(variables)}
        assert dtypes == {np.dtype("float32")}
        assert np.isfinite(maps["embedding"]).all()
        assert float(jnp.std(maps["embedding"])) > 0.1

    def test_equal_features_at_different_positions_embed_differently(self, dense):
        variables, apply, _ = dense
        params = dict(variables["params"])
        params["reduce_norm"] = jax.tree.map(np.zeros_like, params["reduce_norm"])
        alike = apply({**variables, "params": params}, PAIR)["embedding"]
        np.testing.assert_array_equal(alike[0], alike[1])
        vectors = np.asarray(alike[0]).reshape(-1, 4)
        distances = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
        assert distances[np.triu_indices(len(vectors), 1)].min() > 1e-3

    def test_an_image_is_embedded_alike_beside_any_other(self, dense):
        variables, apply, maps = dense
        beside = apply(variables, np.stack([1 - PAIR[0], PAIR[1]]))["embedding"]
        np.testing.assert_array_equal(beside[1], maps["embedding"][1])

    @pytest.mark.parametrize(
        ("settings", "number"), [({}, 2), ({"coordinate_period": 32.0}, 4)]
    )
    def test_coordinates_are_given_to_the_head_and_the_decoder(self, settings, number):
        head = dense_shapes(**settings)[0]["params"]["hidden"]["kernel"].shape[0]
        deep = dense_shapes(**settings, decoder_stride=4)[0]["params"]
        bare = dense_shapes(coordinates=False, decoder_stride=4)[0]["params"]
        kernels = [p["decoder"]["lateral0"]["kernel"].shape[2] for p in (deep, bare)]
        assert head == 8 + number
        assert kernels[0] - kernels[1] == number

    def test_coordinates_repeat_after_a_period(self):
        found = DenseEmbedding("resnet18", coordinate_period=32.0)._with_coordinates(
            jnp.zeros((1, 12, 20, 0)), Grid(8), None
        )
        np.testing.assert_allclose(found[:, 4:], found[:, :-4], atol=1e-5)
        np.testing.assert_allclose(found[:, :, 4:], found[:, :, :-4], atol=1e-5)
        different = np.asarray(found[0, :4, :4]).reshape(16, 4)
        distances = np.linalg.norm(different[:, None] - different, axis=-1)
        assert distances[np.triu_indices(16, 1)].min() > 0.5


class TestClasses:
    @pytest.mark.parametrize(
        ("source", "channels"), [("embedding", 4), ("features", 8), ("backbone", 16)]
    )
    def test_logits_are_on_the_embeddings_grid(self, source, channels):
        model = DenseEmbedding(
            **CLASSES, num_classes=5, atrous_rates=(2, 4), classes_from=source
        )
        variables, maps = shapes(model)
        params = variables["params"]
        assert maps["logits"].shape == (2, 16, 8, 5)
        assert maps["logits"].dtype == jnp.float32
        assert params["classify"]["kernel"].shape == (channels, 5)
        assert set(params["pyramid"]) >= {"point", "rate2", "rate4", "mix"}

    def test_without_classes_nothing_is_added(self):
        variables, maps = shapes(DenseEmbedding(**CLASSES))
        assert "logits" not in maps
        assert not {"classify", "pyramid"} & set(variables["params"])

    def test_maps_can_be_normalized_to_one_mean_and_variance_first(self):
        model = DenseEmbedding(**CLASSES, normalize_maps="channels", axis_name=None)
        image = np.random.default_rng(0).random((2, 64, 32, 3), np.float32)
        tree = jax.eval_shape(model.init, jax.random.key(0), image)
        variables = drawn_variables(tree)
        learn = functools.partial(model.apply, train=True, mutable=["batch_stats"])
        maps, updated = jax.jit(learn)(variables, image)
        raw = model.clone(normalize_maps="none")
        plain = jax.jit(raw.apply)(variables, image)["stage4"]
        np.testing.assert_allclose(maps["stage4"].mean((0, 1, 2)), 0, atol=1e-5)
        varied = np.asarray(plain.var((0, 1, 2)))
        np.testing.assert_allclose(
            maps["stage4"].var((0, 1, 2)), varied / (varied + 1e-5), rtol=1e-3
        )
        moments = updated["batch_stats"]["stage4_norm"]
        np.testing.assert_allclose(
            moments["mean"], 0.1 * plain.mean((0, 1, 2)), rtol=1e-4, atol=1e-6
        )


@pytest.fixture(scope="module")
def fcn():
    model = FCN8(backbone="resnet18", embedding_dim=4)
    variables = drawn_variables(jax.eval_shape(model.init, jax.random.key(1), IMAGE))
    apply = jax.jit(lambda params: model.apply({**variables, "params": params}, IMAGE))
    return model, variables["params"], apply


class TestFCN8:
    @pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
    def test_any_backbone_gives_21_numbers_at_stride_8_under_both_names(self, backbone):
        variables, maps = shapes(FCN8(backbone=backbone), (64, 96))
        assert maps["embedding"].shape == maps["logits"].shape == (2, 8, 12, 21)
        assert maps["embedding"].dtype == jnp.float32
        assert set(variables["params"]) == {"backbone", "score8", "score16", "score32"}
        assert set(variables["batch_stats"]) == {"backbone"}
        assert FCN8(backbone=backbone).stride == 32

    def test_scores_of_three_strides_are_enlarged_bilinearly_and_added(self, fcn):
        model, params, apply = fcn
        maps = apply(params)
        assert (maps["embedding"] == maps["logits"]).all()
        total = sum_of_projections(model, params, maps, "score", (32, 16, 8))
        scale = np.abs(total).max()
        np.testing.assert_allclose(maps["embedding"][0], total, atol=1e-4 * scale)

    def test_every_score_layer_has_a_gradient_from_the_start(self, fcn):
        _, params, apply = fcn

        def loss(params):
            x = apply(params)["embedding"]
            return jnp.sum((x / jnp.linalg.norm(x, axis=-1, keepdims=True))[..., 0])

        gradient = jax.jit(jax.grad(loss))(params)
        for stride in (8, 16, 32):
            assert np.abs(gradient[f"score{stride}"]["kernel"]).max() > 0

    def test_a_head_replaces_vggs_fully_connected_layers(self):
        model = FCN8(backbone="resnet18", head_features=16)
        params = shapes(model)[0]["params"]
        assert params["head0"]["kernel"].shape == (3, 3, 16, 16)
        assert params["head1"]["kernel"].shape == (1, 1, 16, 16)
        assert params["score32"]["kernel"].shape == (16, 21)


PYRAMID = FeaturePyramid(backbone="resnet18", embedding_dim=6)


@pytest.fixture(scope="module")
def pyramid():
    variables = drawn_variables(jax.eval_shape(PYRAMID.init, jax.random.key(0), IMAGE))
    return variables, jax.jit(PYRAMID.apply)(variables, IMAGE)


class TestFeaturePyramid:
    @pytest.mark.parametrize("normalize", ["none", "cells"])
    def test_it_is_the_sum_of_projected_maps_from_the_coarsest(
        self, pyramid, normalize
    ):
        variables, raw = pyramid
        model = PYRAMID.clone(normalize_maps=normalize)
        total = sum_of_projections(
            model,
            variables["params"],
            raw,
            "lateral",
            (32, 16, 8, 4),
            normalized=normalize == "cells",
        )
        found = raw if normalize == "none" else jax.jit(model.apply)(variables, IMAGE)
        np.testing.assert_allclose(found["embedding"][0], total, atol=1e-4)

    def test_the_parameters_are_the_backbones_and_four_projections(self, pyramid):
        params = pyramid[0]["params"]
        assert set(params) == {"backbone", *(f"lateral{s}" for s in (4, 8, 16, 32))}
        assert params["lateral32"]["kernel"].shape == (16, 6)
        assert pyramid[1]["embedding"].shape == (1, 16, 8, 6)

    def test_the_gradient_reaches_the_backbone(self, pyramid):
        variables, _ = pyramid

        def total(params):
            maps = PYRAMID.apply({**variables, "params": params}, IMAGE)
            return jnp.sum(jnp.square(maps["embedding"]))

        gradient = jax.jit(jax.grad(total))(variables["params"])
        assert jnp.abs(gradient["backbone"]["stem_conv"]["kernel"]).max() > 0
        assert jnp.abs(gradient["lateral8"]["kernel"]).max() > 0

    @pytest.mark.parametrize(
        "backbone",
        [
            pytest.param(b, marks=[pytest.mark.nightly] if b in DEEP else [])
            for b in BACKBONES
        ],
    )
    @pytest.mark.parametrize("output_stride", [32, 8])
    def test_it_takes_any_backbone(self, backbone, output_stride):
        model = FeaturePyramid(
            backbone=backbone, output_stride=output_stride, dtype="bfloat16"
        )
        embedding = shapes(model)[1]["embedding"]
        assert (embedding.shape, embedding.dtype) == ((2, 16, 8, 128), jnp.float32)
        assert model.stride == output_stride


@pytest.fixture(scope="module")
def branches():
    init = SideBranches(**BRANCHES).init
    return drawn_variables(jax.eval_shape(init, jax.random.key(0), IMAGE))


class TestSideBranches:
    def test_each_branch_has_the_size_of_its_map_and_the_fusion_the_images(self):
        _, maps = shapes(SideBranches(**BRANCHES))
        sizes = [(2, 16, 8, 3)] + 3 * [(2, 8, 4, 3)]
        assert [b.shape for b in maps["branches"]] == sizes
        assert maps["sides"].shape == (2, 64, 32, 4)
        assert maps["fused"].shape == (2, 64, 32)
        assert maps["fused"].dtype == jnp.float32

    @pytest.mark.parametrize("stride", [8, pytest.param(32, marks=pytest.mark.nightly)])
    def test_a_decoder_connects_maps_of_any_stride(self, stride):
        model = SideBranches(
            backbone="efficientnet_lite0",
            branches=("stage1", "stage3", "stage5", "stage7"),
            output_stride=stride,
            decoder_features=8,
            dtype="bfloat16",
        )
        _, maps = shapes(model)
        assert maps["branches"][0].shape == (2, 32, 16, 3)
        assert maps["branches"][3].shape == (2, 64 // stride, 32 // stride, 3)

    def test_without_a_decoder_a_branch_reads_its_map_alone(self, branches):
        model = SideBranches(**BRANCHES)

        def first(variables):
            return jnp.sum(model.apply(variables, IMAGE)["branches"][0])

        gradient = jax.jit(jax.grad(first))(branches)["params"]["backbone"]
        reached = {
            name.split("_")[0]
            for name, leaves in gradient.items()
            if any(leaf.any() for leaf in jax.tree.leaves(leaves))
        }
        assert reached == {"stem", "stage1"}

    def test_the_fusion_reads_directions_only(self, branches):
        apply = jax.jit(SideBranches(**BRANCHES).apply)
        params = dict(branches["params"])
        for name in ("stage1_embed", "stage3_embed"):
            params[name] = jax.tree.map(lambda leaf: 3.0 * leaf, params[name])
        found, scaled = (
            apply({**branches, "params": p}, IMAGE)["fused"]
            for p in (branches["params"], params)
        )
        np.testing.assert_allclose(found, scaled, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("detached", [False, True])
    def test_the_fusions_gradient_reaches_the_branches_or_not(self, detached, branches):
        model = SideBranches(**BRANCHES, detach_fusion=detached)

        def fused(params):
            maps = model.apply({**branches, "params": params}, IMAGE)
            return jnp.sum(jnp.sin(maps["fused"])) + jnp.sum(maps["sides"])

        gradient = jax.jit(jax.grad(fused))(branches["params"])
        reached = jnp.abs(gradient["stage2_embed"]["kernel"]).max() > 0
        assert bool(reached) != detached
        assert float(jnp.abs(gradient["fusion_conv"]["kernel"]).max()) > 0


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (DenseEmbedding, {"backbone": "vgg"}, "backbone must be .*'resnet18', .*'vgg'"),
        (DenseEmbedding, {"embedding_dim": 0}, "embedding_dim must be >= 1, got 0"),
        (DenseEmbedding, {"output_stride": 2}, "output_stride must be one of 4, 8, 16"),
        (DenseEmbedding, {"decoder_stride": 3}, "decoder_stride must be one of None, "),
        (
            DenseEmbedding,
            {"decoder_stride": 4, "output_stride": 4},
            "decoder_stride must be below output_stride 4, got 4: None means no decod",
        ),
        (DenseEmbedding, {"head_features": 12}, "must be a multiple of 8.* got 12"),
        (DenseEmbedding, {"decoder_features": 7}, "decoder_features must be a multip"),
        (DenseEmbedding, {"coordinates": "x"}, "coordinates must be one of True, F"),
        (DenseEmbedding, {"coordinate_unit": 0}, "coordinate_unit must satisfy 0 <"),
        (DenseEmbedding, {"coordinate_period": 0}, "coordinate_period must satisfy 0"),
        (DenseEmbedding, {"batch_norm": "on"}, "batch_norm must be one of 'fixed'"),
        (DenseEmbedding, {"dtype": "half"}, "dtype must be one of 'float32', 'bfloat"),
        (DenseEmbedding, {"num_classes": -1}, "num_classes must be >= 0"),
        (DenseEmbedding, {"classes_from": "image"}, "classes_from must be one of"),
        (DenseEmbedding, {"normalize_maps": "rows"}, "normalize_maps must be one of"),
        (DenseEmbedding, {"atrous_rates": (0,)}, "atrous_rates must be >= 1"),
        (FCN8, {"embedding_dim": 0}, "embedding_dim must be >= 1, got 0"),
        (FCN8, {"head_features": -1}, "head_features must be >= 0, got -1"),
        (FCN8, {"output_stride": 8}, "output_stride must be one of 32, got 8"),
        (FeaturePyramid, {"output_stride": 4}, "output_stride must be above 4"),
        (FeaturePyramid, {"embedding_dim": 0}, "embedding_dim must be >= 1"),
        (FeaturePyramid, {"finer_scale": 0}, "finer_scale must satisfy 0 <"),
        (SideBranches, {"branches": ("stage9",)}, "branches must be some of stem, st"),
        (SideBranches, {"branches": ("stage2", "stage1")}, "in this order"),
        (SideBranches, {"branches": ()}, "branches must be some of"),
        (SideBranches, {"head_features": 12}, "head_features must be a multiple of 8"),
        (SideBranches, {"decoder_features": 4}, "decoder_features must be a multiple"),
    ],
)
def test_wrong_settings_are_named(make, settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings)


@pytest.mark.parametrize(("make", "stride"), [(DenseEmbedding, 8), (FCN8, 32)])
def test_a_size_that_is_not_divisible_is_refused(make, stride):
    with pytest.raises(
        InputError, match=rf"divisible by {stride}, got \(60, 64\): pad"
    ):
        shapes(make(backbone="resnet18"), (60, 64))
