"""The U-Net: its maps and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.models import Origins, UNet


@pytest.fixture(scope="module")
def network():
    model = UNet(embedding_dim=4, features=(8, 16), head_features=8)
    image = jax.random.uniform(jax.random.key(0), (2, 16, 24, 3))
    variables = model.init(jax.random.key(1), image)
    return model, variables, image, jax.jit(model.apply)(variables, image)


class TestUNet:
    def test_every_pixel_gets_an_embedding_and_every_stage_has_a_name(self, network):
        maps = dict(network[3])
        assert isinstance(maps.pop("origins"), Origins)
        assert {name: m.shape for name, m in maps.items()} == {
            "stage1": (2, 8, 12, 8),
            "stage2": (2, 4, 6, 16),
            "decoded": (2, 8, 12, 8),
            "embedding": (2, 16, 24, 4),
        }

    def test_an_image_is_embedded_alike_alone_and_in_a_batch(self, network):
        model, variables, image, maps = network
        alone = model.apply(variables, image[1:])["embedding"]
        np.testing.assert_allclose(alone, maps["embedding"][1:], atol=2e-5)

    def test_equal_patches_in_different_places_embed_differently(self, network):
        model, variables, image, _ = network
        black = model.apply(variables, jnp.zeros_like(image))["embedding"][0]
        assert float(jnp.abs(black[2, 2] - black[12, 20]).max()) > 1e-3

    def test_parameters_do_not_depend_on_the_image_size(self, network):
        model, variables, _, _ = network
        small = model.init(jax.random.key(1), jnp.zeros((1, 4, 4, 3)))
        jax.tree.map(np.testing.assert_array_equal, small, variables)

    @pytest.mark.parametrize("shape", [(2, 18, 24, 3), (2, 16, 22, 3)])
    def test_a_size_that_does_not_divide_is_refused(self, network, shape):
        model, variables, *_ = network
        with pytest.raises(InputError, match=r"divisible by 4, got .*: pad it first"):
            model.apply(variables, jnp.zeros(shape))

    def test_a_single_stage_takes_any_even_size(self):
        model = UNet(embedding_dim=2, features=(8,), head_features=4)
        maps, _ = model.init_with_output(jax.random.key(0), jnp.zeros((1, 2, 6, 3)))
        assert model.stride == 2
        assert maps["embedding"].shape == (1, 2, 6, 2)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"features": 7}, "features must name the channels of each stage, got 7"),
            ({"features": ()}, "features must name the channels of each stage"),
            ({"features": (16, 7)}, r"features must be a multiple of 8.* got 7"),
            ({"features": (0,)}, "features must be >= 1, got 0"),
            ({"features": (8.0,)}, "features must be a Python int"),
            ({"embedding_dim": 0}, "embedding_dim must be >= 1, got 0"),
            ({"head_features": 0}, "head_features must be >= 1, got 0"),
        ],
    )
    def test_wrong_settings_are_named(self, settings, message):
        with pytest.raises(InputError, match=message):
            UNet(**{"embedding_dim": 4, **settings})

    def test_an_image_without_a_color_axis_is_refused(self, network):
        model, variables, *_ = network
        with pytest.raises(InputError, match=r"image must have shape \[B, H, W, 3\]"):
            model.apply(variables, jnp.zeros((2, 16, 24)))
