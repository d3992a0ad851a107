"""One reader of image files: their size, their values, and what a viewer shows.

Every way to read an image goes through here, so that training, scores and predictions
see the same pixels. The rules are those of ``docs/own_data.md``.

H W image size, C samples of a pixel.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import math
import os
import pathlib
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import ExifTags, Image

from sphemb._checks import InputError
from sphemb.data.files._findings import FileError, PathLike

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # errors say it all

# What Pillow's decoders raise for files that are no images, damaged or cut short.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    MemoryError,
    struct.error,
    zlib.error,
)
# What tifffile raises for damaged files, beside what Pillow does.
DAMAGED = (*UNREADABLE, ArithmeticError, AttributeError, RuntimeError)

Source = pathlib.Path | bytes

_IN_MEMORY = 2**26  # pixels of a compressed TIFF that are not worth a file
_WHITE = 2**16 - 1  # the largest value that is read
_ORIENTATION = int(ExifTags.Base.Orientation)  # also the number of TIFF's tag
_TRANSPARENT = ("LA", "La", "RGBA", "RGBa", "PA")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG = b"\x89PNG\r\n\x1a\n"
_DEEP_COLORS = (b"\x10\x02", b"\x10\x04", b"\x10\x06")  # PNG: 16 bits, more samples
_NOTES = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # PNG's chunks that may follow the pixels
_BAND = 512  # rows whose values are counted at once
_PERCENTILES = (1.0, 99.8)
_INTENSITIES = ("full", "percentile", "range")
_RANGE = re.compile(r"(\d{1,5})\.\.(\d{1,5})/(\d{1,5})")
# Samples of a color; other TIFF than these is decoded by Pillow as a whole.
_COLOR_SAMPLES = {
    tifffile.PHOTOMETRIC.MINISBLACK: 1,
    tifffile.PHOTOMETRIC.MINISWHITE: 1,
    tifffile.PHOTOMETRIC.PALETTE: 1,
    tifffile.PHOTOMETRIC.RGB: 3,
}
# Encodings of plain bytes that Pillow's libtiff can undo, and tifffile not by itself.
_PACKED = (tifffile.COMPRESSION.LZW, tifffile.COMPRESSION.ZSTD)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What is read of an image file, the same in training and prediction.

    Attributes:
        page: of a stack, of channels that are pages, or of an animation, from 0 on; or
            ``"max"``, the largest value of all pages at each pixel.
        intensity: which values become black and white: ``"full"``, all that the bits
            of the file can hold; ``"percentile"``, from the 1st to the 99.8th
            percentile of the image (all of it and all colors, also where windows are
            read); ``"LOW..HIGH/WHITE"``, two values of files whose largest possible
            value is WHITE, such as ``"0..4095/65535"``; or ``"range"``, which a data
            set replaces by the lowest and the highest value of its training images.

    Raises:
        InputError: a page or an intensity of another form.

    >>> Reading(page="2"), Reading(intensity="0..4095/65535").bounds
    (Reading(page=2, intensity='full'), (0, 4095, 65535))
    """

    page: int | str = 0
    intensity: str = "full"

    def __post_init__(self) -> None:
        page = str(self.page)
        if page != "max":
            if not page.isdecimal() or isinstance(self.page, bool):
                raise InputError(
                    f"page must be a number from 0 on, or 'max', got {self.page!r}"
                )
            object.__setattr__(self, "page", int(page))
        if self.intensity not in _INTENSITIES:
            low, high, white = self.bounds
            if not low < high <= white <= _WHITE:
                raise InputError(
                    "intensity must be LOW..HIGH/WHITE with LOW < HIGH <= WHITE <= "
                    f"{_WHITE}, got {self.intensity!r}"
                )

    @property
    def bounds(self) -> tuple[int, int, int]:
        """LOW, HIGH and WHITE of an intensity that names them."""
        found = _RANGE.fullmatch(str(self.intensity))
        if found is None:
            raise InputError(
                f"intensity must be {', '.join(_INTENSITIES)} or LOW..HIGH/WHITE, such "
                f"as 0..4095/65535, got {self.intensity!r}"
            )
        low, high, white = map(int, found.groups())
        return low, high, white


AS_SHOWN = Reading()
"""The first page, with all values that its bits can hold."""


class Header(NamedTuple):
    """What is known of an image before its pixels are decoded.

    Attributes:
        stored: (H, W) of the pixels in the file.
        orientation: how a camera was held, 1 to 8 as in EXIF and TIFF; 1 is upright.
        kind: the format, such as ``"PNG"``.
        bits: of a value.
    """

    stored: tuple[int, int]
    orientation: int
    kind: str
    bits: int = 8

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image as it is seen."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored

    def fits(self, size: tuple[int, ...]) -> bool:
        """Whether labels (H, W) are those of the stored or of the upright image."""
        return tuple(size) in (self.stored, self.size)

    def turn(self, labels: np.ndarray) -> np.ndarray:
        """Turns labels with their image.

        Labels of the size of the stored pixels are turned; where a turn keeps the
        size, that is assumed. Labels of the size of the upright image stay.

        Args:
            labels: [H, W], of a size that fits.
        """
        if labels.shape == self.stored:
            return upright(labels, self.orientation)
        return labels


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """The decoded values of an image, upright.

    Attributes:
        samples: integers [H, W, C], perhaps mapped from a file.
        white: the value of full intensity, at most 65535.
        colors: how many of the samples are the color, 1 or 3.
        inverted: whether 0 is white.
        opacity: the place of the sample that says how opaque a pixel is, if one does.
        palette: uint8 [n, 3], the colors that the first sample counts.
        low: the intensity that is shown black, and all below.
        high: the intensity that is shown white, and all above; by default white.
    """

    samples: np.ndarray
    white: int = 255
    colors: int = 1
    inverted: bool = False
    opacity: int | None = None
    palette: np.ndarray | None = None
    low: int = 0
    high: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.samples.shape[0], self.samples.shape[1]

    def at(self, where: tuple[slice, slice]) -> np.ndarray:
        """The intensities of a window, over black where it is transparent.

        Args:
            where: rows and columns.

        Returns:
            Integers [h, w, 1] or [h, w, 3] in 0 .. white.
        """
        window = np.asarray(self.samples[where])
        colors = window[..., : self.colors]
        if self.palette is not None:
            colors = self.palette[np.minimum(colors[..., 0], len(self.palette) - 1)]
        if self.inverted:
            colors = self.white - colors
        if self.opacity is not None:
            opaque = window[..., self.opacity, None] / self.white
            colors = np.rint(colors * opaque).astype(colors.dtype)
        return colors

    def counts(self) -> np.ndarray:
        """How often each intensity occurs: int64 [white + 1]."""
        height, width = self.size
        counts = np.zeros(self.white + 1, np.int64)
        for top in range(0, height, _BAND):
            band = self.at((slice(top, top + _BAND), slice(0, width)))
            counts += np.bincount(band.ravel(), minlength=self.white + 1)
        return counts

    @functools.cached_property
    def shades(self) -> np.ndarray:
        """What is shown of each intensity: uint8 [white + 1]."""
        high = self.white if self.high is None else self.high
        parts = (np.arange(self.white + 1) - self.low) / max(high - self.low, 1)
        return np.rint(255 * np.clip(parts, 0, 1)).astype(np.uint8)

    def shown(self, where: tuple[slice, slice] = (slice(None),) * 2) -> np.ndarray:
        """What a viewer shows of a window: uint8 [h, w, 3]."""
        shown = self.shades[self.at(where)]
        return np.broadcast_to(shown, (*shown.shape[:2], 3)).copy()


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view of pixels [H, W, ...] the way a camera was held, see EXIF and TIFF."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return pixels[rows, columns]


def read_size(path: PathLike, reading: Reading = AS_SHOWN) -> tuple[int, int]:
    """Returns the (H, W) that `read_image` would give, without decoding pixels.

    Args:
        path: an image file.
        reading: which page.

    Returns:
        Height and width, with a camera's orientation applied.

    Raises:
        FileError: the file is missing or no image.
    """
    return read_header(pathlib.Path(path), reading).size


def read_header(
    source: Source, reading: Reading = AS_SHOWN, *, who: str = ""
) -> Header:
    """Reads the size and the orientation of an image; its pixels stay encoded.

    Args:
        source: a file, or the bytes of one.
        reading: which page; the first stands for all.
        who: what to call it in an error; by default ``image PATH``.

    Returns:
        The header, the same that its pixels will have.

    Raises:
        FileError: the file is missing or no image.
    """
    with _named(source, who):
        if _begins(source, _TIFF):
            with _tiff(source) as tiff:
                if tiff is not None:
                    page = 0 if reading.page == "max" else reading.page
                    return _tiff_header(_tiff_page(tiff, page).page)
        with Image.open(_pillow_source(source)) as image:
            if reading.page != "max":
                _seek(image, reading.page)
            return _pillow_header(image, source)


def count_pages(source: Source, *, who: str = "") -> int:
    """Counts the pages of an image file: of a stack, of channels, of an animation.

    Smaller copies of a page are no pages, nor are the further views of a photograph.

    Args:
        source: a file, or the bytes of one.
        who: what to call it in an error; by default ``image PATH``.

    Raises:
        FileError: the file is missing or no image.
    """
    with _named(source, who):
        if _begins(source, _TIFF):
            with _tiff(source) as tiff:
                if tiff is not None:
                    return len(_tiff_pages(tiff))
        with Image.open(_pillow_source(source)) as image:
            return _frames(image)


def read_values(
    source: Source, reading: Reading = AS_SHOWN, *, who: str = ""
) -> Values:
    """Decodes an image.

    An uncompressed TIFF stays on the disk and is mapped into memory; a compressed one
    is, too, if it is large, by way of a temporary file.

    Args:
        source: a file, or the bytes of one.
        reading: which page, and which of its values become black and white.
        who: what to call it in an error; by default ``image PATH``.

    Returns:
        Its values.

    Raises:
        FileError: the file is missing, no image, damaged, too large for
            ``Image.MAX_IMAGE_PIXELS``, or has values of which there is no rule how
            they are shown; or it has no such page, or pages that differ in form.
    """
    with _named(source, who):
        return _stretched(_read_pages(source, reading.page), reading)


def _read_pages(source: Source, page: int | str) -> Values:
    if _begins(source, _TIFF):
        with _tiff(source) as tiff:
            if tiff is not None:
                number = len(_tiff_pages(tiff)) if page == "max" else 1
                return _projected(
                    number,
                    page,
                    lambda k: _tiff_values(source, tiff, _tiff_page(tiff, k)),
                )
    with Image.open(_pillow_source(source)) as image:
        number = _frames(image) if page == "max" else 1
        return _projected(number, page, lambda k: _pillow_values(image, source, k))


def _projected(number: int, page: int | str, read: Callable[[int], Values]) -> Values:
    """One page; or the largest intensities of so many."""
    if page != "max" or number == 1:
        return read(0 if page == "max" else int(page))
    everywhere = (slice(None), slice(None))
    first = read(0)
    highest = np.array(first.at(everywhere))
    for k in range(1, number):
        values = read(k)
        found = values.at(everywhere)
        if found.shape != highest.shape or values.white != first.white:
            raise _NotShown(
                "must have pages of one form for their maximum, got [H, W, C] = "
                f"{highest.shape} up to {first.white} and, of page {k}, {found.shape} "
                f"up to {values.white}"
            )
        np.maximum(highest, found, out=highest)
    return Values(highest, white=first.white, colors=highest.shape[2])


def _stretched(values: Values, reading: Reading) -> Values:
    if reading.intensity == "full":
        return values
    if reading.intensity == "range":
        raise InputError(
            "intensity 'range' is that of a data set: for an image give 'full', "
            "'percentile' or LOW..HIGH/WHITE"
        )
    if reading.intensity == "percentile":
        below = np.cumsum(values.counts())
        wanted = below[-1] * np.array(_PERCENTILES) / 100
        low, high = np.searchsorted(below, wanted).tolist()
        return dataclasses.replace(values, low=low, high=high)
    low, high, white = reading.bounds
    if values.white != white:
        raise _NotShown(
            f"has values up to {values.white}, but intensity {reading.intensity} is "
            f"for those up to {white}: give all images the same depth, or take "
            "intensity 'percentile'"
        )
    return dataclasses.replace(values, low=low, high=high)


def _no_page(page: int | str, number: int) -> _NotShown:
    pages = f"{number} pages, 0 to {number - 1}" if number > 1 else "one page, 0"
    return _NotShown(f"has {pages}, but page {page} is to be read")


class _named:
    """Turns what decoders raise into one line about the file."""

    def __init__(self, source: Source, who: str) -> None:
        self._who = who or f"image {source}"
        if isinstance(source, pathlib.Path) and not os.path.isfile(source):
            raise FileError(f"no such image file: {source}")
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")  # such as doubtful EXIF in a good image

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._warnings.__exit__(kind, error, trace)
        if isinstance(error, _NotShown):
            raise FileError(f"{self._who} {error}") from None
        if isinstance(error, Image.DecompressionBombError):
            raise FileError(f"{self._who} {_too_large()}") from error
        if isinstance(error, DAMAGED) and not isinstance(error, InputError):
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, Image.UnidentifiedImageError):
                reason = "cannot identify it as an image"
            raise FileError(f"{self._who} cannot be read: {reason}") from error


class _NotShown(Exception):
    """Values of which there is no rule how they are shown."""


def _too_large() -> _NotShown:
    return _NotShown(
        f"has more than the {Image.MAX_IMAGE_PIXELS} pixels that are read: cut or "
        "shrink it first"
    )


def _check_limit(header: Header) -> None:
    if math.prod(header.stored) > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise _too_large()


def _begins(source: Source, known: tuple[bytes, ...]) -> bool:
    return _first(source, max(map(len, known))).startswith(known)


def _first(source: Source, number: int) -> bytes:
    if isinstance(source, bytes):
        return source[:number]
    with source.open("rb") as file:
        return file.read(number)


def _pillow_source(source: Source) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else source


# PNG, JPEG and what else Pillow reads


def _pillow_header(image: Image.Image, source: Source) -> Header:
    notes = image
    deep = image.mode == "I" or image.mode.startswith("I;16")
    if image.format == "PNG":
        behind = _png_notes(source)
        notes = Image.open(io.BytesIO(behind)) if behind else image
        deep |= _first(source, 25)[24:] == b"\x10"
    # PNG's own method would decode the file to look for what stands behind the pixels.
    orientation = Image.Image.getexif(notes).get(_ORIENTATION)
    return _header(
        (image.height, image.width), orientation, image.format, bits=16 if deep else 8
    )


def _header(
    size: tuple[int, int], orientation: Any, kind: str | None, *, bits: int
) -> Header:
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise OSError(f"its header gives the size {size}")
    known = orientation in range(1, 9)
    return Header(size, int(orientation) if known else 1, kind or "", bits)


def _frames(image: Image.Image) -> int:
    # What else a camera puts into a JPEG is no page: small copies, depth, other views.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _seek(image: Image.Image, page: int | str) -> None:
    if page == 0:
        return
    number = _frames(image)
    if int(page) >= number:
        raise _no_page(page, number)
    image.seek(int(page))


def _png_notes(source: Source) -> bytes:
    """A PNG without its pixels, if notes stand behind them; they may turn the image."""
    notes, found = [_PNG], False
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        file.seek(len(_PNG))
        behind = False
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            behind |= kind == b"IDAT"
            if behind and kind not in _NOTES:
                file.seek(length + 4, os.SEEK_CUR)
            else:
                notes.append(start + file.read(length + 4))
                found |= behind
    if not found:
        return b""
    notes.append(struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT")))
    return b"".join(notes)


def _pillow_values(image: Image.Image, source: Source, page: int) -> Values:
    _seek(image, page)
    header = _pillow_header(image, source)
    _check_limit(header)
    image.load()  # which refuses what is cut short
    deep = image.format == "PNG" and _first(source, 26)[24:] in _DEEP_COLORS
    if deep and page == 0:
        values = _deep_png(source, image.info.get("transparency"))
    else:
        values = _shown_by_pillow(image)
    samples = upright(values.samples, header.orientation)
    return dataclasses.replace(values, samples=samples)


def _shown_by_pillow(image: Image.Image) -> Values:
    if image.mode == "F":
        raise _floating()
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = _within_16_bits(np.asarray(image))
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey = np.where(grey == key, 0, grey).astype(np.uint16)
        return Values(grey[..., None], white=_WHITE)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return Values(np.asarray(image.convert("RGBA")), colors=3, opacity=3)
    if image.mode in ("1", "L"):
        return Values(np.asarray(image.convert("L"))[..., None])
    return Values(np.asarray(image.convert("RGB")), colors=3)


def _deep_png(source: Source, key: Any) -> Values:
    """A PNG of more than one sample of 16 bits, of which Pillow keeps 8."""
    import cv2  # late: it takes long to import

    data = source if isinstance(source, bytes) else source.read_bytes()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise OSError("its pixels cannot be decoded")
    colors = pixels[..., 2::-1]
    if pixels.shape[2] == 3 and isinstance(key, tuple):
        colors = np.where((colors == key).all(-1, keepdims=True), 0, colors)
    samples = np.concatenate([colors, pixels[..., 3:]], axis=-1).astype(np.uint16)
    opacity = 3 if pixels.shape[2] == 4 else None
    return Values(samples, white=_WHITE, colors=3, opacity=opacity)


def _floating() -> _NotShown:
    return _NotShown("holds floating-point values: save it with 8 or 16 bits")


def _within_16_bits(values: np.ndarray) -> np.ndarray:
    if values.size and (values.min() < 0 or values.max() > _WHITE):
        raise _NotShown(
            f"must have values within 16 bits, got {values.min()} to {values.max()}"
        )
    return values.astype(np.uint16, copy=False)


# TIFF


class _tiff:
    """Opens a TIFF; None where tifffile cannot, and Pillow may try."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._file: tifffile.TiffFile | None = None

    def __enter__(self) -> tifffile.TiffFile | None:
        try:
            self._file = tifffile.TiffFile(_pillow_source(self._source))
            page = self._file.pages.first
        except DAMAGED:
            return None
        return self._file if isinstance(page, tifffile.TiffPage) else None

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class _Page(NamedTuple):
    """A page; of a stack that is stored in one piece behind the first, which one."""

    page: Any
    place: int = 0


def _tiff_page(tiff: Any, number: int | str) -> _Page:
    if number == 0:
        return _Page(tiff.pages.first)
    pages = _tiff_pages(tiff)
    if int(number) >= len(pages):
        raise _no_page(number, len(pages))
    return pages[int(number)]


def _tiff_pages(tiff: Any) -> list[_Page]:
    """The pages without smaller copies of them and masks of what is transparent."""
    pages = [
        _Page(page)
        for i, page in enumerate(tiff.pages)
        if i == 0 or not (page.is_reduced or page.is_mask)
    ]
    images = _images_of_notes(tiff)
    if len(pages) == 1 < images:
        return [_Page(pages[0].page, k) for k in range(images)]
    return pages


def _images_of_notes(tiff: Any) -> int:
    """How many images a description counts, of which the first may have a page alone.

    So ImageJ stores stacks above 4 GiB, and tifffile those that it truncates.
    """
    if tiff.is_imagej:
        return int((tiff.imagej_metadata or {}).get("images", 1))
    notes = tiff.shaped_metadata[0] if tiff.is_shaped else {}
    if not notes.get("truncated"):
        return 1
    return math.prod(notes["shape"]) // max(math.prod(tiff.pages.first.shape), 1)


def _tiff_header(page: Any) -> Header:
    tag = page.tags.get(_ORIENTATION)
    size = page.imagelength, page.imagewidth
    orientation = tag.value if tag is not None else 1
    return _header(size, orientation, "TIFF", bits=page.bitspersample)


def _tiff_values(source: Source, tiff: Any, found: _Page) -> Values:
    page, place = found
    header = _tiff_header(page)
    _check_limit(header)
    if page.dtype is not None and page.dtype.kind not in "bui":
        raise _floating()
    colors = _COLOR_SAMPLES.get(page.photometric)
    paletted = page.photometric == tifffile.PHOTOMETRIC.PALETTE
    packed = colors is None or page.dtype is None
    if packed or (paletted and page.samplesperpixel > 1):
        return _tiff_by_pillow(source, page)
    if page.axes not in ("YX", "YXS", "SYX"):
        raise _NotShown(f"must be flat, got a page with the axes {page.axes}")
    opacity, premultiplied = _opacity(page, colors)
    white_is_0 = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if white_is_0 and premultiplied:
        raise _NotShown(
            "counts from white down and has colors multiplied by their opacity: save "
            "it with black at 0"
        )
    try:
        samples = _decoded(source, tiff, page, place)
    except _Undecoded:
        return _tiff_by_pillow(source, page)
    if page.dtype.kind == "b":
        white = 1
        # tifffile says so of bits too, but writes True as 1 all the same.
        white_is_0 = white_is_0 and page.software != "tifffile.py"
        samples = samples.astype(np.uint8)
    elif page.dtype in (np.uint8, np.uint16):
        white = 2**page.bitspersample - 1
    else:
        samples = _within_16_bits(samples)
        white = 255 if page.dtype == np.int8 else _WHITE
    palette = None
    if paletted:
        palette, white = _palette(page), 255
    return Values(
        upright(samples, header.orientation),
        white=white,
        colors=colors,
        inverted=white_is_0,
        opacity=None if premultiplied else opacity,
        palette=palette,
    )


def _opacity(page: Any, colors: int) -> tuple[int | None, bool]:
    """The sample that says how opaque a pixel is; whether the colors have it in them.

    Only what the file calls so is one. What else lies beside a color is left out.
    """
    kinds = [int(kind) for kind in page.extrasamples]
    extra = page.samplesperpixel - colors
    if extra < 0:
        raise _NotShown(f"must have {colors} samples a pixel, got {colors + extra}")
    if extra > len(kinds):
        raise _NotShown(
            f"has {page.samplesperpixel} samples a pixel, {colors} of them the color, "
            "and no tag ExtraSamples that says whether another is its opacity: save it "
            "with that tag, or as grey or RGB"
        )
    if colors == 1 and kinds.count(0) > 1:
        raise _NotShown(
            f"must be grey or RGB, got {page.samplesperpixel} channels without a "
            "color: save the channels to be seen"
        )
    for place, kind in enumerate(kinds[:extra], start=colors):
        if kind in (1, 2):
            return place, kind == 1
    return None, False


def _palette(page: Any) -> np.ndarray:
    colors = np.asarray(page.colormap).T  # [n, 3] of 16 bits
    eight = colors.max(initial=0) < 256  # as some files have it, and libtiff reads it
    return (colors if eight else colors >> 8).astype(np.uint8)


class _Undecoded(Exception):
    """An encoding that tifffile cannot undo by itself."""


def _decoded(source: Source, tiff: Any, page: Any, place: int) -> np.ndarray:
    """Samples [H, W, C] as stored, mapped where they need not be decoded."""
    parts = zip(page.dataoffsets, page.databytecounts, strict=True)
    end = max((start + count for start, count in parts), default=0)
    # Without this a file that was cut short could come out as zeros.
    if end + place * page.nbytes > tiff.filehandle.size:
        raise OSError("the file is cut short")
    if place:
        samples = tiff.filehandle.memmap_array(
            page.dtype.newbyteorder(tiff.byteorder),
            page.shape,
            page.dataoffsets[0] + place * page.nbytes,
        )
    elif page.is_memmappable and isinstance(source, pathlib.Path):
        samples = tifffile.memmap(source, page=page.index, mode="r")
    elif page.compression in _PACKED:
        samples = _unpacked(tiff, page)
    else:
        large = page.imagelength * page.imagewidth > _IN_MEMORY
        try:
            samples = page.asarray(out="memmap" if large else None)
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
            raise _Undecoded from error
    if page.axes == "SYX":
        return np.moveaxis(samples, 0, -1)
    return samples[..., None] if samples.ndim == 2 else samples


def _unpacked(tiff: Any, page: Any) -> np.ndarray:
    """Samples of strips or tiles whose bytes libtiff unpacks, as the page's array."""
    predictor, bits = int(page.predictor), page.bitspersample
    if predictor not in (1, 2) or bits not in (8, 16) or page.fillorder != 1:
        raise _Undecoded
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    planes = samples if page.planarconfig == 2 else 1
    channels = samples // planes
    rows, columns = (
        (page.tilelength, page.tilewidth)
        if page.is_tiled
        else (min(page.rowsperstrip, height), width)
    )
    dtype = page.dtype.newbyteorder(tiff.byteorder)
    down, across = -(-height // rows), -(-width // columns)
    found = np.empty((planes, height, width, channels), page.dtype)
    for i, (start, count) in enumerate(
        zip(page.dataoffsets, page.databytecounts, strict=True)
    ):
        plane, place = divmod(i, down * across)
        top, left = (place // across) * rows, (place % across) * columns
        lines = rows if page.is_tiled else min(rows, height - top)
        tiff.filehandle.seek(start)
        plain = _undone(
            tiff.filehandle.read(count),
            int(page.compression),
            lines * columns * channels * dtype.itemsize,
        )
        part = np.frombuffer(plain, dtype).reshape(lines, columns, channels)
        if predictor == 2:
            part = np.cumsum(part, axis=1, dtype=page.dtype)
        window = found[plane, top : top + rows, left : left + columns]
        window[:] = part[: window.shape[0], : window.shape[1]]
    return found.reshape(page.shape)


def _undone(data: bytes, compression: int, size: int) -> bytes:
    """Bytes that libtiff unpacks, as the one strip of a grey picture of one line."""
    begin = 8 + 2 + 9 * 12 + 4
    tags = {256: size, 257: 1, 258: 8, 259: compression, 262: 1, 273: begin}
    tags |= {277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    with Image.open(io.BytesIO(header + entries + bytes(4) + data)) as image:
        return image.tobytes()


def _tiff_by_pillow(source: Source, page: Any) -> Values:
    """What libtiff shows of a page, where all its rules are those of above."""
    bits, samples = page.bitspersample, page.samplesperpixel
    if (
        (bits > 8 and samples > 1)
        or (page.extrasamples and page.photometric != tifffile.PHOTOMETRIC.PALETTE)
        or (page.planarconfig == 2 and samples > 1)
    ):
        compression = getattr(page.compression, "name", page.compression)
        raise _NotShown(
            f"has {samples} samples of {bits} bits a pixel in an encoding that cannot "
            f"be read ({compression}): save it uncompressed, with deflate or with LZW"
        )
    with Image.open(_pillow_source(source)) as image:
        image.seek(page.index)
        image.load()  # Pillow turns a TIFF itself
        values = _shown_by_pillow(image)
    if image.size[::-1] != _tiff_header(page).size:
        raise OSError("it says two things about its orientation")
    if values.white == _WHITE:
        # Pillow gives deep values as they are stored.
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        white = 2**bits - 1 if bits < 16 else _WHITE
        values = dataclasses.replace(values, inverted=inverted, white=white)
    return values
