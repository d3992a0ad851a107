r"""Which margins allow zero loss: how far apart n groups can be in D dimensions.

Zero loss needs all pixels of a group on one point, and every pair of the n points at a
calibrated similarity (1 + cos) / 2 of at most the margin. The smallest largest
similarity :math:`s^*(n, D)` is Tammes' problem; n counts the background too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from sphemb._checks import InputError, check_count, check_number
from sphemb.sphere._bounds import fejes_toth_margin, necessary_margin
from sphemb.sphere._spread import least_largest_cosine

# Angular distance in degrees of the best n points on the 2-sphere. Proven up to 14
# points (Schuette & van der Waerden, Danzer, Musin & Tarasov); from 15 on best known.
_TAMMES_DEGREES = {
    7: 77.8695421,
    8: 74.8584922,
    9: math.degrees(math.acos(1.0 / 3.0)),
    10: 66.1468220,
    11: math.degrees(math.acos(1.0 / math.sqrt(5.0))),
    12: math.degrees(math.acos(1.0 / math.sqrt(5.0))),
    13: 57.1367031,
    14: 55.6705700,
    15: 53.6578501,
    16: 52.2443957,
    17: 51.0903285,
    18: 49.5566548,
    19: 47.6919141,
    20: 47.4310362,
}
_TAMMES_PROVEN = 14
# The search compares all pairs of points some thousand times: a second at these sizes.
_MOST_SEARCHED = 128
_MOST_WORK = 2**17  # n^2 D
_ROUNDING = 1e-9  # of the table, so that its own margins count as feasible


class FeasibleMargin(NamedTuple):
    """Smallest margin that allows zero loss, as :func:`margin_for` returns it.

    Attributes:
        margin: calibrated similarity of the closest pair of the best arrangement.
        exact: True if proven; False if only the best arrangement known or found, so
            that a smaller margin might do.
        lower_bound: a margin that is proven to be necessary; equals ``margin`` where
            exact.
        reason: where the number comes from, in a few words.
    """

    margin: float
    exact: bool
    lower_bound: float
    reason: str


class MarginTable(NamedTuple):
    """Margins over dimensions and numbers of groups, see :func:`feasible_margin_table`.

    Attributes:
        dims: [K] dimensions of the embedding, one per row.
        counts: [C] numbers of groups, one per column.
        margin: [K, C] smallest feasible margins.
        exact: [K, C] True where proven.
    """

    dims: np.ndarray
    counts: np.ndarray
    margin: np.ndarray
    exact: np.ndarray


def margin_for(n: int, dim: int) -> FeasibleMargin:
    r"""Smallest margin at which n groups can have zero loss in D dimensions.

    .. math:: s^*(n, D) = \min_{x_1 \ldots x_n} \max_{i \ne j}
              \tfrac12 (1 + x_i^\top x_j)

    ====================  ===================================  ======
    groups                smallest margin                      proven
    ====================  ===================================  ======
    n <= D + 1            (1 - 1/(n - 1)) / 2 (simplex)        yes
    D + 2 <= n <= 2 D     1/2 (Rankin: antipodes on the axes)  yes
    D = 2                 (1 + cos(2 pi / n)) / 2 (polygon)    yes
    D = 3, n <= 14        table (Tammes)                       yes
    D = 3, n <= 20        table of the best known              no
    n <= 64               numerical search                     no
    else                  search, or a bound                   no
    ====================  ===================================  ======

    The search is bounded: up to 128 groups, and :math:`n^2 D \le 2^{17}`. Beyond, the
    margin is one that greedy packing allows in any case, or what the search finds in
    fewer dimensions, if less. Caps of the angle :math:`\theta` between two points cover
    the sphere when no further point fits, so that n points fit where a cap is one n-th
    of the sphere,

    .. math:: \tfrac12 I_{\sin^2 \theta}\left(\tfrac{D - 1}{2}, \tfrac12\right)
              = \frac1n.

    The same for disjoint caps of :math:`\theta / 2` is a lower bound.

    A margin of .5 thus serves up to 2 D groups, background included: 128 of them in the
    64 dimensions of the paper, but only 6 in 3 dimensions.

    Args:
        n: number of groups, background included; at least 1.
        dim: dimension D of the embedding; at least 1.

    Returns:
        A :class:`FeasibleMargin`.

    Raises:
        InputError: ``n`` or ``dim`` is no int of at least 1.

    References:
        Kong & Fowlkes, CVPR 2018, section 3.2; R. A. Rankin, The closest packing of
        spherical caps in n dimensions, 1955; A. D. Wyner, Capabilities of bounded
        discrepancy decoding, 1965, for greedy packing.

    >>> margin_for(4, 3).margin.__round__(4), margin_for(128, 64).margin
    (0.3333, 0.5)
    >>> margin_for(10, 3).exact, margin_for(20, 3).exact
    (True, False)
    """
    check_count("n", n, at_least=1)
    check_count("dim", dim, at_least=1)
    if n == 1:
        return _proven(0.0, "a single group has nothing to be kept from")
    if n <= dim + 1:
        return _proven(0.5 * (1.0 - 1.0 / (n - 1)), "simplex")
    if dim == 1:
        return _proven(1.0, "a line has only two directions")
    if n <= 2 * dim:
        return _proven(0.5, "antipodes on the axes (Rankin)")
    if dim == 2:
        return _proven(0.5 * (1.0 + math.cos(2.0 * math.pi / n)), "regular polygon")
    if dim == 3 and n in _TAMMES_DEGREES:
        margin = 0.5 * (1.0 + math.cos(math.radians(_TAMMES_DEGREES[n])))
        if n <= _TAMMES_PROVEN:
            return _proven(margin, "table (Tammes)")
        return FeasibleMargin(margin, False, _lower_bound(n, dim), "best known")
    searched = min(dim, _MOST_WORK // n**2) if n <= _MOST_SEARCHED else 0
    margin, reason = 0.5 * (1.0 + math.sqrt(1.0 - _cap(n, dim))), "greedy packing"
    if searched >= 3:
        found = 0.5 * (1.0 + least_largest_cosine(n, searched))
        if searched == dim or found < margin:
            margin, reason = found, "numerical search"
    return FeasibleMargin(margin, False, _lower_bound(n, dim), reason)


def feasible_margin_table(
    *, dims: Sequence[int] = (2, 3, 4, 8), counts: Sequence[int] = tuple(range(2, 13))
) -> MarginTable:
    """Smallest feasible margins for several dimensions and numbers of groups.

    Args:
        dims: dimensions of the embedding.
        counts: numbers of groups, background included.

    Returns:
        A :class:`MarginTable`.

    Raises:
        InputError: an entry is no int of at least 1.

    >>> table = feasible_margin_table(dims=(2, 3), counts=(2, 3, 4))
    >>> table.margin.round(3).tolist()
    [[0.0, 0.25, 0.5], [0.0, 0.25, 0.333]]
    """
    cells = [[margin_for(n, dim) for n in counts] for dim in dims]
    size = (len(dims), len(counts))
    return MarginTable(
        dims=np.asarray(dims, dtype=np.int64),
        counts=np.asarray(counts, dtype=np.int64),
        margin=np.array([[c.margin for c in row] for row in cells]).reshape(size),
        exact=np.array([[c.exact for c in row] for row in cells], bool).reshape(size),
    )


def min_dimension(n: int, margin: float) -> int:
    """Smallest dimension in which n groups can have zero loss at a margin.

    Where :func:`margin_for` searches numerically, or has a bound, the true smallest
    dimension may be lower still; the one returned is always enough. At margins up to .5
    it is exact.

    Args:
        n: number of groups, background included; at least 1.
        margin: alpha in [0, 1].

    Returns:
        The dimension.

    Raises:
        InputError: no dimension will do, because even a simplex is too close, or an
            argument is out of range.

    >>> min_dimension(10, 0.5), min_dimension(128, 0.5)
    (5, 64)
    """
    check_count("n", n, at_least=1)
    check_number("margin", margin, at_least=0, at_most=1)
    least = margin_for(n, n).margin
    if margin < least - _ROUNDING:
        raise InputError(
            f"margin must be at least {least:.4f} for {n} groups in any dimension, "
            f"got {margin}: raise it, or expect fewer groups"
        )
    low, high = 1, max(n - 1, 1)
    while low < high:
        middle = (low + high) // 2
        # Bounds spare a search wherever they already decide. More than 2 D points
        # cannot all be at right angles or more (Rankin).
        obtuse = n > 2 * middle and margin <= 0.5
        hopeless = obtuse or _lower_bound(n, middle) > margin + _ROUNDING
        if not hopeless and margin_for(n, middle).margin <= margin + _ROUNDING:
            high = middle
        else:
            low = middle + 1
    return low


def _proven(margin: float, reason: str) -> FeasibleMargin:
    return FeasibleMargin(margin, True, margin, reason)


def _lower_bound(n: int, dim: int) -> float:
    """A margin below which zero loss is impossible."""
    if dim == 3 and n >= 3:
        return max(fejes_toth_margin(n), necessary_margin(n))
    if n > 2 * dim:
        obtuse = math.nextafter(0.5, 1.0)
        return max(obtuse, 1.0 - _cap(n, dim)) if dim > 1 else obtuse
    return 0.5 * (1.0 - 1.0 / max(n - 1, 1))


def _cap(n: int, dim: int) -> float:
    """The squared sine of the angle of a cap of one n-th of the sphere, n > 2."""
    return float(betaincinv(0.5 * (dim - 1), 0.5, 2.0 / n))
