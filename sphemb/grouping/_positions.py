"""Groups of pixels by the modes of the positions that a network gives them.

Letters: B images, H rows, W columns, N = H W pixels; leading axes are batch axes.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import (
    check_count,
    check_floating,
    check_integer,
    check_mask,
    check_number,
    check_shape,
)
from sphemb._shards import share_out
from sphemb._tiles import vary

_REACH = 3.0  # bandwidths, beyond which the kernel is cut off
_AROUND = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]


class PositionGroups(NamedTuple):
    """Groups of pixels, see :func:`group_positions`."""

    labels: jax.Array  # [..., H, W] int32, 1.. by falling size; 0 for none
    num_groups: jax.Array  # [...] int32, those beyond ``max_groups`` included


def group_positions(
    positions: jax.Array,
    mask: jax.Array,
    *,
    bandwidth: float,
    max_groups: int,
    min_size: int = 1,
    scores: jax.Array | None = None,
    min_score: float = 0.0,
) -> PositionGroups:
    r"""Groups the pixels whose positions climb to one mode of their density.

    .. math:: f(q) = \sum_{i \in \text{mask}} e^{-\lVert q - p_i \rVert^2 / 2 h^2}

    The density of the positions :math:`p_i`, rounded to pixels, is computed on the grid
    of pixels. From the pixel of its position, each pixel goes to the highest of the
    nine pixels around, until none is higher: mean shift on a grid, whose modes are
    those of `mean_shift` to a pixel. Time and memory are linear in N, whatever the
    number of groups. Pixels of groups below ``min_size`` take the group beside them.

    Args:
        positions: [..., H, W, 2] row and column, in pixels; those outside of the image
            count at its border.
        mask: [..., H, W] bool, the pixels that are grouped.
        bandwidth: h, in pixels; static.
        max_groups: groups of an image, the largest first; static.
        min_size: pixels of a group.
        scores: [..., H, W] of the pixels, such as the probability of the foreground.
        min_score: the mean of a group's scores, at least. Other groups are left out:
            their pixels have no group, and none beside them takes them.

    References:
        Comaniciu & Meer, "Mean shift: a robust approach toward feature space analysis",
        PAMI 2002; Koontz, Narendra & Fukunaga, "A graph-theoretic approach to
        nonparametric cluster analysis", 1976, for the climb.

    >>> places = jnp.array([[[0, 1], [0, 1], [0, 1], [0, 6], [0, 6], [0, 6], [0, 6]]])
    >>> everywhere = jnp.ones((1, 7), bool)
    >>> found = group_positions(
    ...     places.astype(float), everywhere, bandwidth=1.0, max_groups=4
    ... )
    >>> found.labels.tolist(), int(found.num_groups)
    ([[2, 2, 2, 1, 1, 1, 1]], 2)
    """
    check_floating("positions", positions)
    sizes = check_shape("positions", positions, "... H W 2")
    check_mask("mask", mask, "... H W", dims=sizes, beside="positions")
    check_number("bandwidth", bandwidth, above=0)
    check_count("max_groups", max_groups, at_least=1)
    check_count("min_size", min_size, at_least=1)
    check_number("min_score", min_score)
    if scores is not None:
        check_floating("scores", scores)
        check_shape("scores", scores, "... H W", dims=sizes, beside="positions")
        scores = jnp.asarray(scores)
    settings = {"bandwidth": float(bandwidth), "max_groups": int(max_groups)}
    positions, mask = jnp.asarray(positions), jnp.asarray(mask)
    if mask.size == 0:
        none = jnp.zeros(mask.shape[:-2], jnp.int32)
        return PositionGroups(mask.astype(jnp.int32), none)
    return _grouped(positions, mask, min_size, scores, min_score, **settings)


@functools.partial(jax.jit, static_argnames=("bandwidth", "max_groups"))
def _grouped(
    positions, mask, min_size, scores, min_score, *, bandwidth: float, max_groups: int
):
    return share_out(
        functools.partial(_grouped_here, bandwidth, max_groups),
        (positions, mask, min_size, scores, min_score),
        ("... H W 2", "... H W", "", "... H W", ""),
        PositionGroups._make(("... H W", "...")),
    )


def _grouped_here(
    bandwidth, max_groups, positions, mask, min_size, scores, min_score
) -> PositionGroups:
    *batch, height, width = mask.shape
    shape = (math.prod(batch), height, width)
    inside = mask.reshape(shape)
    flat = positions.reshape(*shape, 2)

    def cell(axis: int, last: int) -> jax.Array:
        # Positions that are not numbers count at the border, too.
        where = jnp.nan_to_num(jnp.clip(jnp.round(flat[..., axis]), 0, last))
        return where.astype(jnp.int32)

    # One numbering for all images: a batch is a picture of separate images.
    image = jnp.arange(shape[0], dtype=jnp.int32)[:, None, None]
    places = (image * height + cell(0, height - 1)) * width + cell(1, width - 1)
    places = places.reshape(-1)

    counts = jnp.zeros(inside.size, jnp.float32)
    counts = counts.at[places].add(inside.reshape(-1).astype(jnp.float32))
    roots = _climb(_blurred(counts.reshape(shape), bandwidth))
    roots = jnp.where(inside.reshape(-1), roots[places], 0)

    def total(values: jax.Array) -> jax.Array:
        """The sum over the pixels of each mode."""
        return jnp.zeros(inside.size, values.dtype).at[roots].add(values.reshape(-1))

    sizes = total(inside.astype(jnp.int32))
    if scores is not None:
        score = total(jnp.where(inside, scores.reshape(shape), 0.0))
        low = (sizes >= min_size) & (score < min_score * sizes)
        inside &= ~low[roots].reshape(shape)
        sizes = jnp.where(low, 0, sizes)
    # In float32, whose top_k is a hundred times as fast on a CPU; exact to 2^24 pixels.
    by_image = sizes.reshape(shape[0], -1)
    most = min(max_groups, height * width)
    largest, modes = jax.lax.top_k(by_image.astype(jnp.float32), most)
    names = jnp.arange(1, most + 1, dtype=jnp.int32)
    kept = largest >= min_size
    number = jnp.zeros_like(by_image).at[jnp.arange(shape[0])[:, None], modes]
    number = number.set(jnp.where(kept, names, 0)).reshape(-1)
    labels = jnp.where(inside, number[roots].reshape(shape), 0)
    num_groups = jnp.sum(by_image >= min_size, axis=1, dtype=jnp.int32)
    labels = _spread(labels, inside)
    return PositionGroups(labels.reshape(mask.shape), num_groups.reshape(batch))


def _shifted(x: jax.Array, down: int, right: int, fill) -> jax.Array:
    """The values [B, H, W] that lie so many rows and columns away."""
    height, width = x.shape[1:]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=fill)
    return x[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _blurred(counts: jax.Array, bandwidth: float) -> jax.Array:
    """The sum of Gaussians around points that are counted on a grid [B, H, W]."""
    radius = math.ceil(_REACH * bandwidth)
    taps = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / bandwidth))
    for axis in (1, 2):
        padding = [(0, 0)] * 3
        padding[axis] = (radius, radius)
        padded, size = jnp.pad(counts, padding), counts.shape[axis]
        counts = jnp.zeros_like(counts)
        for i, tap in enumerate(taps):
            counts += float(tap) * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
    return counts


def _climb(density: jax.Array) -> jax.Array:
    """The mode [B N] that each pixel climbs to, by its number over all images."""
    pixels = jnp.arange(density.size, dtype=jnp.int32).reshape(density.shape)
    highest, parent = density, pixels
    for down, right in _AROUND:
        value = _shifted(density, down, right, -jnp.inf)
        other = _shifted(pixels, down, right, density.size)
        # Of equal heights the first pixel, so that a plateau has one mode.
        better = (value > highest) | ((value == highest) & (other < parent))
        highest = jnp.where(better, value, highest)
        parent = jnp.where(better, other, parent)

    def jump(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        parent, _ = state
        further = parent.at[parent].get(mode="promise_in_bounds")
        return further, jnp.any(further != parent)

    _, state = vary((density, (parent.reshape(-1), jnp.asarray(True))))
    return jax.lax.while_loop(lambda state: state[1], jump, state)[0]


def spread_labels(labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Extends labels into the pixels of a mask that have none, 0, beside them.

    Labels are int [..., H, W], the mask is bool. A pixel takes the highest label of the
    eight around it, until none changes; pixels outside of the mask stay.

    >>> labels = jnp.array([[1, 0, 0, 0, 2, 0]])
    >>> mask = jnp.array([[True, True, False, True, True, True]])
    >>> spread_labels(labels, mask).tolist()
    [[1, 1, 0, 2, 2, 2]]
    """
    check_integer("labels", labels)
    dims = check_shape("labels", labels, "... H W")
    check_mask("mask", mask, "... H W", dims=dims, beside="labels")
    return _spread_all(jnp.asarray(labels), jnp.asarray(mask))


@jax.jit
def _spread_all(labels: jax.Array, mask: jax.Array) -> jax.Array:
    def here(labels: jax.Array, mask: jax.Array) -> jax.Array:
        shape = (math.prod(labels.shape[:-2]), *labels.shape[-2:])
        return _spread(labels.reshape(shape), mask.reshape(shape)).reshape(labels.shape)

    return share_out(here, (labels, mask), ("... H W",) * 2, "... H W")


def _spread(labels: jax.Array, inside: jax.Array) -> jax.Array:
    """Extends groups into the pixels without one that are connected to them."""

    def extend(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        labels, _ = state
        around = labels
        for down, right in _AROUND:
            around = jnp.maximum(around, _shifted(labels, down, right, 0))
        extended = jnp.where((labels == 0) & inside, around, labels)
        return extended, jnp.any(extended != labels)

    _, state = vary((labels, (labels, jnp.asarray(True))))
    return jax.lax.while_loop(lambda state: state[1], extend, state)[0]
