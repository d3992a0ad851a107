"""Values of the margin loss: Eq. 2 pair by pair, closed forms, symmetries, edges."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, losses, margin_loss, sphere
from tests.references import losses as reference
from tests.references import sphere as sphere_reference

B, N, D = 2, 40, 5
_rng = np.random.default_rng(0)
X = sphere_reference.unit_rows(_rng, B, N, D).astype(np.float32)
LABELS = _rng.choice([VOID, 0, 2, 77], size=(B, N)).astype(np.int32)
MASK = _rng.uniform(size=(B, N)) < 0.8
WEIGHTS = _rng.uniform(0.5, 1.5, size=(B, N)).astype(np.float32)


def expected_terms(**settings):
    """[2, B] oracle, image by image."""
    images = []
    for b in range(B):
        own = {k: v[b] if np.ndim(v) else v for k, v in settings.items()}
        images.append(reference.margin_loss_terms(X[b], LABELS[b], **own))
    return np.array(images).T


class TestAgainstTheEquation:
    @pytest.mark.parametrize("normalize", ["pixels", "pairs", "terms"])
    @pytest.mark.parametrize("power", [1, 2])
    @pytest.mark.parametrize("extra", [{}, {"mask": MASK}, {"weights": WEIGHTS}])
    def test_both_terms_are_those_of_equation_2(self, normalize, power, extra):
        settings = {"margin": 0.4, "normalize": normalize, "power": power, **extra}
        found = losses.margin_loss_terms(X, LABELS, **settings)
        np.testing.assert_allclose(found, expected_terms(**settings), rtol=2e-5)

    def test_the_loss_is_the_weighted_sum_of_its_terms(self):
        positive, negative = expected_terms(margin=0.3)
        found = margin_loss(X, LABELS, margin=0.3, negative_weight=5.0)
        np.testing.assert_allclose(found, positive + 5.0 * negative, rtol=2e-5)

    def test_every_image_may_have_its_own_margin(self):
        margin = np.array([0.2, 0.6], np.float32)
        found = margin_loss(X, LABELS, margin=margin)
        alone = [margin_loss(X[b], LABELS[b], margin=margin[b]) for b in range(B)]
        np.testing.assert_allclose(found, alone, rtol=1e-6)


class TestClosedForms:
    labels = np.repeat([4, 8, 15], [20, 12, 8]).astype(np.int32)

    @pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
    def test_equal_embeddings_cost_q_times_q_minus_one_times_what_margin_leaves(
        self, margin
    ):
        x = np.broadcast_to(X[0, 0], (N, D))
        terms = losses.margin_loss_terms(x, self.labels, margin=margin)
        assert float(terms.positive) * N == pytest.approx(0.0, abs=1e-5)
        assert float(terms.negative) * N == pytest.approx(6 * (1 - margin), abs=1e-5)

    def test_the_positive_term_is_what_the_means_lack_of_unit_length(self):
        means = [X[0][self.labels == q].mean(axis=0) for q in (4, 8, 15)]
        expected = 0.5 * (3 - sum(float(m @ m) for m in means))
        found = losses.margin_loss_terms(X[0], self.labels, margin=0.5).positive
        assert float(found) * N == pytest.approx(expected, rel=1e-5)

    def test_the_smallest_feasible_margin_gives_zero_loss_and_less_does_not(self):
        corners = sphere_reference.simplex(3).astype(np.float32)
        x = corners[np.searchsorted([4, 8, 15], self.labels)]
        enough = sphere.margin_for(3, 2).margin
        assert float(margin_loss(x, self.labels, margin=enough)) < 1e-6
        found = margin_loss(x, self.labels, margin=enough - 0.1)
        assert float(found) * N == pytest.approx(6 * 0.1, rel=1e-4)

    def test_tight_instances_keep_their_digits(self):
        x = X[0][np.searchsorted([4, 8, 15], self.labels)].astype(np.float64)
        x = x + 1e-4 * _rng.standard_normal(x.shape)
        x = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
        expected, _ = reference.margin_loss_terms(x, self.labels, margin=0.5)
        # Compiled as users do, with sums in several parts.
        terms = jax.jit(
            functools.partial(losses.margin_loss_terms, margin=0.5),
            compiler_options={"xla_backend_optimization_level": 3},
        )
        found = terms(x, self.labels).positive
        # Rounding unit vectors to float32 moves their lengths by 1e-7; the sum itself,
        # some 1e-8, must be right to a few per cent of that.
        assert float(found) == pytest.approx(expected, abs=3e-10)


class TestWhatChangesNothing:
    expected = expected_terms(margin=0.4, mask=MASK).sum(axis=0)

    def check(self, x, labels, **changes):
        found = margin_loss(x, labels, **{"margin": 0.4, "mask": MASK, **changes})
        np.testing.assert_allclose(found, self.expected, rtol=2e-5)

    def test_a_rotation(self):
        rotation, _ = np.linalg.qr(_rng.standard_normal((D, D)))
        self.check(X @ rotation.astype(np.float32), LABELS)

    def test_a_permutation_of_the_pixels(self):
        order = _rng.permutation(N)
        self.check(X[:, order], LABELS[:, order], mask=MASK[:, order])

    def test_other_names_for_the_instances(self):
        names = {VOID: VOID, 0: -12345, 2: 2**31 - 1, 77: 1}
        self.check(X, np.vectorize(names.get)(LABELS).astype(np.int32))

    @pytest.mark.parametrize("block_size", [1, 7, 16, 39, 40, 1000])
    def test_the_block_size(self, block_size):
        self.check(X, LABELS, block_size=block_size)

    @pytest.mark.parametrize("filler", [0.0, 1e30, np.nan])
    def test_padding_whatever_it_holds(self, filler):
        x = np.concatenate([X, np.full((B, 9, D), filler, np.float32)], axis=1)
        labels = np.concatenate([LABELS, np.full((B, 9), 2, np.int32)], axis=1)
        mask = np.concatenate([MASK, np.zeros((B, 9), bool)], axis=1)
        self.check(x, labels, mask=mask)
        void = np.where(mask, labels, VOID)
        self.check(x, void, mask=None)
        slope = jax.grad(lambda x: margin_loss(x, void, margin=0.4).sum())(x)
        assert bool(jnp.isfinite(slope).all())
        assert not slope[:, N:].any()

    def test_the_batch_and_vmap(self):
        for b in range(B):
            alone = margin_loss(X[b], LABELS[b], margin=0.4, mask=MASK[b])
            np.testing.assert_allclose(alone, self.expected[b], rtol=2e-5)
        mapped = jax.vmap(lambda x, y, m: margin_loss(x, y, margin=0.4, mask=m))
        np.testing.assert_allclose(mapped(X, LABELS, MASK), self.expected, rtol=2e-5)
        stacked = margin_loss(X[None], LABELS[None], margin=0.4, mask=MASK[None])
        assert stacked.shape == (1, B)
        np.testing.assert_allclose(stacked[0], self.expected, rtol=2e-5)

    def test_eight_devices(self):
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
        over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
        x, labels, mask = (
            jax.device_put(np.concatenate([a] * 4), over) for a in (X, LABELS, MASK)
        )
        loss = jax.jit(lambda x, y, m: margin_loss(x, y, margin=0.4, mask=m))
        found = loss(x, labels, mask)
        assert len(found.sharding.device_set) == len(jax.devices())
        np.testing.assert_allclose(found, np.tile(self.expected, 4), rtol=2e-5)


class TestEdges:
    @pytest.mark.parametrize("normalize", ["pixels", "pairs", "terms"])
    @pytest.mark.parametrize("power", [1, 2])
    def test_without_valid_points_loss_and_gradient_are_zero(self, normalize, power):
        def loss(x):
            void = np.full(N, VOID, np.int32)
            settings = {"normalize": normalize, "power": power}
            return margin_loss(x, void, margin=0.5, **settings)

        value, slope = jax.value_and_grad(loss)(X[0])
        assert float(value) == 0.0
        assert not slope.any()

    def test_one_instance_alone_has_no_term_between(self):
        labels = np.ones(N, np.int32)
        weights = np.full(N, 0.3, np.float32)
        settings = {"margin": 0.1, "normalize": "terms", "weights": weights}
        terms = losses.margin_loss_terms(X[0], labels, **settings)
        wanted, _ = reference.margin_loss_terms(
            X[0], labels, **{**settings, "normalize": "pairs"}
        )
        np.testing.assert_allclose(terms.positive, wanted, rtol=1e-5)
        assert float(terms.negative) == 0.0

    def test_half_precision_is_worked_out_in_single(self):
        x = X.astype(jnp.bfloat16)
        found = margin_loss(x, LABELS, margin=0.4)
        assert found.dtype == jnp.float32
        wide = margin_loss(x.astype(jnp.float32), LABELS, margin=0.4)
        np.testing.assert_allclose(found, wide, rtol=1e-6)

    def test_new_values_of_any_argument_do_not_trace_again(self):
        traces = []

        @jax.jit
        def loss(x, labels, margin, negative_weight):
            traces.append(x.shape)
            settings = {"margin": margin, "negative_weight": negative_weight}
            return margin_loss(x, labels, **settings)

        first = loss(X, LABELS, 0.4, 1.0)
        second = loss(-X[:, ::-1], LABELS + 2, 0.1, 5.0)
        assert len(traces) == 1
        assert not np.allclose(first, second)

    @pytest.mark.parametrize("shape", [(0, D), (B, 0, D), (0, N, D)])
    def test_empty_images_and_empty_batches_cost_nothing(self, shape):
        def loss(x):
            return margin_loss(x, np.zeros(shape[:-1], np.int32), margin=0.5)

        x = jnp.zeros(shape)
        assert loss(x).shape == shape[:-2]
        assert not loss(x).any()
        assert jax.grad(lambda x: loss(x).sum())(x).shape == shape
