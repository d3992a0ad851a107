"""One result whatever the tiles: the loss of a training step, and its gradient."""

import jax
import numpy as np
import pytest

import sphemb

N, D = 40, 5
_rng = np.random.default_rng(11)
POINTS = _rng.normal(size=(2, N, D)).astype(np.float32)
LABELS = _rng.integers(0, 4, size=(2, N)).astype(np.int32)


def value_and_gradient(block_size):
    def objective(points):
        trajectory = sphemb.gbms_trajectory(
            sphemb.sphere.l2_normalize(points),
            concentration=9.0,
            num_steps=3,
            block_size=block_size,
        )
        return sphemb.trajectory_margin_loss(
            trajectory, LABELS, margin=0.5, block_size=block_size
        ).sum()

    return jax.device_get(jax.jit(jax.value_and_grad(objective))(POINTS))


@pytest.fixture(scope="module")
def chosen():
    return value_and_gradient(None)


@pytest.mark.parametrize("block_size", [7, 16, N])
def test_tiles_change_the_order_of_sums_and_no_more(chosen, block_size):
    value, gradient = value_and_gradient(block_size)
    np.testing.assert_allclose(value, chosen[0], rtol=2e-6)
    largest = np.abs(chosen[1]).max()
    np.testing.assert_allclose(gradient, chosen[1], atol=2e-5 * largest)


@pytest.mark.parametrize("block_size", [None, 7])
def test_the_same_tiles_give_the_same_bits_compiled_anew(block_size):
    first = value_and_gradient(block_size)
    jax.clear_caches()
    again = value_and_gradient(block_size)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
