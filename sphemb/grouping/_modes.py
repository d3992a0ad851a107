"""Labels, modes and sizes of groups, from embeddings that mean shift has moved.

Letters: N points, D dimensions, K the largest number of groups; leading axes are batch
axes.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    VOID,
    check_axis_name,
    check_choice,
    check_count,
    check_floating,
    check_mask,
    check_scalar,
    check_shape,
)
from sphemb._shards import share_out
from sphemb._tiles import AxisName, add_devices, vary
from sphemb.sphere import l2_normalize

Unassigned = Literal["nearest", "void"]


class Grouping(NamedTuple):
    """Groups of points, the largest first."""

    labels: jax.Array  # [..., N] int32, 0..num_groups-1, or VOID
    # [..., K, D] unit vectors, in float32 at least; zero rows from num_groups on
    modes: jax.Array
    sizes: jax.Array  # [..., K] int32, the number of points of each label, descending
    num_groups: jax.Array  # [...] int32
    # [...] int32, points that were free when K groups were found; above 0, the limit
    # was reached and there may be more groups
    num_left: jax.Array


def label_modes(
    embeddings: jax.Array,
    *,
    max_groups: int,
    threshold: jax.Array | float = 0.9,
    min_size: int = 1,
    unassigned: Unassigned = "nearest",
    mask: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    axis_name: AxisName = None,
) -> Grouping:
    r"""Labels points that mean shift has moved to a few modes.

    The first free point is a seed. The free points within ``threshold`` of it have a
    mean direction, and the free points within ``threshold`` of that direction become a
    group, until no point is free or ``max_groups`` are found:

    .. math::
        c = \frac{\sum_{j \in B(x_p)} x_j}{\|\sum_{j \in B(x_p)} x_j\|}, \qquad
        G = B(c), \qquad B(v) = \{j \text{ free}: x_j^\top v > \tau\}.

    Groups smaller than ``min_size`` are dissolved. Static shapes; O(N D K) time. No
    gradient.

    The default threshold, an angle of 26 degrees, exceeds two bandwidths at kappa = 25,
    below which two modes merge. Lower it for smaller concentrations.

    Args:
        embeddings: [..., N, D] unit rows, usually from :func:`gbms`; rows with NaN or
            infinity count as masked.
        max_groups: K, static: the most groups to find, dissolved ones included.
        threshold: tau in (-1, 1), the cosine beyond which a point belongs to a mode.
        min_size: groups of fewer points are dissolved.
        unassigned: points without a group go to the nearest remaining mode
            (``"nearest"``; VOID without any), or stay VOID (``"void"``).
        mask: [..., N] bool, True = valid; the other points get VOID.
        precision: of the matmuls.
        axis_name: as in :func:`gbms`; only the labels are those of this device alone.

    References:
        Kong and Fowlkes, CVPR 2018, section 4, which does not specify this step.

    >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.96, 0.28]])
    >>> groups = label_modes(x, max_groups=4)
    >>> groups.labels.tolist(), groups.sizes.tolist(), int(groups.num_groups)
    ([1, 0, 0], [2, 1, 0, 0], 2)
    """
    x, valid = valid_points(embeddings, mask)
    check_axis_name("axis_name", axis_name)
    options = group_options(max_groups, min_size, unassigned, precision, axis_name)
    if x.size == 0:
        return no_groups(x, options.max_groups)
    return _images(x, valid, check_threshold(threshold, x.dtype), options=options)


@functools.partial(jax.jit, static_argnames="options")
def _images(x, valid, threshold, *, options: GroupOptions) -> Grouping:
    """Groups every image of a batch [..., N, D]."""

    def here(x, valid, threshold, *, axis_name: AxisName) -> Grouping:
        own = options._replace(axis_name=axis_name)

        def one(x: jax.Array, valid: jax.Array) -> Grouping:
            found = find_groups(x, valid, threshold, own)
            return number_groups(found, x, valid, own)

        *batch, num_points, dim = x.shape
        images = math.prod(batch)
        x, valid = x.reshape(images, num_points, dim), valid.reshape(images, num_points)
        found = jax.vmap(one)(x, valid)
        return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), found)

    return share_out(
        here,
        (x, valid, threshold),
        ("... N D", "... N", ""),
        Grouping._make(("... N", "... K D", "... K", "...", "...")),
        rows="N",
        axis_name=options.axis_name,
    )


class GroupOptions(NamedTuple):
    """The static settings of groups."""

    max_groups: int
    min_size: int
    unassigned: str
    precision: jax.lax.PrecisionLike
    axis_name: AxisName = None


def group_options(max_groups, min_size, unassigned, *rest) -> GroupOptions:
    """Checks the static settings of groups."""
    check_count("max_groups", max_groups, at_least=1)
    check_count("min_size", min_size, at_least=1)
    check_choice("unassigned", unassigned, ("nearest", "void"))
    return GroupOptions(int(max_groups), int(min_size), unassigned, *rest)


def check_threshold(threshold, dtype) -> jax.Array:
    """Checks the cosine beyond which points are grouped."""
    check_scalar("threshold", threshold, above=-1.0, below=1.0, hint="it is a cosine")
    return jnp.asarray(threshold, dtype)


def valid_points(embeddings, mask) -> tuple[jax.Array, jax.Array]:
    """Checks points and mask; returns points, zero where invalid, and validity."""
    sizes = check_shape("embeddings", embeddings, "... N D")
    check_floating("embeddings", embeddings)
    check_mask("mask", mask, "... N", dims=sizes, beside="embeddings")
    x = jax.lax.stop_gradient(jnp.asarray(embeddings))
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # A matmul with a row that is not finite spoils all rows, even at weight zero.
    valid = jnp.all(jnp.isfinite(x), axis=-1)
    if mask is not None:
        valid &= jnp.asarray(mask)
    return jnp.where(valid[..., None], x, 0.0), valid


def no_groups(x: jax.Array, max_groups: int) -> Grouping:
    """The groups of arrays without points, or without dimensions."""
    *batch, num_points, dim = x.shape
    return Grouping(
        jnp.full((*batch, num_points), VOID, jnp.int32),
        jnp.zeros((*batch, max_groups, dim), x.dtype),
        jnp.zeros((*batch, max_groups), jnp.int32),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros(batch, jnp.int32),
    )


class FoundGroups(NamedTuple):
    """Groups in the order in which they are found, and the points that are free."""

    free: jax.Array  # [N] bool
    labels: jax.Array  # [N] int32
    modes: jax.Array  # [K, D]
    found: jax.Array  # [] int32
    left: jax.Array  # [] bool, whether any point is free, on any device


def _any(flags: jax.Array, axis_name: AxisName) -> jax.Array:
    if axis_name is None:
        return jnp.any(flags)
    return add_devices(jnp.any(flags).astype(jnp.int32), axis_name) > 0


def _seed(x, free, axis_name: AxisName) -> tuple[jax.Array, jax.Array]:
    """Returns the first free point [D], and which row it is, [N] bool."""
    first = jnp.argmax(free)
    chosen = jnp.arange(x.shape[0]) == first
    if axis_name is None:
        return x[first], chosen
    # The devices hold the points in order: the first device with a free one has it.
    here, size = jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name)
    turn = jnp.where(jnp.any(free), here, size)
    has_it = turn == jax.lax.pmin(turn, axis_name)
    return add_devices(jnp.where(has_it, x[first], 0.0), axis_name), has_it & chosen


def find_groups(
    x, valid, threshold, options: GroupOptions, *, recenter: bool = True
) -> FoundGroups:
    """Makes a group around one seed after another until no point is free."""
    max_groups, axis_name = options.max_groups, options.axis_name

    def cosine(center: jax.Array) -> jax.Array:
        return jnp.matmul(x, center, precision=options.precision)

    def go_on(state: FoundGroups) -> jax.Array:
        return (state.found < max_groups) & state.left

    def next_group(state: FoundGroups) -> FoundGroups:
        point, chosen = _seed(x, state.free, axis_name)
        near, center = state.free & (cosine(point) > threshold), point
        if recenter:
            total = jnp.matmul(near.astype(x.dtype), x, precision=options.precision)
            total = add_devices(total, axis_name)
            center = l2_normalize(jnp.where(_any(near, axis_name), total, point))
            near = state.free & (cosine(center) > threshold)
        # The seed is always taken, even where rounding or a wide group leaves it
        # outside, so that every round takes one point at least.
        taken = near | (state.free & chosen)
        free = state.free & ~taken
        return FoundGroups(
            free=free,
            labels=jnp.where(taken, state.found, state.labels),
            modes=state.modes.at[state.found].set(center),
            found=state.found + 1,
            left=_any(free, axis_name),
        )

    void = jnp.full(x.shape[0], VOID, jnp.int32)
    modes, found = jnp.zeros((max_groups, x.shape[1]), x.dtype), jnp.int32(0)
    x, valid, void, modes, found = vary((x, valid, void, modes, found), axis_name)
    # A sum over the devices gives shared values the type of shared values.
    modes, found = add_devices((modes, found), axis_name)
    left = _any(valid, axis_name)
    start = FoundGroups(free=valid, labels=void, modes=modes, found=found, left=left)
    return jax.lax.while_loop(go_on, next_group, start)


def number_groups(found: FoundGroups, x, valid, options: GroupOptions) -> Grouping:
    """Numbers the groups of an image by size, and treats its unassigned points."""
    max_groups, axis_name = options.max_groups, options.axis_name

    def count(labels: jax.Array) -> jax.Array:
        slots = jnp.where(labels == VOID, max_groups, labels)
        counts = jnp.zeros(max_groups, jnp.int32).at[slots].add(1, mode="drop")
        return add_devices(counts, axis_name)

    large = count(found.labels) >= options.min_size
    kept = (found.labels != VOID) & large[found.labels]
    labels = jnp.where(kept, found.labels, VOID)
    if options.unassigned == "nearest":
        cosine = jnp.matmul(x, found.modes.T, precision=options.precision)
        nearest = jnp.argmax(jnp.where(large, cosine, -jnp.inf), axis=1)
        adopted = valid & ~kept & jnp.any(large)
        labels = jnp.where(adopted, nearest.astype(jnp.int32), labels)

    sizes = count(labels)
    order = jnp.argsort(-sizes, stable=True)
    rank = jnp.zeros(max_groups, jnp.int32)
    rank = rank.at[order].set(jnp.arange(max_groups, dtype=jnp.int32))
    return Grouping(
        labels=jnp.where(labels == VOID, VOID, rank[labels]),
        modes=jnp.where(large[:, None], found.modes, 0.0)[order],
        sizes=sizes[order],
        num_groups=jnp.sum(large, dtype=jnp.int32),
        num_left=add_devices(jnp.sum(found.free, dtype=jnp.int32), axis_name),
    )
