"""Blocks of neighbors: every point once, and bounds that hold."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sphemb.sphere._blocks import arrange
from tests.references.grouping import sphere_points
from tests.references.sphere import unit_rows

N = 700


def clusters(dim=8, spread=0.2):
    return sphere_points(np.random.default_rng(0), N, dim, spread=spread)[0]


def circle():
    angle = np.linspace(0, 2 * np.pi, N, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def opposite():
    rows = unit_rows(np.random.default_rng(0), N, 5)
    return np.where(np.arange(N)[:, None] % 2, rows[:1], -rows[:1]) + 1e-4 * rows


def stretched():
    return clusters() * np.random.default_rng(1).uniform(0.2, 1.5, size=(N, 1))


POINTS = {
    "clusters": clusters(),
    "tight": clusters(spread=1e-3),
    "random": unit_rows(np.random.default_rng(0), N, 64),
    "circle": circle(),
    "equal": np.ones((N, 1)),
    "opposite": opposite(),
    "not unit": stretched(),
}
_arrange = jax.jit(arrange)


@pytest.mark.parametrize("name", POINTS)
def test_no_product_is_beyond_its_bound(name):
    x = POINTS[name].astype(np.float32)
    x[::7] = 0  # masked rows
    blocks = jax.device_get(_arrange(x))
    side = blocks.side
    np.testing.assert_array_equal(blocks.points[blocks.slots], np.arange(N))
    assert np.sum(blocks.points < N) == N
    product = x.astype(np.float64) @ x.T.astype(np.float64)
    number = len(blocks.filled)
    there = np.linalg.norm(x, axis=1) > 0
    members = [part[part < N] for part in blocks.points.reshape(number, side)]
    members = [part[there[part]] for part in members]
    np.testing.assert_array_equal(blocks.filled, [len(part) > 0 for part in members])
    for i, one in enumerate(members):
        for j, other in enumerate(members):
            if len(one) and len(other):
                assert product[np.ix_(one, other)].max() <= blocks.highest[i, j] + 1e-6
        if len(one):
            assert product[np.ix_(one, one)].min() >= blocks.lowest[i] - 1e-6


def test_tight_groups_get_blocks_of_their_own():
    x = POINTS["tight"].astype(np.float32)
    blocks = jax.device_get(_arrange(x))
    filled = blocks.filled
    apart = blocks.highest[filled][:, filled] < 0.9
    assert apart.mean() > 0.3


def test_a_row_of_nan_bounds_nothing():
    x = POINTS["clusters"].astype(np.float32)
    x[5] = np.nan
    blocks = jax.device_get(_arrange(x))
    block = blocks.slots[5] // blocks.side
    assert np.isnan(blocks.highest[block, blocks.filled]).all()
