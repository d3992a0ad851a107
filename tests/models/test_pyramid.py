"""The pyramid of PiCIE: projections and sums, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sphemb import InputError
from sphemb.models import BACKBONES, FeaturePyramid, last_map_at

IMAGE = np.random.default_rng(0).uniform(size=(1, 64, 32, 3)).astype(np.float32)
SMALL = FeaturePyramid(backbone="resnet18", embedding_dim=6)


@pytest.fixture(scope="module")
def found():
    variables = jax.jit(SMALL.init)(jax.random.key(0), IMAGE)
    return variables, jax.jit(SMALL.apply)(variables, IMAGE)


def enlarged(x):
    """[h, w, D] to twice the size by scipy: cell i of a ResNet lies at pixel i s."""
    height, width, _ = x.shape
    places = np.meshgrid(
        np.arange(2 * height) / 2, np.arange(2 * width) / 2, indexing="ij"
    )
    channels = np.moveaxis(np.asarray(x, np.float64), -1, 0)
    read = [
        ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in channels
    ]
    return np.stack(read, axis=-1)


def test_it_is_the_sum_of_projected_maps_from_the_top_down(found):
    variables, maps = found
    total = None
    for stride in (32, 16, 8, 4):
        level = np.asarray(maps[last_map_at(SMALL.feature_maps, stride).name][0])
        lateral = variables["params"][f"lateral{stride}"]
        projected = level @ np.asarray(lateral["kernel"]) + np.asarray(lateral["bias"])
        total = projected if total is None else projected + enlarged(total)
    np.testing.assert_allclose(maps["embedding"][0], total, atol=1e-4)


def test_maps_of_any_size_count_alike_where_they_are_normalised(found):
    variables, maps = found
    model = SMALL.clone(normalize_maps="cells")
    total = None
    for stride in (32, 16, 8, 4):
        level = np.float64(maps[last_map_at(SMALL.feature_maps, stride).name][0])
        level /= np.sqrt(np.mean(level**2, axis=-1, keepdims=True) + 1e-6)
        lateral = variables["params"][f"lateral{stride}"]
        projected = level @ np.asarray(lateral["kernel"]) + np.asarray(lateral["bias"])
        total = projected if total is None else projected + enlarged(total)
    expected = jax.jit(model.apply)(variables, IMAGE)["embedding"][0]
    np.testing.assert_allclose(expected, total, atol=1e-4)


def test_the_parameters_are_the_backbones_and_four_projections(found):
    params = found[0]["params"]
    assert set(params) == {"backbone", *(f"lateral{s}" for s in (4, 8, 16, 32))}
    assert params["lateral32"]["kernel"].shape == (512, 6)
    assert found[1]["embedding"].shape == (1, 16, 8, 6)


def test_what_is_learned_reaches_the_backbone(found):
    variables, _ = found

    def total(params):
        maps = SMALL.apply({**variables, "params": params}, IMAGE)
        return jnp.sum(jnp.square(maps["embedding"]))

    gradient = jax.jit(jax.grad(total))(variables["params"])
    assert jnp.abs(gradient["backbone"]["stem_conv"]["kernel"]).max() > 0
    assert jnp.abs(gradient["lateral8"]["kernel"]).max() > 0


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("output_stride", [32, 8])
def test_any_backbone_will_do(backbone, output_stride):
    model = FeaturePyramid(
        backbone=backbone, output_stride=output_stride, dtype="bfloat16"
    )
    image = jax.ShapeDtypeStruct((2, 64, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    embedding = jax.eval_shape(model.apply, variables, image)["embedding"]
    assert (embedding.shape, embedding.dtype) == ((2, 16, 8, 128), jnp.float32)
    assert model.stride == output_stride


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "vgg"}, r"backbone must be one of 'resnet18'"),
        ({"output_stride": 4}, r"output_stride must be above 4"),
        ({"embedding_dim": 0}, r"embedding_dim must be >= 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        FeaturePyramid(**settings)
