"""KwikCluster against the sequential algorithm, and rounding by rotation."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError, grouping
from sphemb.grouping import kwik_cluster, orthogonal_rounding
from sphemb.losses import spectral_loss
from tests.references import grouping as points
from tests.references import spectral as reference

N, D, K = 60, 4, 9
cluster = jax.jit(
    kwik_cluster, static_argnames=("max_groups", "num_orders", "min_size", "unassigned")
)
rotate = jax.jit(
    orthogonal_rounding, static_argnames=("num_steps", "num_starts", "min_size")
)


@pytest.fixture(scope="module")
def scattered():
    """Points that no threshold parts cleanly."""
    x, _ = points.sphere_points(np.random.default_rng(1), N, D, spread=0.5)
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def mask():
    return np.random.default_rng(2).uniform(size=N) < 0.7


def clean(seed, sizes=(25, 20, 15), noise=0.15):
    """Points around some of the axes of a rotated frame, and their groups."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    axes = np.linalg.qr(rng.normal(size=(D, D)))[0]
    x = axes[labels] + noise * rng.normal(size=(len(labels), D))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def orders(seed, number=1, mask=None):
    """The points that count in each order."""
    points = np.arange(N) if mask is None else np.flatnonzero(mask)

    def drawn(key):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(len(points)))
        return np.asarray(jax.vmap(jax.random.uniform)(keys))

    keys = jax.random.split(jax.random.key(seed), number)
    return [points[np.argsort(drawn(key))] for key in keys]


class TestKwikCluster:
    @pytest.mark.parametrize("threshold", [-0.5, 0.5, 0.9])
    @pytest.mark.parametrize("max_groups", [3, N])
    def test_is_the_sequential_algorithm_in_the_same_order(
        self, scattered, mask, threshold, max_groups
    ):
        for seed in range(3):
            settings = {"threshold": threshold, "max_groups": max_groups}
            found = cluster(jax.random.key(seed), scattered, mask=mask, **settings)
            labels, pivots = reference.kwik_cluster(
                scattered, orders(seed, mask=mask)[0], mask=mask, **settings
            )
            np.testing.assert_array_equal(found.labels, reference.by_size(labels))
            assert found.num_groups == len(pivots)
            sizes = np.bincount(labels[labels >= 0])
            np.testing.assert_array_equal(
                found.sizes[: len(pivots)], np.sort(sizes)[::-1]
            )
            order = np.argsort(-sizes, kind="stable")
            np.testing.assert_array_equal(
                found.modes[: len(pivots)], scattered[np.array(pivots)[order]]
            )
            np.testing.assert_array_equal(found.modes[len(pivots) :], 0.0)
            assert (np.asarray(found.labels)[~mask] == VOID).all()
            assert found.num_left == (labels[mask] == VOID).sum()

    def test_the_errors_are_the_spectral_losses_of_the_clusters(self, scattered, mask):
        found = cluster(
            jax.random.key(0), scattered, mask=mask, max_groups=3, num_orders=4
        )
        for order, error in zip(orders(0, 4, mask), found.errors, strict=True):
            labels, _ = reference.kwik_cluster(
                scattered, order, mask=mask, max_groups=3
            )
            alone = np.where(labels < 0, 100 + np.arange(N), labels)
            wanted = reference.spectral_loss(scattered, alone, mask=mask)
            np.testing.assert_allclose(error, wanted, atol=1e-6)

    def test_the_best_of_several_orders_is_kept(self, scattered):
        found = cluster(jax.random.key(3), scattered, max_groups=N, num_orders=8)
        assert len(np.unique(found.errors)) > 1
        loss = spectral_loss(scattered, found.labels)
        np.testing.assert_allclose(loss, found.errors.min(), atol=1e-6)
        best = orders(3, 8)[int(np.argmin(found.errors))]
        labels, _ = reference.kwik_cluster(scattered, best)
        np.testing.assert_array_equal(found.labels, reference.by_size(labels))

    def test_clear_groups_are_found_in_any_order(self):
        x, labels = clean(0, noise=0.08)
        for seed in range(5):
            found = cluster(jax.random.key(seed), x, max_groups=K)
            np.testing.assert_array_equal(found.labels, labels)
            assert found.num_groups == 3

    def test_unassigned_points_and_small_groups_go_to_the_nearest_pivot_if_asked(
        self, scattered
    ):
        key = jax.random.key(0)
        settings = {"max_groups": 6, "threshold": 0.8}
        void = cluster(key, scattered, min_size=5, **settings)
        near = cluster(key, scattered, min_size=5, unassigned="nearest", **settings)
        assert (np.asarray(void.labels) == VOID).any()
        modes = np.asarray(near.modes)[: int(near.num_groups)]
        unassigned = ~np.isin(
            np.arange(N), np.flatnonzero(np.asarray(void.labels) != VOID)
        )
        nearest = np.argmax(scattered[unassigned] @ modes.T, axis=1)
        np.testing.assert_array_equal(np.asarray(near.labels)[unassigned], nearest)
        assert int(near.sizes.sum()) == N

    def test_masked_points_change_nothing_and_no_points_give_no_groups(
        self, scattered, mask
    ):
        spoilt = np.where(mask[:, None], scattered, np.nan)
        key = jax.random.key(1)
        found = cluster(key, spoilt, mask=mask, max_groups=K)
        same = cluster(key, scattered, mask=mask, max_groups=K)
        jax.tree.map(np.testing.assert_array_equal, found, same)
        nothing = kwik_cluster(key, scattered[:0], max_groups=3)
        assert nothing.labels.shape == (0,)
        masked = cluster(key, scattered, mask=np.zeros(N, bool), max_groups=K)
        assert masked.num_groups == 0
        assert np.isfinite(masked.errors).all()


class TestTheorem22:
    """What is true of it: an expectation over orders, with other factors."""

    def star(self):
        """One point like all the others, which are unlike each other."""
        others = 5
        x = np.zeros((others + 1, others + 1))
        x[:, 0] = [1.0] + [0.6] * others
        x[1:, 1:] = 0.8 * np.eye(others)
        truth = np.array([0, 0, *range(1, others)])
        return x, truth

    def cases(self):
        yield self.star()
        for seed in range(4):
            rng = np.random.default_rng(seed)
            x, labels = points.sphere_points(rng, 6, 3, num_groups=3, spread=0.5)
            yield x, labels

    def test_on_average_over_all_orders_the_bounds_hold(self):
        for x, truth in self.cases():
            affinity, products = reference.affinity(truth), x @ x.T
            costs = [
                reference.mismatches(
                    reference.affinity(reference.kwik_cluster(x, order)[0]), affinity
                )
                for order in itertools.permutations(range(len(x)))
            ]
            rounded = reference.mismatches((products > 0.5) * 1.0, affinity)
            assert np.mean(costs) <= 4 * rounded + 1e-9
            assert 4 * rounded <= 16 * ((products - affinity) ** 2).sum()

    def test_a_single_order_may_exceed_them(self):
        x, truth = self.star()
        affinity = reference.affinity(truth)
        found, _ = reference.kwik_cluster(x, [0, 1, 2, 3, 4, 5])
        cost = reference.mismatches(reference.affinity(found), affinity)
        rounded = reference.mismatches((x @ x.T > 0.5) * 1.0, affinity)
        assert rounded == 8
        assert cost == 28
        many = np.concatenate([x, x[1:]])  # the leaves twice: the centre costs more
        labels = np.concatenate([truth, truth[1:]])
        affinity = reference.affinity(labels)
        found, _ = reference.kwik_cluster(many, range(len(many)))
        cost = reference.mismatches(reference.affinity(found), affinity)
        rounded = reference.mismatches((many @ many.T > 0.5) * 1.0, affinity)
        assert cost > 4 * rounded


class TestOrthogonalRounding:
    def test_clear_groups_are_found_from_any_start(self):
        for seed in range(5):
            x, labels = clean(seed)
            found = rotate(jax.random.key(seed), x)
            np.testing.assert_array_equal(found.labels, labels)
            np.testing.assert_array_equal(found.sizes, [25, 20, 15, 0])
            assert found.num_groups == 3

    def test_the_result_is_a_local_optimum_over_rotations_and_labels(self, scattered):
        for seed in range(3):
            found = rotate(jax.random.key(seed), scattered)
            number = int(found.num_groups)
            modes = np.asarray(found.modes, float)[:number]
            np.testing.assert_allclose(modes @ modes.T, np.eye(number), atol=1e-5)
            products = scattered.astype(float) @ modes.T
            labels = np.asarray(found.labels)
            np.testing.assert_array_equal(labels, products.argmax(axis=1))
            # Procrustes: the nearest orthogonal matrix is that of the polar
            # decomposition, where the product with it is symmetric and positive.
            sums = np.zeros((number, D))
            np.add.at(sums, labels, scattered.astype(float))
            symmetric = sums @ modes.T
            np.testing.assert_allclose(symmetric, symmetric.T, atol=1e-3)
            assert np.linalg.eigvalsh(symmetric).min() > -1e-4

    def test_another_frame_gives_the_same_groups(self, scattered):
        turn = np.linalg.qr(np.random.default_rng(5).normal(size=(D, D)))[0]
        key = jax.random.key(0)
        plain = rotate(key, scattered)
        turned = rotate(key, (scattered @ turn).astype(np.float32))
        np.testing.assert_array_equal(turned.labels, plain.labels)

    def test_fewer_points_than_dimensions_are_groups_by_themselves(self):
        x = np.eye(D, dtype=np.float32)[[0, 2, 0]]
        found = rotate(jax.random.key(0), x)
        np.testing.assert_array_equal(found.labels, [0, 1, 0])
        assert found.num_groups == 2

    def test_more_groups_than_dimensions_cannot_be_separated(self):
        x = np.concatenate([np.eye(D), -np.eye(D)[:1]]).astype(np.float32)
        found = rotate(jax.random.key(0), x)
        assert found.num_groups == D
        assert kwik_cluster(jax.random.key(0), x, max_groups=K).num_groups == D + 1

    def test_small_groups_are_dissolved_and_the_best_start_is_kept(self, scattered):
        found = rotate(jax.random.key(0), scattered, min_size=18, num_starts=6)
        assert found.errors.shape == (6,)
        sizes = np.asarray(found.sizes)
        assert (sizes[sizes > 0] >= 18).all()
        assert sizes.sum() == N
        loss = spectral_loss(scattered, found.labels)
        np.testing.assert_allclose(loss, found.errors.min(), atol=1e-6)

    def test_masked_points_change_nothing(self, scattered, mask):
        spoilt = np.where(mask[:, None], scattered, np.nan)
        found = rotate(jax.random.key(1), spoilt, mask=mask)
        same = rotate(jax.random.key(1), scattered, mask=mask)
        jax.tree.map(np.testing.assert_array_equal, found, same)
        assert (np.asarray(found.labels)[~mask] == VOID).all()
        masked = rotate(jax.random.key(1), scattered, mask=np.zeros(N, bool))
        assert masked.num_groups == 0


class TestComposition:
    @pytest.mark.parametrize("function", [cluster, rotate])
    def test_the_sample_is_that_of_the_valid_points(self, scattered, function):
        # As of two images that are padded differently.
        settings = {"max_groups": N} if function is cluster else {}
        tries = {"num_orders": 4} if function is cluster else {"num_starts": 4}
        key = jax.random.key(0)
        alone = function(key, scattered, **settings, **tries)
        among = np.zeros((2 * N, D), np.float32)
        counts = np.zeros(2 * N, bool)
        places = np.sort(np.random.default_rng(3).permutation(2 * N)[:N])
        among[places], counts[places] = scattered, True
        found = function(key, among, mask=counts, **settings, **tries)
        np.testing.assert_array_equal(np.asarray(found.labels)[places], alone.labels)
        np.testing.assert_allclose(found.errors, alone.errors, atol=1e-6)
        assert len(np.unique(alone.errors)) > 1

    @pytest.mark.parametrize("name", ["kwik_cluster", "orthogonal_rounding"])
    def test_vmap_and_jit_are_a_loop_and_images_of_a_batch_have_their_own_keys(
        self, scattered, mask, name
    ):
        x = np.stack([scattered, -scattered[::-1], scattered])
        counts = np.stack([mask, mask[::-1], mask])
        settings = {"max_groups": K} if name == "kwik_cluster" else {}

        def run(key, x, counts):
            return getattr(grouping, name)(key, x, mask=counts, **settings)

        keys = jax.random.split(jax.random.key(0), 3)
        mapped = jax.jit(jax.vmap(run))(keys, x, counts)
        for b in range(3):
            alone = run(keys[b], x[b], counts[b])
            np.testing.assert_array_equal(mapped.labels[b], alone.labels)
            np.testing.assert_allclose(mapped.errors[b], alone.errors, atol=1e-6)
        batch = jax.jit(run)(jax.random.key(0), x[None], counts[None])
        assert batch.labels.shape == (1, 3, N)
        assert batch.errors.shape == (1, 3, 1)
        assert (batch.labels[0, 0] != batch.labels[0, 2]).any()

    def test_a_shape_is_traced_once_for_all_thresholds(self, scattered):
        traces = []

        @jax.jit
        def run(key, x, threshold):
            traces.append(x.shape)
            return kwik_cluster(key, x, threshold=threshold, max_groups=N)

        numbers = [
            int(run(jax.random.key(0), scattered, t).num_groups)
            for t in (0.0, 0.5, 0.9)
        ]
        assert numbers == sorted(numbers)
        assert len(traces) == 1

    def test_no_gradient_flows_and_none_is_refused(self, scattered):
        for function in (
            lambda x: kwik_cluster(jax.random.key(0), x, max_groups=K).errors.sum(),
            lambda x: orthogonal_rounding(jax.random.key(0), x).errors.sum(),
        ):
            np.testing.assert_array_equal(jax.grad(function)(jnp.asarray(scattered)), 0)


X = np.zeros((9, 3), np.float32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_groups": 0}, "max_groups must be >= 1, got 0"),
        ({"threshold": 1.0}, "threshold must satisfy -1.0 < .* it is a cosine"),
        ({"num_orders": 0}, "num_orders must be >= 1, got 0"),
        ({"min_size": 0}, "min_size must be >= 1, got 0"),
        (
            {"unassigned": "drop"},
            "unassigned must be one of 'nearest', 'void', got 'drop'",
        ),
        ({"mask": np.ones(8, bool)}, r"mask must have shape .* got \(8,\)"),
    ],
)
def test_a_mistake_is_named(settings, message):
    with pytest.raises(InputError, match=message):
        kwik_cluster(jax.random.key(0), X, **({"max_groups": 4} | settings))
    known = {k: v for k, v in settings.items() if k in ("min_size", "mask")}
    if known:
        with pytest.raises(InputError, match=message):
            orthogonal_rounding(jax.random.key(0), X, **known)


@pytest.mark.parametrize("name", ["num_steps", "num_starts"])
def test_a_rotation_without_a_turn_or_a_start_is_refused(name):
    with pytest.raises(InputError, match=f"{name} must be >= 1, got 0"):
        orthogonal_rounding(jax.random.key(0), X, **{name: 0})
