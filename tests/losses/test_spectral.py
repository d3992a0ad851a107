"""The spectral loss against its N x N definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError, sphere
from sphemb.losses import instance_weights, sample_pixels, spectral_loss
from tests.references import spectral as reference
from tests.references import sphere as sphere_reference
from tests.references.derivatives import finite_differences

B, N, D = 2, 40, 5
_rng = np.random.default_rng(0)
X = sphere_reference.unit_rows(_rng, B, N, D)
LABELS = _rng.choice([VOID, 0, 2, 77], size=(B, N))
MASK = _rng.uniform(size=(B, N)) < 0.8
WEIGHTS = _rng.uniform(0.5, 1.5, size=(B, N))


def expected(x=X, **settings):
    """[B] oracle, image by image."""
    return [
        reference.spectral_loss(
            x[b],
            LABELS[b],
            **{k: v[b] if np.ndim(v) else v for k, v in settings.items()},
        )
        for b in range(B)
    ]


class TestAgainstTheDefinition:
    @pytest.mark.parametrize("normalize", ["pairs", "total"])
    @pytest.mark.parametrize("extra", [{}, {"mask": MASK}, {"weights": WEIGHTS}])
    def test_is_the_squared_frobenius_norm_in_float64(self, x64, normalize, extra):
        for x in (X, 1.7 * X):  # of any length, not only on the sphere
            found = spectral_loss(x, LABELS, normalize=normalize, **extra)
            wanted = expected(x, normalize=normalize, **extra)
            np.testing.assert_allclose(found, wanted, rtol=1e-10)

    def test_single_precision_keeps_six_digits_of_the_mean(self):
        found = spectral_loss(X.astype(np.float32), LABELS)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected(), atol=1e-6)

    def test_weights_of_one_change_nothing_and_their_scale_nothing_of_the_mean(self):
        x = jnp.asarray(X, jnp.float32)
        ones = spectral_loss(x, LABELS, weights=jnp.ones((B, N)))
        np.testing.assert_allclose(ones, spectral_loss(x, LABELS), atol=1e-6)
        scaled = spectral_loss(x, LABELS, weights=3.0 * jnp.asarray(WEIGHTS))
        plain = spectral_loss(x, LABELS, weights=jnp.asarray(WEIGHTS))
        np.testing.assert_allclose(scaled, plain, atol=1e-6)


class TestGradient:
    def test_is_that_of_the_definition_differentiated_by_jax(self, x64):
        def dense(x, w, labels):
            pairs = (w[:, None] * w) * (labels != VOID) * (labels != VOID)[:, None]
            pairs = pairs * (1.0 - jnp.eye(N))
            same = (labels[:, None] == labels).astype(x.dtype)
            return jnp.sum(pairs * (x @ x.T - same) ** 2) / jnp.sum(pairs)

        def closed(x, w, labels):
            return spectral_loss(x, labels, weights=w)

        for b in range(B):
            arguments = (jnp.asarray(X[b]), jnp.asarray(WEIGHTS[b]), LABELS[b])
            found = jax.grad(closed, (0, 1))(*arguments)
            wanted = jax.grad(dense, (0, 1))(*arguments)
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)

    def test_is_that_of_finite_differences(self, x64):
        def loss(x):
            return float(spectral_loss(x, LABELS[0], normalize="total"))

        found = jax.grad(lambda x: spectral_loss(x, LABELS[0], normalize="total"))(X[0])
        np.testing.assert_allclose(
            found, finite_differences(loss, X[0]), rtol=1e-6, atol=1e-6
        )

    def test_void_and_masked_pixels_have_no_cost_and_no_gradient(self):
        counts = (LABELS != VOID) & MASK
        x = jnp.asarray(X, jnp.float32)
        wild = jnp.where(counts[..., None], x, jnp.nan)

        def loss(x):
            return spectral_loss(x, LABELS, mask=MASK).sum()

        np.testing.assert_allclose(loss(wild), loss(x), rtol=1e-6)
        gradient = np.asarray(jax.grad(loss)(wild))
        assert np.isfinite(gradient).all()
        assert not gradient[~counts].any()
        assert gradient[counts].all()


class TestMinimum:
    def test_the_oracle_embedding_and_its_rotations_cost_nothing(self):
        labels = np.where(LABELS[0] == VOID, 5, LABELS[0])
        v = sphere.oracle_spectrum(labels, num_groups=D).embedding
        turn = np.linalg.qr(_rng.normal(size=(D, D)))[0]
        for x in (v, v @ turn.astype(np.float32)):
            value, gradient = jax.value_and_grad(spectral_loss)(x, labels)
            assert abs(value) < 1e-6
            assert np.abs(gradient).max() < 1e-6

    def test_a_rotation_and_a_permutation_change_nothing(self):
        turn = np.linalg.qr(_rng.normal(size=(D, D)))[0]
        order = _rng.permutation(N)
        x = jnp.asarray(X, jnp.float32)
        plain = spectral_loss(x, LABELS)
        turned = spectral_loss(x @ turn, LABELS)
        np.testing.assert_allclose(turned, plain, atol=1e-6)
        moved = spectral_loss(x[:, order], LABELS[:, order])
        np.testing.assert_allclose(moved, plain, atol=1e-6)

    @pytest.mark.parametrize("labels", [[VOID, VOID], [3, VOID]])
    def test_without_a_pair_there_is_no_loss(self, labels):
        found, gradient = jax.value_and_grad(spectral_loss)(
            jnp.eye(2), jnp.array(labels)
        )
        assert found == 0
        assert not gradient.any()


class TestSamples:
    def draws(self, number, m):
        labels = np.where(LABELS[0] == VOID, 5, LABELS[0])
        keys = jax.random.split(jax.random.key(0), number)
        picked = jax.vmap(lambda k: sample_pixels(k, labels, num_samples=m).indices)(
            keys
        )
        return labels, jnp.asarray(1.3 * X[0])[picked], jnp.asarray(labels)[picked]

    def test_a_samples_estimate_of_the_total_is_unbiased(self, x64):
        labels, x, drawn = self.draws(20000, 7)
        found = np.asarray(spectral_loss(x, drawn, normalize="total", num_points=N))
        wanted = reference.spectral_loss(1.3 * X[0], labels, normalize="total")
        noise = found.std() / np.sqrt(len(found))
        assert abs(found.mean() - wanted) < 4 * noise
        assert noise < 0.01 * wanted

    def test_a_samples_mean_needs_no_scale(self, x64):
        labels, x, drawn = self.draws(20000, 7)
        found = np.asarray(spectral_loss(x, drawn))
        wanted = reference.spectral_loss(1.3 * X[0], labels)
        assert abs(found.mean() - wanted) < 4 * found.std() / np.sqrt(len(found))

    def test_the_naive_scale_would_be_biased(self, x64):
        labels, x, drawn = self.draws(20000, 7)
        x = sphere.l2_normalize(x)
        naive = (N / 7) ** 2 * np.asarray(spectral_loss(x, drawn, normalize="total"))
        wanted = reference.spectral_loss(X[0], labels, normalize="total")
        noise = naive.std() / np.sqrt(len(naive))
        assert naive.mean() < wanted - 4 * noise

    def test_images_may_have_different_numbers_of_pixels(self, x64):
        points = np.array([50.0, 90.0])
        found = spectral_loss(X, LABELS, normalize="total", num_points=points)
        alone = [
            spectral_loss(X[b], LABELS[b], normalize="total", num_points=points[b])
            for b in range(B)
        ]
        np.testing.assert_allclose(found, alone, rtol=1e-12)


class TestComposition:
    def test_batch_axes_jit_and_vmap_are_a_loop(self):
        x = jnp.asarray(X, jnp.float32)
        alone = [spectral_loss(x[b], LABELS[b]) for b in range(B)]
        for found in (
            jax.jit(spectral_loss)(x, LABELS),
            jax.vmap(spectral_loss)(x, LABELS),
            spectral_loss(x[None], LABELS[None])[0],
        ):
            np.testing.assert_allclose(found, alone, atol=1e-6)

    def test_weights_of_one_over_the_size_let_instances_count_the_same(self, x64):
        labels = np.where(LABELS[0] == VOID, 2, LABELS[0])
        names = np.unique(labels)
        parts = [labels == q for q in names]
        errors = (X[0] @ X[0].T - reference.affinity(labels)) ** 2
        means = [[errors[np.ix_(a, b)].mean() for b in parts] for a in parts]
        weights = instance_weights(labels)
        found = spectral_loss(X[0], labels, weights=weights, normalize="total")
        np.testing.assert_allclose(found, np.sum(means), rtol=1e-10)

    def test_a_quarter_of_a_million_pixels_hold_no_pairs(self):
        number, dim = 262144, 21
        x = jax.ShapeDtypeStruct((number, dim), jnp.float32)
        labels = jax.ShapeDtypeStruct((number,), jnp.int32)
        program = jax.jit(jax.value_and_grad(spectral_loss)).lower(x, labels).compile()
        assert f"{number},{number}" not in program.as_text()
        assert program.memory_analysis().temp_size_in_bytes < 8 * 4 * number * dim


@pytest.mark.parametrize(
    ("x", "settings", "message"),
    [
        (X[0, 0], {}, "embeddings must have shape"),
        (X.astype(int), {}, "embeddings must be floating point"),
        (X, {"mask": MASK[0]}, r"mask must have shape .* got \(40,\)"),
        (X, {"weights": WEIGHTS[0]}, r"weights must have shape .* got \(40,\)"),
        (X, {"normalize": "mean"}, "normalize must be one of 'pairs', 'total'"),
        (X, {"num_points": 50}, 'num_points is for normalize="total", got .pairs.'),
        (
            X,
            {"num_points": 0, "normalize": "total"},
            "num_points must satisfy 1 <= num_points, got 0",
        ),
        (
            X,
            {"num_points": np.ones(3), "normalize": "total"},
            r"num_points must be a number or have the batch shape \(2,\)",
        ),
    ],
)
def test_a_mistake_is_named(x, settings, message):
    with pytest.raises(InputError, match=message):
        spectral_loss(x, LABELS, **settings)
