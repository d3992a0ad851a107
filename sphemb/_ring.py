"""Points that lie spread over devices: what each device has goes round to all others.

Letters: n points on this device. The functions stand inside `jax.shard_map` or
`jax.pmap`; an axis name of None means that all points are here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

AxisName = str | tuple[str, ...] | None


def _varying(array: Any) -> frozenset[str]:
    """The mesh axes over which an array's type says that it differs."""
    return jax.typeof(array).manual_axis_type.varying


def vary(tree: Any, axis_name: AxisName = None) -> Any:
    """Makes all arrays differ over the same mesh axes, the named one among them.

    Only their types change. JAX checks these in the carries of loops, where zeros meet
    points, and in rules of differentiation: with one setting for all devices, each has
    a gradient of its own for it, which the cast back adds up.
    """
    wanted = [_varying(leaf) for leaf in jax.tree.leaves(tree)]
    if axis_name is not None:
        # Asked for, not assumed: there are no such types without check_vma.
        wanted.append(_varying(jax.lax.axis_index(axis_name)))
    axes = frozenset().union(*wanted)

    def cast(leaf: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - _varying(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree) if axes else tree


def add_devices(tree: Any, axis_name: AxisName) -> Any:
    """Adds up what the devices have; all get the sum."""
    if axis_name is None:
        return tree
    return jax.lax.psum(vary(tree, axis_name), axis_name)


def add_visits(
    visit: Callable[[Any], Any], columns: Any, *, axis_name: AxisName
) -> Any:
    """Adds up ``visit(columns)`` of every device's columns, which go round in a ring.

    Never more than two devices' columns are here at a time. What a visit computes is
    not kept for the backward pass, but where JAX differentiates the visits themselves,
    it keeps the visitors: those of all devices in the end.

    Args:
        visit: takes a tree of columns and returns a tree of sums.
        columns: tree of [n, ...], this device's.
        axis_name: of the devices.
    """
    if axis_name is None:
        return visit(columns)
    size = jax.lax.axis_size(axis_name)
    ring = [(i, (i + 1) % size) for i in range(size)]
    onward = functools.partial(jax.lax.ppermute, axis_name=axis_name, perm=ring)
    visit = jax.checkpoint(visit, prevent_cse=False)

    def hop(state: Any, _: None) -> tuple[Any, None]:
        sums, visitors = state
        # The next visitors do not wait for the sums: they travel meanwhile.
        following = jax.tree.map(onward, visitors)
        return (jax.tree.map(jnp.add, sums, visit(visitors)), following), None

    columns = vary(columns, axis_name)
    shapes = jax.eval_shape(visit, columns)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    start, columns = vary((zeros, columns), axis_name)
    return jax.lax.scan(hop, (start, columns), None, length=size)[0][0]
