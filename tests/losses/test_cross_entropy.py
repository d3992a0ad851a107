"""The cross-entropy of classes against its formula, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError
from sphemb.losses import cross_entropy

K = 4
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (3, 40, K))
LABELS = RNG.choice([VOID, 0, 1, 2, 3, K], (3, 40))
MASK = RNG.uniform(size=(3, 40)) < 0.8
WEIGHTS = RNG.uniform(size=(3, 40))
COUNTS = MASK & (LABELS >= 0) & (LABELS < K)


def reference(logits, labels, weights, counts):
    """The weighted mean of -log softmax, in float64."""
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    costs = [
        -w * np.log(p[y])
        for p, y, w, c in zip(chances, labels, weights, counts, strict=True)
        if c
    ]
    return sum(costs) / weights[counts].sum()


class TestCrossEntropy:
    def test_is_its_formula(self):
        found = cross_entropy(LOGITS, LABELS, weights=WEIGHTS, mask=MASK)
        rows = zip(LOGITS, LABELS, WEIGHTS, COUNTS, strict=True)
        np.testing.assert_allclose(found, [reference(*r) for r in rows], rtol=1e-6)

    def test_what_does_not_count_neither_costs_nor_learns(self):
        labels, mask = jnp.asarray(LABELS), jnp.asarray(MASK)
        logits = jnp.asarray(LOGITS)
        wild = jnp.where(COUNTS[..., None], logits, jnp.nan)

        def loss(logits):
            return cross_entropy(logits, labels, mask=mask).sum()

        np.testing.assert_allclose(loss(wild), loss(logits), rtol=1e-6)
        gradient = np.asarray(jax.grad(loss)(wild))
        assert not gradient[~COUNTS].any()
        assert gradient[COUNTS].all()

    def test_an_image_of_void_costs_nothing(self):
        labels = jnp.full(40, VOID)
        value, gradient = jax.value_and_grad(lambda z: cross_entropy(z, labels))(
            jnp.asarray(LOGITS[0])
        )
        assert value == 0
        assert not gradient.any()

    def test_large_logits_overflow_nothing(self):
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
