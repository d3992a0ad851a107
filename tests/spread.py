"""Functions of points that lie spread over some of the simulated devices."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

DEVICES = 4
ALL, POINTS = P(), P(None, "points")  # the same everywhere; [B, N, ...] spread along N


def spread(function, arguments, results, *, check_vma=True, grid=None):
    """Runs a function of local blocks on 4 devices, or on a grid of named axes."""
    grid = grid or {"points": DEVICES}
    shape = tuple(grid.values())
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return jax.shard_map(
        function,
        mesh=Mesh(devices, tuple(grid)),
        in_specs=arguments,
        out_specs=results,
        check_vma=check_vma,
    )


def pmapped(function, in_axes, out_axes=0):
    """Runs a function of local blocks on 4 devices, over an axis of their own."""
    return jax.pmap(
        function,
        axis_name="points",
        in_axes=in_axes,
        out_axes=out_axes,
        devices=jax.devices()[:DEVICES],
    )


def cut(array):
    """Cuts [B, N, ...] into [B, 4, N / 4, ...] for ``pmapped``."""
    batch, num_points, *rest = array.shape
    return array.reshape(batch, DEVICES, num_points // DEVICES, *rest)


def assert_same(found, expected, rtol):
    """Asserts that every leaf is right to ``rtol`` of its largest entry."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        a, b = np.asarray(a), np.asarray(b)
        assert a.size == b.size
        np.testing.assert_allclose(a.reshape(b.shape), b, atol=rtol * np.abs(b).max())
