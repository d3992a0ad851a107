"""The embedding network: its maps, its head, its variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb._grid import Grid, Origins
from sphemb.models import DenseEmbedding

SMALL = {"backbone": "resnet18", "embedding_dim": 4, "head_features": 8}
IMAGE = np.random.default_rng(0).uniform(size=(2, 16, 24, 3)).astype(np.float32)


def shapes(**settings):
    """Variables and maps of an image of 64 x 32; nothing is computed."""
    model = DenseEmbedding(**{**SMALL, **settings})
    image = np.zeros((2, 64, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(1), image)
    return variables, jax.eval_shape(model.apply, variables, image)


@pytest.fixture(scope="module")
def network():
    """A network in half precision, with random numbers for its variables."""
    model = DenseEmbedding(
        **SMALL, decoder_stride=4, decoder_features=8, dtype="bfloat16"
    )
    tree = jax.eval_shape(model.init, jax.random.key(1), IMAGE)
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            std = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return rng.normal(0, std, leaf.shape).astype(leaf.dtype)
        return np.full(leaf.shape, name in ("scale", "var"), leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(fill, tree)
    apply = jax.jit(model.apply)
    return variables, apply, apply(variables, IMAGE)


class TestMaps:
    def test_the_backbones_maps_and_the_embedding_come_out(self):
        _, maps = shapes()
        assert isinstance(maps.pop("origins"), Origins)
        assert {name: m.shape for name, m in maps.items()} == {
            "stem": (2, 32, 16, 64),
            "stage1": (2, 16, 8, 64),
            "stage2": (2, 8, 4, 128),
            "stage3": (2, 8, 4, 256),
            "stage4": (2, 8, 4, 512),
            "embedding": (2, 8, 4, 4),
        }

    @pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
    @pytest.mark.parametrize(("coarse", "fine"), [(4, 2), (8, 4), (32, 2), (16, 1)])
    def test_the_decoder_goes_up_from_any_stride(self, backbone, coarse, fine):
        settings = {"output_stride": coarse, "decoder_stride": fine}
        _, maps = shapes(backbone=backbone, decoder_features=16, **settings)
        decoded = max(fine, 2)  # the last step is a network per pixel
        assert maps["decoded"].shape == (2, 64 // decoded, 32 // decoded, 16)
        assert maps["embedding"].shape == (2, 64 // fine, 32 // fine, 4)

    @pytest.mark.nightly
    def test_at_stride_1_a_pixels_own_colour_draws_the_outline(self):
        model = DenseEmbedding(**SMALL, decoder_stride=1, decoder_features=8)
        image = jnp.full((1, 16, 16, 3), 0.5)
        variables = jax.jit(model.init)(jax.random.key(0), image)
        params = dict(variables["params"])
        params["unfold"] = jax.tree.map(jnp.zeros_like, params["unfold"])
        variables = {**variables, "params": params}  # blind to all but the pixel
        apply = jax.jit(lambda image: model.apply(variables, image)["embedding"])
        change = apply(image.at[0, 5, 7].set(1.0)) - apply(image)
        changed = np.argwhere(np.abs(np.asarray(change[0])).max(axis=-1) > 0)
        assert changed.tolist() == [[5, 7]]

    def test_the_last_map_is_what_is_announced(self):
        model = DenseEmbedding(**SMALL, output_stride=16)
        assert model.stride == model.embedding_stride == 16
        assert model.feature_maps[-1] == ("stage4", 16, 512, -7.5)
        assert DenseEmbedding(decoder_stride=2).embedding_stride == 2

    def test_an_image_of_the_stride_is_enough(self):
        image = jnp.zeros((1, 8, 8, 3))
        model = DenseEmbedding(**SMALL, decoder_stride=4)
        maps, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
        assert maps["embedding"].shape == (1, 2, 2, 4)


class TestVariables:
    def test_the_backbone_has_a_tree_of_its_own(self):
        variables, _ = shapes()
        assert set(variables) == {"params", "batch_stats"}
        assert set(variables["batch_stats"]) == {"backbone"}
        heads = {"reduce", "reduce_norm", "hidden", "project"}
        assert set(variables["params"]) == {"backbone", *heads}

    def test_they_do_not_depend_on_the_strides(self):
        trees = [
            jax.tree.map(lambda leaf: leaf.shape, shapes(output_stride=stride)[0])
            for stride in (4, 16)
        ]
        assert trees[0] == trees[1]


class TestBatchNorm:
    @pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
    def test_the_setting_reaches_the_layers(self, backbone):
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


class TestNumbers:
    def test_a_network_in_half_precision_embeds_in_single(self, network):
        variables, _, maps = network
        assert maps["stage4"].dtype == maps["decoded"].dtype == jnp.bfloat16
        assert maps["embedding"].dtype == jnp.float32
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(variables)}
        assert dtypes == {np.dtype("float32")}
        assert np.isfinite(maps["embedding"]).all()
        assert float(jnp.std(maps["embedding"])) > 0.1

    def test_equal_features_in_different_places_embed_differently(self, network):
        variables, apply, _ = network
        params = dict(variables["params"])
        params["reduce_norm"] = jax.tree.map(np.zeros_like, params["reduce_norm"])
        alike = apply({**variables, "params": params}, IMAGE)["embedding"]
        np.testing.assert_array_equal(alike[0], alike[1])
        places = np.asarray(alike[0]).reshape(-1, 4)
        distances = np.linalg.norm(places[:, None] - places, axis=-1)
        assert distances[np.triu_indices(len(places), 1)].min() > 1e-3

    def test_an_image_is_embedded_alike_beside_any_other(self, network):
        variables, apply, maps = network
        beside = apply(variables, np.stack([1 - IMAGE[0], IMAGE[1]]))["embedding"]
        np.testing.assert_array_equal(beside[1], maps["embedding"][1])

    @pytest.mark.parametrize(
        ("settings", "number"),
        [({}, 2), ({"coordinates": False}, 0), ({"coordinate_period": 32.0}, 4)],
    )
    def test_places_are_told_to_the_head_and_the_decoder(self, settings, number):
        head = shapes(**settings)[0]["params"]["hidden"]["kernel"].shape[0]
        deep = shapes(**settings, decoder_stride=4)[0]["params"]
        bare = shapes(coordinates=False, decoder_stride=4)[0]["params"]
        kernels = [p["decoder"]["lateral0"]["kernel"].shape[2] for p in (deep, bare)]
        assert head == 8 + number
        assert kernels[0] - kernels[1] == number

    def test_places_repeat_after_a_period(self):
        told = DenseEmbedding("resnet18", coordinate_period=32.0)._placed(
            jnp.zeros((1, 12, 20, 0)), Grid(8), None
        )
        np.testing.assert_allclose(told[:, 4:], told[:, :-4], atol=1e-5)
        np.testing.assert_allclose(told[:, :, 4:], told[:, :, :-4], atol=1e-5)
        different = np.asarray(told[0, :4, :4]).reshape(16, 4)
        distances = np.linalg.norm(different[:, None] - different, axis=-1)
        assert distances[np.triu_indices(16, 1)].min() > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "vgg"}, "backbone must be one of 'resnet18', .*, got 'vgg'"),
        ({"embedding_dim": 0}, "embedding_dim must be >= 1, got 0"),
        ({"output_stride": 2}, "output_stride must be one of 4, 8, 16, 32, got 2"),
        ({"decoder_stride": 8}, "decoder_stride must be one of None, 4, 2, 1, got 8"),
        (
            {"decoder_stride": 4, "output_stride": 4},
            "decoder_stride must be below output_stride 4, got 4: None is no decoder",
        ),
        ({"head_features": 12}, "head_features must be a multiple of 8.* got 12"),
        ({"decoder_features": 7}, "decoder_features must be a multiple of 8"),
        ({"coordinates": "x"}, "coordinates must be one of True, False, got 'x'"),
        ({"coordinate_unit": 0}, "coordinate_unit must satisfy 0 <"),
        ({"coordinate_period": 0}, "coordinate_period must satisfy 0 <"),
        ({"batch_norm": "on"}, "batch_norm must be one of 'fixed', 'trained'"),
        ({"dtype": "half"}, "dtype must be one of 'float32', 'bfloat16', got 'half'"),
    ],
)
def test_settings_that_make_no_network_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        DenseEmbedding(**settings)


def test_a_size_that_does_not_divide_is_refused():
    model = DenseEmbedding(**SMALL)
    with pytest.raises(InputError, match=r"divisible by 8, got \(20, 24\): pad it"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 20, 24, 3)))
