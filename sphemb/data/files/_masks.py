"""Instances from mask files: what the stored numbers mean, and what is doubtful.

H W image size, C channels.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sphemb._checks import VOID, check_choice, check_count
from sphemb.data.files._images import FileError, Finding, PathLike
from sphemb.data.files._mask_files import Color, Stored, read_stored

_MASKS = ("instances", "components", "single", "classes")
_PALETTE_VOID = 255
_VOC_BORDER = 65536 * 224 + 256 * 224 + 192
_HIGHEST = np.iinfo(np.int32).max
_WHITE = (255, 2**16 - 1)
_TABLE = 2**20  # larger values are sorted rather than counted
_BAND = 32  # rows whose values are counted at once
_FEWEST_PIXELS = 4  # for each label, on average
_BORDER = 0.5  # the share of the image's border that makes an instance a background
_PHOTO_LABELS, _PHOTO_CHANGES = 32, 0.5

# Soft edges
_FEWEST = 6  # thin pieces; fewer may be chance
_LEAST_AREA = 0.005  # of the foreground, in thin pieces
_CROWD, _SMALL = 4, 2.5  # thin pieces that touch each other, of few pixels each
_BROKEN = 1.5  # pieces of a value
# Share of the pieces that are thin, times the share of their pixels that lie between
# others: at most .54 of 788 hard masks, also reduced; above .65 of 829 in 859 others.
_MOST = 0.65
_SQUARE = np.ones((3, 3))


class Mask(NamedTuple):
    """A mask file, read; maps have -1 for void and 0 for the background."""

    instances: np.ndarray  # int32 [H, W]
    kind: str  # "labels", "palette", "colors" or "annotations"
    only: int | None = None  # the value of the foreground, if it has one value
    findings: tuple[Finding, ...] = ()  # what is doubtful about it
    semantic: np.ndarray | None = None  # int32 [H, W], the classes, if it holds some
    colors: Mapping[int, Color] | None = None  # of the indices of classes

    @property
    def classes(self) -> list[int]:
        """The classes of its pixels, the background included."""
        found = np.unique(() if self.semantic is None else self.semantic)
        return found[found != VOID].tolist()


def read_mask(
    path: PathLike, *, masks: str = "instances", void: int | None = None
) -> np.ndarray:
    """Reads the instances of a mask file: int32 [H, W], -1 void, 0 background, 1, 2, ..

    Gray PNG and TIFF hold ids, palette PNG holds indices, and in a color image every
    color is an instance. Void are: 255 in a palette file, as in PASCAL VOC; -1; VOC's
    border color (224, 224, 192), where a palette file was saved as colors. Background
    is 0 or black. The instances are numbered in the order of their values.

    Args:
        path: the file; one that is missing, damaged or holds no ids is a `FileError`.
        masks: what a value stands for: ``"instances"``, each an instance;
            ``"components"``, every connected part (corners connect) of one value is an
            instance; ``"single"``, the whole foreground is one instance;
            ``"classes"``, a class, whose connected parts are the instances.
        void: the value, in gray and palette files, of pixels that are ignored.
    """
    return inspect_mask(path, masks=masks, void=void).instances


def inspect_mask(
    path: PathLike,
    *,
    masks: str = "instances",
    void: int | None = None,
    soft: bool = False,
) -> Mask:
    """Reads a mask with what is doubtful about it; ``soft`` accepts soft edges."""
    check_mask_settings(masks, void)
    path = pathlib.Path(path)
    stored = read_stored(path)
    low, high = (int(end(stored.values, initial=0)) for end in (np.min, np.max))
    if low < VOID or high > _HIGHEST:
        text = f"must have values from -1 (void) to {_HIGHEST}, got {low} to {high}"
        raise FileError(f"mask {path} {text}", kind="not ids")
    values = stored.values.astype(np.int32)
    is_void = _void_pixels(stored.kind, values, void)
    known = np.where(is_void, 0, values)
    numbered, found = number_in_order(known)
    if masks == "single":
        instances = np.minimum(numbered, 1)
    else:
        _check_labels(path, numbered, len(found))
        if not soft:
            check_edges(f"mask {path}", numbered, _as_shown(known, stored))
        instances = numbered if masks == "instances" else _split_parts(numbered)
    semantic = colors = None
    if masks == "classes":
        if stored.kind == "colors":
            text = "must hold the numbers of classes, in gray or as a palette"
            raise FileError(f"mask {path} {text}, but holds colors", kind="not ids")
        semantic = np.where(is_void, VOID, values)
        if stored.palette is not None:
            colors = dict(enumerate(map(tuple, stored.palette.tolist())))
    doubts = _doubts(stored, numbered, found, is_void, masks, void)
    return Mask(
        np.where(is_void, VOID, instances).astype(np.int32, copy=False),
        stored.kind,
        int(found[0]) if len(found) == 1 else None,
        tuple(Finding("warning", kind, f"mask {path} {text}") for kind, text in doubts),
        semantic,
        colors,
    )


def check_mask_settings(masks: str, void: int | None) -> None:
    """Checks settings of `read_mask`."""
    check_choice("masks", masks, _MASKS)
    if void is not None:
        check_count("void", void, at_least=1, hint="0 is the background")


def number_in_order(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the values above 0 of int [H, W] by 1, 2, .. in their order.

    Returns int32 [H, W], and the values, ascending, of 1, 2, ..
    """
    if values.size == 0 or values.max() < _TABLE:
        seen = np.zeros(values.max(initial=0) + 1, bool)
        for top in range(0, len(values), _BAND):  # NumPy copies what it counts
            band = values[top : top + _BAND].ravel()
            seen |= np.bincount(band, minlength=len(seen)) > 0
        seen[0] = False
        found = np.flatnonzero(seen)
        if len(found) == len(seen) - 1:  # numbered already
            return values.astype(np.int32), found
        return (np.cumsum(seen) * seen).astype(np.int32)[values], found
    found, numbers = np.unique(values, return_inverse=True)
    without_zero = int(found[0] != 0)
    numbers = numbers.reshape(values.shape) + without_zero
    return numbers.astype(np.int32), found[1 - without_zero :]


def _void_pixels(kind: str, values: np.ndarray, void: int | None) -> np.ndarray:
    if kind == "colors":
        return values == _VOC_BORDER
    if kind == "palette" and void is None:
        void = _PALETTE_VOID
    return (values == VOID) | (values == (VOID if void is None else void))


def _check_labels(path: pathlib.Path, numbered: np.ndarray, number: int) -> None:
    found = ""
    if number * _FEWEST_PIXELS > max(numbered.size, _FEWEST_PIXELS):
        height, width = numbered.shape
        found = f"has {number} different values on {height} x {width} pixels"
    elif number >= _PHOTO_LABELS:
        left, right = numbered[:, :-1], numbered[:, 1:]
        inside = (left > 0) & (right > 0)
        changes = np.mean(left[inside] != right[inside]) if inside.any() else 0.0
        if changes > _PHOTO_CHANGES:
            found = f"has {number} values and {changes:.0%} of neighbors differ"
    if found:
        text = f"mask {path} must hold ids, but {found}: is it a photograph?"
        raise FileError(text, kind="too many labels")


def _as_shown(values: np.ndarray, stored: Stored) -> np.ndarray:
    """The values as colors [H, W, 3], or as one channel of gray [H, W, 1]."""
    palette = stored.palette
    if stored.kind == "colors":
        return np.stack(_unpacked(values), axis=-1)
    if palette is not None and values.max(initial=0) < len(palette):
        return palette[values].astype(np.int32)
    return values[..., None]


def _unpacked(packed: Any) -> tuple[Any, Any, Any]:
    return packed >> 16, packed >> 8 & 255, packed & 255


def _split_parts(numbered: np.ndarray) -> np.ndarray:
    """Gives every connected part of every number a number of its own."""
    parts = np.zeros_like(numbered)
    total = 0
    for k, window in enumerate(scipy.ndimage.find_objects(numbered), start=1):
        labels, number = scipy.ndimage.label(numbered[window] == k, _SQUARE)
        parts[window] += np.where(labels > 0, labels + total, 0).astype(np.int32)
        total += number
    return parts


def _doubts(
    stored: Stored,
    numbered: np.ndarray,
    found: np.ndarray,
    is_void: np.ndarray,
    masks: str,
    void: int | None,
) -> list[tuple[str, str]]:
    doubts = []
    gray = stored.kind == "labels"
    only = int(found[0]) if len(found) == 1 else None

    def shown(value: int) -> Any:
        return _unpacked(value) if stored.kind == "colors" else value

    if masks == "instances" and only is not None:
        white = gray and only in _WHITE
        # One connected object can be nothing but one instance.
        if white or scipy.ndimage.label(numbered, _SQUARE)[1] > 1:
            text = f"holds one value beside the background, {shown(only)}: all of it "
            doubts.append(("0/255" if white else "binary", f"{text}is one instance"))
    among_ids = gray and only is None and 255 in found and 254 not in found
    if among_ids and stored.values.dtype == np.uint8 and masks != "single" and not void:
        kind = "a class" if masks == "classes" else "an instance"
        text = f"holds 255 beside other values, and it counts as {kind}: if it means "
        doubts.append(("void", f"{text}void, give void=255"))
    if masks != "classes":
        number, share = _around(numbered)
        value = shown(int(found[number - 1])) if number else 0
        white = value == (255, 255, 255) or (gray and value in _WHITE)
        # Without white: an object may fill its image, or lie before background.
        filled = only is None and not ((numbered == 0) & ~is_void).any()
        if number and (white or filled):
            text = f"has {value} on {share:.0%} of its border, which counts as an "
            doubts.append(("ground", f"{text}instance: background must be 0 or black"))
    if stored.palette is not None and stored.palette[:1].any():
        ground = tuple(stored.palette[0].tolist())
        text = f"shows index 0 of its palette as {ground}, not black, but 0 is read as "
        doubts.append(("palette", f"{text}background"))
    return doubts


def _around(numbered: np.ndarray) -> tuple[int, float]:
    """The instance on all four sides and most of the border, or 0; and its share."""
    sides = [numbered[0], numbered[-1], numbered[:, 0], numbered[:, -1]]
    border = np.concatenate(sides)
    number = int(np.bincount(border).argmax())
    share = float(np.mean(border == number))
    around = share > _BORDER and all((side == number).any() for side in sides)
    return (number if around else 0), share


def check_edges(who: str, numbered: np.ndarray, shown: np.ndarray) -> None:
    """Refuses a mask whose edges have values of their own; see `soft_pieces`."""
    pieces = soft_pieces(numbered, shown)
    if pieces:
        text = (
            f"must have hard edges, but {pieces} pieces of few pixels lie along edges, "
            "with values between those of their neighbors, and each value counts: was "
            "it drawn with smooth edges, resized with interpolation, or saved as JPEG "
            "before?"
        )
        raise FileError(f"{who} {text}", kind="soft edges")


def soft_pieces(numbered: np.ndarray, shown: np.ndarray) -> int:
    """Counts the pieces of a mask that exist because its edges are soft; 0 if hard.

    A piece is a connected part of one value. It is thin if none of its pixels has four
    neighbors of the piece. Thin pieces come from soft edges if they are most of all
    pieces, and if their values lie strictly between those of their neighbors, or if
    several of them touch each other. Lines of one pixel that cross are broken into thin
    pieces, too; they are long, and do not touch an object. ``numbered`` are the values
    by number, int [H, W], 0 background, ``shown`` the values [H, W, C].
    """
    thin_at = _uncovered(numbered)
    foreground = int(np.count_nonzero(numbered))
    fewest = max(_FEWEST, _LEAST_AREA * foreground)
    # The rest takes longer; few masks with hard edges need it.
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
    broken = np.full(len(areas), len(thin) - 1 > _BROKEN * int(numbered.max()))
    solid = scipy.ndimage.binary_dilation((pieces > 0) & ~thin_at, _SQUARE)
    broken &= np.bincount(crowds[solid], minlength=len(areas)) > 0
    ragged = (broken | (areas <= _SMALL * counts))[crowds[thin_at]]
    in_crowd = (counts >= _CROWD)[crowds[thin_at]]
    slope = in_crowd & (ragged | _between(shown, thin_at))
    doubtful = np.mean(slope | _between(shown, thin_at, solid=~thin_at))
    share = number / (len(thin) - 1)
    return number if share * doubtful > _MOST else 0


def _uncovered(numbered: np.ndarray) -> np.ndarray:
    """Foreground pixels that no cross of five pixels of one value covers."""
    values = numbered.astype(np.min_scalar_type(numbered.max(initial=0)))  # faster
    below, right = values[:-1] == values[1:], values[:, :-1] == values[:, 1:]
    inside = np.zeros(values.shape, bool)
    inside[1:-1, 1:-1] = (below[:-1] & below[1:])[:, 1:-1]
    inside[1:-1, 1:-1] &= (right[:, :-1] & right[:, 1:])[1:-1]
    covered = inside.copy()
    covered[:-1] |= inside[1:]
    covered[1:] |= inside[:-1]
    covered[:, :-1] |= inside[:, 1:]
    covered[:, 1:] |= inside[:, :-1]
    return (values > 0) & ~covered


def _between(
    shown: np.ndarray, at: np.ndarray, *, solid: np.ndarray | None = None
) -> np.ndarray:
    """Whether the pixels ``at`` lie between their neighbors, or between solid ones."""
    rows, columns = np.nonzero(at)
    values = np.pad(shown.astype(np.int64), ((1, 1), (1, 1), (0, 0)), "edge")
    counts = np.pad(np.ones_like(at) if solid is None else solid, 1, "edge")
    here = shown[rows, columns]
    low = np.full(here.shape, np.iinfo(np.int64).max)
    high = -low
    for i, j in np.ndindex(3, 3):
        if (i, j) != (1, 1):
            other = values[rows + i, columns + j]
            valid = counts[rows + i, columns + j, None]
            low = np.where(valid, np.minimum(low, other), low)
            high = np.where(valid, np.maximum(high, other), high)
    inside = np.all((here >= low) & (here <= high), axis=-1)
    return np.logical_and(inside, np.any((here > low) & (here < high), axis=-1))


def _pieces(numbered: np.ndarray) -> np.ndarray:
    """Numbers the connected parts of each value from 1 on; corners connect."""
    places = np.arange(numbered.size).reshape(numbered.shape)
    all_of, first, rest = slice(None), slice(-1), slice(1, None)
    ends = []
    for one, other in (
        ((rest, all_of), (first, all_of)),
        ((all_of, rest), (all_of, first)),
        ((rest, rest), (first, first)),
        ((rest, first), (first, rest)),
    ):
        same = (numbered[one] == numbered[other]) & (numbered[one] > 0)
        ends.append((places[one][same], places[other][same]))
    pairs = tuple(np.concatenate(end) for end in zip(*ends, strict=True))
    graph = coo_array((np.ones(len(pairs[0]), bool), pairs), shape=(numbered.size,) * 2)
    found = connected_components(graph, directed=False)[1].reshape(numbered.shape)
    pieces = np.zeros(numbered.shape, np.int64)
    pieces[numbered > 0] = np.unique(found[numbered > 0], return_inverse=True)[1] + 1
    return pieces
