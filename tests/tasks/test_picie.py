"""PiCIE on a small network of its own: views, clusters, losses, predictions."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError
from sphemb.grouping import assign_clusters
from sphemb.losses import overclustering_weights, prototype_cross_entropy
from sphemb.tasks import Clusters, Picie

B, H, W, D, K = 4, 32, 32, 6, 5
RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, D)), jnp.float32)
SMALL = {
    "num_clusters": K,
    "embedding_dim": D,
    "cluster_pixels": 16,
    "start_images": 4,
    "start_steps": 3,
    "num_classes": 3,
    "num_things": 1,
    "gray": 0.0,  # or the few images may all be gray, and have one direction
}
TASK = Picie(**SMALL)


@jax.tree_util.Partial
@jax.jit
def apply(image, mask=None):
    """Means of 4 x 4 pixels, projected."""
    batch, height, width, _ = image.shape
    cells = image.reshape(batch, height // 4, 4, width // 4, 4, 3).mean(axis=(2, 4))
    return {"embedding": (cells - 0.5) @ KERNEL}


def batch_of(*numbers):
    images = [np.random.default_rng(abs(i)).uniform(size=(H, W, 3)) for i in numbers]
    return {
        "image": jnp.asarray(np.stack(images), jnp.float32),
        "instances": jnp.full((len(numbers), H, W), VOID),
        "index": jnp.asarray(numbers),
        "valid": jnp.asarray([i >= 0 for i in numbers]),
    }


def updated(task=TASK, *, batches=None, key=1):
    batches = batches or [batch_of(0, 1, 2, 3), batch_of(4, 5, 6, 7)]
    state = task.init(jax.random.key(0), apply)
    return task.update(apply, state, batches, jax.random.key(key))


@functools.partial(jax.jit, static_argnums=0)
def images_seen(task, state, batch):
    """What the network is shown in a step."""
    seen = []

    def spy(image):
        seen.append(image)
        return apply(image)

    loss, terms = task.loss(spy, state, batch, jax.random.key(9))
    return seen, loss, terms


@pytest.fixture(scope="module")
def state():
    return updated()


class TestViews:
    def test_they_are_fixed_within_an_epoch_whatever_the_order(self, state):
        first, _, _ = images_seen(TASK, state, batch_of(0, 1, 2, 3))
        second, _, _ = images_seen(TASK, state, batch_of(2, 7, 0, 5))
        for one, other in zip(first, second, strict=True):
            np.testing.assert_allclose(one[2], other[0], atol=1e-6)
            np.testing.assert_allclose(one[0], other[2], atol=1e-6)
        later = state._replace(epoch=state.epoch + 1)
        third, _, _ = images_seen(TASK, later, batch_of(0, 1, 2, 3))
        assert all(
            np.abs(a - b).max() > 0.05 for a, b in zip(first, third, strict=True)
        )

    def test_the_pass_and_the_steps_see_the_same(self):
        seen = []

        def spy(image):
            seen.append(image)
            return apply(image)

        state = TASK.update(
            jax.tree_util.Partial(spy),
            TASK.init(jax.random.key(0), apply),
            [batch_of(3, 0)],
            jax.random.key(1),
        )
        in_the_pass = list(seen)  # before the anchor is asked, which it is as well
        trained, _, _ = images_seen(TASK, state, batch_of(0, 3))
        for one, other in zip(in_the_pass, trained, strict=True):
            np.testing.assert_allclose(one, other[::-1], atol=1e-5)

    def test_they_have_the_same_box_and_different_colours(self, state):
        plain = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
        task = Picie(**SMALL, **plain, blur=0.0)
        ramp = jnp.linspace(0, 1, H)[:, None, None] * jnp.ones((1, W, 3))
        ramp += jnp.linspace(0, 0.3, W)[None, :, None]
        batch = {**batch_of(0, 1, 2, 3), "image": jnp.stack([ramp / 1.3] * 4)}
        seen = []

        def spy(image):
            seen.append(image)
            maps = apply(image)
            return maps

        _, terms = task.loss(spy, state, batch, jax.random.key(0))
        np.testing.assert_allclose(seen[1], batch["image"], atol=1e-6)
        assert float(jnp.abs(seen[0] - seen[1]).max()) > 0.05
        keys = jax.jit(task_keys)(state, batch["index"])
        views = [
            view_of(task, batch, keys, view).reshape(B, H // 4, W // 4, D)
            for view in (0, 1)
        ]
        inner = (slice(None), slice(1, -1), slice(1, -1))
        np.testing.assert_allclose(views[0][inner], views[1][inner], atol=1e-4)
        assert float(terms["loss/within"]) >= 0

    def test_one_view_is_the_image_as_it_is(self):
        task = Picie(**SMALL, views=1)
        state = updated(task)
        batch = batch_of(0, 1)
        seen, _, terms = images_seen(task, state, batch)
        assert len(seen) == 1
        np.testing.assert_array_equal(seen[0], batch["image"])
        assert set(terms) == {"loss/within", "largest_cluster"}
        assert state.centroids[0].shape == (1, K, D)


def task_keys(state, index):
    from sphemb.tasks._picie_clusters import view_keys

    return view_keys(state.seed, state.epoch, index)


def view_of(task, batch, keys, view):
    from sphemb.tasks._picie_clusters import view_image, view_points

    image = view_image(batch["image"], keys, view=view, settings=task)
    features = apply(image)["embedding"]
    return view_points(features, keys, view=view, settings=task)


class TestUpdate:
    def test_it_counts_the_cells_of_valid_images_once_per_view(self, state):
        assert int(state.epoch) == 1
        np.testing.assert_allclose(state.counts[0].sum(axis=1), 8 * 16)
        filled = updated(batches=[batch_of(0, 1, 2, -1), batch_of(-1, -1, 3, -1)])
        np.testing.assert_allclose(filled.counts[0].sum(axis=1), 4 * 16)

    def test_the_same_keys_give_the_same_clusters(self, state):
        again = updated()
        jax.tree.map(np.testing.assert_array_equal, again, state)

    def test_centroids_are_those_of_the_views_own_cells(self):
        task = Picie(**{**SMALL, "cluster_pixels": 64, "start_steps": 50})
        state = updated(task, batches=[batch_of(0, 1, 2, 3)])
        keys = task_keys(state, jnp.arange(4))
        for view in (0, 1):
            points = view_of(task, batch_of(0, 1, 2, 3), keys, view).reshape(-1, D)
            centroids = state.centroids[0][view]
            labels = assign_clusters(points, centroids)
            for k in range(K):
                mean = points[labels == k].mean(axis=0)
                np.testing.assert_allclose(centroids[k], mean, atol=1e-4)

    def test_no_more_images_are_read_than_asked_for(self):
        task = Picie(**SMALL, cluster_images=4)

        def batches():
            yield batch_of(0, 1, 2, 3)
            raise AssertionError("another batch was read")

        state = updated(task, batches=batches())
        np.testing.assert_allclose(state.counts[0].sum(axis=1), 4 * 16)

    def test_collapse_is_named_and_health_is_not(self, capsys):
        updated()
        assert capsys.readouterr().err == ""
        plain = {**batch_of(0, 1, 2, 3), "image": jnp.full((B, H, W, 3), 0.3)}
        settings = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
        task = Picie(**SMALL, **settings)
        state = updated(task, batches=[plain])
        line = capsys.readouterr().err
        assert line.startswith("warning: collapse in epoch 1: cluster ")
        assert re.search(r"of 5 holds (9\d|100) % of the pixels of view [01]; ", line)
        assert line.count("\n") == 1
        _, terms = task.loss(apply, state, plain, jax.random.key(0))
        assert float(terms["largest_cluster"]) > 0.9


class TestLoss:
    def test_it_is_the_mean_of_within_and_cross_losses(self, state):
        batch = batch_of(0, 1, 2, 3)
        loss, terms = TASK.loss(apply, state, batch, jax.random.key(0))
        keys = task_keys(state, batch["index"])
        views = [view_of(TASK, batch, keys, v) for v in (0, 1)]
        centroids = state.centroids[0]
        labels = [assign_clusters(views[v], centroids[v]) for v in (0, 1)]

        def cost(of, by):
            by_loss = prototype_cross_entropy(views[of], centroids[by], labels[by])
            return float(by_loss.mean())

        within, cross = (cost(0, 0) + cost(1, 1)) / 2, (cost(0, 1) + cost(1, 0)) / 2
        assert float(terms["loss/within"]) == pytest.approx(within, rel=1e-5)
        assert float(terms["loss/cross"]) == pytest.approx(cross, rel=1e-5)
        assert float(loss) == pytest.approx((within + cross) / 2, rel=1e-5)
        share = max(np.bincount(y.reshape(-1)).max() / y.size for y in labels)
        assert float(terms["largest_cluster"]) == pytest.approx(share)

    def test_labels_stay_what_they_were_when_the_epoch_began(self, state):
        batch = batch_of(0, 1, 2, 3)

        def loss_of(network):
            return TASK.loss(network, state, batch, jax.random.key(0))

        def flat(image):  # all pixels alike: of its own labels there would be one
            maps = apply(image)
            return {"embedding": jnp.ones_like(maps["embedding"])}

        (_, terms), (_, flattened) = loss_of(apply), loss_of(flat)
        assert float(flattened["largest_cluster"]) == float(terms["largest_cluster"])
        assert float(flattened["loss/within"]) > float(terms["loss/within"])

    def test_equal_shards_average_to_the_whole(self, state):
        task = Picie(**SMALL, balance="inverse")
        whole, _ = task.loss(apply, state, batch_of(0, 1, 2, 3), jax.random.key(0))
        parts = [
            task.loss(apply, state, batch_of(*pair), jax.random.key(0))[0]
            for pair in ((3, 0), (2, 1))
        ]
        np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-5)

    def test_finer_clusters_are_weighed_as_in_the_paper(self):
        task = Picie(**SMALL, num_overclusters=9)
        state = updated(task)
        assert [c.shape for c in state.centroids] == [(2, K, D), (2, 9, D)]
        loss, terms = task.loss(apply, state, batch_of(0, 1, 2, 3), jax.random.key(0))
        one, two = overclustering_weights(K, 9)
        own = (terms["loss/within"] + terms["loss/cross"]) / 2
        expected = one * own + two * terms["loss/over"]
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)

    def test_a_few_steps_lower_it(self, state):
        batch = batch_of(0, 1, 2, 3)

        @jax.jit
        def step(kernel):
            def loss(kernel):
                def network(image):
                    return {"embedding": (apply(image)["embedding"] @ kernel)}

                return TASK.loss(network, state, batch, jax.random.key(0))[0]

            value, gradient = jax.value_and_grad(loss)(kernel)
            return value, kernel - 3 * gradient

        kernel, losses = jnp.eye(D), []
        for _ in range(60):
            value, kernel = step(kernel)
            losses.append(float(value))
        assert losses == sorted(losses, reverse=True)
        # .0078 is all that a linear map of colours can gain with labels that stay.
        assert losses[-1] < losses[0] - 0.0075


class TestPrediction:
    def test_a_pixel_goes_to_the_nearest_centroid(self, state):
        batch = batch_of(0, 1)
        mask = jnp.ones((2, H, W), bool).at[:, :, 28:].set(False)
        found = TASK.predict(apply, state, {**batch, "mask": mask}).classes
        assert found.dtype == jnp.int32
        assert (found[:, :, 28:] == VOID).all()
        points = apply(batch["image"])["embedding"]
        points /= jnp.linalg.norm(points, axis=-1, keepdims=True)
        coarse = assign_clusters(points.reshape(2, -1, D), state.centroids[0][1])
        coarse = coarse.reshape(2, H // 4, W // 4)[:, :, :6]
        middles = found[:, 1::4, 1::4][:, :, :6]
        assert (coarse == middles).mean() > 0.7

    def test_another_scale_gives_labels_of_the_images_size(self, state):
        task = Picie(**SMALL, predict_scale=0.5, scale_multiple=16)
        found = task.predict(apply, state, batch_of(0)).classes
        assert found.shape == (1, H, W)
        assert ((found >= 0) & (found < K)).all()

    def test_spherical_centroids_label_by_direction(self):
        task = Picie(**SMALL, metric="spherical")
        state = updated(task)
        lengths = jnp.linalg.norm(state.centroids[0], axis=-1)
        np.testing.assert_allclose(lengths, 1, atol=1e-5)
        scaled = state._replace(centroids=(3.0 * state.centroids[0],))
        found = [task.predict(apply, m, batch_of(0)).classes for m in (state, scaled)]
        np.testing.assert_array_equal(*found)


class TestMetrics:
    labels = jnp.asarray(RNG.integers(0, K, size=(2, H, W)), jnp.int32)
    names = np.array([2, 0, 1, 1, 2])

    def scores(self, task, **batch):
        batch = {"valid": jnp.array([True, True]), **batch}
        found = task.metrics(Clusters(self.labels), batch)
        return found["classes"].compute()

    def test_classes_are_scored_from_the_first_one_on(self):
        truth = jnp.asarray(self.names)[self.labels] + 1
        truth = truth.at[:, :4].set(0).at[:, 4:8].set(VOID)
        many = Picie(**SMALL, matching="majority")
        scores = self.scores(many, semantic=truth)
        assert scores["accuracy"] == scores["mean_iou"] == 1
        assert scores["mean_iou_things"] == scores["mean_iou_stuff"] == 1
        one = self.scores(TASK, semantic=truth)
        assert 0.5 < one["accuracy"] < 0.7

    def test_foreground_is_scored_where_there_are_no_classes(self):
        task = Picie(
            **{**SMALL, "num_classes": 2, "num_things": 0},
            scored_by="foreground",
            matching="majority",
        )
        instances = jnp.where(self.labels > 2, self.labels, 0)
        assert self.scores(task, instances=instances)["accuracy"] == 1

    def test_without_labels_nothing_is_scored(self):
        assert TASK.metrics(Clusters(self.labels), batch_of(0, 1)) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_clusters": 1}, r"config\.task\.num_clusters must be >= 2, got 1"),
        ({"num_overclusters": 20}, r"num_overclusters must be above num_clusters 27"),
        ({"views": 3}, r"config\.task\.views must be one of 1, 2, got 3"),
        ({"update_every": 0}, r"config\.task\.update_every must be >= 1, got 0"),
        ({"balance": "equal"}, r"config\.task\.balance must be one of 'none'"),
        ({"predict_scale": 0.0}, r"config\.task\.predict_scale must satisfy 0 <"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Picie(**settings)


def test_a_map_that_does_not_fit_is_named(state):
    batch = batch_of(0)
    wrong = functools.partial(Picie, **{**SMALL, "embedding_dim": 7})
    with pytest.raises(InputError, match=r"config\.task\.embedding_dim must be .* 6"):
        wrong().predict(apply, state, batch)
    other = Picie(**SMALL, feature="stage4")
    message = r"config\.task\.feature must be a map of the network, embedding, got"
    with pytest.raises(InputError, match=message):
        other.predict(apply, state, batch)
