"""Images sharded over devices: the results of one device, and no images exchanged."""

from __future__ import annotations

import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sphemb import grouping, instances, losses, sphere, warps
from tests.spread import assert_same

B, N, D, K, H, W = 4, 12, 3, 4, 6, 8
DEVICES = 2
_RNG = np.random.default_rng(0)


def unit(*shape):
    x = _RNG.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


X, SEEDS, PATH = unit(B, N, D), unit(B, 6, D), unit(B, 3, N, D)
LABELS = _RNG.integers(-1, 3, (B, N)).astype(np.int32)
CLUSTERS = np.clip(LABELS, 0, None)
MASK = _RNG.uniform(size=(B, N)) < 0.8
WEIGHTS = _RNG.uniform(0.5, 1, (B, N)).astype(np.float32)
LOGITS = _RNG.normal(size=(B, N, K)).astype(np.float32)
MARGINS = np.linspace(0.2, 0.4, B).astype(np.float32)
CENTROIDS = unit(K, D)
MAPS = _RNG.integers(0, 3, (B, H, W)).astype(np.int32)
TRUTH = _RNG.integers(-1, 3, (B, H, W)).astype(np.int32)
SCORES = np.abs(unit(B, H * W, K))
IMAGE = _RNG.uniform(0, 1, (B, H, W, 3)).astype(np.float32)
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, B)
BOXES = jax.tree.map(np.asarray, jax.vmap(warps.sample_geometric)(KEYS))
COLORS = jax.tree.map(np.asarray, jax.vmap(warps.sample_photometric)(KEYS))
LINE = instances.fit_scores(_RNG.normal(size=(9, 4)), _RNG.uniform(size=9))
VALID = np.arange(B) != 1


def features(labels, classes, scores):
    flat = labels.reshape(*labels.shape[:-2], -1)
    votes = instances.vote_classes(flat, scores, max_groups=K)
    return instances.proposal_features(labels, classes, votes)


def path_loss(path, labels, mask, **settings):
    steps = jnp.moveaxis(path, 1, 0)
    return losses.trajectory_margin_loss(
        steps, labels, margin=0.3, mask=mask, **settings
    )


# A function, and the images that it takes: all of one leading axis, as are the results.
DIFFERENTIABLE = {
    "l2_normalize": (sphere.l2_normalize, X),
    "pairwise_dot": (sphere.pairwise_dot, X, SEEDS),
    "cosine_similarity": (sphere.cosine_similarity, X, SEEDS),
    "calibrated_similarity": (sphere.calibrated_similarity, X, SEEDS),
    "total_similarity": (sphere.total_similarity, X),
    "affinity_error": (
        sphere.affinity_error,
        unit(B, D, D),
        unit(B, K, D),
        np.abs(LOGITS[:, 0]),
    ),
    "margin_loss": (
        lambda x, labels, w, m: losses.margin_loss(x, labels, margin=m, weights=w),
        X,
        LABELS,
        WEIGHTS,
        MARGINS,
    ),
    "margin_loss_terms": (
        lambda x, labels, mask: losses.margin_loss_terms(
            x, labels, margin=0.3, power=2, normalize="terms", mask=mask
        ),
        X,
        LABELS,
        MASK,
    ),
    "trajectory_margin_loss": (path_loss, PATH, LABELS, MASK),
    "cross_entropy": (
        lambda x, labels, w: losses.cross_entropy(x, labels, weights=w),
        LOGITS,
        LABELS,
        WEIGHTS,
    ),
    "balanced_logistic_loss": (losses.balanced_logistic_loss, LOGITS[..., 0], LABELS),
    "prototype_cross_entropy": (
        lambda x, labels: losses.prototype_cross_entropy(
            x, CENTROIDS, labels, weights=np.arange(1.0, K + 1, dtype=np.float32)
        ),
        X,
        LABELS,
    ),
    "spectral_loss": (
        lambda x, labels, w: losses.spectral_loss(
            x, labels, weights=w, normalize="total", num_points=20
        ),
        X,
        LABELS,
        WEIGHTS,
    ),
    "cluster_weights": (
        lambda x: losses.cluster_weights(x, balance="inverse"),
        WEIGHTS,
    ),
    "gbms": (
        lambda x, w, k: grouping.gbms(x, concentration=k, num_steps=2, weights=w),
        X,
        WEIGHTS,
        np.linspace(4.0, 9.0, B).astype(np.float32),
    ),
    "gbms_step": (
        lambda x, mask: grouping.gbms_step(
            x, concentration=9.0, custom_gradient=False, mask=mask
        ),
        X,
        MASK,
    ),
    "gbms_trajectory": (
        lambda x: jnp.moveaxis(
            grouping.gbms_trajectory(x, concentration=9.0, num_steps=2), 0, -3
        ),
        X,
    ),
    "mean_shift": (
        lambda s, x, mask: grouping.mean_shift(
            s, x, concentration=9.0, num_steps=2, mask=mask
        ),
        SEEDS,
        X,
        MASK,
    ),
    "append_positions": (
        lambda x, p: (
            grouping.append_positions(
                x, p, concentration=9.0, spatial_bandwidth=2.0
            ).points
        ),
        X,
        unit(B, N, 2),
    ),
    "position_vectors": (
        lambda p: grouping.position_vectors(p, periods=(4.0, 2.0)),
        unit(B, N, 2),
    ),
    "apply_geometric": (warps.apply_geometric, IMAGE, BOXES),
    "apply_photometric": (warps.apply_photometric, IMAGE, COLORS),
    "apply_scores": (lambda x: instances.apply_scores(LINE, x), unit(B, 5, 4)),
}
OTHERS = {
    "oracle_affinity": (sphere.oracle_affinity, LABELS),
    "oracle_laplacian": (sphere.oracle_laplacian, LABELS),
    "oracle_spectrum": (
        lambda labels: sphere.oracle_spectrum(labels, num_groups=K),
        LABELS,
    ),
    "instance_weights": (
        lambda labels, mask: losses.instance_weights(labels, mask=mask),
        LABELS,
        MASK,
    ),
    "accelerated_gbms": (
        lambda x: grouping.accelerated_gbms(
            x, concentration=9.0, num_steps=3, max_points=8
        ),
        unit(B, 40, D),
    ),
    "label_modes": (
        lambda x, mask: grouping.label_modes(x, max_groups=K, min_size=2, mask=mask),
        X,
        MASK,
    ),
    "group_padded": (
        lambda x, mask: grouping.group_padded(
            lambda x, mask: grouping.label_modes(x, max_groups=K, mask=mask),
            x[:, :9],
            mask=mask[:, :9],
        ),
        X,
        MASK,
    ),
    "assign_clusters": (lambda x: grouping.assign_clusters(x, CENTROIDS), X),
    "connected_components": (instances.connected_components, TRUTH),
    "split_components": (
        lambda labels, b: instances.split_components(
            labels, b, max_components=5, min_size=2, return_number=True
        ),
        TRUTH,
        np.arange(B) % 2,
    ),
    "near_two_instances": (lambda x: instances.near_two_instances(x, 1), MAPS),
    "group_positions": (
        lambda p, mask: grouping.group_positions(
            p, mask, bandwidth=0.5, max_groups=5, min_size=2
        ),
        (4 + 3 * unit(B, H, W, 2)).astype(np.float32),
        MAPS > 0,
    ),
    "spread_labels": (grouping.spread_labels, MAPS, TRUTH >= 0),
    "overlap_table": (
        lambda p, t: instances.overlap_table(p, t, num_predicted=K, num_true=K),
        CLUSTERS,
        LABELS,
    ),
    "relabel": (instances.relabel, LABELS, np.arange(B) % 2),
    "pool_proposals": (lambda maps: instances.pool_proposals(maps, max_groups=K), MAPS),
    "proposal_features": (features, MAPS, TRUTH, SCORES),
    "apply_geometric_labels": (warps.apply_geometric_labels, TRUTH, BOXES),
}
# Random numbers depend on the place in the batch, so a device must know the batch.
RANDOM = {
    "sample_pixels": (
        lambda labels: losses.sample_pixels(KEY, labels, num_samples=5),
        LABELS,
    ),
    "kwik_cluster": (
        lambda x, mask: grouping.kwik_cluster(
            KEY, x, max_groups=K, num_orders=2, mask=mask, unassigned="nearest"
        ),
        X,
        MASK,
    ),
    "orthogonal_rounding": (
        lambda x, mask: grouping.orthogonal_rounding(
            KEY, x, num_starts=2, num_steps=3, mask=mask
        ),
        X,
        MASK,
    ),
}


def differentiated(function, *images):
    """The values of a function, and the gradient of a polynomial of them."""
    leaves, tree = jax.tree.flatten(images)
    which = [i for i, leaf in enumerate(leaves) if leaf.dtype == jnp.float32]

    def loss(floats):
        given = list(leaves)
        for i, leaf in zip(which, floats, strict=True):
            given[i] = leaf
        values = jax.tree.leaves(function(*jax.tree.unflatten(tree, given)))
        return sum(jnp.sum(value**3 - value) for value in values)

    return function(*images), jax.grad(loss)([leaves[i] for i in which])


CALLS = OTHERS | {
    name: (functools.partial(differentiated, function), *images)
    for name, (function, *images) in DIFFERENTIABLE.items()
}


# On Auto axes the compiler gathers the numbers of a top_k, and labels of components.
GATHERED = {
    "accelerated_gbms",
    "connected_components",
    "proposal_features",
    "sample_pixels",
    "split_components",
}
DAILY = {
    "accelerated_gbms",
    "connected_components",
    "gbms",
    "gbms_trajectory",
    "kwik_cluster",
    "label_modes",
    "margin_loss",
    "mean_shift",
    "trajectory_margin_loss",
}


def place(images, mesh, *spec):
    return jax.device_put(images, NamedSharding(mesh, P(*spec)))


def mesh_of(kind, **axes):
    kinds = (kind,) * len(axes)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=kinds)


def collectives(program):
    kinds = "all-gather|all-to-all|all-reduce|collective-permute"
    return Counter(re.findall(rf"\b({kinds})(?:-start)?\(", program.as_text()))


def explicit(function, images, name):
    mesh = mesh_of(AxisType.Explicit, images=DEVICES)
    images = place(images, mesh, "images")
    assert not collectives(jax.jit(function).lower(*images).compile())
    return jax.jit(function)(*images)


def explicit_pair(function, images, name):
    mesh = mesh_of(AxisType.Explicit, hosts=2, chips=2)
    return jax.jit(function)(*place(images, mesh, ("hosts", "chips")))


def auto(function, images, name):
    images = place(images, mesh_of(AxisType.Auto, images=DEVICES), "images")
    found = collectives(jax.jit(function).lower(*images).compile())
    assert name in GATHERED or not found["all-gather"] + found["all-to-all"]
    return jax.jit(function)(*images)


def shard_mapped(function, images, name):
    mesh, spec = mesh_of(AxisType.Auto, images=DEVICES), P("images")
    mapped = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec)
    return jax.jit(mapped)(*images)


def pmapped(function, images, name):
    cut = jax.tree.map(lambda x: x.reshape(DEVICES, B // DEVICES, *x.shape[1:]), images)
    return jax.pmap(function, devices=jax.devices()[:DEVICES])(*cut)


def cases():
    for way in (explicit, explicit_pair, auto, shard_mapped, pmapped):
        for name in CALLS if way in (shard_mapped, pmapped) else CALLS | RANDOM:
            daily = name in DAILY and way in (explicit, auto)
            marks = () if daily else pytest.mark.nightly
            yield pytest.param(way, name, marks=marks, id=f"{name}-{way.__name__}")


@pytest.mark.parametrize(("way", "name"), list(cases()))
def test_every_function_gives_the_results_of_one_device(way, name):
    function, *images = (CALLS | RANDOM)[name]
    found = way(function, images, name)
    assert_same(found, jax.jit(function)(*images), 1e-5)


class TestPoints:
    """The points of one image sharded, by their types."""

    def on(self, devices):
        return mesh_of(AxisType.Explicit, images=2, points=devices)

    def test_mean_shift_and_its_loss_pass_the_points_on(self):
        def loss(x, labels, kappa):
            steps = grouping.gbms_trajectory(x, concentration=kappa, num_steps=2)
            return losses.trajectory_margin_loss(steps, labels, margin=0.3).sum()

        mesh, step = self.on(2), jax.value_and_grad(loss, (0, 2))
        x, labels = place((X, LABELS), mesh, "images", "points")
        program = jax.jit(step).lower(x, labels, 9.0).compile()
        found = program(x, labels, 9.0)
        assert found[1][0].sharding.spec == P("images", "points", None)
        assert_same(found, jax.jit(step)(X, LABELS, 9.0), 1e-5)
        assert collectives(program)["collective-permute"]
        assert not collectives(program)["all-gather"]

    def test_groups_and_weights_are_those_of_one_device(self):
        def read(x, labels):
            return (
                losses.instance_weights(labels),
                grouping.label_modes(x, max_groups=K),
            )

        x, labels = place((X[0], LABELS[0]), self.on(2), "points")
        found = jax.jit(read)(x, labels)
        assert found[1].labels.sharding.spec == P("points")
        assert_same(found, read(X[0], LABELS[0]), 1e-5)

    def test_k_means_adds_up_the_points(self):
        def cluster(x):
            start = grouping.init_centroids(KEY, x, num_clusters=K)
            found = grouping.k_means(x, start, num_steps=2, empty="farthest")
            state = grouping.KMeansState(start, jnp.zeros(K))
            labels = grouping.assign_clusters(x, found.centroids)
            return found, labels, grouping.update_k_means(state, x)

        x = place(X[0], self.on(4), "points")
        assert_same(jax.jit(cluster)(x), jax.jit(cluster)(X[0]), 1e-5)

    def test_a_kernel_sees_all_points_of_an_image(self):
        def step(x):
            settings = {"concentration": 9.0, "implementation": "pallas"}
            return jnp.sum(grouping.gbms_step(x, **settings) ** 3)

        mesh, slope = mesh_of(AxisType.Explicit, points=4), jax.jit(jax.grad(step))
        assert_same(slope(place(X[0], mesh, "points")), slope(X[0]), 1e-4)
        assert_same(slope(place(X, mesh, "points")), slope(X), 1e-4)

    @pytest.mark.parametrize("name", ["accelerated_gbms", "kwik_cluster", "mean_shift"])
    def test_other_functions_gather_the_points(self, name):
        function, *images = (OTHERS | RANDOM | DIFFERENTIABLE)[name]
        placed = place(images, self.on(2), "images", "points")
        assert_same(jax.jit(function)(*placed), jax.jit(function)(*images), 1e-5)


class TestLoops:
    images, devices, steps = 8, 4, 5

    def step(self, x, labels):
        def loss(x):
            y = grouping.gbms(x, concentration=9.0, num_steps=self.steps)
            return losses.margin_loss(y, labels, margin=0.3).sum()

        return jax.value_and_grad(loss)(x)

    @pytest.fixture
    def arrays(self, monkeypatch):
        monkeypatch.setattr("sphemb._tiles._largest_tile", lambda: (1, 1))
        labels = np.arange(self.images * 7).reshape(self.images, 7) % 3
        return unit(self.images, 7, D), labels

    def check(self, program):
        trips = re.findall(r'known_trip_count":\{"n":"(\d+)"', program.as_text())
        assert str(self.images) not in trips
        assert not collectives(program)["all-gather"]
        return Counter(trips)

    @pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
    def test_a_device_computes_its_own_images_one_after_another(self, kind, arrays):
        mesh = mesh_of(kind, images=self.devices)
        placed = place(arrays, mesh, "images")
        program = jax.jit(self.step).lower(*placed).compile()
        # Of the mean shift and its gradient, of the loss and its gradient.
        own = str(self.images // self.devices)
        assert self.check(program)[own] >= 3
        assert_same(program(*placed), self.step(*arrays), 1e-5)

    def test_shardings_may_be_those_of_jit_alone(self, arrays):
        mesh = mesh_of(AxisType.Auto, images=self.devices)
        shardings = NamedSharding(mesh, P("images"))
        step = jax.jit(self.step, in_shardings=shardings)
        self.check(step.lower(*arrays).compile())
        assert_same(step(*arrays), self.step(*arrays), 1e-5)


def test_a_committed_array_needs_no_context():
    x = place(X, mesh_of(AxisType.Explicit, images=2, other=2), "images")
    found = grouping.gbms(x, concentration=9.0, num_steps=2)
    assert found.sharding.spec == P("images", None, None)
    assert_same(found, grouping.gbms(X, concentration=9.0, num_steps=2), 1e-5)
