"""The balanced logistic loss against its formula, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError
from sphemb.losses import balanced_logistic_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (3, 40))
LABELS = RNG.choice([VOID, 0, 0, 0, 1, 2], (3, 40))
MASK = RNG.uniform(size=(3, 40)) < 0.8


def reference(logits, labels, mask):
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


class TestBalancedLogisticLoss:
    def test_is_its_formula(self):
        found = balanced_logistic_loss(LOGITS, LABELS, mask=MASK)
        expected = [reference(*row) for row in zip(LOGITS, LABELS, MASK, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_void_and_masked_pixels_neither_count_nor_learn(self):
        labels = jnp.asarray(LABELS)
        counts = (LABELS != VOID) & MASK
        wild = jnp.where(counts, LOGITS, jnp.inf)

        def loss(logits):
            return balanced_logistic_loss(logits, labels, mask=jnp.asarray(MASK)).sum()

        np.testing.assert_allclose(loss(wild), loss(jnp.asarray(LOGITS)), rtol=1e-6)
        gradient = np.asarray(jax.grad(loss)(jnp.asarray(LOGITS)))
        assert not gradient[~counts].any()
        assert gradient[counts].all()

    def test_the_gradients_of_both_classes_are_equal_where_nothing_is_known(self):
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
