"""No N x N array, forward and backward, whatever XLA makes of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from sphemb import margin_loss

N, D, BLOCK = 2048, 16, 256
MIB = 2**20


def loss(x, labels, power):
    settings = {"margin": 0.5, "power": power, "block_size": BLOCK}
    return margin_loss(x, labels, **settings).sum()


def hessian_vector_product(x, labels, power):
    return jax.jvp(jax.grad(lambda x: loss(x, labels, power)), (x,), (x,))[1]


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    ("function", "limit"),
    [(loss, 4 * MIB), (jax.grad(loss), 4 * MIB), (hessian_vector_product, 12 * MIB)],
    ids=["value", "gradient", "hessian vector product"],
)
def test_memory_grows_with_the_points_and_not_with_the_pairs(function, limit, power):
    x = jax.ShapeDtypeStruct((N, D), jnp.float32)
    labels = jax.ShapeDtypeStruct((N,), jnp.int32)
    compiled = jax.jit(function, static_argnums=2).lower(x, labels, power).compile()
    text = compiled.as_text()
    assert f"{BLOCK},{BLOCK}" in text
    assert f"{N},{N}" not in text
    assert f"[{N * N}]" not in text
    assert compiled.memory_analysis().temp_size_in_bytes < limit < 4 * N * N


def test_sixteen_thousand_pixels_can_be_learned_from():
    def loss(x, labels):
        return margin_loss(x, labels, margin=0.5)

    x = jax.ShapeDtypeStruct((16384, 64), jnp.float32)
    labels = jax.ShapeDtypeStruct((16384,), jnp.int32)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(x, labels).compile()
    assert "16384,16384" not in compiled.as_text()
    assert compiled.memory_analysis().temp_size_in_bytes < 40 * MIB
