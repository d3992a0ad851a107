"""One-to-one correspondence of boundary pixels: P predicted, Q true, E pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sphemb._checks import check_boolean, check_number, check_shape

# A pixel without a partner costs this many times the largest distance of a pair.
_OUTLIER = 100.0
# The solver clears an array of all columns for every row: small problems are cheaper,
# but each call of it has a price too.
_PIXELS_PER_CALL = 200


class Pairs(NamedTuple):
    """Pixels that may be partners.

    Attributes:
        predicted: [E], an index into the predicted pixels in reading order.
        true: [E], an index into the true ones.
        distance: [E], in pixels.
    """

    predicted: np.ndarray
    true: np.ndarray
    distance: np.ndarray


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
        max_distance: d, in pixels, and itself allowed.

    Returns:
        The matched pixels of ``predicted`` and those of ``true``, bool [H, W] each,
        with the same number of them.

    Raises:
        InputError: maps of different shapes, not bool, or a distance below 0.

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
    found = []
    for binary, indices in (
        (predicted, pairs.predicted[chosen]),
        (true, pairs.true[chosen]),
    ):
        matched = np.zeros(binary.size, bool)
        matched[np.flatnonzero(binary)[indices]] = True
        found.append(matched.reshape(binary.shape))
    return found[0], found[1]


def find_pairs(predicted: np.ndarray, true: np.ndarray, max_distance: float) -> Pairs:
    """Lists the pairs of pixels that lie within a distance of each other."""
    if predicted.sum() > true.sum():  # looks around the fewer pixels
        return _swapped(find_pairs(true, predicted, max_distance))
    reach = min(int(max_distance), max(predicted.shape))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    within = down**2 + right**2 <= max_distance**2
    down, right = down[within], right[within]

    numbers = np.full(true.shape, -1, np.int32)
    numbers[true] = np.arange(true.sum())
    numbers = np.pad(numbers, reach, constant_values=-1)
    stride = numbers.shape[1]
    rows, columns = np.nonzero(predicted)
    centres = (rows + reach) * stride + columns + reach
    around = numbers.ravel()[centres[:, None] + (down * stride + right)]
    pixel, offset = np.nonzero(around >= 0)
    return Pairs(pixel, around[pixel, offset], np.hypot(down, right)[offset])


def _swapped(pairs: Pairs) -> Pairs:
    return Pairs(pairs.true, pairs.predicted, pairs.distance)


def choose_pairs(pairs: Pairs, outlier_cost: float) -> np.ndarray:
    """Chooses disjoint pairs of the least cost; a pixel in none costs ``outlier_cost``.

    Returns:
        Indices into the pairs.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    if pairs.distance.size == 0:
        return np.zeros(0, int)
    # Pixels that have no partner in reach take no number.
    left, i = np.unique(pairs.predicted, return_inverse=True)
    right, j = np.unique(pairs.true, return_inverse=True)
    number = len(left) + len(right)
    links = csr_array((np.ones(len(i)), (i, len(left) + j)), shape=(number, number))
    parts, part = connected_components(links, directed=False)
    on_left = np.bincount(part[: len(left)], minlength=parts)
    on_right = np.bincount(part[len(left) :], minlength=parts)
    # Rows are the side with fewer pixels: most of them find a partner nearby, and one
    # that finds none makes the solver search its whole part.
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
    """Solves one block of pairs, sorted by row, as an assignment of every row.

    Each row has a column of its own that stands for "no partner". With every pair two
    pixels are spared, so that this costs twice an outlier, and columns left over
    nothing: the same minimum as with outliers on both sides, in half the size, and
    never a square. SciPy starts on a square one with a phase that can go on for minutes
    where many weights are equal.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    if len(row) == 1:
        return np.zeros(1, int)
    rows, i = np.unique(row, return_inverse=True)
    columns, j = np.unique(column, return_inverse=True)
    # The own column stands first in its row: SciPy looks for any full matching before
    # it starts, takes many seconds for some orders, and finds this one at once.
    starts = np.searchsorted(i, np.arange(len(rows) + 1))
    first = starts[:-1] + np.arange(len(rows))
    place = np.arange(len(i)) + i + 1
    indices = np.empty(len(i) + len(rows), np.int32)
    weights = np.empty(len(indices))
    indices[first] = len(columns) + np.arange(len(rows))
    indices[place] = j
    # Zeros would be dropped: one more on every weight changes no comparison.
    weights[first] = 2.0 * outlier_cost + 1.0
    weights[place] = distance + 1.0
    pointers = (starts + np.arange(len(rows) + 1)).astype(np.int32)
    graph = csr_array(
        (weights, indices, pointers), shape=(len(rows), len(columns) + len(rows))
    )
    _, partner = min_weight_full_bipartite_matching(graph)
    return np.flatnonzero(partner[i] == j)
