"""The padding of an image does not change a network's output at its pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb.models import (
    FCN8,
    DenseEmbedding,
    FeaturePyramid,
    SideBranches,
    UNet,
    apply_masked,
)
from tests.tiny import drawn_variables, small_efficientnet, small_resnet

SIZE = (37, 50)
MODELS = {
    "dense": DenseEmbedding(
        backbone="efficientnet_lite0",
        output_stride=8,
        decoder_stride=1,
        decoder_features=8,
        head_features=8,
        embedding_dim=4,
        atrous_rates=(2,),
    ),
    "dense, coarse": DenseEmbedding(
        backbone="resnet18",
        head_features=8,
        embedding_dim=4,
        coordinate_unit=32.0,
        num_classes=3,
        classes_from="backbone",
    ),
    "unet": UNet(4, features=(8, 16), head_features=8),
    "fcn": FCN8(backbone="efficientnet_lite0", embedding_dim=4, head_features=8),
    "pyramid": FeaturePyramid(backbone="resnet18", embedding_dim=4),
    "branches": SideBranches(
        backbone="efficientnet_lite0",
        branches=("stage1", "stage3", "stage5"),
        output_stride=16,
        decoder_features=8,
        head_features=8,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def small_backbones():
    with small_resnet(), small_efficientnet():
        yield


def moved(model):
    """Variables of which none is as it begins, so that every layer matters."""
    start = jnp.zeros((1, model.stride, model.stride, 3))
    tree = jax.eval_shape(model.init, jax.random.key(0), start)
    return drawn_variables(tree, noise=0.1)


def padded(image, size, *, noise=False):
    """The image in the corner of a larger one, and the mask of where it is."""
    height, width = image.shape[:2]
    border = ((0, size[0] - height), (0, size[1] - width))
    mask = np.pad(np.ones((height, width), bool), border)
    found = np.pad(image, (*border, (0, 0)), mode="symmetric")
    if noise:
        beside = np.random.default_rng(2).uniform(size=found.shape)
        found = np.where(mask[..., None], found, beside).astype(np.float32)
    return found, mask


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.nightly] * (n in ("fcn", "pyramid")))
        for n in MODELS
    ],
)
def test_maps_do_not_depend_on_the_padding(name):
    model = MODELS[name]
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(*SIZE, 3)).astype(np.float32)
    image[:, 25:] *= 0.3  # so that padding by mirrors would move the moments
    variables = moved(model)
    apply = jax.jit(lambda image, mask: apply_masked(model, variables, image, mask))
    seen = []
    for size, noise in (((64, 64), False), ((96, 64), False), ((96, 64), True)):
        one, mask = padded(image, size, noise=noise)
        # Beside an image without padding, which is not to be changed by it.
        other = rng.uniform(size=(*size, 3)).astype(np.float32)
        maps = apply(np.stack([one, other]), np.stack([mask, np.ones(size, bool)]))
        maps.pop("origins", None)
        cut = []
        for found in jax.tree.leaves(maps):
            cells = [
                -(-side // (whole // n))
                for side, whole, n in zip(SIZE, size, found.shape[1:3], strict=True)
            ]
            cut.append(np.asarray(found[0, : cells[0], : cells[1]]))
        seen.append(cut)
    for other in seen[1:]:
        for found, wanted in zip(other, seen[0], strict=True):
            scale = np.abs(wanted).max()
            np.testing.assert_allclose(found, wanted, atol=2e-5 * scale)


@pytest.mark.parametrize("name", ["dense, coarse", "unet"])
def test_a_mask_of_an_image_without_padding_changes_nothing(name):
    model = MODELS[name]
    size = (48, 64)
    image = np.random.default_rng(0).uniform(size=(1, *size, 3)).astype(np.float32)
    variables = moved(model)
    apply = jax.jit(lambda image, mask: apply_masked(model, variables, image, mask))
    plain = apply(image, None)["embedding"]
    for mask in (np.ones((1, *size), bool), np.zeros((1, *size), bool)):
        masked = apply(image, mask)["embedding"]
        scale = np.abs(plain).max()
        np.testing.assert_allclose(masked, plain, atol=2e-5 * scale)
