"""No product of embeddings, weights or losses is left to an accelerator's rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import grouping, losses, models, sphere

N, D = 24, 3
X = jax.ShapeDtypeStruct((N, D), jnp.float32)
BATCH = jax.ShapeDtypeStruct((2, N, D), jnp.float32)
LABELS = np.repeat([0, 1, 2], N // 3)
SHIFT = {"concentration": 9.0, "num_steps": 2, "block_size": 8}


def margin_loss(x, power):
    labels = jnp.broadcast_to(LABELS, x.shape[:-1])
    return losses.margin_loss(x, labels, margin=0.5, power=power, block_size=8).sum()


def trajectory_margin_loss(x):
    steps = grouping.gbms_trajectory(x, **SHIFT)
    labels = jnp.broadcast_to(LABELS, x.shape[:-1])
    weights = jnp.array([1.0, 0.5, 0.25])
    settings = {"margin": 0.5, "step_weights": weights}
    return losses.trajectory_margin_loss(steps, labels, **settings).sum()


CASES = {
    "margin_loss": lambda x: margin_loss(x, 1),
    "margin_loss, squared": lambda x: margin_loss(x, 2),
    "trajectory_margin_loss": trajectory_margin_loss,
    "gbms": lambda x: jnp.sum(grouping.gbms(x, **SHIFT) ** 3),
    "gbms, any": lambda x: jnp.sum(
        grouping.gbms(x, custom_gradient=False, **SHIFT) ** 3
    ),
    "accelerated_gbms": lambda x: jnp.sum(
        grouping.accelerated_gbms(x, concentration=9.0, num_steps=2, max_points=8)
    ),
    "mean_shift": lambda x: jnp.sum(grouping.mean_shift(x, x, **SHIFT) ** 3),
    "label_modes": lambda x: grouping.label_modes(x, max_groups=4).modes.sum(),
    "spectral_loss": lambda x: losses.spectral_loss(
        x, jnp.broadcast_to(LABELS, x.shape[:-1])
    ).sum(),
    "kwik_cluster": lambda x: grouping.kwik_cluster(
        jax.random.key(0), x, max_groups=4
    ).errors.sum(),
    "calibrated_similarity": lambda x: jnp.sum(sphere.calibrated_similarity(x, x) ** 3),
}


@pytest.mark.parametrize("x", [X, BATCH], ids=["one image", "a batch"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_multiply_at_the_highest_precision(name, x):
    text = jax.jit(jax.value_and_grad(CASES[name])).lower(x).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    rounded = [line for line in products if "[HIGHEST, HIGHEST]" not in line]
    assert not rounded


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", CASES)
def test_accelerators_get_the_same_precision(name, platform):
    function = jax.jit(jax.value_and_grad(CASES[name]))
    exported = jax.export.export(function, platforms=[platform])(X)
    text = exported.mlir_module()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


SMALL = {"backbone": "resnet18", "head_features": 8}
DENSE = {**SMALL, "decoder_features": 8, "output_stride": 16, "num_classes": 2}
NETWORKS = {  # and the convolution that reads coordinates or embeddings
    "DenseEmbedding": (models.DenseEmbedding(**DENSE, decoder_stride=1), "lateral0"),
    "FCN8": (models.FCN8(backbone="resnet18"), None),
    "FeaturePyramid": (models.FeaturePyramid(), None),
    "SideBranches": (models.SideBranches(**SMALL), "fusion_conv"),
    "UNet": (models.UNet(4, (8,), 8), "UNet/Conv_0"),
}


def products(jaxpr):
    """The layer, the kind and the precisions of every product of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            layer = str(equation.source_info.name_stack)
            yield layer, equation.primitive.name, equation.params["precision"]
        for parameter in equation.params.values():
            if hasattr(parameter, "eqns"):
                yield from products(parameter)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_read_coordinates_and_embed_at_the_highest_precision(name):
    model, convolution = NETWORKS[name]
    image = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    found = products(jax.make_jaxpr(model.apply)(variables, image))
    chosen = {
        layer: precision
        for layer, kind, precision in found
        if kind == "dot_general" or (convolution and layer.endswith(convolution))
    }
    assert len(chosen) > (convolution is not None)
    assert set(chosen.values()) == {(jax.lax.Precision.HIGHEST,) * 2}, chosen
    assert convolution is None or any(convolution in layer for layer in chosen)
