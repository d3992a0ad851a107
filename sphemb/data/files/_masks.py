"""Instances from mask files: what the stored numbers mean, and what is doubtful.

H W image size.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage

from sphemb._checks import InputError, check_choice, check_count
from sphemb._labels import VOID
from sphemb.data.files._findings import FileError, Finding, PathLike
from sphemb.data.files._mask_files import Stored, read_stored
from sphemb.data.files._palettes import Colour
from sphemb.data.files._soft_edges import soft_pieces

MASKS = ("instances", "components", "single", "classes")
_PALETTE_VOID = 255
_VOC_BORDER = 65536 * 224 + 256 * 224 + 192
_HIGHEST = np.iinfo(np.int32).max
_WHITE = (255, 2**16 - 1)
_TABLE = 2**20  # larger values are sorted rather than counted
_FEWEST_PIXELS = 4  # for each label, on average
_GROUND = 0.5  # of the border of the image
_PHOTO_LABELS, _PHOTO_CHANGES = 32, 0.5


class Mask(NamedTuple):
    """A mask file, read.

    Attributes:
        instances: int32 [H, W], -1 void, 0 background, 1, 2, .. instances.
        kind: what it was read from: ``"labels"``, ``"palette"``, ``"colours"`` or
            ``"annotations"``.
        only: the one value beside background and void if there is no other, else None.
        findings: what is doubtful about it.
        semantic: int32 [H, W], -1 void, 0 background, 1, 2, .. classes, if it holds
            classes.
        colours: index -> colour of the palette of a file of classes, if it has one.
    """

    instances: np.ndarray
    kind: str
    only: int | None = None
    findings: tuple[Finding, ...] = ()
    semantic: np.ndarray | None = None
    colours: Mapping[int, Colour] | None = None

    @property
    def classes(self) -> list[int]:
        """The classes that it has, the background among them."""
        found = np.unique(() if self.semantic is None else self.semantic)
        return found[found != VOID].tolist()


def read_mask(
    path: PathLike, *, masks: str = "instances", void: int | None = None
) -> np.ndarray:
    """Reads the instances of a mask file.

    Grey PNG and TIFF hold ids, palette PNG holds indices, and in a colour image every
    colour is an instance. Void are: 255 in a palette file, as in PASCAL VOC; -1; VOC's
    border colour (224, 224, 192), where a palette file was saved as colours. Background
    is 0 or black. The instances are numbered 1, 2, .. in the order of their values.

    Args:
        path: the file.
        masks: what a value stands for: ``"instances"``, each an instance;
            ``"components"``, every connected part (corners connect) of one value is an
            instance; ``"single"``, all that is not background is one instance;
            ``"classes"``, a class, whose connected parts are the instances.
        void: the value, in grey and palette files, of pixels that count for nothing.

    Returns:
        int32 [H, W], -1 void, 0 background, 1, 2, .. instances.

    Raises:
        FileError: the file is missing or damaged, or does not hold ids.
        InputError: an unknown setting.
    """
    return inspect_mask(path, masks=masks, void=void).instances


def inspect_mask(
    path: PathLike,
    *,
    masks: str = "instances",
    void: int | None = None,
    soft: bool = False,
) -> Mask:
    """Reads a mask file together with what is doubtful; see `read_mask`.

    Args:
        path: the file.
        masks: see `read_mask`.
        void: see `read_mask`.
        soft: take a mask with soft edges, as those may be that were predicted.

    Returns:
        The mask.

    Raises:
        FileError: the file is missing or damaged, or does not hold ids.
        InputError: an unknown setting.
    """
    check_mask_settings(masks, void)
    path = pathlib.Path(path)
    stored = read_stored(path)
    low, high = (int(end(stored.values, initial=0)) for end in (np.min, np.max))
    if low < VOID or high > _HIGHEST:
        raise FileError(
            f"mask {path} must have values from -1 (void) to {_HIGHEST}, got {low} to "
            f"{high}",
            kind="not ids",
        )
    values = stored.values.astype(np.int32)
    is_void = _void_pixels(stored.kind, values, void)
    numbered, found = number_in_order(np.where(is_void, 0, values))
    if masks == "single":
        instances = np.minimum(numbered, 1)
    else:
        _check_labels(path, numbered, len(found))
        if not soft:
            shown = _as_shown(np.where(is_void, 0, values), stored)
            check_edges(f"mask {path}", numbered, shown)
        whole = masks == "instances"
        instances = numbered if whole else _split_parts(numbered)
    if masks == "classes" and stored.kind == "colours":
        raise FileError(
            f"mask {path} must hold the numbers of classes, in grey or as a palette, "
            "but holds colours",
            kind="not ids",
        )
    findings = []
    if masks == "instances":
        findings += _doubt_values(path, stored, found, numbered)
    if masks != "single":
        findings += _doubt_void(path, stored, found, masks, void)
    if masks != "classes":
        findings += _doubt_ground(path, stored, numbered, found, is_void)
    if stored.palette is not None and stored.palette[:1].any():
        ground = tuple(stored.palette[0].tolist())
        findings.append(
            Finding(
                "warning",
                "palette",
                f"mask {path} shows index 0 of its palette as {ground}, not black, but "
                "0 is read as background",
            )
        )
    instances = np.where(is_void, VOID, instances).astype(np.int32)
    only = int(found[0]) if len(found) == 1 else None
    semantic = colours = None
    if masks == "classes":
        semantic = np.where(is_void, VOID, values)
        if stored.palette is not None:
            colours = dict(enumerate(map(tuple, stored.palette.tolist())))
    return Mask(instances, stored.kind, only, tuple(findings), semantic, colours)


def check_mask_settings(masks: str, void: int | None) -> None:
    """Complains about settings of `read_mask`."""
    check_choice("masks", masks, MASKS)
    if void is not None:
        check_count("void", void)
        if void == 0:
            raise InputError("void must be an id that is not 0, the background")


def number_in_order(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the values that are not 0 by 1, 2, .. in their order.

    Args:
        values: int [H, W], none below 0.

    Returns:
        int32 [H, W], and the values, ascending, that 1, 2, .. stand for.
    """
    if values.size == 0 or values.max() < _TABLE:
        seen = np.bincount(values.ravel(), minlength=1) > 0
        seen[0] = False
        return (np.cumsum(seen) * seen).astype(np.int32)[values], np.flatnonzero(seen)
    found, numbers = np.unique(values, return_inverse=True)
    without_zero = int(found[0] != 0)
    numbers = numbers.reshape(values.shape) + without_zero
    return numbers.astype(np.int32), found[1 - without_zero :]


def _void_pixels(kind: str, values: np.ndarray, void: int | None) -> np.ndarray:
    if kind == "colours":
        return values == _VOC_BORDER
    if kind == "palette" and void is None:
        void = _PALETTE_VOID
    is_void = values == VOID
    return is_void if void is None else is_void | (values == void)


def _check_labels(path: pathlib.Path, numbered: np.ndarray, number: int) -> None:
    """Refuses a photograph in the place of a label image."""
    height, width = numbered.shape
    if number * _FEWEST_PIXELS > max(numbered.size, _FEWEST_PIXELS):
        raise FileError(
            f"mask {path} must hold ids, but has {number} different values on "
            f"{height} x {width} pixels: is it a photograph?",
            kind="too many labels",
        )
    if number < _PHOTO_LABELS:
        return
    left, right = numbered[:, :-1], numbered[:, 1:]
    inside = (left > 0) & (right > 0)
    changes = float(np.mean(left[inside] != right[inside])) if inside.any() else 0.0
    if changes > _PHOTO_CHANGES:
        raise FileError(
            f"mask {path} must hold ids, but {changes:.0%} of its neighbouring pixels "
            f"differ and it has {number} values: is it a photograph?",
            kind="too many labels",
        )


def _as_shown(values: np.ndarray, stored: Stored) -> np.ndarray:
    """The values as colours [H, W, 3], or as one channel of grey [H, W, 1]."""
    palette = stored.palette
    if stored.kind == "colours":
        return np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1)
    if palette is not None and values.max(initial=0) < len(palette):
        return palette[values].astype(np.int32)
    return values[..., None]


def check_edges(who: str, numbered: np.ndarray, shown: np.ndarray) -> None:
    """Refuses a mask whose edges have values of their own; see `soft_pieces`."""
    pieces = soft_pieces(numbered, shown)
    if pieces:
        raise FileError(
            f"{who} must have hard edges, but {pieces} pieces of few pixels lie "
            "along edges, with values between those of their neighbors, and each "
            "value counts: was it drawn with smooth edges, resized with interpolation, "
            "or saved as JPEG before?",
            kind="soft edges",
        )


def _split_parts(numbered: np.ndarray) -> np.ndarray:
    """Gives every connected part of every number a number of its own."""
    parts = np.zeros_like(numbered)
    total = 0
    for k, window in enumerate(scipy.ndimage.find_objects(numbered), start=1):
        labels, number = scipy.ndimage.label(numbered[window] == k, np.ones((3, 3)))
        parts[window] += np.where(labels > 0, labels + total, 0).astype(np.int32)
        total += number
    return parts


def _doubt_values(
    path: pathlib.Path,
    stored: Stored,
    found: np.ndarray,
    numbered: np.ndarray,
) -> list[Finding]:
    if len(found) == 1:
        white = stored.kind == "labels" and found[0] in _WHITE
        if not white and scipy.ndimage.label(numbered, np.ones((3, 3)))[1] < 2:
            return []  # one connected object can be nothing but one instance
        value = _colour(found[0]) if stored.kind == "colours" else found[0]
        return [
            Finding(
                "warning",
                "0/255" if white else "binary",
                f"mask {path} holds one value beside the background, {value}: "
                "all of it is one instance",
            )
        ]
    return []


def _doubt_void(
    path: pathlib.Path,
    stored: Stored,
    found: np.ndarray,
    masks: str,
    void: int | None,
) -> list[Finding]:
    values = set(found.tolist()) if len(found) > 1 else set()
    byte = stored.kind == "labels" and stored.values.dtype == np.uint8
    if byte and void is None and 255 in values and 254 not in values:
        kind = "a class" if masks == "classes" else "an instance"
        return [
            Finding(
                "warning",
                "void",
                f"mask {path} holds 255 beside other values, and it counts as {kind}: "
                "if it means void, give void=255",
            )
        ]
    return []


def _doubt_ground(
    path: pathlib.Path,
    stored: Stored,
    numbered: np.ndarray,
    found: np.ndarray,
    is_void: np.ndarray,
) -> list[Finding]:
    """Doubts an instance around all others: a white ground, or one without black."""
    sides = [numbered[0], numbered[-1], numbered[:, 0], numbered[:, -1]]
    border = np.concatenate(sides)
    number = int(np.bincount(border).argmax()) if border.size else 0
    around = number and np.mean(border == number) > _GROUND
    if not around or not all((side == number).any() for side in sides):
        return []
    value: Any = int(found[number - 1])
    if stored.kind == "colours":
        value = _colour(value)
    white = value == (255, 255, 255) or (stored.kind == "labels" and value in _WHITE)
    if not white and ((numbered == 0) & ~is_void).any():
        return []
    if len(found) == 1 and not white:
        return []  # an object that fills its image
    return [
        Finding(
            "warning",
            "ground",
            f"mask {path} has {value} on {np.mean(border == number):.0%} of its "
            "border, which counts as an instance: background must be 0 or black",
        )
    ]


def _colour(packed: int) -> tuple[int, int, int]:
    red, rest = divmod(int(packed), 65536)
    return red, *divmod(rest, 256)
