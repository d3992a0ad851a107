r"""Joins label maps of tiles: H W image, h w a tile's map, N pieces, M instances."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sphemb._checks import (
    InputError,
    check_count,
    check_integer,
    check_number,
    check_shape,
)

_ROWS = 512  # of a label map that are processed at once


class Piece(NamedTuple):
    """The label map of a tile."""

    # int [h, w], 0 for the background and void, 1, 2, .. its instances.
    labels: np.ndarray
    corner: tuple[int, int]  # row and column of its upper left pixel in the image
    # (top, left, bottom, right) in the image, ends exclusive: what the result takes of
    # this piece. Cores cover the image and do not overlap.
    core: tuple[int, int, int, int]


class Stitched(NamedTuple):
    """One label map."""

    # int32 [H, W], 0 for the background, 1..M the instances by falling size, equally
    # large ones in the order of their first pixels.
    labels: np.ndarray
    # int [N + 1]: the instance of each label of each piece, counted one piece after
    # another; 0 for none, with no pixel in the core or too small. ``names[0]`` is 0.
    names: np.ndarray
    sizes: np.ndarray  # int [M + 1], pixels of the background and of every instance


def stitch_labels(
    pieces: Iterable[Piece],
    size: tuple[int, int],
    *,
    band: int,
    min_share: float = 0.5,
    min_size: int = 1,
    kinds: list[np.ndarray] | None = None,
) -> Stitched:
    r"""Joins the label maps of tiles, and the instances that seams have cut.

    Let :math:`a` be an instance of one of two neighbors and :math:`b` one of the other,
    restricted to the band of so many pixels on both sides of their seam. They are one
    instance if

    .. math:: |a \cap b| > 0 \quad\text{and}\quad
        |a \cap b| \ge \text{min\_share} \cdot \min(|a|, |b|),

    and so is every set that such pairs connect: an object may cross any number of
    seams. A tile may contain only the end of an object, hence the smaller size.

    If the pieces are the connected components of one foreground, each of its core and a
    pixel around it, ``min_share=0`` and a band of 1 give exactly the components of the
    whole foreground.

    Args:
        pieces: line by line, as `sphemb.data.tile_image` gives the tiles.
        size: (H, W).
        band: pixels on each side of a seam that are compared.
        min_share: the least share, see above; at 0 one common pixel is enough.
        min_size: pixels that an instance needs, counted after joining; smaller ones
            become background.
        kinds: the class of each label of each piece, from the background's on; only
            instances of one class are joined. The list may grow with ``pieces``.

    References:
        Akyon et al., SAHI, ICIP 2022: the overlap over the smaller region.

    >>> left = Piece(np.array([[1, 1, 1, 0]]), (0, 0), (0, 0, 1, 3))
    >>> right = Piece(np.array([[1, 1, 0, 2]]), (0, 2), (0, 3, 1, 6))
    >>> stitch_labels([left, right], (1, 6), band=1, min_share=0.0).labels.tolist()
    [[1, 1, 1, 1, 0, 2]]
    """
    check_count("band", band, at_least=1)
    check_number("min_share", min_share, at_least=0, at_most=1)
    check_count("min_size", min_size, at_least=1)
    canvas = np.zeros(size, np.int32)
    pairs: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
    open_pieces: list[tuple[Piece, int, int]] = []  # with their first label and index
    number = 0
    for index, piece in enumerate(pieces):
        _check_piece(piece, size)
        top, left, bottom, right = piece.core
        below = piece.labels[_within(piece, piece.core)]
        canvas[top:bottom, left:right] = np.where(below > 0, below + number, 0)
        # Cores come line by line: a piece that ends above has met all its neighbors.
        open_pieces = [p for p in open_pieces if p[0].core[2] + band > top]
        for other, first, earlier in open_pieces:
            found = _joined(other, piece, band, min_share)
            if kinds is not None and len(found):
                alike = kinds[earlier][found[:, 0]] == kinds[index][found[:, 1]]
                found = found[alike]
            pairs.append(found + np.array([first, number]))
        open_pieces.append((piece, number, index))
        number += int(piece.labels.max(initial=0))
    return _numbered(canvas, np.concatenate(pairs), number, min_size)


def _check_piece(piece: Piece, size: tuple[int, int]) -> None:
    check_integer("piece.labels", piece.labels)
    check_shape("piece.labels", piece.labels, "h w")
    if piece.labels.min(initial=0) < 0:
        raise InputError(
            f"piece.labels must be 0 or more, got {piece.labels.min()}: void is 0 here"
        )
    top, left, bottom, right = piece.core
    high, wide = np.add(piece.corner, piece.labels.shape)
    fits = max(0, piece.corner[0]) <= top < bottom <= min(size[0], high)
    if not fits or not max(0, piece.corner[1]) <= left < right <= min(size[1], wide):
        raise InputError(
            f"piece.core must lie in the piece and in the image of size {size}, got "
            f"{piece.core} for labels {piece.labels.shape} at {piece.corner}"
        )


def _within(piece: Piece, box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    """The slices of a piece that are a box of the image."""
    top, left = piece.corner
    return slice(box[0] - top, box[2] - top), slice(box[1] - left, box[3] - left)


def _banded(piece: Piece, band: int) -> np.ndarray:
    """The core and the band around it, within the piece."""
    ends = np.add(piece.corner, piece.labels.shape)
    corners = np.add(piece.core, (-band, -band, band, band))
    return np.clip(corners, np.tile(piece.corner, 2), np.tile(ends, 2))


def _joined(one: Piece, two: Piece, band: int, min_share: float) -> np.ndarray:
    """Pairs [P, 2] of labels of two pieces that are one instance."""
    first, second = _banded(one, band), _banded(two, band)
    starts, ends = np.maximum(first, second)[:2], np.minimum(first, second)[2:]
    box = (*starts, *ends)
    if box[0] >= box[2] or box[1] >= box[3]:
        return np.zeros((0, 2), np.int64)
    a = one.labels[_within(one, box)].ravel().astype(np.int64)
    b = two.labels[_within(two, box)].ravel().astype(np.int64)
    width = int(b.max(initial=0)) + 1
    both = (a > 0) & (b > 0)
    cells, overlaps = np.unique(a[both] * width + b[both], return_counts=True)
    found = np.stack(np.divmod(cells, width), axis=1)
    sizes = np.minimum(np.bincount(a)[found[:, 0]], np.bincount(b)[found[:, 1]])
    return found[overlaps >= min_share * sizes]


def _numbered(canvas, pairs, number: int, min_size: int) -> Stitched:
    """Joins the pairs, orders the instances, and renumbers the map in place."""
    index, shape = (pairs[:, 0], pairs[:, 1]), (number + 1, number + 1)
    links = coo_array((np.ones(len(pairs), bool), index), shape=shape)
    joined: Any = connected_components(links, directed=False)[1]
    groups = int(joined.max()) + 1
    sizes = np.zeros(groups, np.int64)
    starts = np.full(groups, canvas.size, np.int64)
    for first in range(0, len(canvas), _ROWS):
        rows = joined[canvas[first : first + _ROWS]].ravel()
        present, begins = np.unique(rows, return_index=True)
        sizes += np.bincount(rows, minlength=groups)
        starts[present] = np.minimum(starts[present], begins + first * canvas.shape[1])
    kept = np.flatnonzero((sizes >= min_size) & (np.arange(groups) != joined[0]))
    kept = kept[np.lexsort((starts[kept], -sizes[kept]))]
    order = np.zeros(groups, np.int32)
    order[kept] = np.arange(1, len(kept) + 1)
    names = order[joined]
    for first in range(0, len(canvas), _ROWS):
        canvas[first : first + _ROWS] = names[canvas[first : first + _ROWS]]
    ordered = np.concatenate([[canvas.size - sizes[kept].sum()], sizes[kept]])
    return Stitched(canvas, names, ordered)
