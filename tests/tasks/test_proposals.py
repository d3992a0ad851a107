"""The proposals task on embeddings that are known, without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb
from sphemb import InputError
from sphemb.grouping import _accelerated
from sphemb.tasks import Proposals

B, H, W = 2, 8, 8
WRAPS = [
    pytest.param(lambda f: f, id="eager", marks=pytest.mark.nightly),
    pytest.param(jax.jit, id="jit"),
]


@pytest.fixture(scope="module")
def batch():
    """Two images of three instances each, in vertical bands of 4, 2 and 2 columns."""
    labels = np.repeat([0, 0, 0, 0, 1, 1, 2, 2], H).reshape(W, H).T
    return {
        "image": jnp.zeros((B, H, W, 3)),
        "instances": jnp.asarray(np.stack([labels, labels])),
        "valid": jnp.array([True, True]),
        "index": jnp.arange(B),
    }


@pytest.fixture(scope="module")
def embedding(batch):
    """Noisy corners of a simplex, of any length."""
    noise = 0.1 * jax.random.normal(jax.random.key(0), (B, H, W, 4))
    return 3.0 * (jax.nn.one_hot(batch["instances"], 4) + noise)


class TestProposals:
    def test_the_loss_is_that_of_the_trajectory_of_the_sample(self, batch, embedding):
        task = Proposals(num_steps=2, num_samples=H * W, margin=0.4)
        loss, terms = task.loss(
            lambda *_: {"embedding": embedding}, (), batch, jax.random.key(1)
        )
        points = sphemb.sphere.l2_normalize(embedding.reshape(B, H * W, 4))
        trajectory = sphemb.gbms_trajectory(points, concentration=36.0, num_steps=2)
        expected = sphemb.trajectory_margin_loss(
            trajectory, batch["instances"].reshape(B, -1), margin=0.4, normalize="pairs"
        ).mean()
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(sum(terms.values()), loss, rtol=1e-5)
        assert list(terms) == ["loss/step0", "loss/step1", "loss/step2"]

    def test_step_weights_weigh_the_steps(self, batch, embedding):
        def apply(image, mask=None):
            return {"embedding": embedding}

        arguments = (apply, (), batch, jax.random.key(1))
        last = Proposals(num_steps=2, step_weights=(0.0, 0.0, 2.0)).loss(*arguments)
        np.testing.assert_allclose(last[0], 2 * last[1]["loss/step2"], rtol=1e-6)

    def test_the_draw_belongs_to_the_image_and_not_to_its_place(self, batch, embedding):
        task = Proposals(num_steps=1, num_samples=16)
        key = jax.random.key(2)

        def losses(order):
            shuffled = jax.tree.map(lambda x: x[order], batch)
            maps = {"embedding": embedding[order]}
            return task.loss(lambda *_: maps, (), shuffled, key)[0]

        together = losses(np.array([0, 1]))
        np.testing.assert_allclose(losses(np.array([1, 0])), together, rtol=1e-6)
        alone = [losses(np.array([i])) for i in range(B)]
        np.testing.assert_allclose(np.mean(alone), together, rtol=1e-6)

    def test_the_instances_are_found_and_scored(self, batch, embedding):
        task = Proposals(predict_steps=5, max_groups=8, min_size=2)
        predictions = task.predict(lambda *_: {"embedding": embedding}, (), batch)
        np.testing.assert_array_equal(predictions.num_groups, [3, 3])
        metrics = task.metrics(predictions, batch)
        assert metrics["average_recall"].compute()["mean_best_iou"] == 1.0
        assert metrics["instance_count"].compute()["count_exact"] == 1.0
        lengths = jnp.linalg.norm(predictions.embedding, axis=-1)
        np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
        background = predictions.labels[:, :, :4] == 0
        assert bool(background.all())

    @pytest.mark.parametrize("wrap", WRAPS)
    def test_more_pixels_than_are_compared_give_the_same_groups(
        self, batch, embedding, wrap
    ):
        settings = {"predict_steps": 5, "max_groups": 8, "min_size": 2}

        def labels(**more):
            task = Proposals(**settings, **more)

            def predict(batch):
                maps = {"embedding": embedding}
                return task.predict(lambda *_: maps, (), batch).labels

            return wrap(predict)(batch)

        np.testing.assert_array_equal(labels(predict_points=32), labels())

    @pytest.mark.parametrize("wrap", WRAPS)
    @pytest.mark.parametrize(
        ("settings", "reached"),
        [
            ({"max_groups": 3}, {"max_groups": False}),
            ({"max_groups": 2}, {"max_groups": True}),
            # What is left is too little for a group.
            ({"max_groups": 2, "min_size": 17}, {"max_groups": False}),
            ({"max_groups": 3, "threshold": 0.999}, {"max_groups": False}),
            (
                {
                    **{"max_groups": 3, "threshold": 0.999},
                    **{"budgets": (1,), "pooled_concentrations": (1e5,)},
                },
                {"max_groups": True},
            ),
            (
                {"max_groups": 3, "max_components": 2},
                {"max_groups": False, "max_components": False},
            ),
            (
                {"max_groups": 3, "max_components": 1},
                {"max_groups": False, "max_components": True},
            ),
        ],
    )
    def test_limits_that_left_something_out_are_named(
        self, batch, embedding, settings, reached, wrap
    ):
        task = Proposals(**{"predict_steps": 5, "min_size": 2} | settings)

        def predict(batch):
            return task.predict(lambda *_: {"embedding": embedding}, (), batch)

        predictions = wrap(predict)(batch)
        assert set(predictions.reached) == set(reached)
        one = {**batch, "valid": jnp.array([True, False])}
        metrics = task.metrics(predictions, one)
        for name, expected in reached.items():
            assert predictions.reached[name].tolist() == [expected] * B, name
            scores = metrics[f"limit_{name}"].compute()
            assert scores == {f"num_reached/{name}": float(expected)}

    @pytest.mark.nightly
    def test_images_of_many_sizes_share_the_programs_of_the_grouping(self):
        task = Proposals(predict_steps=2, predict_points=64, max_groups=8, min_size=2)
        before = _accelerated._images._cache_size()
        for width in range(17, 25):  # 136 to 192 pixels, in buckets of 160 and 192
            image = jnp.zeros((1, 8, width, 3))
            corner = jnp.eye(4)[(jnp.arange(width) > 9).astype(int)]
            maps = {"embedding": jnp.broadcast_to(corner, (1, 8, width, 4))}
            predictions = task.predict(
                lambda image, mask=None, maps=maps: maps, (), {"image": image}
            )
            assert predictions.num_groups.tolist() == [2]
        assert _accelerated._images._cache_size() == before + 2

    def test_masked_pixels_are_void_and_change_nothing(self, batch, embedding):
        task = Proposals(predict_steps=5, max_groups=8, min_size=2)
        mask = jnp.ones((B, H, W), bool).at[:, 6:].set(False)
        garbage = jnp.where(mask[..., None], embedding, 7.0)
        masked = {**batch, "mask": mask}
        found = task.predict(lambda *_: {"embedding": garbage}, (), masked).labels
        whole = task.predict(lambda *_: {"embedding": embedding}, (), batch)
        np.testing.assert_array_equal(found[:, :6], whole.labels[:, :6])
        assert bool((found[:, 6:] == sphemb.VOID).all())

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"margin": 1.5}, r"config\.task\.margin must satisfy 0 <= .* <= 1, got"),
            ({"concentration": 0.0}, r"config\.task\.concentration must satisfy"),
            ({"num_steps": 2.0}, r"config\.task\.num_steps must be a Python int"),
            ({"max_groups": 0}, r"config\.task\.max_groups must be >= 1, got 0"),
            (
                {"num_steps": 2, "step_weights": (1.0,)},
                r"step_weights .* \(3,\) .* got \(1,\)",
            ),
        ],
    )
    def test_a_setting_out_of_range_is_named(self, settings, words):
        with pytest.raises(InputError, match=words):
            Proposals(**settings)
