"""Classes, and instances with classes, on maps that are known, without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb
from sphemb import VOID, InputError
from sphemb.instances import PROPOSAL_FEATURES
from sphemb.losses import cross_entropy, instance_weights
from sphemb.tasks import Instances, Proposals, Semantic

B, H, W, K = 2, 16, 16, 4


def maps_of(semantic, instances):
    """What a perfect network would say, on a grid of stride 2, with some noise."""
    rng = np.random.default_rng(0)
    middle = (slice(None), slice(None, None, 2), slice(None, None, 2))
    classes, groups = np.maximum(semantic, 0)[middle], np.maximum(instances, 0)[middle]
    return {
        "logits": jnp.asarray(8.0 * np.eye(K)[classes]),
        "embedding": jnp.asarray(np.eye(8)[groups] + rng.normal(0, 0.02, (B, 8, 8, 8))),
    }


@pytest.fixture(scope="module")
def batch():
    """Two images of a background, two objects of class 1, and one of class 3."""
    instances = np.zeros((B, H, W), np.int32)
    instances[:, 2:8, 2:8] = 1
    instances[:, 2:8, 10:16] = 2
    instances[:, 10:16, 4:12] = 3
    instances[1] = instances[1].T
    semantic = np.array([0, 1, 1, 3])[instances]
    instances[:, :2, :2] = VOID  # a crowd: its class is known
    return {
        "image": jnp.zeros((B, H, W, 3)),
        "instances": jnp.asarray(instances),
        "semantic": jnp.asarray(semantic),
        "valid": jnp.array([True, True]),
        "mask": jnp.ones((B, H, W), bool),
        "index": jnp.arange(B),
    }


@pytest.fixture(scope="module")
def apply(batch):
    maps = maps_of(np.asarray(batch["semantic"]), np.asarray(batch["instances"]))
    return lambda *_: maps


class TestSemantic:
    def test_the_loss_is_the_cross_entropy_of_all_pixels_that_count(self, batch, apply):
        loss, terms = Semantic(num_classes=K).loss(apply, (), batch, jax.random.key(0))
        logits = jax.image.resize(apply(None)["logits"], (B, H, W, K), "bilinear")
        labels = batch["semantic"].reshape(B, -1)
        expected = cross_entropy(logits.reshape(B, -1, K), labels).mean()
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        assert list(terms) == ["loss/classes"]

    def test_balanced_every_class_of_an_image_weighs_the_same(self, batch, apply):
        task = Semantic(num_classes=K, class_balance=1.0)
        loss, _ = task.loss(apply, (), batch, jax.random.key(0))
        logits = jax.image.resize(apply(None)["logits"], (B, H, W, K), "bilinear")
        labels = batch["semantic"].reshape(B, -1)
        weights = instance_weights(labels)
        flat = logits.reshape(B, -1, K)
        expected = cross_entropy(flat, labels, weights=weights).mean()
        np.testing.assert_allclose(loss, expected, rtol=1e-6)

    @pytest.mark.parametrize("groups", ["classes", "instances"])
    def test_the_embedding_loss_groups_what_it_is_told_to(self, batch, apply, groups):
        settings = {"num_classes": K, "num_samples": H * W, "embedding_groups": groups}
        task = Semantic(**settings, embedding_weight=2.0)
        loss, terms = task.loss(apply, (), batch, jax.random.key(0))
        labels = batch["semantic" if groups == "classes" else "instances"]
        labels = labels.reshape(B, -1)
        embedding = apply(None)["embedding"]
        pixels = jax.image.resize(embedding, (B, H, W, 8), "bilinear")
        expected = sphemb.margin_loss(
            sphemb.sphere.l2_normalize(pixels.reshape(B, -1, 8)),
            labels,
            margin=0.5,
            normalize="pairs",
        ).mean()
        np.testing.assert_allclose(terms["loss/embedding"], expected, rtol=1e-4)
        np.testing.assert_allclose(
            loss, terms["loss/classes"] + 2 * terms["loss/embedding"], rtol=1e-6
        )

    def test_the_void_of_instances_is_not_that_of_classes(self, batch, apply):
        """As COCO-Stuff's maps: classes, and instances that nobody knows."""
        unknown = {**batch, "instances": jnp.full_like(batch["instances"], VOID)}
        task = Semantic(num_classes=K, embedding_weight=1.0, num_samples=H * W)
        key = jax.random.key(0)

        def loss(logits, batch):
            maps = {**apply(None), "logits": logits}
            return task.loss(lambda *_: maps, (), batch, key)[0]

        logits = apply(None)["logits"]
        value, gradient = jax.value_and_grad(loss)(logits, unknown)
        assert value == loss(logits, batch) > 0
        assert jnp.abs(gradient).max() > 0
        found = task.predict(apply, (), unknown)
        scores = task.metrics(found, unknown)["classes"].compute()
        assert scores == task.metrics(found, batch)["classes"].compute()
        assert scores["mean_iou"] > 0.5

    def test_the_void_of_classes_is_not_that_of_instances(self, batch, apply):
        settings = {"num_classes": K, "num_samples": H * W, "embedding_weight": 1.0}
        task = Semantic(**settings, embedding_groups="instances")
        unknown = {**batch, "semantic": jnp.full_like(batch["semantic"], VOID)}
        key = jax.random.key(0)
        _, terms = task.loss(apply, (), unknown, key)
        assert terms["loss/classes"] == 0
        _, expected = task.loss(apply, (), batch, key)
        assert terms["loss/embedding"] == expected["loss/embedding"] > 0

    def test_predictions_are_scored_by_their_distance_from_boundaries(
        self, batch, apply
    ):
        task = Semantic(num_classes=K, trimap_width=5)
        shifted = dict(apply(None))
        shifted["logits"] = jnp.roll(shifted["logits"], 1, axis=1)  # by two pixels
        found = task.predict(lambda *_: shifted, (), batch)
        scores = {}
        for metric in task.metrics(found, batch).values():
            scores |= metric.compute()
        assert scores["iou_outside@2"] == 1.0
        assert scores["iou_inside@1"] < scores["mean_iou"] < 1.0

    def test_data_without_classes_and_networks_of_others_are_named(self, batch, apply):
        bare = {k: v for k, v in batch.items() if k != "semantic"}
        key = jax.random.key(0)
        with pytest.raises(InputError, match="the data must have classes"):
            Semantic(num_classes=K).loss(apply, (), bare, key)
        with pytest.raises(
            InputError, match=r"must be config\.task\.num_classes 9, got"
        ):
            Semantic(num_classes=9).loss(apply, (), batch, key)


class TestInstances:
    settings = {  # noqa: RUF012 (read only)
        "num_classes": K,
        "num_steps": 0,
        "num_samples": H * W,
        "max_groups": 6,
        "min_size": 8,
        "pooled_concentrations": (18.0,),
        "budgets": (5,),
    }

    def test_the_loss_is_that_of_both(self, batch, apply):
        key = jax.random.key(0)
        loss, terms = Instances(**self.settings, classes_weight=3.0).loss(
            apply, None, batch, key
        )
        shared = {k: v for k, v in self.settings.items() if k != "num_classes"}
        grouping, _ = Proposals(**shared).loss(apply, (), batch, key)
        classes, _ = Semantic(num_classes=K).loss(apply, (), batch, key)
        np.testing.assert_allclose(loss, grouping + 3 * classes, rtol=1e-5)
        assert {"loss/step0", "loss/classes"} == set(terms)

    def test_objects_are_found_with_their_classes(self, batch, apply):
        task = Instances(**self.settings)
        state = task.init(jax.random.key(0), apply)
        found = jax.jit(lambda b: task.predict(apply, state, b))(batch)
        scores = {}
        for metric in task.metrics(found, batch).values():
            scores |= metric.compute()
        assert scores["ap_r@0.5"] == 1.0
        assert scores["ap_r_true_masks@0.5"] == 1.0
        assert scores["recall@0.5@5"] == 1.0

    def test_the_number_of_images_may_be_open(self):
        task = Instances(**self.settings)
        (number,) = jax.export.symbolic_shape("b", constraints=["b >= 1"])

        def network(image):
            shape = image.shape[:3]
            return {
                "embedding": jnp.ones((*shape, 2)) * image[..., :1],
                "logits": jnp.ones((*shape, K)) * image[..., :1],
            }

        def predict(image):
            return task.predict(
                network, task.init(jax.random.key(0), network), {"image": image}
            )

        image = jax.ShapeDtypeStruct((number, H, W, 3), jnp.float32)
        found = jax.eval_shape(predict, image)
        assert found.proposal_classes.shape == (number, 2, 6)

    def test_a_perfect_stage_helps_where_the_other_fails(self, batch, apply):
        task = Instances(**self.settings)
        wrong = dict(apply(None))
        wrong["logits"] = jnp.roll(wrong["logits"], 1, axis=-1)  # 3 becomes 0, 1 two
        state = task.init(jax.random.key(0), apply)
        found = task.predict(lambda *_: wrong, state, batch)
        scores = {}
        for metric in task.metrics(found, batch).values():
            scores |= metric.compute()
        assert scores["ap_r@0.5"] == scores["ap_r_true_scores@0.5"] == 0.0
        assert scores["ap_r_true_masks@0.5"] == 0.0
        assert scores["ap_r_true_classes@0.5"] > 0.5

    def test_the_line_learns_which_proposals_are_objects(self, batch, apply):
        task = Instances(**self.settings, ridge=1e-3)
        state = task.init(jax.random.key(0), apply)
        line = task.update(apply, state, [batch], jax.random.key(0))
        found = task.predict(apply, line, batch)
        scores = np.asarray(found.proposal_scores)
        there = np.isfinite(scores)
        background = np.asarray(found.proposal_features)[..., 0] > 0.6  # its size
        assert (scores[there & background] < 0.5).all()
        assert (scores[there & ~background] > 0.7).all()

    def test_without_a_proposal_the_line_stays(self, batch):
        task = Instances(**{**self.settings, "min_size": H * W + 1})
        state = task.init(jax.random.key(0), apply)
        empty = {"embedding": jnp.ones((B, 8, 8, 8)), "logits": jnp.zeros((B, 8, 8, K))}
        line = task.update(lambda *_: empty, state, [batch], jax.random.key(0))
        assert line is state
        assert line.slope[PROPOSAL_FEATURES.index("probability")] == 1


@pytest.fixture(scope="module")
def moved(batch):
    """Displacements to the middles of the objects, on a grid of stride 2."""
    instances = np.asarray(batch["instances"])[:, ::2, ::2]
    own = np.stack(np.mgrid[:H:2, :W:2], axis=-1) + 0.5
    found = np.zeros((B, 8, 8, 2))
    for image, labels in zip(found, instances, strict=True):
        for number in (1, 2, 3):
            there = labels == number
            image[there] = (own[there].mean(axis=0) - own[there]) * 2 * np.pi / 64
    logits = 8.0 * np.eye(K)[np.asarray(batch["semantic"])[:, ::2, ::2]]
    return {"embedding": jnp.asarray(found), "logits": jnp.asarray(logits)}


class TestInstancesByPosition:
    settings = {  # noqa: RUF012 (read only)
        **TestInstances.settings,
        "position_periods": (64.0, 32.0, 16.0),
        "pooled_concentrations": (1.0,),  # a bandwidth of 5 pixels, above all distances
    }

    def test_the_loss_compares_positions_of_the_foreground(self, batch, moved):
        maps = {**moved, "embedding": 0.7 * moved["embedding"]}
        loss, terms = Instances(**self.settings, margin=0.7).loss(
            lambda *_: maps, None, batch, jax.random.key(0)
        )
        own = np.stack(np.mgrid[:H:2, :W:2], axis=-1) + 0.5
        places = own + np.asarray(maps["embedding"]) * 64 / (2 * np.pi)
        waves = [2 * np.pi * places / period for period in (64, 32, 16)]
        vectors = np.concatenate([f(w) for w in waves for f in (np.sin, np.cos)], -1)
        pixels = jax.image.resize(vectors, (B, H, W, 12), "bilinear")
        labels = np.asarray(batch["instances"]).reshape(B, -1)
        expected = sphemb.margin_loss(
            sphemb.sphere.l2_normalize(pixels.reshape(B, -1, 12).astype(jnp.float32)),
            jnp.asarray(np.where(labels > 0, labels, VOID)),
            margin=0.7,
            weights=instance_weights(jnp.asarray(np.where(labels > 0, labels, VOID))),
            normalize="pairs",
        ).mean()
        np.testing.assert_allclose(terms["loss/step0"], expected, rtol=1e-4)
        assert expected > 0.01
        np.testing.assert_allclose(loss, sum(terms.values()), rtol=1e-6)

    def test_a_lower_concentration_merges_objects(self, batch, moved):
        task = Instances(**self.settings)
        state = task.init(jax.random.key(0), None)
        found = jax.jit(lambda b: task.predict(lambda *_: moved, state, b))(batch)
        groups = found.groups
        assert groups.num_groups.tolist() == [4, 4]
        truth = np.maximum(np.asarray(batch["instances"]), 0)
        assert ((np.asarray(groups.labels) > 0) == (truth > 0)).mean() > 0.9
        assert np.unique(groups.proposals[:, 0]).tolist() == [VOID, 1, 2, 3]
        # Objects 1 and 2 are of one class, with a gap between them.
        assert np.unique(groups.proposals[:, 1]).tolist() == [VOID, 1, 2, 3]
        assert np.unique(groups.proposals[:, 2]).tolist() == [VOID, 1]
        scores = {}
        for metric in task.metrics(found, batch).values():
            scores |= metric.compute()
        assert scores["ap_r@0.5"] == 1.0
        assert scores["recall@0.5@5"] == 1.0
        np.testing.assert_allclose(jnp.linalg.norm(groups.embedding, axis=-1), 1, 1e-5)

    def test_number_and_size_of_the_images_may_be_open(self):
        task = Instances(**self.settings)
        bounds = ["b >= 1", "h >= 1", "w >= 1"]
        shape = jax.export.symbolic_shape("b, 16*h, 16*w", constraints=bounds)

        def predict(image):
            maps = {"embedding": image[..., :2], "logits": image @ jnp.ones((3, K))}
            state = task.init(jax.random.key(0), None)
            return task.predict(lambda *_: maps, state, {"image": image})

        image = jax.ShapeDtypeStruct((*shape, 3), jnp.float32)
        found = jax.eval_shape(predict, image)
        assert found.groups.labels.shape == shape
        assert found.proposal_scores.shape == (shape[0], 3, 6)

    def test_padding_changes_nothing(self, batch, moved):
        task = Instances(**self.settings)
        state = task.init(jax.random.key(0), None)
        there = {k: batch[k] for k in ("image", "mask", "instances")}
        plain = task.predict(lambda *_: moved, state, there)

        def pad(array, value):
            room = [(0, 0), (0, len(array[0]) // 2), (0, len(array[0]) // 2)]
            room += [(0, 0)] * (array.ndim - 3)
            return jnp.pad(array, room, constant_values=value)

        maps = {name: pad(values, 3.0) for name, values in moved.items()}
        there = {name: pad(values, 0) for name, values in there.items()}
        padded = task.predict(lambda *_: maps, state, there)
        for name in ("labels", "embedding"):
            found = getattr(padded.groups, name)[:, :H, :W]
            np.testing.assert_allclose(found, getattr(plain.groups, name), atol=1e-5)
        assert (padded.groups.proposals[..., H:, :] == VOID).all()

    def test_a_limit_that_was_reached_is_told(self, batch, moved):
        task = Instances(**{**self.settings, "max_groups": 3})
        state = task.init(jax.random.key(0), None)
        found = task.predict(lambda *_: moved, state, batch)
        assert found.groups.num_groups.tolist() == [3, 3]
        assert found.groups.reached["max_groups"].all()

    def test_what_does_not_fit_is_named(self, batch, apply):
        with pytest.raises(InputError, match="embedding_dim must be 2, rows and"):
            Instances(**self.settings).loss(apply, None, batch, jax.random.key(0))
        with pytest.raises(InputError, match="max_components 0 and max_groups 2 or"):
            Instances(**self.settings, max_components=4)
