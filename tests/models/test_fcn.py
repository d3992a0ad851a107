"""The fully convolutional network: its maps and its variables."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sphemb import InputError
from sphemb.models import FCN8, last_map_at


def enlarged(x):
    """[1, h, w, D] to twice the size by scipy: cell i of a ResNet lies at pixel i s."""
    sides = [np.arange(2 * n) / 2 for n in x.shape[1:3]]
    places = np.meshgrid(*sides, indexing="ij")
    channels = np.moveaxis(np.asarray(x[0], np.float64), -1, 0)
    read = [
        ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in channels
    ]
    return np.stack(read, axis=-1)[None]


def shapes(**settings):
    """Variables and maps of an image of 64 x 96; nothing is computed."""
    model = FCN8(**{"backbone": "resnet18", **settings})
    image = np.zeros((2, 64, 96, 3))
    variables = jax.eval_shape(model.init, jax.random.key(1), image)
    return variables, jax.eval_shape(model.apply, variables, image)


@pytest.fixture(scope="module")
def network():
    model = FCN8(backbone="resnet18", embedding_dim=4)
    image = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3))
    variables = flax.core.unfreeze(jax.jit(model.init)(jax.random.key(1), image))
    apply = jax.jit(lambda params: model.apply({**variables, "params": params}, image))
    return model, variables["params"], apply


class TestFCN8:
    @pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
    def test_any_backbone_gives_21_numbers_at_stride_8_under_both_names(self, backbone):
        variables, maps = shapes(backbone=backbone)
        assert maps["embedding"].shape == maps["logits"].shape == (2, 8, 12, 21)
        assert maps["embedding"].dtype == jnp.float32
        assert set(variables["params"]) == {"backbone", "score8", "score16", "score32"}
        assert set(variables["batch_stats"]) == {"backbone"}
        assert FCN8(backbone=backbone).stride == 32

    def test_scores_of_three_strides_are_enlarged_bilinearly_and_added(self, network):
        model, params, apply = network
        maps = apply(params)
        assert (maps["embedding"] == maps["logits"]).all()
        total = 0.0
        for stride in (32, 16, 8):
            x = np.asarray(maps[last_map_at(model.feature_maps, stride).name])
            kernel, bias = (params[f"score{stride}"][k] for k in ("kernel", "bias"))
            scores = x @ np.asarray(kernel) + np.asarray(bias)
            if stride < 32:
                total = enlarged(total)
            total = total + scores
        scale = np.abs(total).max()
        np.testing.assert_allclose(maps["embedding"], total, atol=1e-4 * scale)

    def test_every_score_layer_learns_from_the_start(self, network):
        _, params, apply = network

        def loss(params):
            x = apply(params)["embedding"]
            return jnp.sum((x / jnp.linalg.norm(x, axis=-1, keepdims=True))[..., 0])

        gradient = jax.jit(jax.grad(loss))(params)
        for stride in (8, 16, 32):
            assert np.abs(gradient[f"score{stride}"]["kernel"]).max() > 0

    def test_a_head_stands_where_vggs_fully_connected_layers_do(self):
        params = shapes(head_features=16)[0]["params"]
        assert params["head0"]["kernel"].shape == (3, 3, 512, 16)
        assert params["head1"]["kernel"].shape == (1, 1, 16, 16)
        assert params["score32"]["kernel"].shape == (16, 21)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"backbone": "vgg"}, "backbone must be one of 'resnet18'"),
            ({"embedding_dim": 0}, "embedding_dim must be >= 1, got 0"),
            ({"head_features": -1}, "head_features must be >= 0, got -1"),
            ({"dtype": "half"}, "dtype must be one of 'float32', 'bfloat16'"),
        ],
    )
    def test_settings_that_make_no_network_are_named(self, settings, message):
        with pytest.raises(InputError, match=message):
            FCN8(**settings)

    def test_a_size_that_does_not_divide_is_refused(self):
        with pytest.raises(InputError, match=r"divisible by 32, got \(64, 72\): pad"):
            jax.eval_shape(FCN8().init, jax.random.key(0), jnp.zeros((1, 64, 72, 3)))
