"""Cross-entropy against frozen centroids."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sphemb import VOID, InputError
from sphemb.losses import (
    cluster_weights,
    overclustering_weights,
    prototype_cross_entropy,
)

B, N, D, K = 2, 12, 4, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, N, D))
X /= np.linalg.norm(X, axis=-1, keepdims=True)
CENTROIDS = 0.8 * RNG.normal(size=(K, D))
LABELS = RNG.integers(-1, K, size=(B, N))
MASK = RNG.uniform(size=(B, N)) < 0.7
WEIGHTS = RNG.uniform(size=K)


def reference(x, centroids, labels, mask, weights):
    """One point after the other, in float64."""
    losses = []
    for i in range(len(x)):
        costs = []
        for f, y, counts in zip(x[i], labels[i], mask[i], strict=True):
            if counts and y != VOID:
                logits = centroids @ f
                likelihood = np.exp(logits[y]) / np.exp(logits).sum()
                costs.append(-weights[y] * np.log(likelihood))
        losses.append(np.mean(costs))
    return np.array(losses)


class TestCrossEntropy:
    def test_it_is_the_formula(self):
        x = np.where((LABELS == VOID)[..., None], np.nan, X).astype(np.float32)
        found = prototype_cross_entropy(
            x, CENTROIDS.astype(np.float32), LABELS, mask=MASK
        )
        expected = reference(X, CENTROIDS, LABELS, MASK, np.ones(K))
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_weights_are_those_of_the_labels(self):
        found = prototype_cross_entropy(
            X.astype(np.float32),
            CENTROIDS.astype(np.float32),
            LABELS,
            weights=WEIGHTS.astype(np.float32),
            mask=MASK,
        )
        expected = reference(X, CENTROIDS, LABELS, MASK, WEIGHTS)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    @pytest.mark.usefixtures("x64")
    def test_the_gradient_is_that_of_finite_differences_and_spares_the_centroids(self):
        def loss(x, centroids):
            return prototype_cross_entropy(x, centroids, LABELS, mask=MASK).sum()

        check_grads(lambda x: loss(x, CENTROIDS), (X,), order=1, modes=["rev"])
        assert not jax.grad(loss, argnums=1)(jnp.asarray(X), CENTROIDS).any()

    def test_it_starts_near_ln_k_and_has_the_floor_of_orthogonal_centroids(self):
        far = np.zeros((1, 1, 64), np.float32)
        centroids = np.eye(27, 64, dtype=np.float32)
        start = prototype_cross_entropy(far, centroids, np.zeros((1, 1), int))
        assert float(start[0]) == pytest.approx(math.log(27), rel=1e-6)
        best = prototype_cross_entropy(centroids, centroids, np.arange(27))
        assert float(best) == pytest.approx(math.log(1 + 26 / math.e), rel=1e-6)

    def test_without_valid_points_the_loss_is_zero(self):
        nothing = np.full((B, N), VOID)
        found = prototype_cross_entropy(
            X.astype(np.float32), CENTROIDS.astype(np.float32), nothing
        )
        assert found.tolist() == [0, 0]

    def test_products_are_taken_at_the_highest_precision(self):
        loss = jax.jit(
            lambda x, c: prototype_cross_entropy(x, c, jnp.asarray(LABELS)).sum()
        )
        shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((B, N, D), (K, D))]
        text = jax.jit(jax.value_and_grad(loss)).lower(*shapes).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert products
        assert all("[HIGHEST, HIGHEST]" in line for line in products)


class TestWeights:
    counts = jnp.array([[6.0, 3.0, 1.0], [5.0, 0.0, 5.0]])

    @pytest.mark.parametrize("balance", ["none", "proportional", "inverse"])
    def test_the_average_point_weighs_one(self, balance):
        weights = cluster_weights(self.counts, balance=balance)
        share = self.counts / self.counts.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose((share * weights).sum(axis=-1), 1, rtol=1e-6)

    def test_large_clusters_weigh_more_or_less_as_it_is_asked(self):
        more = cluster_weights(self.counts[0], balance="proportional")
        np.testing.assert_allclose(more / more[2], [6, 3, 1], rtol=1e-6)
        less = cluster_weights(self.counts[0], balance="inverse")
        np.testing.assert_allclose(less * self.counts[0], 10 / 3, rtol=1e-6)

    def test_no_counts_at_all_give_finite_weights(self):
        for balance in ("none", "proportional", "inverse"):
            weights = cluster_weights(jnp.zeros(3), balance=balance)
            assert jnp.isfinite(weights).all()

    def test_the_finer_clusters_count_as_much_as_the_others(self):
        one, two = overclustering_weights(27, 100)
        assert one + two == pytest.approx(1)
        assert one * math.log(27) == pytest.approx(two * math.log(100))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: prototype_cross_entropy(X, CENTROIDS[:, :2], LABELS),
            r"centroids must have shape \[K, D\].* to go with embeddings",
        ),
        (
            lambda: prototype_cross_entropy(X, CENTROIDS, LABELS.reshape(B, 3, 4)),
            r"labels must have shape .* flatten the pixels first",
        ),
        (
            lambda: prototype_cross_entropy(X, CENTROIDS, LABELS, weights=WEIGHTS[1:]),
            r"weights must have shape \[K\] = \(5,\) to go with centroids, got \(4,\)",
        ),
        (
            lambda: cluster_weights(jnp.ones(2), balance="equal"),
            r"balance must be one of 'none', 'proportional', 'inverse', got 'equal'",
        ),
        (
            lambda: overclustering_weights(27, 1),
            r"num_overclusters must be >= 2, got 1",
        ),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
