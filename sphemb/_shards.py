"""Images, and the points of an image, that are sharded over devices by their types.

On Explicit mesh axes, which `jax.make_mesh` makes, the type of an array has its
sharding. On Auto axes only the compiler knows it; `sphemb._tiles.map_batch` is made so
that every device can keep its images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from sphemb._tiles import AxisName

_Axis = str | int


def share_out(
    function: Callable[..., Any],
    arrays: Sequence[Any],
    axes: Sequence[str],
    results: Any,
    *,
    rows: str = "",
    axis_name: AxisName = None,
    check_vma: bool = True,
) -> Any:
    """Calls ``function(*arrays)`` on every device, with the images that it holds.

    ``axes`` names the axes of each array as in `check_shape`, ``results`` those of a
    tree of results. The batch axes ``...`` may be sharded; they broadcast, so an array
    that is the same for all images lacks them. Arrays may be None.

    ``rows`` is the letter of points that may be sharded, too. The function then takes
    ``axis_name``: of their mesh axes by the types, or else the name given here. All
    other axes are gathered. ``check_vma`` is that of `jax.shard_map`.
    """
    held, tree = jax.tree.flatten(list(arrays))
    held = [jnp.asarray(array) for array in held]
    letters = [x for a, x in zip(arrays, axes, strict=True) if a is not None]
    tails = [_letters(x) for x in letters]
    heads = [a.shape[: a.ndim - len(tail)] for a, tail in zip(held, tails, strict=True)]
    batch = jnp.broadcast_shapes(*heads)
    named = [_places(head) + tail for head, tail in zip(heads, tails, strict=True)]
    sharded: dict[_Axis, Any] = {}  # the mesh axes of those that stay sharded
    used: set[str] = set()
    every: set[str] = set()
    mesh = None

    def may_stay(axis: _Axis, size: int) -> bool:
        return axis == rows if isinstance(axis, str) else size == batch[axis]

    for array, own in zip(held, named, strict=True):
        sharding = jax.typeof(array).sharding
        for axis, size, entry in zip(own, array.shape, sharding.spec, strict=True):
            names = {entry} if isinstance(entry, str) else set(entry or ())
            mesh = sharding.mesh if names else mesh
            every |= names
            # The first array that is sharded decides; the others follow.
            new = names and axis not in sharded and used.isdisjoint(names)
            if new and may_stay(axis, size):
                sharded[axis] = entry
                used |= names

    def here(*held: jax.Array) -> Any:
        ring = {"axis_name": sharded.get(rows, axis_name)} if rows else {}
        return function(*jax.tree.unflatten(tree, held), **ring)

    if mesh is None:
        return here(*held)

    def result(letters: str) -> PartitionSpec:
        return PartitionSpec(*map(sharded.get, _places(batch) + _letters(letters)))

    specs = []
    for array, own in zip(held, named, strict=True):
        stay = map(may_stay, own, array.shape)
        entries = (
            sharded.get(x) if s else None for x, s in zip(own, stay, strict=True)
        )
        specs.append(PartitionSpec(*entries))
    shardings = [NamedSharding(mesh, spec) for spec in specs]
    held = map(jax.sharding.reshard, held, shardings)
    shared = jax.shard_map(
        here,
        mesh=mesh,
        in_specs=tuple(specs),
        out_specs=jax.tree.map(result, results),
        axis_names=every,
        check_vma=check_vma,
    )
    return shared(*held)


def _letters(axes: str) -> list[_Axis]:
    return [letter for letter in axes.split() if letter != "..."]


def _places(batch: Sequence[int]) -> list[_Axis]:
    """The batch axes, counted from the last one: -1, -2, ..., as they broadcast."""
    return list(range(-len(batch), 0))
