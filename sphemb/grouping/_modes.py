"""Labels, modes and sizes read off embeddings that mean shift has pulled together.

Letters: N points, D dimensions, K the largest number of groups; leading axes are batch
axes.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    check_axis_name,
    check_boolean,
    check_choice,
    check_count,
    check_floating,
    check_scalar,
    check_shape,
)
from sphemb._labels import VOID
from sphemb._ring import AxisName, add_devices
from sphemb.grouping._leaders import Leaders, lead


class Grouping(NamedTuple):
    """Groups of points, the largest first.

    Attributes:
        labels: [..., N] int32, 0..num_groups-1, or VOID.
        modes: [..., K, D] the unit vector each group gathers around, in float32 at
            least; zero rows from num_groups on.
        sizes: [..., K] int32, how many points bear each label, in falling order.
        num_groups: [...] int32.
        num_left: [...] int32, the points that were still free when K groups were found;
            above 0, the limit was reached and there may be more groups.
    """

    labels: jax.Array
    modes: jax.Array
    sizes: jax.Array
    num_groups: jax.Array
    num_left: jax.Array


def _counts(labels: jax.Array, max_groups: int, axis_name: AxisName) -> jax.Array:
    """Counts labels 0..K-1; VOID falls outside and is dropped."""
    slots = jnp.where(labels == VOID, max_groups, labels)
    counts = jnp.zeros(max_groups, jnp.int32).at[slots].add(1, mode="drop")
    return add_devices(counts, axis_name)


def countable_points(
    embeddings: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Checks points and mask; returns float points, zero where they do not count."""
    sizes = check_shape("embeddings", embeddings, "... N D")
    check_floating("embeddings", embeddings)
    x = jax.lax.stop_gradient(jnp.asarray(embeddings))
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if mask is None:
        counts = jnp.ones(x.shape[:-1], bool)
    else:
        dims = {"...": sizes["..."], "N": sizes["N"]}
        check_shape("mask", mask, "... N", dims=dims, beside="embeddings")
        check_boolean("mask", mask)
        counts = jnp.asarray(mask)
    # A matmul with a row that is not finite spoils all rows, even at weight zero.
    counts &= jnp.all(jnp.isfinite(x), axis=-1)
    return jnp.where(counts[..., None], x, 0.0), counts


def number_groups(
    found: Leaders,
    x: jax.Array,
    counts: jax.Array,
    *,
    min_size: int,
    unassigned: str,
    precision: jax.lax.PrecisionLike,
    axis_name: AxisName = None,
) -> Grouping:
    """Numbers the groups of an image by size, and treats its unassigned points."""
    max_groups = found.modes.shape[0]
    large = _counts(found.labels, max_groups, axis_name) >= min_size
    kept = (found.labels != VOID) & large[found.labels]
    labels = jnp.where(kept, found.labels, VOID)
    if unassigned == "nearest":
        cosine = jnp.matmul(x, found.modes.T, precision=precision)
        nearest = jnp.argmax(jnp.where(large, cosine, -jnp.inf), axis=1)
        adopted = counts & ~kept & jnp.any(large)
        labels = jnp.where(adopted, nearest.astype(jnp.int32), labels)

    sizes = _counts(labels, max_groups, axis_name)
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


@functools.partial(
    jax.jit,
    static_argnames=("max_groups", "min_size", "unassigned", "precision", "axis_name"),
)
def _images(
    x: jax.Array,
    counts: jax.Array,
    threshold: jax.Array,
    *,
    max_groups: int,
    min_size: int,
    unassigned: str,
    precision: jax.lax.PrecisionLike,
    axis_name: AxisName,
) -> Grouping:
    """Groups every image of a batch [B, N, D]."""

    def one(x: jax.Array, counts: jax.Array) -> Grouping:
        return number_groups(
            lead(x, counts, threshold, max_groups, precision, axis_name),
            x,
            counts,
            min_size=min_size,
            unassigned=unassigned,
            precision=precision,
            axis_name=axis_name,
        )

    return jax.vmap(one)(x, counts)


def label_modes(
    embeddings: jax.Array,
    *,
    max_groups: int,
    threshold: jax.Array | float = 0.9,
    min_size: int = 1,
    unassigned: Literal["nearest", "void"] = "nearest",
    mask: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    axis_name: AxisName = None,
) -> Grouping:
    r"""Reads groups off points that mean shift has gathered at a few modes.

    The first free point leads: the free points within ``threshold`` of it have a mean
    direction, and the free points within ``threshold`` of that direction become a
    group, until no point is free or ``max_groups`` are found:

    .. math::
        c = \frac{\sum_{j \in B(x_p)} x_j}{\|\sum_{j \in B(x_p)} x_j\|}, \qquad
        G = B(c), \qquad B(v) = \{j \text{ free}: x_j^\top v > \tau\}.

    Groups smaller than ``min_size`` are dissolved; their points, and those that were
    still free at the end, are unassigned. Static shapes; O(N D K) time. No gradient.

    The default threshold, a ball of 26 degrees, is wider than two bandwidths
    (2/sqrt(kappa), 23 degrees at kappa = 25), the distance below which two modes melt
    into one, and balls of that size are still disjoint around 16 directions spread
    over the 2-sphere as far as can be. Lower it for less, raise it for more
    concentrated kernels.

    One group for everything usually means a kernel that is too blunt: with eight
    clusters, one of which held 84 % of the points, kappa = 6 left one group after five
    steps, and kappa = 25 all eight after thirty.

    Args:
        embeddings: [..., N, D] unit rows, usually what :func:`gbms` returns; rows with
            NaN or infinity are taken for masked.
        max_groups: K, static: the most groups to look for, those that ``min_size``
            dissolves among them; ``num_left`` of the result tells whether it was
            enough.
        threshold: tau in (-1, 1), the cosine beyond which a point belongs to a mode.
        min_size: groups of fewer points are dissolved.
        unassigned: ``"nearest"`` adds these points to the nearest remaining mode (VOID
            without any), ``"void"`` leaves them VOID.
        mask: [..., N] bool, True = counts; the other points get VOID.
        precision: of the matmuls.
        axis_name: of the mesh axis over which the points are sharded, as in
            :func:`gbms`. The labels are this device's then; modes, sizes and
            numbers are those of all points, the same on all devices.

    Returns:
        A :class:`Grouping`; its groups are numbered by falling size, among equals the
        one first led first.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Kong and Fowlkes, CVPR 2018, section 4, which leaves the reading of the modes
        open.

    >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.96, 0.28]])
    >>> groups = label_modes(x, max_groups=4)
    >>> groups.labels.tolist(), groups.sizes.tolist(), int(groups.num_groups)
    ([1, 0, 0], [2, 1, 0, 0], 2)
    >>> int(label_modes(x, max_groups=1).num_left)
    2
    """
    x, counts = countable_points(embeddings, mask)
    check_count("max_groups", max_groups, at_least=1)
    check_scalar("threshold", threshold, above=-1.0, below=1.0, hint="it is a cosine")
    check_count("min_size", min_size, at_least=1)
    check_choice("unassigned", unassigned, ("nearest", "void"))
    check_axis_name("axis_name", axis_name)
    *batch, num_points, dim = x.shape
    if x.size == 0:
        return Grouping(
            jnp.full((*batch, num_points), VOID, jnp.int32),
            jnp.zeros((*batch, max_groups, dim), x.dtype),
            jnp.zeros((*batch, max_groups), jnp.int32),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros(batch, jnp.int32),
        )
    grouping = _images(
        x.reshape(-1, num_points, dim),
        counts.reshape(-1, num_points),
        jnp.asarray(threshold, x.dtype),
        max_groups=int(max_groups),
        min_size=int(min_size),
        unassigned=unassigned,
        precision=precision,
        axis_name=axis_name,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), grouping)
