"""The leader pass: one ball of points after the other, until no point is free.

Letters: N points, D dimensions, K the largest number of groups.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sphemb._labels import VOID
from sphemb._ring import AxisName, add_devices, vary
from sphemb.sphere import l2_normalize


class Leaders(NamedTuple):
    """What the leader pass carries; groups are numbered in the order of finding."""

    free: jax.Array  # [N] bool
    labels: jax.Array  # [N] int32
    modes: jax.Array  # [K, D]
    found: jax.Array  # [] int32
    left: jax.Array  # [] bool, is any point free, here or on another device


def _any(flags: jax.Array, axis_name: AxisName) -> jax.Array:
    if axis_name is None:
        return jnp.any(flags)
    return add_devices(jnp.any(flags).astype(jnp.int32), axis_name) > 0


def _leader(
    x: jax.Array, free: jax.Array, axis_name: AxisName
) -> tuple[jax.Array, jax.Array]:
    """Returns the first free point [D], and which row it is, [N] bool."""
    leader = jnp.argmax(free)
    chosen = jnp.arange(x.shape[0]) == leader
    if axis_name is None:
        return x[leader], chosen
    # The devices hold the points in their order: the first that has one leads.
    here, size = jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name)
    turn = jnp.where(jnp.any(free), here, size)
    leads = turn == jax.lax.pmin(turn, axis_name)
    return add_devices(jnp.where(leads, x[leader], 0.0), axis_name), leads & chosen


def lead(
    x: jax.Array,
    counts: jax.Array,
    threshold: Any,
    max_groups: int,
    precision: jax.lax.PrecisionLike,
    axis_name: AxisName,
    *,
    recentre: bool = True,
) -> Leaders:
    """Takes balls of points around one leader after the other until none is free.

    The ball around the mean direction of what is near the leader is taken, or else that
    around the leader itself.
    """

    def cosine(center: jax.Array) -> jax.Array:
        return jnp.matmul(x, center, precision=precision)

    def go_on(state: Leaders) -> jax.Array:
        return (state.found < max_groups) & state.left

    def next_group(state: Leaders) -> Leaders:
        point, chosen = _leader(x, state.free, axis_name)
        near, center = state.free & (cosine(point) > threshold), point
        if recentre:
            total = jnp.matmul(near.astype(x.dtype), x, precision=precision)
            total = add_devices(total, axis_name)
            center = l2_normalize(jnp.where(_any(near, axis_name), total, point))
            near = state.free & (cosine(center) > threshold)
        # The leader goes along even when rounding or a wide ball leaves it outside, so
        # that every round frees the queue of one point at least.
        taken = near | (state.free & chosen)
        free = state.free & ~taken
        return Leaders(
            free=free,
            labels=jnp.where(taken, state.found, state.labels),
            modes=state.modes.at[state.found].set(center),
            found=state.found + 1,
            left=_any(free, axis_name),
        )

    void = jnp.full(x.shape[0], VOID, jnp.int32)
    modes, found = jnp.zeros((max_groups, x.shape[1]), x.dtype), jnp.int32(0)
    x, counts, void, modes, found = vary((x, counts, void, modes, found), axis_name)
    # What all devices share starts from a sum over them, for its type to say so.
    modes, found = add_devices((modes, found), axis_name)
    left = _any(counts, axis_name)
    start = Leaders(free=counts, labels=void, modes=modes, found=found, left=left)
    return jax.lax.while_loop(go_on, next_group, start)
