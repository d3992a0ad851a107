"""Side branches: what they read, what the fusion reads, where gradients end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.models import SideBranches

SMALL = {"backbone": "resnet18", "head_features": 8, "fusion_features": 4}
IMAGE = np.random.default_rng(0).uniform(size=(1, 32, 32, 3)).astype(np.float32)


def shapes(**settings):
    model = SideBranches(**{**SMALL, **settings})
    image = np.zeros((2, 64, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(1), image)
    return variables, jax.eval_shape(model.apply, variables, image)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(SideBranches(**SMALL).init)(jax.random.key(0), IMAGE)


class TestMaps:
    def test_each_branch_has_the_size_of_its_map_and_the_fusion_the_images(self):
        _, maps = shapes()
        assert [b.shape for b in maps["branches"]] == [
            (2, 16, 8, 3),
            (2, 8, 4, 3),
            (2, 8, 4, 3),
            (2, 8, 4, 3),
        ]
        assert maps["sides"].shape == (2, 64, 32, 4)
        assert maps["fused"].shape == (2, 64, 32)
        assert maps["fused"].dtype == jnp.float32

    @pytest.mark.parametrize("stride", [8, 32])
    def test_a_decoder_hands_down_between_maps_of_any_stride(self, stride):
        _, maps = shapes(
            backbone="efficientnet_lite0",
            branches=("stage1", "stage3", "stage5", "stage7"),
            output_stride=stride,
            decoder_features=8,
            dtype="bfloat16",
        )
        assert maps["branches"][0].shape == (2, 32, 16, 3)
        assert maps["branches"][3].shape == (2, 64 // stride, 32 // stride, 3)

    def test_without_a_decoder_a_branch_reads_its_map_alone(self, variables):
        model = SideBranches(**SMALL)

        def first(variables):
            return jnp.sum(model.apply(variables, IMAGE)["branches"][0])

        gradient = jax.jit(jax.grad(first))(variables)["params"]["backbone"]
        learning = {
            name.split("_")[0]
            for name, leaves in gradient.items()
            if any(leaf.any() for leaf in jax.tree.leaves(leaves))
        }
        assert learning == {"stem", "stage1"}

    def test_the_fusion_knows_directions_only(self, variables):
        model = SideBranches(**SMALL)
        apply = jax.jit(model.apply)
        params = dict(variables["params"])
        for name in ("stage1_embed", "stage3_embed"):
            params[name] = jax.tree.map(lambda leaf: 3.0 * leaf, params[name])
        found, scaled = (
            apply({**variables, "params": p}, IMAGE)["fused"]
            for p in (variables["params"], params)
        )
        np.testing.assert_allclose(found, scaled, rtol=1e-4, atol=1e-5)


class TestDetachedFusion:
    @pytest.mark.parametrize("detached", [False, True])
    def test_what_the_fusion_learns_reaches_the_branches_or_not(
        self, detached, variables
    ):
        model = SideBranches(**SMALL, detach_fusion=detached)

        def fused(params):
            maps = model.apply({**variables, "params": params}, IMAGE)
            return jnp.sum(jnp.sin(maps["fused"])) + jnp.sum(maps["sides"])

        gradient = jax.jit(jax.grad(fused))(variables["params"])
        reached = jnp.abs(gradient["stage2_embed"]["kernel"]).max() > 0
        assert bool(reached) != detached
        assert float(jnp.abs(gradient["fusion_conv"]["kernel"]).max()) > 0


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"branches": ("stage9",)}, r"branches must be some of stem, stage1, "),
            ({"branches": ("stage2", "stage1")}, r"in this order"),
            ({"branches": ()}, r"branches must be some of"),
            ({"head_features": 12}, r"head_features must be a multiple of 8"),
            ({"decoder_features": 4}, r"decoder_features must be a multiple of 8"),
            ({"backbone": "vgg16"}, r"backbone must be one of"),
        ],
    )
    def test_settings_that_make_no_network_are_refused(self, settings, message):
        with pytest.raises(InputError, match=message):
            SideBranches(**{**SMALL, **settings})
