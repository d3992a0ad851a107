"""The numbers that mask files store, their palettes, and labels as bytes of PNG."""

from __future__ import annotations

import io
import pathlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from sphemb._checks import VOID, InputError
from sphemb.data.files import _images, _tiff
from sphemb.data.files._image_files import read_header, read_values

Color = tuple[int, ...]

_BYTE = 255
_VOID_INDEX = 255  # of palettes; its color means nothing
_FEW_BITS = {"L;2": 85, "L;4": 17}  # by which Pillow multiplies 2 and 4 bits
_WIDE_COLORS = (
    "must have one channel of ids or 8-bit colors, got several channels of 16 bits: "
    "save the ids as one gray channel of 16 bits"
)
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")
_LOSSY_TIFF = (6, 7, 33003, 33005, 34712, 34892, 50001)  # JPEG, JPEG 2000 and WebP


class Stored(NamedTuple):
    """The content of a mask file."""

    values: np.ndarray  # integers [H, W]; colors as 65536 R + 256 G + B
    kind: str  # "labels" (gray), "palette" (the indices) or "colors"
    palette: np.ndarray | None = None  # uint8 [K, 3], the colors of the indices


def read_stored(path: pathlib.Path) -> Stored:
    """Reads a PNG, TIFF or other lossless file of one page."""
    with _images.decoding(path, f"mask {path}"):
        if path.suffix.lower() in (".tif", ".tiff"):
            return _read_tiff(path)
        return _read_with_pillow(path)


def _read_with_pillow(path: pathlib.Path) -> Stored:
    with Image.open(path) as image:
        _check_form(image.size, str(image.format), getattr(image, "n_frames", 1))
        pixels = _stored_pixels(image)
        if image.mode in ("P", "PA"):
            colors = np.array(image.getpalette() or (), np.uint8).reshape(-1, 3)
            indices = pixels[..., 0] if pixels.ndim == 3 else pixels
            return Stored(indices, "palette", colors)
        return _sort_channels(pixels)


def _stored_pixels(image: Image.Image) -> np.ndarray:
    """Decodes pixels, without the scaling by which Pillow shows few bits as more."""
    tiles: Any = getattr(image, "tile", ())
    tile = tiles[0] if tiles else ("", None, 0, "")
    encoding, *rest = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
    # The largest value that a file of the PGM family declares.
    largest = int(rest[0]) if rest and str(tile[0]).startswith("ppm") else 0
    kept = image.mode in ("1", "L", "I", "F", "P", "PA") or image.mode[:4] == "I;16"
    if not kept and (";16" in str(encoding) or largest > _BYTE):
        raise _not_ids(_WIDE_COLORS)
    image.load()
    if not kept and image.mode not in ("LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    values = np.array(image)
    if values.ndim > 2:
        return values
    if largest:
        shown = _BYTE if values.dtype == np.uint8 else 2**16 - 1
        return np.rint(values * (largest / shown)).astype(values.dtype)
    if str(encoding).startswith("L;") and encoding.endswith("I"):  # white is 0
        values = _BYTE - values
    factor = _FEW_BITS.get(str(encoding)[:3])
    return values // factor if factor else values


def _read_tiff(path: pathlib.Path) -> Stored:
    with tifffile.TiffFile(path) as tiff:
        if not len(tiff.pages):
            raise OSError("the file is cut short")
        page: Any = tiff.pages.first
        lossy = "JPEG" if page.compression in _LOSSY_TIFF else "TIFF"
        _check_form(_tiff.tiff_header(page).stored, lossy, len(tiff.pages))
        try:
            pixels = _tiff.decoded(path, tiff, _tiff.Page(page))
        except _tiff.Undecoded:
            return _read_with_pillow(path)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return Stored(pixels[..., 0], "palette", _tiff.tiff_palette(page))
        if pixels.dtype == bool and _tiff.white_is_zero(page):
            pixels = ~pixels
        return _sort_channels(pixels)


def _sort_channels(pixels: np.ndarray) -> Stored:
    """Distinguishes gray from color, [H, W] or [H, W, C]."""
    if pixels.dtype.kind not in "biu":
        raise _not_ids("holds floating-point values: save ids as integers")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 2:
        return Stored(pixels, "labels")
    channels = pixels.shape[2]
    if channels in (3, 4) and pixels.dtype == np.uint16:
        raise _not_ids(_WIDE_COLORS)
    if channels not in (1, 2, 3, 4) or (channels >= 3 and pixels.dtype != np.uint8):
        got = f"{channels} channels of {pixels.dtype}"
        raise _not_ids(f"must have one channel of ids or 8-bit colors, got {got}")
    if channels in (2, 4):
        pixels = np.where(pixels[..., -1:] > 0, pixels[..., :-1], 0)
    if (pixels == pixels[..., :1]).all():
        return Stored(pixels[..., 0], "labels")
    return Stored(pixels.astype(np.int32) @ np.array([65536, 256, 1], int), "colors")


def _check_form(size: tuple[int, ...], encoding: str, pages: int) -> None:
    _images.check_limit(size)
    if encoding in _LOSSY:
        text = f"is encoded as {encoding}, which does not keep ids"
        raise _not_ids(f"{text}: save masks as PNG or TIFF")
    if pages != 1:
        raise _not_ids(f"must have one page, got {pages}: save one file for each")


def _not_ids(text: str) -> _images.Refused:
    return _images.Refused(text, kind="not ids")


class PaletteColors:
    """The colors that the classes have in the palettes of all files.

    Many programs write a palette of the colors of one image: then the same index is
    another class in the next file.
    """

    def __init__(self) -> None:
        self._colors: dict[int, tuple[Color, object]] = {}
        self._indices: dict[Color, tuple[int, object]] = {}

    def add(
        self,
        file: object,
        colors: Mapping[int, Color] | None,
        used: Iterable[int] | None = None,
    ) -> None:
        """Compares the palette of a file with those of the files before.

        ``used`` are the indices of its pixels, by default all. A used index of another
        color in another file is refused, and a color that its palette has once and that
        has another index there.
        """
        colors = colors or {}
        times = Counter(colors.values())
        for index in colors if used is None else sorted(colors.keys() & set(used)):
            color = colors[index]
            known, other = self._colors.setdefault(index, (color, file))
            difference = "" if color == known else f"and {other} as {known}"
            if not difference and times[color] == 1:
                first, other = self._indices.setdefault(color, (index, file))
                difference = "" if first == index else f"which {other} has as {first}"
            if difference:
                raise _images.FileError(
                    f"mask {file} must have the palette of the others, but shows class "
                    f"{index} as {color}, {difference}: save the numbers of classes in "
                    "gray, or with one palette",
                    kind="palette",
                )


def check_palettes(
    paths: Iterable[pathlib.Path], read: Callable[[pathlib.Path], Any]
) -> None:
    """Compares the palettes of files of classes; see `PaletteColors.add`.

    Where the palettes in the headers differ, ``read`` gives the `Mask` of a file. An
    unreadable file is left to its reader.
    """
    paths = list(paths)
    declared = PaletteColors()
    try:
        for path in paths:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the reader checks the size
                with Image.open(path) as image:
                    declared.add(path, _palette(image))
        return
    except (*_images.DAMAGED, Image.DecompressionBombError):
        seen = PaletteColors()
    for path in paths:
        try:
            mask = read(path)
        except _images.FileError:
            continue
        seen.add(path, mask.colors, mask.classes)


def _palette(image: Image.Image) -> dict[int, Color]:
    flat = (image.getpalette() if image.mode in ("P", "PA") else None) or []
    return dict(enumerate(zip(flat[::3], flat[1::3], flat[2::3], strict=False)))


def to_png(array: np.ndarray) -> bytes:
    """Encodes uint8 [H, W] or [H, W, 3], or uint16 [H, W], without loss."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encode_labels(labels: np.ndarray, dtype: Any, *, who: str) -> bytes:
    """Encodes int [H, W] as PNG, uint8 or uint16, void as the largest number.

    A label that does not fit is refused; ``who`` names the labels, here and below.

    >>> labels = np.array([[-1, 0], [1, 254]])
    >>> decode_labels(encode_labels(labels, np.uint8, who="labels"), who="labels")
    array([[ -1,   0],
           [  1, 254]], dtype=int32)
    """
    void = np.iinfo(dtype).max
    low, high = labels.min(initial=0), labels.max(initial=0)
    if low < VOID or high >= void:
        text = f"must have labels from -1 to {void - 1}, got {low} to {high}"
        raise InputError(f"{who} {text}")
    return to_png(np.where(labels == VOID, void, labels).astype(dtype))


def decode_labels(data: bytes, *, who: str) -> np.ndarray:
    """Decodes the result of `encode_labels`; int32 [H, W] with -1 for void."""
    codes, _ = _decode(data, who, ("L", "I;16"))
    void = np.iinfo(codes.dtype).max
    return np.where(codes == void, VOID, codes.astype(np.int32))


def decode_image(data: bytes, *, who: str) -> np.ndarray:
    """Decodes an image as `read_image` reads it, as uint8 [H, W, 3]."""
    return read_values(data, who=who).shown()


def decode_colors(data: bytes, *, who: str) -> np.ndarray:
    """Decodes a mask whose colors are numbers, as uint8 [H, W, 3]."""
    with _images.decoding(data, who), Image.open(_images.readable(data)) as image:
        return np.array(image.convert("RGB"))


def decode_indices(
    data: bytes, *, who: str, palettes: PaletteColors | None = None
) -> np.ndarray:
    """Decodes indices or gray values, uint8 [H, W]; classes need equal ``palettes``."""
    indices, colors = _decode(data, who, ("P", "L"))
    if palettes is not None:
        used = np.flatnonzero(np.bincount(indices.ravel())[:_VOID_INDEX])
        palettes.add(who.removeprefix("mask "), colors, used.tolist())
    return indices


def _decode(
    data: bytes, who: str, modes: tuple[str, ...]
) -> tuple[np.ndarray, dict[int, Color]]:
    with _images.decoding(data, who), Image.open(_images.readable(data)) as image:
        if image.mode not in modes:
            text = f"must be an image of mode {' or '.join(modes)}, got {image.mode}"
            raise _images.Refused(f"{text}: its pixels are numbers")
        return _stored_pixels(image), _palette(image)


def check_encoded(data: bytes, *, who: str) -> _images.Header:
    """Refuses an image that cannot be decoded to its end, and returns its header.

    Damaged images are found while a data set is prepared, not during training.
    """
    header = read_header(data, who=who)
    if header.kind != "JPEG":
        read_values(data, who=who)
        return header
    with _images.decoding(data, who), Image.open(_images.readable(data)) as image:
        _images.check_limit(header.stored)
        # An eighth of the resolution still reads a JPEG to its end, much faster.
        image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    return header


def check_label_size(
    size: tuple[int, ...], header: _images.Header, *, who: str
) -> None:
    """Refuses labels (H, W) of another size than their image, stored or upright."""
    if not header.fits(size):
        text = f"must have the size of the image, {header.size}, got {tuple(size)}"
        raise InputError(f"{who} {text}")
