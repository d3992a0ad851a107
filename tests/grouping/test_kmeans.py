"""K-means: scikit-learn on the same start, empty clusters, streams and devices."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import MiniBatchKMeans

from sphemb import VOID, InputError
from sphemb.grouping import (
    KMeans,
    KMeansState,
    assign_clusters,
    init_centroids,
    k_means,
    update_k_means,
)
from tests.spread import ALL, spread

N, D, K, STEPS = 400, 5, 6, 7
RNG = np.random.default_rng(0)
CENTRES = 2.0 * RNG.normal(size=(K, D))
X = (CENTRES[RNG.integers(K, size=N)] + RNG.normal(size=(N, D))).astype(np.float32)
START = X[:K].copy()
MASK = RNG.uniform(size=N) < 0.7
WEIGHTS = RNG.uniform(0.1, 2.0, size=N).astype(np.float32)


def plain(points, start, mass, steps, *, spherical=False):
    """Lloyd's steps in float64, one cluster at a time; empty ones stay."""
    points, centroids = points.astype(np.float64), start.astype(np.float64)
    for _ in range(steps + 1):
        distances = ((points[:, None] - centroids) ** 2).sum(axis=-1)
        labels, before = distances.argmin(axis=1), centroids
        centroids = before.copy()
        for k in range(len(before)):
            mine = mass * (labels == k)
            if mine.sum():
                centroids[k] = (mine @ points) / mine.sum()
                if spherical:
                    centroids[k] /= np.linalg.norm(centroids[k])
    counts = np.bincount(labels, mass, len(before))
    return before, counts, labels, (mass * distances.min(axis=1)).sum()


class TestLloyd:
    @pytest.mark.parametrize("steps", [1, STEPS, 60])
    def test_it_is_scikit_learns_on_the_same_start(self, steps):
        peer = SklearnKMeans(
            K, init=START, n_init=1, max_iter=steps, tol=0, algorithm="lloyd"
        )
        with np.errstate(all="ignore"):
            peer.fit(X)
        found = k_means(X, START, num_steps=steps)
        np.testing.assert_allclose(found.centroids, peer.cluster_centers_, atol=1e-4)
        np.testing.assert_array_equal(found.labels, peer.labels_)
        assert float(found.inertia) == pytest.approx(peer.inertia_, rel=1e-4)

    def test_blocks_change_nothing(self):
        whole = k_means(X, START, num_steps=STEPS)
        for block in (1, 7, 128):
            parts = k_means(X, START, num_steps=STEPS, block_size=block)
            np.testing.assert_allclose(parts.centroids, whole.centroids, atol=1e-5)
            np.testing.assert_array_equal(parts.labels, whole.labels)

    def test_weights_and_masks_are_weights_of_points(self):
        mass = WEIGHTS * MASK
        expected = plain(X, START, mass.astype(np.float64), STEPS)
        points = np.where(MASK[:, None], X, np.nan)
        found = k_means(points, START, num_steps=STEPS, weights=WEIGHTS, mask=MASK)
        np.testing.assert_allclose(found.centroids, expected[0], atol=1e-4)
        np.testing.assert_allclose(found.counts, expected[1], rtol=1e-4)
        np.testing.assert_array_equal(found.labels, np.where(MASK, expected[2], VOID))
        assert float(found.inertia) == pytest.approx(expected[3], rel=1e-4)

    def test_on_the_sphere_centroids_are_mean_directions(self):
        directions = X / np.linalg.norm(X, axis=1, keepdims=True)
        start = directions[:K]
        expected = plain(directions, start, np.ones(N), STEPS, spherical=True)
        found = k_means(3.0 * X, 2.0 * START, num_steps=STEPS, metric="spherical")
        np.testing.assert_allclose(found.centroids, expected[0], atol=1e-4)
        np.testing.assert_array_equal(found.labels, expected[2])

    def test_many_sets_are_mapped(self):
        sets = np.stack([X, X[::-1] + 1.0])
        starts = sets[:, :K]
        found = jax.vmap(functools.partial(k_means, num_steps=3))(sets, starts)
        for i in range(2):
            alone = k_means(sets[i], starts[i], num_steps=3)
            np.testing.assert_allclose(found.centroids[i], alone.centroids, atol=1e-5)


class TestEmptyClusters:
    start = np.concatenate([START, np.full((2, D), 1e3, np.float32)])

    def test_they_stay_where_they_are(self):
        found = k_means(X, self.start, num_steps=STEPS)
        np.testing.assert_array_equal(found.centroids[K:], self.start[K:])
        assert not found.counts[K:].any()
        alone = k_means(X, START, num_steps=STEPS)
        np.testing.assert_allclose(found.centroids[:K], alone.centroids, atol=1e-5)

    def test_or_they_go_to_the_points_farthest_from_their_centroids(self):
        first = plain(X, self.start, np.ones(N), 0)
        distances = ((X - self.start[first[2]]) ** 2).sum(axis=1)
        farthest = X[np.argsort(-distances)[:2]]
        once = k_means(X, self.start, num_steps=1, empty="farthest")
        np.testing.assert_allclose(once.centroids[K:], farthest, atol=1e-6)
        found = k_means(X, self.start, num_steps=STEPS, empty="farthest")
        assert (found.counts > 0).all()
        kept = k_means(X, self.start, num_steps=STEPS)
        assert float(found.inertia) < float(kept.inertia)

    def test_points_that_are_all_the_same_leave_finite_centroids(self):
        same = np.ones((8, 2), np.float32)
        found = k_means(same, same[:3], num_steps=2, empty="farthest")
        np.testing.assert_array_equal(found.centroids, np.ones((3, 2)))
        assert float(found.inertia) == 0


class TestStream:
    def test_batches_are_taken_in_as_scikit_learn_does(self):
        peer = MiniBatchKMeans(K, init=START, n_init=1, reassignment_ratio=0)
        state = KMeansState(jnp.asarray(START), jnp.zeros(K))
        for batch in np.split(X, 8):
            peer.partial_fit(batch)
            state = update_k_means(state, batch)
        np.testing.assert_allclose(state.centroids, peer.cluster_centers_, atol=1e-4)
        np.testing.assert_allclose(state.counts, peer._counts)

    def test_masked_points_and_empty_clusters_change_nothing(self):
        state = KMeansState(jnp.asarray(START), jnp.full(K, 3.0))
        away = KMeansState(state.centroids.at[0].set(1e3), state.counts)
        found = update_k_means(away, X, mask=MASK)
        kept = update_k_means(away, X[MASK])
        np.testing.assert_allclose(found.centroids, kept.centroids, atol=1e-5)
        np.testing.assert_array_equal(found.centroids[0], away.centroids[0])
        assert float(found.counts[0]) == 3
        nothing = update_k_means(state, X, mask=np.zeros(N, bool))
        np.testing.assert_array_equal(nothing.centroids, state.centroids)

    def test_on_the_sphere_the_centroids_stay_on_it(self):
        state = KMeansState(jnp.asarray(START), jnp.zeros(K))
        for batch in np.split(X, 4):
            state = update_k_means(state, batch, metric="spherical")
        lengths = np.linalg.norm(state.centroids, axis=1)
        np.testing.assert_allclose(lengths, 1.0, atol=1e-5)


class TestStarts:
    @pytest.mark.parametrize("method", ["k-means++", "random"])
    def test_they_are_different_valid_points(self, method):
        for seed in range(5):
            start = init_centroids(
                jax.random.key(seed), X, num_clusters=K, method=method, mask=MASK
            )
            where = [int(np.flatnonzero((c == X).all(axis=1))[0]) for c in start]
            assert len(set(where)) == K
            assert MASK[where].all()

    def test_plus_plus_finds_every_far_cluster_and_uniform_draws_do_not(self):
        centres = 1e3 * np.eye(K, D + 1, dtype=np.float32)
        sizes = [200, *[8] * (K - 1)]
        points = np.repeat(centres, sizes, axis=0)
        points = points + RNG.normal(size=points.shape).astype(np.float32)

        def found(method):
            draw = functools.partial(init_centroids, num_clusters=K, method=method)
            keys = jax.random.split(jax.random.key(0), 20)
            starts = jax.vmap(draw, in_axes=(0, None))(keys, points)
            which = assign_clusters(starts, jnp.asarray(centres))
            return np.mean([len(set(row.tolist())) for row in which])

        assert found("k-means++") == K
        assert found("random") < 4

    def test_more_draws_than_different_points_repeat_some(self):
        same = np.ones((4, 2), np.float32)
        start = init_centroids(jax.random.key(0), same, num_clusters=3)
        np.testing.assert_array_equal(start, np.ones((3, 2)))

    def test_on_the_sphere_they_are_directions(self):
        start = init_centroids(
            jax.random.key(0), X, num_clusters=K, metric="spherical", method="random"
        )
        np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1.0, atol=1e-5)


class TestDevices:
    start = np.concatenate([START, np.full((1, D), 1e3, np.float32)])

    @pytest.mark.parametrize("check_vma", [True, False])
    @pytest.mark.parametrize("empty", ["keep", "farthest"])
    def test_spread_points_give_what_they_give_together(self, empty, check_vma):
        def run(x, start, mask, axis_name=None):
            return k_means(
                x,
                start,
                num_steps=STEPS,
                empty=empty,
                mask=mask,
                block_size=32,
                axis_name=axis_name,
            )

        here = spread(
            functools.partial(run, axis_name="points"),
            (P("points"), ALL, P("points")),
            KMeans(ALL, ALL, P("points"), ALL),
            check_vma=check_vma,
        )
        found, expected = jax.jit(here)(X, self.start, MASK), run(X, self.start, MASK)
        np.testing.assert_allclose(found.centroids, expected.centroids, atol=1e-4)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_allclose(found.counts, expected.counts)
        np.testing.assert_allclose(found.inertia, expected.inertia, rtol=1e-5)

    def test_a_stream_is_shared_too(self):
        state = KMeansState(jnp.asarray(START), jnp.ones(K))
        update = functools.partial(update_k_means, axis_name="points")
        here = spread(update, (ALL, P("points")), ALL)
        found, expected = jax.jit(here)(state, X), update_k_means(state, X)
        np.testing.assert_allclose(found.centroids, expected.centroids, atol=1e-5)
        np.testing.assert_allclose(found.counts, expected.counts)

    def test_a_batch_is_one_all_reduce_of_few_numbers(self):
        state = KMeansState(jnp.asarray(START), jnp.ones(K))
        update = functools.partial(update_k_means, axis_name="points")
        here = jax.jit(spread(update, (ALL, P("points")), ALL))
        text = here.lower(state, X).as_text()
        reduced = re.findall(r"all_reduce.*?\(tensor<(\d+)xf32>\)", text, flags=re.S)
        assert [int(n) for n in reduced] == [K * (D + 1) + 1]


def test_points_times_clusters_are_never_in_memory_together():
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((65536, 4), (32, 4))]
    text = jax.jit(functools.partial(k_means, num_steps=3)).lower(*shapes).compile()
    assert "65536,32" not in text.as_text()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: k_means(X, START[:, :3]),
            r"start must have shape \[K, D\].* to go with points, got \(6, 3\)",
        ),
        (lambda: k_means(X[None], START), r"points must have shape \[N, D\]"),
        (lambda: k_means(X, START, metric="cosine"), r"metric must be one of"),
        (lambda: k_means(X, START, empty="drop"), r"empty must be one of 'keep'"),
        (lambda: k_means(X, START[:0]), r"start must hold one centroid at least"),
        (lambda: k_means(X, START, axis_name="points"), r"axis_name 'points' is not"),
        (
            lambda: k_means(X, START, mask=MASK[:3]),
            r"mask must have shape \[N\] = \(400,\) to go with points, got \(3,\)",
        ),
        (
            lambda: init_centroids(jax.random.key(0), X, num_clusters=N + 1),
            r"num_clusters must be at most the number of points, 400, got 401",
        ),
        (
            lambda: update_k_means(KMeansState(START, np.zeros(2)), X),
            r"state.counts must have shape \[K\] = \(6,\)",
        ),
        (lambda: assign_clusters(X, START[:, 1:]), r"centroids must have shape"),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
