"""The spectral task on embeddings that are known, without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb
from sphemb import VOID, InputError
from sphemb.losses import instance_weights, spectral_loss
from sphemb.tasks import ROUNDINGS, Spectral
from sphemb.tasks._semantic import class_pairs

B, H, W, D = 2, 8, 8, 4
SMALL = {"max_groups": 8, "min_size": 2, "predict_steps": 5}


@pytest.fixture(scope="module")
def batch():
    """Two images of three instances each, in vertical bands of 4, 2 and 2 columns."""
    labels = np.repeat([0, 0, 0, 0, 1, 1, 2, 2], H).reshape(W, H).T
    return {
        "image": jnp.zeros((B, H, W, 3)),
        "instances": jnp.asarray(np.stack([labels, labels])).at[0, 0, 0].set(VOID),
        "valid": jnp.array([True, True]),
        "index": jnp.arange(B),
    }


@pytest.fixture(scope="module")
def embedding(batch):
    """Noisy axes, of any length."""
    noise = 0.1 * jax.random.normal(jax.random.key(0), (B, H, W, D))
    return 3.0 * (jax.nn.one_hot(batch["instances"], D) + noise).at[0, 0, 0, 0].set(1)


@pytest.fixture(scope="module")
def apply(embedding):
    return lambda *_: {"embedding": embedding}


class TestLoss:
    @pytest.mark.parametrize("power", [0.0, 0.5])
    def test_all_pixels_give_the_spectral_loss(self, batch, embedding, apply, power):
        task = Spectral(weight_power=power)
        loss, terms = task.loss(apply, (), batch, jax.random.key(1))
        labels = batch["instances"].reshape(B, -1)
        x = sphemb.sphere.l2_normalize(embedding.reshape(B, H * W, D))
        weights = instance_weights(labels) ** power if power else None
        expected = spectral_loss(x, labels, weights=weights).mean()
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert terms == {"loss/spectral": loss}

    def test_a_sample_of_all_counting_pixels_is_all_pixels(self, batch, apply):
        def loss(number, power):
            task = Spectral(num_samples=number, weight_power=power)
            return task.loss(apply, (), batch, jax.random.key(1))[0]

        for power in (0.0, 1.0):
            every, drawn = loss(0, power), loss(H * W, power)
            np.testing.assert_allclose(drawn, every, rtol=1e-4)
        assert loss(16, 0.0) != loss(0, 0.0)

    def test_the_draw_belongs_to_the_image_and_not_to_its_place(self, batch, embedding):
        task = Spectral(num_samples=16)
        key = jax.random.key(2)

        def losses(order):
            shuffled = jax.tree.map(lambda x: x[order], batch)
            maps = {"embedding": embedding[order]}
            return task.loss(lambda *_: maps, (), shuffled, key)[0]

        together = losses(np.array([0, 1]))
        np.testing.assert_allclose(losses(np.array([1, 0])), together, rtol=1e-5)
        alone = [losses(np.array([i])) for i in range(B)]
        np.testing.assert_allclose(np.mean(alone), together, rtol=1e-5)

    def test_coarser_maps_are_interpolated_and_learned_from(self, batch):
        task = Spectral()
        coarse = jax.random.normal(jax.random.key(3), (B, H // 4, W // 4, D))

        def loss(coarse):
            maps = {"embedding": coarse}
            return task.loss(lambda *_: maps, (), batch, jax.random.key(1))[0]

        gradient = jax.grad(loss)(coarse)
        assert (jnp.abs(gradient).max(axis=-1) > 0).all()


class TestPrediction:
    @pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
    @pytest.mark.parametrize("rounding", ROUNDINGS)
    def test_the_instances_are_found_and_scored(self, batch, apply, rounding, wrap):
        task = Spectral(rounding=rounding, tries=2, **SMALL)
        predictions = wrap(lambda batch: task.predict(apply, (), batch))(batch)
        np.testing.assert_array_equal(predictions.num_groups, [3, 3])
        scores = {}
        for metric in task.metrics(predictions, batch).values():
            scores |= metric.compute()
        assert scores["pair_accuracy"] == scores["adjusted_rand_index"] == 1.0
        assert scores["mean_best_iou"] == scores["count_exact"] == 1.0
        lengths = jnp.linalg.norm(predictions.embedding, axis=-1)
        np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
        assert (predictions.labels[1, :, :4] == 0).all()
        assert (predictions.background == 0).all()

    @pytest.mark.parametrize("rounding", ["kwik_cluster", "mean_shift"])
    def test_a_limit_that_left_something_out_is_counted(self, batch, apply, rounding):
        for groups, number in {2: 2.0, 3: 0.0}.items():
            task = Spectral(rounding=rounding, **(SMALL | {"max_groups": groups}))
            metrics = task.metrics(task.predict(apply, (), batch), batch)
            scores = metrics["limit_max_groups"].compute()
            assert scores == {"num_reached/max_groups": number}

    @pytest.mark.parametrize("rounding", ROUNDINGS)
    def test_masked_pixels_are_void_and_change_nothing(
        self, batch, embedding, rounding
    ):
        task = Spectral(rounding=rounding, **SMALL)
        mask = jnp.ones((B, H, W), bool).at[:, 6:].set(False)
        garbage = jnp.where(mask[..., None], embedding, 7.0)
        masked = {**batch, "mask": mask}
        found = task.predict(lambda *_: {"embedding": garbage}, (), masked)
        assert (found.labels[:, 6:] == VOID).all()
        truth = {**batch, "instances": jnp.where(mask, batch["instances"], VOID)}
        scores = task.metrics(found, truth)["pairs"].compute()
        assert scores["pair_accuracy"] == 1.0
        np.testing.assert_array_equal(found.num_groups, [3, 3])

    def test_more_directions_than_groups_are_scored(self, batch, apply):
        task = Spectral(rounding="orthogonal", max_groups=2)
        predictions = task.predict(apply, (), batch)
        assert int(predictions.labels.max()) == 2
        scores = task.metrics(predictions, batch)["pairs"].compute()
        assert scores["pair_recall"] == 1.0

    def test_predictions_repeat_and_another_seed_is_another_order(self, batch):
        noise = jax.random.normal(jax.random.key(4), (B, H, W, D))

        def labels(seed):
            task = Spectral(predict_seed=seed)
            maps = {"embedding": noise}
            return task.predict(lambda *_: maps, (), batch).labels

        np.testing.assert_array_equal(labels(0), labels(0))
        assert (labels(0) != labels(1)).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"rounding": "k_means"},
            r"config\.task\.rounding must be one of 'kwik_cluster'",
        ),
        ({"num_samples": -1}, r"config\.task\.num_samples must be >= 0, got -1"),
        ({"tries": 0}, r"config\.task\.tries must be >= 1, got 0"),
        ({"threshold": 1.0}, r"config\.task\.threshold must satisfy"),
        ({"weight_power": -1.0}, r"config\.task\.weight_power must satisfy"),
        ({"concentration": 0.0}, r"config\.task\.concentration must satisfy"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, words):
    with pytest.raises(InputError, match=words):
        Spectral(**settings)


class TestClassPairs:
    def test_classes_regions_and_their_parts_are_each_set_against_their_truth(self):
        true_classes = jnp.array([[[0, 1, 1, 0, 1, -1], [0, 1, 1, 0, 1, 1]]])
        instances = jnp.array([[[0, 1, 1, 0, 2, 2], [0, 1, 1, 0, 2, 2]]])
        perfect = class_pairs(
            true_classes, true_classes, instances, num_classes=2, max_objects=2
        )
        scores = {}
        for metric in perfect.values():
            scores |= metric.compute()
        assert scores["classes/pair_accuracy"] == scores["parts/pair_accuracy"] == 1.0
        # One region holds both instances, 4 and 3 pixels of it: 24 of 110 pairs.
        assert scores["regions/pair_recall"] == 1.0
        assert scores["regions/pair_accuracy"] == pytest.approx(1 - 24 / 110)
        assert all(metric.pairs.sum() == 110 for metric in perfect.values())

    def test_any_number_of_parts_is_scored(self):
        # More single pixels than a table of fixed size had room for.
        classes = np.zeros((1, 80, 80), int)
        classes[:, ::2, ::2] = 1
        instances = np.where(classes > 0, np.cumsum(classes).reshape(classes.shape), 0)
        scores = class_pairs(
            *(jnp.asarray(x) for x in (classes, classes, instances)),
            num_classes=2,
            max_objects=1600,
        )["part_pairs"].compute()
        assert scores["parts/pair_accuracy"] == scores["parts/pair_precision"] == 1.0
