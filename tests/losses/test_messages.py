"""What a wrong argument is told."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError, margin_loss, trajectory_margin_loss

X = jnp.ones((4, 900, 8))
LABELS = jnp.zeros((4, 900), jnp.int32)


def test_labels_that_are_still_an_image_are_to_be_flattened():
    with pytest.raises(InputError) as error:
        margin_loss(X, LABELS.reshape(4, 30, 30), margin=0.5)
    message = str(error.value)
    for part in ("labels", "(4, 900)", "(4, 900, 8)", "(4, 30, 30)", "flatten"):
        assert part in message


@pytest.mark.parametrize(
    ("x", "labels", "settings", "message"),
    [
        (X[0, 0], LABELS, {}, r"embeddings must have shape \[\.\.\., N, D\].*\(8,\)"),
        (X.astype(int), LABELS, {}, "embeddings must be floating point, got int32"),
        (X, LABELS.astype(float), {}, "labels must be integers, got float32"),
        (X, LABELS, {"margin": 1.5}, r"0 <= margin <= 1, got 1\.5"),
        (X, LABELS, {"margin": -0.1}, r"0 <= margin <= 1, got -0\.1"),
        (X, LABELS, {"margin": "wide"}, "margin must be a number, got 'wide'"),
        (X, LABELS, {"margin": jnp.zeros(3)}, r"margin must broadcast.*\(4,\).*\(3,\)"),
        (X, LABELS, {"mask": LABELS}, "mask must be bool"),
        (X, LABELS, {"mask": LABELS[0] == 0}, r"mask must have shape.*\(900,\)"),
        (X, LABELS, {"weights": X}, "weights must have shape"),
        (X, LABELS, {"weights": LABELS}, "weights must be floating point"),
        (X, LABELS, {"normalize": "pixel"}, "'pairs', 'terms', got 'pixel'"),
        (X, LABELS, {"power": 3}, "power must be one of 1, 2, got 3"),
        (X, LABELS, {"negative_weight": -1}, "negative_weight must satisfy .*, got -1"),
        (X, LABELS, {"block_size": 0}, "block_size must be >= 1, got 0"),
        (X, LABELS, {"block_size": 2.0}, "block_size must be a Python int"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_wanted(x, labels, settings, message):
    with pytest.raises(InputError, match=message):
        margin_loss(x, labels, **{"margin": 0.5, **settings})


@pytest.mark.parametrize(
    ("name", "replaced"),
    [
        ("embeddings", {"x": [[1.0, 0.0]]}),
        ("embeddings", {"x": [[1.0, 0.0], [1.0]]}),
        ("labels", {"labels": [0]}),
        ("weights", {"weights": [1.0]}),
        ("mask", {"mask": [True]}),
    ],
)
def test_a_list_is_not_an_array(name, replaced):
    arguments = {"x": np.ones((1, 2), np.float32), "labels": np.zeros(1, int)}
    arguments = arguments | replaced
    x, labels = arguments.pop("x"), arguments.pop("labels")
    with pytest.raises(InputError, match=f"{name} must be a JAX or NumPy array, got"):
        margin_loss(x, labels, margin=0.5, **arguments)


def test_a_list_is_not_a_trajectory():
    with pytest.raises(InputError, match="trajectory must be a JAX or NumPy array"):
        trajectory_margin_loss([X[0], X[0]], LABELS[0], margin=0.5)
