"""Proposals of several groupings, pooled: K maps of N pixels and G groups each."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import (
    InputError,
    check_count,
    check_integer,
    check_number,
    check_shape,
)
from sphemb._shards import share_out
from sphemb.instances._overlap import overlap_pairs, overlap_table, table_fits


class ProposalPool(NamedTuple):
    """C = K G candidates: map by map, and within a map by falling size.

    The mask of a candidate is where map ``source`` has the label ``group``, also after
    the maps are enlarged.
    """

    source: jax.Array  # [..., C] int32, the map of the candidate
    group: jax.Array  # [..., C] int32, its group in this map
    size: jax.Array  # [..., C] int32, its pixels
    keep: jax.Array  # [..., C] bool, False for empty, small and duplicate candidates
    # [..., C] int32, 0, 1, ... of the kept ones, the largest int32 of the others:
    # ``rank < n`` are the first n proposals.
    rank: jax.Array


def pool_proposals(
    label_maps: jax.Array, *, max_groups: int, max_iou: float = 0.9, min_size: int = 1
) -> ProposalPool:
    r"""Pools the groups of several label maps and drops duplicates.

    Every group is a candidate, map by map, and within a map by falling size, equally
    large groups by their ids. A candidate p is dropped if

    .. math:: \frac{|R_p \cap R_q|}{|R_p \cup R_q|} > \text{max_iou}

    for an earlier q that is kept.

    Args:
        label_maps: int [..., K, N], 0..max_groups-1; other labels are in no group.
        max_groups: G; static.
        max_iou: the largest IoU of two proposals, compared in float32; 1 drops none.
        min_size: the pixels that a proposal needs.

    References:
        Kong and Fowlkes (2018), section 5.3, footnote.

    >>> maps = jnp.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 2]])
    >>> pool = pool_proposals(maps, max_groups=3)
    >>> chosen = pool.rank < 4
    >>> pool.source[chosen].tolist(), pool.group[chosen].tolist()
    ([0, 0, 1, 1], [0, 1, 1, 2])
    """
    check_integer("label_maps", label_maps)
    dims = check_shape("label_maps", label_maps, "... K N", hint="flatten the pixels")
    check_count("max_groups", max_groups, at_least=1)
    check_number("max_iou", max_iou, at_least=0, at_most=1)
    check_count("min_size", min_size, at_least=1)
    if dims["K"] == 0:
        raise InputError("label_maps must hold at least one map, got none")
    pairs = math.prod(dims["..."]) * (dims["K"] - 1) * (max_groups + 1) ** 2
    pool = _pool if table_fits(pairs, label_maps) else _pool_on_host
    return pool(jnp.asarray(label_maps), max_iou, min_size, max_groups)


@functools.partial(jax.jit, static_argnames="max_groups")
def _pool(label_maps, max_iou: float, min_size: int, max_groups: int) -> ProposalPool:
    return share_out(
        functools.partial(_pool_here, max_groups),
        (label_maps, max_iou, min_size),
        ("... K N", "", ""),
        ProposalPool._make(["... C"] * 5),
    )


def _pool_here(max_groups: int, label_maps, max_iou, min_size) -> ProposalPool:
    num_maps = label_maps.shape[-2]
    sizes = _sizes(label_maps, max_groups)
    keep = sizes >= min_size
    # Groups of one map are disjoint: all are compared with earlier maps at once.
    for k in range(1, num_maps):
        before = label_maps[..., :k, :]
        own = jnp.broadcast_to(label_maps[..., k : k + 1, :], before.shape)
        both = overlap_table(
            before, own, num_predicted=max_groups, num_true=max_groups
        )[..., :max_groups, :max_groups]
        either = sizes[..., :k, :, None] + sizes[..., k : k + 1, None, :] - both
        alike = both / jnp.maximum(either, 1) > max_iou
        repeated = jnp.any(alike & keep[..., :k, :, None], axis=(-3, -2))
        keep = keep.at[..., k, :].set(keep[..., k, :] & ~repeated)
    return _ordered(sizes, keep)


def _pool_on_host(
    label_maps: jax.Array, max_iou: float, min_size: int, max_groups: int
) -> ProposalPool:
    """The same where tables of all pairs of groups are too large."""
    num_maps, num_points = label_maps.shape[-2:]
    sizes = _sizes(label_maps, max_groups)
    areas = np.asarray(sizes).reshape(-1, num_maps, max_groups)
    maps = np.asarray(label_maps).reshape(-1, num_maps, num_points)
    keep = areas >= min_size
    groups = slice(max_groups)
    sizes_of = {"num_predicted": max_groups, "num_true": max_groups}
    for image, area, kept in zip(maps, areas, keep, strict=True):
        for k in range(1, num_maps):
            for before in range(k):
                pairs = overlap_pairs(image[before], image[k], **sizes_of)
                pairs = pairs.within(groups, groups)
                either = area[before][pairs.rows] + area[k][pairs.columns]
                union = np.maximum(either - pairs.counts, 1).astype(np.float32)
                alike = pairs.counts.astype(np.float32) / union > np.float32(max_iou)
                kept[k][pairs.columns[alike & kept[before][pairs.rows]]] = False
    return _ordered(sizes, jnp.asarray(keep.reshape(sizes.shape)))


def _sizes(label_maps: jax.Array, max_groups: int) -> jax.Array:
    """Pixels of every group [..., K, G]."""
    one = jnp.zeros_like(label_maps)
    sizes = overlap_table(label_maps, one, num_predicted=max_groups, num_true=1)
    return sizes[..., :max_groups, 0]


def _ordered(sizes: jax.Array, keep: jax.Array) -> ProposalPool:
    """The candidates in their order, from sizes and kept ones, [..., K, G]."""
    num_maps, max_groups = sizes.shape[-2:]
    order = jnp.argsort(-sizes, axis=-1, stable=True).astype(jnp.int32)

    def flat(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-2], num_maps * max_groups)

    keep = flat(jnp.take_along_axis(keep, order, axis=-1))
    rank = jnp.cumsum(keep, axis=-1, dtype=jnp.int32) - 1
    sources = jnp.arange(num_maps, dtype=jnp.int32)[:, None]
    return ProposalPool(
        source=flat(jnp.broadcast_to(sources, order.shape)),
        group=flat(order),
        size=flat(jnp.take_along_axis(sizes, order, axis=-1)),
        keep=keep,
        rank=jnp.where(keep, rank, jnp.iinfo(jnp.int32).max),
    )
