r"""Which margins allow zero loss: how far apart n groups can be in D dimensions.

Zero loss needs all pixels of a group on one point, and all pairs of the n points at a
calibrated similarity (1 + cos) / 2 of at most the margin. The smallest such margin
:math:`s^*(n, D)` is Tammes' problem; n includes the background.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import betaincinv

from sphemb._checks import (
    InputError,
    check_count,
    check_floating,
    check_number,
    check_shape,
)

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
# The search compares all pairs of points about 1000 times: a second at these sizes.
_MOST_SEARCHED = 128
_MOST_WORK = 2**17  # n^2 D
_ROUNDING = 1e-9  # of the table, so that its own margins count as feasible
_ROUNDS = 40  # values of beta in the search
_DESCENTS = 60  # steps at each of them
_MOMENTUM = 0.8
_STEP = 0.3  # times 1/beta, the scale of the soft maximum's curvature
_LAST_BETA = 1e6
_WORK = 2**14  # similarities held at once; many points get fewer runs


class FeasibleMargin(NamedTuple):
    """Smallest margin that allows zero loss, see :func:`margin_for`."""

    margin: float  # similarity of the closest pair of the best arrangement
    exact: bool  # True if proven; False if a smaller margin may be possible
    lower_bound: float  # a margin that is proven to be necessary
    reason: str  # the source of the number, in a few words


class MarginTable(NamedTuple):
    """Margins by dimension and number of groups, see :func:`feasible_margin_table`."""

    dims: np.ndarray  # [K] dimensions of the embedding, one per row
    counts: np.ndarray  # [C] numbers of groups, one per column
    margin: np.ndarray  # [K, C] smallest feasible margins
    exact: np.ndarray  # [K, C] True where proven


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

    A margin of .5 thus serves up to 2 D groups: 128 in the 64 dimensions of the paper,
    but only 6 in 3 dimensions. The search is limited to 128 groups and :math:`n^2 D \le
    2^{17}`. Beyond, the margin is the smaller of a search in fewer dimensions and of
    greedy packing: caps of the angle :math:`\theta` between two points cover the sphere
    when no further point fits, so n points fit where a cap is one n-th of the sphere,

    .. math:: \tfrac12 I_{\sin^2 \theta}\left(\tfrac{D - 1}{2}, \tfrac12\right)
              = \frac1n.

    Disjoint caps of :math:`\theta / 2` give a lower bound in the same way. Both
    arguments are ints of at least 1; n includes the background.

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
        return _proven(0.0, "a single group has no other group to avoid")
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
    """Results of :func:`margin_for` for several dimensions and numbers of groups.

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

    It is exact at margins up to .5. Where :func:`margin_for` has a search or a bound,
    the true dimension may be smaller; the returned one is always enough. A margin in
    [0, 1] that not even a simplex has is refused; n includes the background.

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
        # Bounds avoid a search where they decide. More than 2 D points cannot all be at
        # right angles or more (Rankin).
        obtuse = n > 2 * middle and margin <= 0.5
        hopeless = obtuse or _lower_bound(n, middle) > margin + _ROUNDING
        if not hopeless and margin_for(n, middle).margin <= margin + _ROUNDING:
            high = middle
        else:
            low = middle + 1
    return low


def total_similarity(embeddings: jax.Array) -> jax.Array:
    r"""Sum of the inner products of all pairs of different points, in linear time.

    .. math:: \sum_{i \ne j} x_i^\top x_j
              = \Bigl\lVert \sum_i x_i \Bigr\rVert^2 - \sum_i \lVert x_i \rVert^2

    Vectors are [..., N, D] of any length, sums are [...].

    >>> float(total_similarity(jnp.array([[1.0, 0.0], [-1.0, 0.0]])))
    -2.0
    """
    bound = total_similarity_bound(embeddings)
    return jnp.sum(jnp.square(jnp.sum(embeddings, axis=-2)), axis=-1) + bound


def total_similarity_bound(embeddings: jax.Array) -> jax.Array:
    r"""Smallest total similarity of vectors of these lengths, [...].

    .. math:: \sum_{i \ne j} x_i^\top x_j \ge -\sum_i \lVert x_i \rVert^2

    It is -N on the sphere in every dimension, and reached where the vectors sum to
    zero. Hence the weights of the loss: with one over its number of pixels, an instance
    counts as one vector. Vectors are as in :func:`total_similarity`.

    References:
        Kong & Fowlkes, CVPR 2018, Proposition 1.

    >>> float(total_similarity_bound(jnp.eye(3)))
    -3.0
    """
    check_shape("embeddings", embeddings, "... N D")
    check_floating("embeddings", embeddings)
    return -jnp.sum(jnp.square(embeddings), axis=(-2, -1))


def necessary_margin(n: int) -> float:
    r"""The paper's lower bound on the margin of n >= 3 points in three dimensions.

    .. math:: \max\left(0, 1 - \frac{2 \pi}{\sqrt 3 \, n}\right)

    The paper uses the values for 4 to 7 points as margins; they are necessary but not
    sufficient: four points need one third. Choose a margin by :func:`margin_for`.

    References:
        Kong & Fowlkes, CVPR 2018, Proposition 2.

    >>> [round(necessary_margin(n), 3) for n in (4, 5, 6, 7)]
    [0.093, 0.274, 0.395, 0.482]
    """
    check_count("n", n, at_least=3)
    return max(0.0, 1.0 - 2.0 * math.pi / (math.sqrt(3.0) * n))


def fejes_toth_margin(n: int) -> float:
    r"""Fejes Toth's lower bound on the margin of n >= 3 points in three dimensions.

    .. math:: \frac{1}{4 \sin^2 \omega}, \qquad \omega = \frac{\pi n}{6 (n - 2)}

    It is sharper than :func:`necessary_margin`, and reached by 3, 4, 6 and 12 points.

    References:
        L. Fejes Toth, Jahresber. Deutsche Math.-Verein. 53, 1943.

    >>> [round(fejes_toth_margin(n), 4) for n in (3, 4, 6, 12)]
    [0.25, 0.3333, 0.5, 0.7236]
    """
    check_count("n", n, at_least=3)
    return 0.25 / math.sin(math.pi * n / (6.0 * (n - 2))) ** 2


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
    """Squared sine of the angle of a cap of one n-th of the sphere, n > 2."""
    return float(betaincinv(0.5 * (dim - 1), 0.5, 2.0 / n))


@functools.lru_cache(maxsize=256)
def least_largest_cosine(n: int, dim: int) -> float:
    """Searches n points in D dimensions for the smallest largest cosine."""
    runs = int(np.clip(_WORK // (n * n), 2, 32))
    rng = np.random.default_rng(0)
    points = _unit(rng.standard_normal((runs, n, dim)))
    first_beta = np.geomspace(1.0, 300.0, runs)[:, None, None]
    for cooled in np.linspace(0.0, 1.0, _ROUNDS):
        beta = first_beta ** (1.0 - cooled) * _LAST_BETA**cooled
        velocity = np.zeros_like(points)
        for _ in range(_DESCENTS):
            velocity = _MOMENTUM * velocity - (_STEP / beta) * _slope(points, beta)
            points = _unit(points + velocity)
    return float(_cosines(points).max(axis=(-2, -1)).min())


def _slope(points: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Direction on the sphere in which each point's soft largest cosine grows."""
    cosines = _cosines(points)
    above = beta * (cosines - cosines.max(axis=(-2, -1), keepdims=True))
    # Clipped because exp is slow where its result is a denormal number.
    weights = np.exp(np.maximum(above, -60.0))
    busiest = weights.sum(axis=-1, keepdims=True).max(axis=-2, keepdims=True)
    pull = (weights @ points) / busiest
    return pull - (pull * points).sum(axis=-1, keepdims=True) * points


def _cosines(points: np.ndarray) -> np.ndarray:
    cosines = points @ points.swapaxes(-1, -2)
    own = np.arange(points.shape[-2])
    cosines[..., own, own] = -2.0
    return cosines


def _unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=-1, keepdims=True)
