"""Losses of classes against their formulas, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError
from sphemb.losses import balanced_logistic_loss, cross_entropy

K = 4
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (3, 40, K))
LABELS = RNG.choice([VOID, 0, 1, 2, 3, K], (3, 40))
MASK = RNG.uniform(size=(3, 40)) < 0.8
SCORES = LOGITS[..., 0]
WEIGHTS = RNG.uniform(size=(3, 40))
VALID = MASK & (LABELS >= 0) & (LABELS < K)


def weighted_cross_entropy(logits, labels, weights, counts):
    """The weighted mean of -log softmax, in float64."""
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    costs = [
        -w * np.log(p[y])
        for p, y, w, c in zip(chances, labels, weights, counts, strict=True)
        if c
    ]
    return sum(costs) / weights[counts].sum()


def balanced_logistic(logits, labels, mask):
    """Xie & Tu, Eq. 2, over the number of pixels, in float64."""
    pairs = [
        (z, y) for z, y, m in zip(logits, labels, mask, strict=True) if m and y >= 0
    ]
    beta = sum(y == 0 for _, y in pairs) / max(len(pairs), 1)
    total = 0.0
    for z, y in pairs:
        chance = 1 / (1 + np.exp(-z))
        total -= beta * np.log(chance) if y else (1 - beta) * np.log(1 - chance)
    return total / max(len(pairs), 1)


class TestCrossEntropy:
    def test_is_its_formula(self):
        found = cross_entropy(LOGITS, LABELS, weights=WEIGHTS, mask=MASK)
        rows = zip(LOGITS, LABELS, WEIGHTS, VALID, strict=True)
        np.testing.assert_allclose(
            found, [weighted_cross_entropy(*r) for r in rows], rtol=1e-6
        )

    def test_invalid_pixels_have_no_cost_and_no_gradient(self):
        labels, mask = jnp.asarray(LABELS), jnp.asarray(MASK)
        logits = jnp.asarray(LOGITS)
        wild = jnp.where(VALID[..., None], logits, jnp.nan)

        def loss(logits):
            return cross_entropy(logits, labels, mask=mask).sum()

        np.testing.assert_allclose(loss(wild), loss(logits), rtol=1e-6)
        gradient = np.asarray(jax.grad(loss)(wild))
        assert not gradient[~VALID].any()
        assert gradient[VALID].all()

    def test_an_image_of_void_costs_nothing(self):
        labels = jnp.full(40, VOID)
        value, gradient = jax.value_and_grad(lambda z: cross_entropy(z, labels))(
            jnp.asarray(LOGITS[0])
        )
        assert value == 0
        assert not gradient.any()

    def test_large_logits_do_not_overflow(self):
        logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
        np.testing.assert_allclose(cross_entropy(logits, jnp.array([0, 0])), 1e4)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"labels": np.zeros((3, 8, 5), int)}, "labels must have shape"),
            ({"labels": np.zeros((3, 40))}, "labels must be integers"),
            ({"logits": np.zeros((3, 40, K), int)}, "logits must be"),
            ({"weights": np.ones(40)}, "weights must have shape"),
        ],
    )
    def test_bad_input_is_named(self, change, match):
        given = {"logits": LOGITS, "labels": LABELS, "weights": None} | change
        with pytest.raises((InputError, TypeError), match=match):
            cross_entropy(given["logits"], given["labels"], weights=given["weights"])


class TestBalancedLogisticLoss:
    def test_is_its_formula(self):
        found = balanced_logistic_loss(SCORES, LABELS, mask=MASK)
        expected = [
            balanced_logistic(*row) for row in zip(SCORES, LABELS, MASK, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_void_and_masked_pixels_have_no_cost_and_no_gradient(self):
        labels = jnp.asarray(LABELS)
        valid = (LABELS != VOID) & MASK
        wild = jnp.where(valid, SCORES, jnp.inf)

        def loss(logits):
            return balanced_logistic_loss(logits, labels, mask=jnp.asarray(MASK)).sum()

        np.testing.assert_allclose(loss(wild), loss(jnp.asarray(SCORES)), rtol=1e-6)
        gradient = np.asarray(jax.grad(loss)(jnp.asarray(SCORES)))
        assert not gradient[~valid].any()
        assert gradient[valid].all()

    def test_the_gradients_of_both_classes_are_equal_at_a_logit_of_zero(self):
        labels = jnp.array([1] + [0] * 9)
        gradient = jax.grad(lambda z: balanced_logistic_loss(z, labels))(jnp.zeros(10))
        np.testing.assert_allclose(gradient.sum(), 0.0, atol=1e-7)

    @pytest.mark.parametrize("label", [VOID, 0, 1])
    def test_one_class_or_none_costs_nothing(self, label):
        labels = jnp.full(5, label)
        value, gradient = jax.value_and_grad(
            lambda z: balanced_logistic_loss(z, labels)
        )(jnp.ones(5))
        assert value == 0
        assert not gradient.any()

    def test_other_shapes_are_refused(self):
        with pytest.raises(InputError, match=r"labels must have shape .* got \(2, 2\)"):
            balanced_logistic_loss(jnp.zeros(4), jnp.zeros((2, 2), int))
