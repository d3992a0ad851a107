"""Labels outside of the classes: one rule in all losses of classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID
from sphemb.losses import balanced_logistic_loss, cross_entropy, prototype_cross_entropy

N, K = 12, 3
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(N, K)), jnp.float32)
CENTROIDS = jnp.asarray(RNG.normal(size=(K, K)), jnp.float32)
LABELS = RNG.integers(0, K, N)
HIGH = np.where(np.arange(N) % 3 == 0, RNG.choice([K, K + 1, 254, 2**31 - 1], N), 0)
LOW = np.where(np.arange(N) % 3 == 0, RNG.choice([-2, -7, -(2**31)], N), 0)


def prototypes(logits, labels, **settings):
    return prototype_cross_entropy(logits, CENTROIDS, labels, **settings)


def weighted(logits, labels):
    return prototypes(logits, labels, weights=jnp.arange(1.0, 1.0 + K))


def logistic(logits, labels):
    return balanced_logistic_loss(logits[..., 0], labels)


@pytest.mark.parametrize(
    ("loss", "outside"),
    [
        (cross_entropy, HIGH),
        (cross_entropy, LOW),
        (prototypes, HIGH),
        (prototypes, LOW),
        (weighted, HIGH),
        (weighted, LOW),
        (logistic, LOW),  # which takes any label above 0 for the one class
    ],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_they_count_as_void_and_give_no_nan(loss, outside, compiled):
    function = jax.value_and_grad(loss)
    function = jax.jit(function) if compiled else function
    given = jnp.asarray(np.where(outside, outside, LABELS), jnp.int32)
    void = jnp.asarray(np.where(outside, VOID, LABELS), jnp.int32)
    found, gradient = function(LOGITS, given)
    expected, expected_gradient = function(LOGITS, void)
    assert np.isfinite(found)
    assert found == expected
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert not np.asarray(gradient)[outside != 0].any()
    assert np.asarray(gradient)[outside == 0].any()
