"""Images and label maps as the bytes that a prepared data set keeps.

Labels go into a PNG of 8 or 16 bits, in which the largest code stands for void.

H W image size.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from PIL import Image

from sphemb._checks import InputError
from sphemb._labels import VOID
from sphemb.data.files._mask_files import as_stored, pixel_encoding
from sphemb.data.files._palettes import PaletteColors
from sphemb.data.files._stored_images import (
    UNREADABLE,
    Header,
    read_header,
    read_values,
)

_VOID_INDEX = 255  # of palettes; its color says nothing
_BROKEN = (*UNREADABLE, Image.DecompressionBombError)


def to_png(array: np.ndarray) -> bytes:
    """Encodes uint8 [H, W] or [H, W, 3], or uint16 [H, W], without loss."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encode_labels(labels: np.ndarray, dtype: Any, *, who: str) -> bytes:
    """Encodes labels as PNG, void as the largest number that the dtype holds.

    Args:
        labels: int [H, W] with -1 for void, 0 for background and 1, 2, ...
        dtype: ``np.uint8`` or ``np.uint16``.
        who: what to call the labels in a complaint.

    Returns:
        The PNG's bytes.

    Raises:
        InputError: a label is too large for the dtype, or negative and not void.

    >>> labels = np.array([[-1, 0], [1, 254]])
    >>> decode_labels(encode_labels(labels, np.uint8, who="labels"), who="labels")
    array([[ -1,   0],
           [  1, 254]], dtype=int32)
    """
    void = np.iinfo(dtype).max
    low, high = labels.min(initial=0), labels.max(initial=0)
    if low < VOID or high >= void:
        raise InputError(
            f"{who} must have labels from -1 to {void - 1}, got {low} to {high}"
        )
    return to_png(np.where(labels == VOID, void, labels).astype(dtype))


def decode_labels(data: bytes, *, who: str) -> np.ndarray:
    """Decodes what `encode_labels` made; int32 [H, W] with -1 for void."""
    codes = _decode(data, who, ("L", "I;16"))
    void = np.iinfo(codes.dtype).max
    labels = codes.astype(np.int32)
    labels[codes == void] = VOID
    return labels


def decode_image(data: bytes, *, who: str) -> np.ndarray:
    """Decodes an image as `read_image` reads it, as uint8 [H, W, 3]."""
    return read_values(data, who=who).shown()


def decode_colors(data: bytes, *, who: str) -> np.ndarray:
    """Decodes a mask whose colors are numbers, as uint8 [H, W, 3]."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except _BROKEN as error:
        raise _unreadable(who, error) from error


def decode_indices(
    data: bytes, *, who: str, palettes: PaletteColors | None = None
) -> np.ndarray:
    """Decodes a mask whose pixels are numbers: a palette's indices, or grey values.

    Args:
        data: the file's bytes.
        who: what to call the mask in a complaint.
        palettes: of the masks before, if the numbers are classes.

    Returns:
        uint8 [H, W].

    Raises:
        InputError: the mask cannot be read, holds colours instead of numbers, or has
            another palette than the masks before.
    """
    indices = _decode(data, who, ("P", "L"))
    if palettes is not None:
        with Image.open(io.BytesIO(data)) as image:
            flat = image.getpalette() if image.mode == "P" else None
        used = np.flatnonzero(np.bincount(indices.ravel())[:_VOID_INDEX])
        colours = np.array(flat or (), int).reshape(-1, 3).tolist()
        palettes.add(
            who.removeprefix("mask "),
            dict(enumerate(map(tuple, colours))),
            used.tolist(),
        )
    return indices


def check_encoded(data: bytes, *, who: str) -> Header:
    """Refuses an image that cannot be decoded to its end.

    What is broken shall be found while a data set is prepared, not in the middle of
    training.

    Args:
        data: the file's bytes.
        who: what to call the image in a complaint.

    Returns:
        Its header, which says what size labels may have.

    Raises:
        InputError: no image, damaged, cut short, or one that is not read.
    """
    header = read_header(data, who=who)
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    if header.kind != "JPEG" or math.prod(header.stored) > limit:
        read_values(data, who=who)
        return header
    try:
        with Image.open(io.BytesIO(data)) as image:
            # An eighth of the resolution still reads a JPEG to its end, much faster.
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
    except _BROKEN as error:
        raise _unreadable(who, error) from error
    return header


def check_label_size(size: tuple[int, ...], header: Header, *, who: str) -> None:
    """Refuses labels (H, W) that are not as large as their image, stored or upright."""
    if not header.fits(size):
        raise InputError(
            f"{who} must have the size of the image, {header.size}, got {tuple(size)}"
        )


def _decode(data: bytes, who: str, modes: tuple[str, ...]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            found, encoding = image.mode, pixel_encoding(image)
            array = as_stored(np.array(image), *encoding)
    except _BROKEN as error:
        raise _unreadable(who, error) from error
    if found not in modes:
        raise InputError(
            f"{who} must be an image of mode {' or '.join(modes)} (its pixels are "
            f"numbers), got {found}"
        )
    return array


def _unreadable(who: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{who} cannot be read: {reason}")
