"""Memory that is linear in the number of points, read off the compiled programs."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import sphemb.grouping as grouping

MIB = 2**20


def compiled(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arguments).compile()


def run(x, kappa):
    return grouping.gbms(x, concentration=kappa, num_steps=5)


def loss(x, kappa):
    return jnp.sum(run(x, kappa)[..., 0])


def holds_pairs(program, num_points):
    return re.search(rf"\b{num_points},{num_points}\b", program.as_text()) is not None


def temporary(program):
    return program.memory_analysis().temp_size_in_bytes


def test_the_search_for_pairs_finds_them_in_the_dense_form():
    dense = compiled(lambda x: jax.nn.softmax(x @ x.T) @ x, (4096, 64))
    assert holds_pairs(dense, 4096)


def test_the_gradient_of_five_steps_stays_under_64_mib():
    program = compiled(jax.grad(loss, (0, 1)), (4096, 64), ())
    assert not holds_pairs(program, 4096)
    assert temporary(program) < 64 * MIB


@pytest.mark.parametrize(("num_steps", "limit"), [(1, 40), (10, 170)])
def test_sixteen_thousand_points_can_be_learned_through(num_steps, limit):
    def loss(x, kappa, eta):
        settings = {"concentration": kappa, "step_size": eta}
        return jnp.sum(grouping.gbms(x, num_steps=num_steps, **settings)[..., 0])

    program = compiled(jax.grad(loss, (0, 1, 2)), (16384, 64), (), ())
    assert not holds_pairs(program, 16384)
    assert temporary(program) < limit * MIB


def test_the_values_take_a_few_tiles():
    program = compiled(run, (4096, 64), ())
    assert not holds_pairs(program, 4096)
    assert temporary(program) < 16 * MIB


def test_a_batch_takes_hardly_more_than_an_image():
    # Without a mesh, jit may shard the images over all the simulated devices.
    mesh = jax.make_mesh((1,), ("images",))
    one = NamedSharding(mesh, PartitionSpec("images"))
    images = jax.ShapeDtypeStruct((16, 4096, 16), jnp.float32, sharding=one)
    program = jax.jit(lambda x: run(x, 25.0)).lower(images).compile()
    assert not holds_pairs(program, 4096)
    assert temporary(program) < 32 * MIB


def test_the_gradient_of_the_gradient_holds_no_pairs():
    def product(x, kappa):
        return jax.grad(lambda x: jnp.sum(jax.grad(loss)(x, kappa) * x))(x)

    program = compiled(product, (4096, 16), ())
    assert not holds_pairs(program, 4096)
    assert temporary(program) < 128 * MIB


def test_sixteen_thousand_points_fit():
    program = compiled(run, (16384, 64), ())
    assert not holds_pairs(program, 16384)
    assert temporary(program) < 64 * MIB


def test_seeds_on_a_large_density_hold_no_pairs():
    def climb(seeds, points):
        moved = grouping.mean_shift(seeds, points, concentration=25.0, num_steps=5)
        return jnp.sum(moved[:, 0])

    program = compiled(jax.grad(climb, (0, 1)), (4096, 16), (4096, 16))
    assert not holds_pairs(program, 4096)
    assert temporary(program) < 64 * MIB
