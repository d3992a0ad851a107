"""Labels that JAX would wrap are refused by every function that takes labels."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.instances import split_components
from sphemb.losses import instance_weights, margin_loss, sample_pixels
from sphemb.metrics import MeanIoU
from tests import test_jax_settings
from tests.test_jax_settings import CALLS

# Tables that hold labels, and the calls that read each of them.
TABLES = {
    table: [
        name
        for name, call in CALLS.items()
        if name.partition(".")[0] in ("losses", "sphere", "instances", "metrics")
        and table in inspect.getclosurevars(getattr(call, "args", (call,))[0]).globals
    ]
    for table in ("LABELS", "MAPS", "TRUTH")
}


@pytest.mark.parametrize("wide", [np.int64(2**40), np.uint32(2**31 + 5)])
@pytest.mark.parametrize(
    ("table", "name"), [(t, name) for t, names in TABLES.items() for name in names]
)
def test_they_are_refused(table, name, wide, monkeypatch):
    labels = np.array(getattr(test_jax_settings, table)).clip(0).astype(wide.dtype)
    labels[0, 0] = wide
    monkeypatch.setattr(test_jax_settings, table, labels)
    with pytest.raises(InputError, match=r"must lie in .* which JAX would wrap"):
        CALLS[name]()


def test_the_message_names_the_argument_and_a_remedy():
    labels = np.array([[1, 2**40]])
    with pytest.raises(
        InputError, match=r"labels must lie in -2147483648 .. 2147483647"
    ):
        instance_weights(labels)
    with pytest.raises(InputError, match=r"got values from 1 to 1099511627776.*unique"):
        sample_pixels(jax.random.key(0), labels, num_samples=1)


def test_labels_that_fit_are_accepted_of_any_dtype():
    x = jnp.eye(2)
    for dtype in (np.int64, np.uint64, np.uint32, np.uint8):
        labels = np.array([1, 2], dtype)
        loss = margin_loss(x, labels, margin=0.25)
        assert float(loss) == float(
            margin_loss(x, labels.astype(np.int32), margin=0.25)
        )
    labels = np.array([[[1, 2**31 - 1]]])
    assert split_components(labels, 1, max_components=3).tolist() == [[[0, 1]]]


def test_with_64_bits_they_count(x64):
    labels = np.array([2**40, 2**40 + 1, 2**40])
    assert instance_weights(labels).tolist() == [0.5, 1.0, 0.5]
    with pytest.raises(InputError, match="must lie in"):
        instance_weights(np.array([2**63], np.uint64))


def test_concrete_arrays_of_jax_are_read_and_traced_ones_are_not():
    wide = jnp.array([1, 2**31 + 5], jnp.uint32)
    with pytest.raises(InputError, match="must lie in"):
        instance_weights(wide)
    assert jax.jit(instance_weights)(wide).shape == (2,)


def test_a_metric_names_what_it_was_given():
    maps = np.full((1, 2, 2), 2**32 - 1, np.uint32)  # void, as int32
    with pytest.raises(InputError, match="truth must lie in"):
        MeanIoU.from_batch(np.zeros((1, 2, 2), int), maps, num_classes=3)
