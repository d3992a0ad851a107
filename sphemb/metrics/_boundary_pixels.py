"""Boundary pixels of H by W images: thinned, kept at maxima, and matched one to one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sphemb._checks import (
    InputError,
    check_boolean,
    check_count,
    check_floating,
    check_number,
    check_shape,
)

# The eight neighbors as (row, column), counterclockwise from the east: x1 .. x8.
_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
_SMOOTHING = 4  # the radius of the triangle filter before orientations are taken
# A pixel without a partner costs this many times the largest distance of a pair.
_OUTLIER = 100.0
# The solver clears an array of all columns for every row: small problems are cheaper,
# but each call of it has a price too.
_PIXELS_PER_CALL = 200


def _removable() -> np.ndarray:
    """[2, 256]: conditions G1, G2 and G3 or G3' of Lam, Lee and Suen, by neighbors."""
    x = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1  # [256, 8]
    odd, even, following = x[:, ::2], x[:, 1::2], np.roll(x[:, ::2], -1, axis=1)
    crossings = np.sum(~odd & (even | following), axis=1)
    one = np.sum(odd | even, axis=1)
    other = np.sum(even | following, axis=1)
    fewest = np.minimum(one, other)
    thick = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    x1, x2, x3, x4, x5, x6, x7, x8 = x.T
    first = (x2 | x3 | ~x8) & x1
    second = (x6 | x7 | ~x4) & x5
    return np.stack([thick & ~first, thick & ~second])


_REMOVABLE = _removable()


def thin_curves(binary: np.ndarray) -> np.ndarray:
    """Thins bool [H, W] as ``bwmorph(map, 'thin', Inf)`` (Lam, Lee and Suen, 1992)."""
    padded = np.pad(binary, 1)
    width = padded.shape[1]
    alive = padded.ravel()  # the padded copy is changed in place
    ring = np.array([row * width + column for row, column in _RING])
    bits = (1 << np.arange(8)).astype(np.uint8)
    # A pixel is tested again only after a neighbor was removed.
    waiting = [alive.copy(), alive.copy()]
    while waiting[0].any() or waiting[1].any():
        for removable, marked in zip(_REMOVABLE, waiting, strict=True):
            pixels = np.flatnonzero(marked & alive)
            marked[:] = False
            codes = alive[pixels[:, None] + ring].astype(np.uint8) @ bits
            gone = pixels[removable[codes]]
            alive[gone] = False
            touched = (gone[:, None] + ring).ravel()
            for half in waiting:
                half[touched] = True
        for half in waiting:
            half &= alive
    return padded[1:-1, 1:-1].copy()


def suppress_non_maxima(
    boundary_map: np.ndarray, *, radius: int = 1, border: int = 5, slack: float = 1.01
) -> np.ndarray:
    r"""Keeps a soft boundary map where it is largest across the boundary.

    The normal's angle comes from second derivatives of the map E, smoothed by a
    triangle filter of radius 4,

    .. math:: \theta = \arctan\frac{E_{yy}\,\mathrm{sign}(-E_{xy})}{E_{xx} + 10^{-5}},

    and a pixel p stays if :math:`m E(p) \ge E(p + d (\cos\theta, \sin\theta))` for all
    whole d with :math:`0 < |d| \le r`, interpolated between pixels. It then falls
    linearly to 0 within ``border`` pixels of the image's edge. Where :math:`E_{xy}` is
    exactly 0, as in drawings of horizontal lines, every boundary counts as vertical.

    Args:
        boundary_map: floating point [H, W], at least 0, two pixels or more each way.
        radius: r, in pixels.
        border: in pixels; 0 leaves the edge as it is.
        slack: m; above 1, neighbors of about the same height both stay.

    References:
        Dollár and Zitnick (2015), "Fast Edge Detection Using Structured Forests".

    >>> ridge = np.exp(-0.5 * (np.arange(21.0) - 10) ** 2) * np.ones((21, 1))
    >>> np.flatnonzero(suppress_non_maxima(ridge)[10]).tolist()
    [10]
    """
    check_floating("boundary_map", boundary_map)
    dims = check_shape("boundary_map", boundary_map, "H W")
    check_count("radius", radius, at_least=1)
    check_count("border", border)
    check_number("slack", slack, above=0)
    high, wide = dims["H"], dims["W"]
    if min(high, wide) < 2:
        raise InputError(
            f"boundary_map must have two pixels or more each way, got {(high, wide)}"
        )
    given = np.asarray(boundary_map)
    soft = given.astype(np.float64)
    normal = _normal_angle(soft)

    kept = soft.copy()
    rows, columns = np.nonzero(soft)
    angle = normal[rows, columns]
    height = slack * soft[rows, columns]
    largest = np.ones(len(rows), bool)
    for distance in range(-radius, radius + 1):
        if distance:
            y, x = rows + distance * np.sin(angle), columns + distance * np.cos(angle)
            largest &= height >= _interpolate(soft, y, x)
    kept[rows[~largest], columns[~largest]] = 0.0
    return (kept * _ramps(high, wide, border)).astype(given.dtype)


def _normal_angle(soft: np.ndarray) -> np.ndarray:
    """The angle across the boundary, from the x axis to the y axis (down), [H, W]."""
    from scipy.ndimage import correlate1d

    up = np.arange(1.0, _SMOOTHING + 2)
    triangle = np.concatenate([up, up[-2::-1]]) / (_SMOOTHING + 1) ** 2
    for axis in (0, 1):
        soft = correlate1d(soft, triangle, axis=axis, mode="reflect")
    along_y, along_x = np.gradient(soft)
    xx = np.gradient(along_x, axis=1)
    yy, xy = np.gradient(along_y)
    return np.mod(np.arctan(yy * np.sign(-xy) / (xx + 1e-5)), np.pi)


def _interpolate(soft: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear values at points, which are clipped to the map."""
    high, wide = soft.shape
    y, x = np.clip(y, 0, high - 1.001), np.clip(x, 0, wide - 1.001)
    top, left = y.astype(int), x.astype(int)
    down, right = y - top, x - left
    upper = soft[top, left] * (1 - right) + soft[top, left + 1] * right
    lower = soft[top + 1, left] * (1 - right) + soft[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def _ramps(high: int, wide: int, border: int) -> np.ndarray:
    """Factors [H, W] that rise from 0 at the edge to 1 at ``border`` pixels from it."""
    border = min(border, high // 2, wide // 2)
    factors = []
    for size in (high, wide):
        inward = np.minimum(np.arange(size), np.arange(size)[::-1])
        factors.append(np.minimum(inward / border, 1.0) if border else np.ones(size))
    return factors[0][:, None] * factors[1]


class Pairs(NamedTuple):
    """E pairs of pixels that may be matched."""

    predicted: np.ndarray  # [E], an index into the predicted pixels in reading order
    true: np.ndarray  # [E], an index into the true ones
    distance: np.ndarray  # [E], in pixels


def match_boundaries(
    predicted: np.ndarray, true: np.ndarray, *, max_distance: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""Matches the pixels of two boundary maps one to one, at the least cost.

    .. math::
        \min_M \sum_{(p, q) \in M} |p - q| + 100\, d\,
        \bigl(P - |M| + Q - |M|\bigr), \qquad |p - q| \le d \text{ in } M.

    The matching is exact. Of several equally good ones, one is returned.

    Args:
        predicted: bool [H, W].
        true: bool [H, W].
        max_distance: d, in pixels, itself allowed.

    Returns:
        The matched pixels of ``predicted`` and those of ``true``, bool [H, W] each,
        with the same number of them.

    References:
        Martin, Fowlkes and Malik (2004), "Learning to detect natural image boundaries
        using local brightness, color, and texture cues", appendix B.

    >>> predicted, true = np.zeros((2, 3, 5), bool)
    >>> predicted[1, 1:3] = true[2, 1] = True
    >>> matched, _ = match_boundaries(predicted, true, max_distance=1)
    >>> np.argwhere(matched).tolist()
    [[1, 1]]
    """
    check_boolean("predicted", predicted)
    check_boolean("true", true)
    dims = check_shape("predicted", predicted, "H W")
    check_shape("true", true, "H W", dims=dims, beside="predicted")
    check_number("max_distance", max_distance, at_least=0)
    predicted, true = np.asarray(predicted), np.asarray(true)
    pairs = find_pairs(predicted, true, max_distance)
    chosen = choose_pairs(pairs, _OUTLIER * max_distance)
    found, matched = np.zeros_like(predicted), np.zeros_like(true)
    found.flat[np.flatnonzero(predicted)[pairs.predicted[chosen]]] = True
    matched.flat[np.flatnonzero(true)[pairs.true[chosen]]] = True
    return found, matched


def find_pairs(predicted: np.ndarray, true: np.ndarray, max_distance: float) -> Pairs:
    """Lists the pairs of pixels within a distance of each other."""
    if predicted.sum() > true.sum():  # searches around the fewer pixels
        pairs = find_pairs(true, predicted, max_distance)
        return Pairs(pairs.true, pairs.predicted, pairs.distance)
    reach = min(int(max_distance), max(predicted.shape))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    within = down**2 + right**2 <= max_distance**2
    down, right = down[within], right[within]

    numbers = np.full(true.shape, -1, np.int32)
    numbers[true] = np.arange(true.sum())
    numbers = np.pad(numbers, reach, constant_values=-1)
    stride = numbers.shape[1]
    rows, columns = np.nonzero(predicted)
    centers = (rows + reach) * stride + columns + reach
    around = numbers.ravel()[centers[:, None] + (down * stride + right)]
    pixel, offset = np.nonzero(around >= 0)
    return Pairs(pixel, around[pixel, offset], np.hypot(down, right)[offset])


def choose_pairs(pairs: Pairs, outlier_cost: float) -> np.ndarray:
    """Indices of disjoint pairs of the least cost; others cost ``outlier_cost``."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    if pairs.distance.size == 0:
        return np.zeros(0, int)
    # Pixels without a possible partner get no number.
    left, i = np.unique(pairs.predicted, return_inverse=True)
    right, j = np.unique(pairs.true, return_inverse=True)
    number = len(left) + len(right)
    links = csr_array((np.ones(len(i)), (i, len(left) + j)), shape=(number, number))
    parts, part = connected_components(links, directed=False)
    on_left = np.bincount(part[: len(left)], minlength=parts)
    on_right = np.bincount(part[len(left) :], minlength=parts)
    # Rows are the side with fewer pixels: most of them have a partner nearby, and for
    # others the solver searches their whole component.
    fewer_on_right = (on_right < on_left)[part[i]]
    row = np.where(fewer_on_right, len(left) + j, i)
    column = np.where(fewer_on_right, i, len(left) + j)

    call = (np.cumsum(on_left + on_right) // _PIXELS_PER_CALL)[part[i]]
    order = np.lexsort((row, call))
    starts = np.flatnonzero(np.diff(call[order])) + 1
    chosen = [
        some[_solve(row[some], column[some], pairs.distance[some], outlier_cost)]
        for some in np.split(order, starts)
    ]
    return np.concatenate(chosen)


def _solve(
    row: np.ndarray, column: np.ndarray, distance: np.ndarray, outlier_cost: float
) -> np.ndarray:
    """Solves one block of pairs, sorted by row, as an assignment of every row."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    if len(row) == 1:
        return np.zeros(1, int)
    rows, i = np.unique(row, return_inverse=True)
    columns, j = np.unique(column, return_inverse=True)
    # The own column is first in its row: SciPy starts with any full matching, takes
    # many seconds for some orders, and finds this one at once.
    starts = np.searchsorted(i, np.arange(len(rows) + 1))
    first = starts[:-1] + np.arange(len(rows))
    position = np.arange(len(i)) + i + 1
    indices = np.empty(len(i) + len(rows), np.int32)
    weights = np.empty(len(indices))
    indices[first] = len(columns) + np.arange(len(rows))
    indices[position] = j
    # Zeros would be dropped: one more on every weight changes no comparison.
    weights[first] = 2.0 * outlier_cost + 1.0
    weights[position] = distance + 1.0
    pointers = (starts + np.arange(len(rows) + 1)).astype(np.int32)
    shape = (len(rows), len(columns) + len(rows))
    graph = csr_array((weights, indices, pointers), shape=shape)
    _, partner = min_weight_full_bipartite_matching(graph)
    return np.flatnonzero(partner[i] == j)
