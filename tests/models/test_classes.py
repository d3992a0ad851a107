"""The embedding network's classes, and the pyramid before its decoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.models import AtrousPyramid, DenseEmbedding

SMALL = {
    "backbone": "resnet18",
    "embedding_dim": 4,
    "head_features": 8,
    "decoder_features": 8,
    "output_stride": 16,
    "decoder_stride": 4,
}


def shapes(**settings):
    model = DenseEmbedding(**{**SMALL, **settings})
    image = np.zeros((2, 64, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(1), image)
    return variables["params"], jax.eval_shape(model.apply, variables, image)


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


class TestClasses:
    def test_logits_come_on_the_embeddings_grid(self):
        params, maps = shapes(num_classes=5, atrous_rates=(2, 4))
        assert maps["logits"].shape == (2, 16, 8, 5)
        assert maps["logits"].dtype == jnp.float32
        assert params["classify"]["kernel"].shape == (4, 5)
        assert set(params["pyramid"]) >= {"point", "rate2", "rate4", "mix"}

    def test_they_can_be_read_before_the_embedding(self):
        params, _ = shapes(num_classes=5, classes_from="features")
        assert params["classify"]["kernel"].shape == (8, 5)

    def test_they_can_be_read_from_the_backbone(self):
        params, maps = shapes(num_classes=5, classes_from="backbone")
        assert params["classify"]["kernel"].shape == (512, 5)
        assert maps["logits"].shape == (2, 16, 8, 5)

    def test_maps_can_be_brought_to_one_mean_and_variance_first(self):
        model = DenseEmbedding(**SMALL, normalize_maps="channels", axis_name=None)
        image = np.random.default_rng(0).random((2, 64, 32, 3), np.float32)
        variables = jax.jit(model.init)(jax.random.key(0), image)
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

    def test_without_them_nothing_is_added(self):
        params, maps = shapes()
        assert "logits" not in maps
        assert not {"classify", "pyramid"} & set(params)

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"num_classes": -1}, "num_classes must be"),
            ({"classes_from": "image"}, "classes_from must be one of"),
            ({"normalize_maps": "rows"}, "normalize_maps must be one of"),
            ({"atrous_rates": (0,)}, "atrous_rates must be"),
        ],
    )
    def test_settings_that_make_no_network_are_named(self, settings, match):
        with pytest.raises(InputError, match=match):
            DenseEmbedding(**SMALL | settings)
