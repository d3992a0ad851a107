"""Masks that were drawn, resized or compressed with intermediate values at edges.

Each intermediate value would be an instance. H W image size, C channels.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_FEWEST = 6  # thin pieces; fewer may be chance
_LEAST_AREA = 0.005  # of the foreground, in thin pieces
_CROWD, _SMALL = 4, 2.5  # thin pieces that touch each other, of few pixels each
_BROKEN = 1.5  # pieces of a value
# Share of the pieces that are thin, times the share of their pixels that lie between
# others. 788 masks of nuclei, photographs and facades, and the same reduced 2, 4 and 8
# times, reach at most .04, .25 and .54; of 859 masks with soft edges 829 are above .65,
# and the others have few pieces.
_MOST = 0.65
_SQUARE = np.ones((3, 3))


def soft_pieces(numbered: np.ndarray, shown: np.ndarray) -> int:
    """Counts the pieces of a mask that exist because its edges are soft.

    A piece is a connected part of one value. It is thin if none of its pixels has four
    neighbors of the piece. Thin pieces come from soft edges if they are most of all
    pieces, and if their values lie strictly between those of their neighbors in other
    pieces, or if several of them touch each other.

    Args:
        numbered: int [H, W], the values by number, 0 for the background.
        shown: [H, W, C] the values: colours, or one channel of grey.

    Returns:
        The number of such pieces; 0 if the edges are hard.

    >>> hard = np.pad(np.full((9, 9), 9), 9)
    >>> soft = np.round(scipy.ndimage.gaussian_filter(20.0 * hard, 1)).astype(int)
    >>> [soft_pieces(mask, mask[..., None]) > 9 for mask in (hard, soft)]
    [False, True]
    """
    thin_at = _uncovered(numbered)
    foreground = int(np.count_nonzero(numbered))
    fewest = max(_FEWEST, _LEAST_AREA * foreground)
    # Few masks with hard edges come to what follows, which takes longer.
    if np.count_nonzero(thin_at) < fewest / 2 or (
        np.count_nonzero(_between(shown, thin_at)) < fewest / 2
    ):
        return 0
    pieces = _pieces(numbered)
    thin = np.ones(int(pieces.max()) + 1, bool)
    thin[pieces[~thin_at]] = thin[0] = False
    thin_at = thin[pieces]
    number = int(np.count_nonzero(thin))
    if number < _FEWEST or np.count_nonzero(thin_at) < _LEAST_AREA * foreground:
        return 0
    crowds, _ = scipy.ndimage.label(thin_at, _SQUARE)
    crowd_of = np.zeros(len(thin), np.int64)
    crowd_of[pieces[thin_at]] = crowds[thin_at]
    counts, areas = np.bincount(crowd_of), np.bincount(crowds.ravel())
    # Objects that are this small and touch each other are of one piece each.
    broken = len(thin) - 1 > _BROKEN * int(numbered.max())
    ragged = (broken | (areas <= _SMALL * counts))[crowds[thin_at]]
    in_crowd = (counts >= _CROWD)[crowds[thin_at]]
    slope = in_crowd & (ragged | _between(shown, thin_at))
    doubtful = np.mean(slope | _between(shown, thin_at, solid=~thin_at))
    share = number / (len(thin) - 1)
    return number if share * doubtful > _MOST else 0


def _uncovered(numbered: np.ndarray) -> np.ndarray:
    """Foreground pixels that no cross of five pixels of one value covers."""
    middle = numbered[1:-1, 1:-1]
    inside = np.zeros(numbered.shape, bool)
    inside[1:-1, 1:-1] = (
        (middle == numbered[:-2, 1:-1])
        & (middle == numbered[2:, 1:-1])
        & (middle == numbered[1:-1, :-2])
        & (middle == numbered[1:-1, 2:])
    )
    covered = inside.copy()
    covered[1:] |= inside[:-1]
    covered[:-1] |= inside[1:]
    covered[:, 1:] |= inside[:, :-1]
    covered[:, :-1] |= inside[:, 1:]
    return (numbered > 0) & ~covered


def _between(
    shown: np.ndarray, at: np.ndarray, *, solid: np.ndarray | None = None
) -> np.ndarray:
    """Whether pixels lie between their neighbors, or between those that are solid.

    Returns:
        bool [N], for the pixels where ``at`` is True: no channel is beyond the others,
        and one is strictly between them.
    """
    rows, columns = np.nonzero(at)
    values = np.pad(shown.astype(np.int64), ((1, 1), (1, 1), (0, 0)), "edge")
    counts = np.pad(np.ones_like(at) if solid is None else solid, 1, "edge")
    here = shown[rows, columns]
    low = np.full(here.shape, np.iinfo(np.int64).max)
    high = -low
    for i in range(3):
        for j in range(3):
            if (i, j) != (1, 1):
                other = values[rows + i, columns + j]
                there = counts[rows + i, columns + j, None]
                low = np.where(there, np.minimum(low, other), low)
                high = np.where(there, np.maximum(high, other), high)
    inside = np.all((here >= low) & (here <= high), axis=-1)
    return np.logical_and(inside, np.any((here > low) & (here < high), axis=-1))


def _pieces(numbered: np.ndarray) -> np.ndarray:
    """Numbers the connected parts of each value from 1 on; corners connect."""
    places = np.arange(numbered.size).reshape(numbered.shape)
    ends = []
    for one, other in (
        ((slice(1, None),), (slice(-1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(-1))),
        ((slice(1, None), slice(1, None)), (slice(-1), slice(-1))),
        ((slice(1, None), slice(-1)), (slice(-1), slice(1, None))),
    ):
        same = (numbered[one] == numbered[other]) & (numbered[one] > 0)
        ends.append((places[one][same], places[other][same]))
    rows, columns = (np.concatenate(end) for end in zip(*ends, strict=True))
    pairs = coo_array(
        (np.ones(len(rows), bool), (rows, columns)), shape=(numbered.size,) * 2
    )
    _, found = connected_components(pairs, directed=False)
    foreground = numbered > 0
    pieces = np.zeros(numbered.shape, np.int64)
    inside = found.reshape(numbered.shape)[foreground]
    pieces[foreground] = np.unique(inside, return_inverse=True)[1] + 1
    return pieces
