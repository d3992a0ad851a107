"""Convolutions of every channel by itself, by sums of shifted products."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb.models import _depthwise

B, C = 2, 8
SETTINGS = [
    # side of the kernel, stride, dilation, (height, width)
    (3, 1, 1, (9, 12)),
    (3, 2, 1, (8, 9)),
    (5, 1, 2, (7, 6)),
    (5, 2, 1, (10, 7)),
    (3, 1, 4, (5, 5)),
]


@pytest.mark.parametrize(("side", "stride", "dilation", "size"), SETTINGS)
def test_they_are_xlas_grouped_convolution_and_so_is_their_gradient(
    side, stride, dilation, size
):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (B, *size, C))
    kernel = jax.random.normal(keys[1], (side, side, 1, C))
    settings = {"stride": stride, "dilation": dilation}

    def both(function):
        def loss(x, kernel):
            out = function(x, kernel, **settings)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, kernel)

    wanted = both(_depthwise._grouped_convolution)
    found = both(_depthwise._shifted_products)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_on_a_cpu_no_convolution_is_left():
    x, kernel = jnp.ones((1, 4, 4, C)), jnp.ones((3, 3, 1, C))
    lowered = jax.jit(_depthwise.depthwise_convolution).lower(x, kernel)
    assert "convolution(" not in lowered.compile().as_text()
