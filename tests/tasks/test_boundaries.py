"""The boundaries task on maps that are known, without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb
from sphemb import VOID, InputError
from sphemb.losses import balanced_logistic_loss
from sphemb.tasks import Boundaries, BoundaryMap

B, H, W, K = 2, 32, 32, 2
RNG = np.random.default_rng(0)


def marked():
    """Two images with a vertical line each, and a void corner."""
    labels = np.zeros((B, H, W), np.int32)
    labels[0, :, 9] = labels[1, :, 20] = 1
    labels[:, :4, :4] = VOID
    return labels


@pytest.fixture(scope="module")
def batch():
    labels = marked()
    boundaries = np.full((B, 3, H, W), -1, np.int8)
    boundaries[:, :2] = (labels > 0)[:, None]
    return {
        "image": jnp.asarray(RNG.uniform(size=(B, H, W, 3)), jnp.float32),
        "instances": jnp.asarray(labels),
        "index": jnp.arange(B),
        "valid": np.array([True, True]),
        "mask": np.ones((B, H, W), bool),
        "boundaries": boundaries,
    }


@pytest.fixture(scope="module")
def apply():
    maps = {
        "branches": (
            jnp.asarray(RNG.normal(size=(B, H, W, 3))),
            jnp.asarray(RNG.normal(size=(B, H // 4, W // 4, 3))),
        ),
        "sides": jnp.asarray(RNG.normal(size=(B, H, W, K))),
        "fused": jnp.asarray(RNG.normal(size=(B, H, W))),
    }
    return lambda *_: maps


class TestLoss:
    def test_each_term_is_what_its_weight_asks_for(self, batch, apply):
        task = Boundaries(margin_weight=2.0, logistic_weight=3.0, side_weight=5.0)
        total, terms = task.loss(apply, (), batch, jax.random.key(0))
        branches = (terms["loss/branch1"] + terms["loss/branch2"]) / 2
        expected = 2 * branches + 3 * terms["loss/fused"] + 5 * terms["loss/sides"]
        np.testing.assert_allclose(total, expected, rtol=1e-6)
        fused = apply(None)["fused"].reshape(B, -1)
        wanted = balanced_logistic_loss(fused, batch["instances"].reshape(B, -1))
        np.testing.assert_allclose(terms["loss/fused"], wanted.mean(), rtol=1e-6)

    def test_a_branch_costs_what_the_margin_loss_of_all_pixels_costs(
        self, batch, apply
    ):
        task = Boundaries(num_samples=H * W, logistic_weight=0.0, margin=0.1)
        _, terms = task.loss(apply, (), batch, jax.random.key(0))
        assert list(terms) == ["loss/branch1", "loss/branch2"]
        points = sphemb.sphere.l2_normalize(
            apply(None)["branches"][0].reshape(B, -1, 3)
        )
        expected = sphemb.margin_loss(
            points, batch["instances"].reshape(B, -1), margin=0.1, normalize="pairs"
        )
        np.testing.assert_allclose(terms["loss/branch1"], expected.mean(), rtol=1e-5)

    def test_an_image_without_a_boundary_gives_finite_losses(self, batch, apply):
        empty = {**batch, "instances": jnp.zeros((B, H, W), jnp.int32)}
        task = Boundaries(side_weight=1.0)
        total, terms = task.loss(apply, (), empty, jax.random.key(0))
        assert np.isfinite(total)
        assert terms["loss/fused"] == terms["loss/sides"] == 0


class TestPrediction:
    def test_masked_pixels_are_no_boundary(self, batch, apply):
        mask = jnp.asarray(batch["mask"]).at[:, :, 30:].set(False)
        found = Boundaries().predict(apply, (), {**batch, "mask": mask})
        assert not found.boundary[:, :, 30:].any()
        fused = jax.nn.sigmoid(apply(None)["fused"])
        np.testing.assert_allclose(found.boundary[:, :, :30], fused[:, :, :30])
        lengths = np.linalg.norm(found.branches, axis=-1)
        assert found.branches.shape == (B, K, H, W, 3)
        np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)

    def test_several_scales_are_averaged(self, batch):
        seen = []

        def apply(image, mask=None):
            seen.append(image.shape[1:3])
            level = 2.0 if image.shape[1] == H else -2.0
            return {
                "fused": jnp.full(image.shape[:3], level),
                "branches": (jnp.ones((*image.shape[:3], 3)),),
            }

        task = Boundaries(scales=(0.5, 1.0, 1.5), scale_multiple=16)
        found = task.predict(apply, (), batch)
        assert seen == [(16, 16), (32, 32), (48, 48)]
        high, low = jax.nn.sigmoid(jnp.array([2.0, -2.0]))
        np.testing.assert_allclose(found.boundary, (high + 2 * low) / 3, rtol=1e-5)


class TestMetrics:
    def test_the_truth_itself_scores_one_and_padding_does_not_count(self, batch):
        predictions = BoundaryMap(np.float32(marked() > 0))
        mask = batch["mask"].copy()
        mask[:, 25:] = False  # padding below, with whatever the network says there
        predictions.boundary[:, 25:] = 1.0
        truth = batch["boundaries"].copy()
        truth[:, :2, 25:] = 0
        task = Boundaries(nms=False, thresholds=5)
        state = task.metrics(predictions, {**batch, "mask": mask, "boundaries": truth})
        scores = state["boundaries"].compute()
        assert scores["ods"] == pytest.approx(1.0)
        assert scores["ois"] == pytest.approx(1.0)

    def test_images_that_only_fill_up_a_batch_do_not_count(self, batch):
        predictions = BoundaryMap(np.float32(marked() > 0))
        predictions.boundary[1] = 1.0
        valid = np.array([True, False])
        state = Boundaries(nms=False, thresholds=3).metrics(
            predictions, {**batch, "valid": valid}
        )
        assert state["boundaries"].compute()["ods"] == pytest.approx(1.0)
        empty = Boundaries(nms=False, thresholds=3).metrics(
            predictions, {**batch, "valid": ~valid & ~valid[::-1]}
        )
        merged = empty["boundaries"].merge(state["boundaries"])
        assert merged.compute()["ods"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": ()}, r"config\.task\.scales must have one scale"),
        ({"scales": (0.0,)}, r"config\.task\.scales must satisfy 0 < "),
        (
            {"margin": 2.0},
            r"config\.task\.margin must satisfy 0 <= config\.task\.margin <= 1",
        ),
        ({"thresholds": 0}, r"config\.task\.thresholds must be"),
        ({"side_weight": -1.0}, r"config\.task\.side_weight must satisfy 0 <= "),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Boundaries(**settings)
