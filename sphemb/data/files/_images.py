"""What is read of an image file, its values, its errors; files that Pillow decodes.

The rules are those of ``docs/own_data.md``. H W image size, C samples of a pixel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
import os
import pathlib
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from sphemb._checks import InputError

PathLike = str | os.PathLike[str]
Source = pathlib.Path | bytes
WHITE = 2**16 - 1  # the largest value that is read
ORIENTATION = int(ExifTags.Base.Orientation)  # also the number of TIFF's tag
_ACROSS = int(ExifTags.Base.XResolution)

# What Pillow and tifffile raise for files that are damaged or not images.
DAMAGED = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError),
    *(MemoryError, struct.error, zlib.error, ArithmeticError, AttributeError),
    RuntimeError,
)

FLOATING = "holds floating-point values: save it with 8 or 16 bits"
_TRANSPARENT = ("LA", "La", "RGBA", "RGBa", "PA")
_PNG = b"\x89PNG\r\n\x1a\n"
_DEEP_COLORS = (b"\x10\x02", b"\x10\x04", b"\x10\x06")  # PNG: 16 bits, more samples
_NOTES = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # PNG's chunks that may follow the pixels
_BAND = 512  # rows whose values are counted at once
INCH, CENTIMETER = 2, 3  # TIFF's ResolutionUnit
_UNITS_OF_AN_INCH = {INCH: 1.0, CENTIMETER: 2.54}
_INTENSITIES = ("full", "percentile", "range")
_RANGE = re.compile(r"(\d{1,5})\.\.(\d{1,5})/(\d{1,5})")


class FileError(InputError):
    """A file that cannot be used: one line that names it, its kind, all such files."""

    def __init__(
        self, message: str, *, kind: str = "unreadable", files: Iterable[Any] = ()
    ) -> None:
        super().__init__(message)
        self.kind, self.files = kind, tuple(files)


class Finding(NamedTuple):
    """One problem or doubt about a file."""

    level: str  # "error" where training would stop, else "warning"
    kind: str  # what it is in a word or two
    message: str  # one line that names the file
    files: tuple[str, ...] = ()  # all, where the message stands for several


def error_finding(error: InputError) -> Finding:
    """Turns an error of a reader into a finding with the same line."""
    files = tuple(str(file) for file in getattr(error, "files", ()))
    line = " ".join(str(error).split())
    return Finding("error", getattr(error, "kind", "unreadable"), line, files)


class Refused(Exception):
    """A file whose content is not accepted; the message follows the file's name."""

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


@contextlib.contextmanager
def decoding(source: Source, who: str) -> Iterator[None]:
    """Turns errors of decoders into one line about ``who``, such as "image a.png"."""
    if isinstance(source, pathlib.Path) and not os.path.isfile(source):
        raise FileError(f"no such {who.partition(' ')[0]} file: {source}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as doubtful EXIF in a good image
            yield
    except Refused as error:
        raise FileError(f"{who} {error}", kind=error.kind) from None
    except Image.DecompressionBombError as error:
        most = f"more than the {Image.MAX_IMAGE_PIXELS} pixels that are read"
        raise FileError(f"{who} has {most}: cut or shrink it first") from error
    except InputError:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "cannot identify it as an image"
        raise FileError(f"{who} cannot be read: {reason}") from error


def check_limit(size: tuple[int, ...]) -> None:
    """Refuses images of more pixels than ``Image.MAX_IMAGE_PIXELS``."""
    if math.prod(size) > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError


@dataclasses.dataclass(frozen=True)
class Reading:
    """What is read of an image file, the same in training and prediction.

    Attributes:
        page: of a stack, of channels that are pages, or of an animation, from 0 on; or
            ``"max"``, the largest value of all pages at each pixel.
        intensity: which values become black and white: ``"full"``, the range of the
            file's bits; ``"percentile"``, the 1st and the 99.8th of the whole image;
            ``"LOW..HIGH/WHITE"``, two values of files with values up to WHITE; or
            ``"range"``, the lowest and the highest value of the training images.

    >>> Reading(page="2"), Reading(intensity="0..4095/65535").bounds
    (Reading(page=2, intensity='full'), (0, 4095, 65535))
    """

    page: int | str = 0
    intensity: str = "full"

    def __post_init__(self) -> None:
        page = str(self.page)
        if page != "max":
            if not page.isdecimal() or isinstance(self.page, bool):
                text = f"must be a number from 0 on, or 'max', got {self.page!r}"
                raise InputError(f"page {text}")
            object.__setattr__(self, "page", int(page))
        if self.intensity not in _INTENSITIES:
            low, high, white = self.bounds
            if not low < high <= white <= WHITE:
                text = f"LOW..HIGH/WHITE with LOW < HIGH <= WHITE <= {WHITE}"
                raise InputError(f"intensity must be {text}, got {self.intensity!r}")

    @property
    def bounds(self) -> tuple[int, int, int]:
        """LOW, HIGH and WHITE of an intensity that names them."""
        found = _RANGE.fullmatch(str(self.intensity))
        if found is None:
            known = ", ".join(_INTENSITIES)
            text = f"must be {known} or LOW..HIGH/WHITE, such as 0..4095/65535"
            raise InputError(f"intensity {text}, got {self.intensity!r}")
        low, high, white = map(int, found.groups())
        return low, high, white


AS_SHOWN = Reading()
"""The first page, with all values that its bits can hold."""


class Resolution(NamedTuple):
    """How many pixels an image has in a unit of length.

    >>> Resolution(40000.0, 40000.0, unit=3).per_inch
    (101600.0, 101600.0)
    """

    across: float  # pixels of a row
    down: float  # pixels of a column
    unit: int  # TIFF's ResolutionUnit: 1 none, 2 inch, 3 centimeter
    imagej: str = ""  # the unit in ImageJ's description, such as "micron"

    @property
    def per_inch(self) -> tuple[float, float] | None:
        """Pixels per inch, across and down; None if TIFF's unit is none of length."""
        if self.unit not in _UNITS_OF_AN_INCH:
            return None
        units = _UNITS_OF_AN_INCH[self.unit]
        return units * self.across, units * self.down


def make_resolution(
    across: Any, down: Any, unit: int, imagej: str = ""
) -> Resolution | None:
    """The resolution, if both numbers are above 0 and there is a unit."""
    numbers = float(across), float(down)
    unit = int(unit) if unit in _UNITS_OF_AN_INCH else 1
    stated = unit > 1 or imagej
    if not stated or not all(0 < number < math.inf for number in numbers):
        return None
    return Resolution(*numbers, unit, imagej)


class Header(NamedTuple):
    """What is known of an image before its pixels are decoded."""

    stored: tuple[int, int]  # (H, W) of the pixels in the file
    orientation: int  # of a camera, 1 to 8 as in EXIF and TIFF; 1 is upright
    kind: str  # the format, such as "PNG"
    bits: int = 8  # of a value
    resolution: Resolution | None = None  # of the upright image, if the file states it

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the upright image."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored

    def fits(self, size: tuple[int, ...]) -> bool:
        """Whether labels (H, W) are those of the stored or of the upright image."""
        return tuple(size) in (self.stored, self.size)

    def turn(self, labels: np.ndarray) -> np.ndarray:
        """Turns labels [H, W], if they have the size of the stored pixels."""
        stored = labels.shape == self.stored
        return upright(labels, self.orientation) if stored else labels


def make_header(
    size: tuple[int, int],
    orientation: Any,
    kind: str | None,
    *,
    bits: int,
    resolution: Resolution | None,
) -> Header:
    """Checks what a file says of its size and orientation."""
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise OSError(f"its header gives the size {size}")
    orientation = int(orientation) if orientation in range(1, 9) else 1
    if resolution is not None and orientation >= 5:
        across, down = resolution.down, resolution.across
        resolution = resolution._replace(across=across, down=down)
    return Header(size, orientation, kind or "", bits, resolution)


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """The decoded values of an image, upright."""

    samples: np.ndarray  # integers [H, W, C], perhaps mapped from a file
    white: int = 255  # the value of full intensity, at most 65535
    colors: int = 1  # how many of the samples are the color, 1 or 3
    inverted: bool = False  # whether 0 is white
    opacity: int | None = None  # the index of the sample that is the opacity
    palette: np.ndarray | None = None  # uint8 [n, 3], indexed by the first sample
    low: int = 0  # the intensity that is shown black, and all below
    high: int | None = None  # shown white, and all above; by default white

    def at(self, where: tuple[slice, slice]) -> np.ndarray:
        """The intensities of a window over black: [h, w, 1 or 3] in 0 .. white."""
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
        counts = np.zeros(self.white + 1, np.int64)
        for top in range(0, len(self.samples), _BAND):
            band = self.at((slice(top, top + _BAND), slice(None)))
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
        shown = self.at(where)
        if shown.dtype != np.uint8 or not np.array_equal(self.shades, range(256)):
            shown = self.shades[shown]
        return np.broadcast_to(shown, (*shown.shape[:2], 3)).copy()


def of_array(array: np.ndarray) -> Values:
    """The values of an image in memory, see `ImageWindows.of_array`."""
    array = np.asarray(array)
    samples = array[..., None] if array.ndim == 2 else array
    if samples.ndim != 3 or samples.shape[2] not in (1, 3, 4) or not samples.size:
        text = "must have shape [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
        raise InputError(f"image {text}, got {array.shape}")
    if samples.dtype == bool:
        samples, white = samples.astype(np.uint8), 1
    elif np.issubdtype(samples.dtype, np.floating):
        low, high = float(samples.min()), float(samples.max())
        if not (low >= 0 and high <= 1):
            raise InputError(
                "image of floating-point values must have values from 0 to 1, got "
                f"{low:.4g} to {high:.4g}: give integers, or scale it"
            )
        scaled = np.rint(samples.astype(np.float64) * WHITE)
        samples, white = scaled.astype(np.uint16), WHITE
    elif samples.dtype in (np.uint8, np.uint16):
        white = int(np.iinfo(samples.dtype).max)
    else:
        raise InputError(
            "image must hold bool, uint8, uint16 or floating-point values, got "
            f"{samples.dtype}: its values do not tell what is white"
        )
    opacity = 3 if samples.shape[2] == 4 else None
    colors = 1 if samples.shape[2] == 1 else 3
    return Values(samples, white=white, colors=colors, opacity=opacity)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view of pixels [H, W, ...] turned upright, see EXIF and TIFF."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return pixels[rows, columns]


def refuse_page(page: int | str, number: int) -> Refused:
    """The error for a page that is not one of the ``number`` pages."""
    pages = f"{number} pages, 0 to {number - 1}" if number > 1 else "one page, 0"
    return Refused(f"has {pages}, but page {page} is to be read")


def within_16_bits(values: np.ndarray) -> np.ndarray:
    """Values as uint16, if they fit."""
    if values.size and (values.min() < 0 or values.max() > WHITE):
        got = f"{values.min()} to {values.max()}"
        raise Refused(f"must have values within 16 bits, got {got}")
    return values.astype(np.uint16, copy=False)


# PNG, JPEG and the other formats that Pillow decodes


def readable(source: Source) -> Any:
    """What a decoder opens: a path, or a file in memory."""
    return io.BytesIO(source) if isinstance(source, bytes) else source


def opened(source: Source) -> IO[bytes]:
    """The file, or one in memory, as bytes."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def first_bytes(source: Source, number: int) -> bytes:
    """The first bytes of a file."""
    with opened(source) as file:
        return file.read(number)


class PillowImage:
    """An image file that Pillow has opened."""

    def __init__(self, source: Source, image: Image.Image) -> None:
        self._source, self._image = source, image
        mpo = image.format == "MPO"  # the further images of a camera are not pages
        self.num_pages = 1 if mpo else int(getattr(image, "n_frames", 1))

    def header(self, page: int) -> Header:
        """The header of a page."""
        if page >= self.num_pages:
            raise refuse_page(page, self.num_pages)
        image = notes = self._image
        if page:
            image.seek(page)
        deep = image.mode.startswith("I")
        if image.format == "PNG":
            behind = _png_notes(self._source)
            notes = Image.open(io.BytesIO(behind)) if behind else image
            deep |= first_bytes(self._source, 25)[24:] == b"\x10"
        # PNG's own method would decode the pixels to find notes behind them.
        orientation = Image.Image.getexif(notes).get(ORIENTATION)
        size, bits = (image.height, image.width), 16 if deep else 8
        across, down = image.info.get("dpi", (0, 0))
        if image.format in ("JPEG", "MPO") and not (
            image.info.get("jfif_unit") or _ACROSS in image.getexif()
        ):
            across = down = 0  # Pillow's default, which the file does not state
        per_inch = make_resolution(across, down, INCH)
        return make_header(
            size, orientation, image.format, bits=bits, resolution=per_inch
        )

    def values(self, page: int) -> Values:
        """Decodes a page."""
        header, image = self.header(page), self._image
        check_limit(header.stored)
        image.load()  # which refuses what is cut short
        kind = first_bytes(self._source, 26)[24:]
        if image.format == "PNG" and kind in _DEEP_COLORS and page == 0:
            values = _deep_png(self._source, image.info.get("transparency"))
        else:
            values = shown_by_pillow(image)
        samples = upright(values.samples, header.orientation)
        return dataclasses.replace(values, samples=samples)


def shown_by_pillow(image: Image.Image) -> Values:
    """The values of a page that Pillow has decoded."""
    if image.mode == "F":
        raise Refused(FLOATING)
    if image.mode.startswith("I"):  # I or I;16
        gray = within_16_bits(np.asarray(image))
        key = image.info.get("transparency")
        if isinstance(key, int):
            gray = np.where(gray == key, 0, gray).astype(np.uint16)
        return Values(gray[..., None], white=WHITE)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return Values(np.asarray(image.convert("RGBA")), colors=3, opacity=3)
    if image.mode in ("1", "L"):
        return Values(np.asarray(image.convert("L"))[..., None])
    colors = image if image.mode == "RGB" else image.convert("RGB")
    return Values(np.asarray(colors), colors=3)


def _png_notes(source: Source) -> bytes:
    """A PNG without its pixels, if notes stand behind them; they may turn the image."""
    notes, found, behind = [_PNG], False, False
    with opened(source) as file:
        file.seek(len(_PNG))
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


def _deep_png(source: Source, key: Any) -> Values:
    """A PNG with several samples of 16 bits, of which Pillow keeps 8."""
    import cv2  # late: it takes long to import

    with opened(source) as file:
        data = np.frombuffer(file.read(), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise OSError("its pixels cannot be decoded")
    colors = pixels[..., 2::-1]
    if pixels.shape[2] == 3 and isinstance(key, tuple):
        colors = np.where((colors == key).all(-1, keepdims=True), 0, colors)
    samples = np.concatenate([colors, pixels[..., 3:]], axis=-1).astype(np.uint16)
    opacity = 3 if pixels.shape[2] == 4 else None
    return Values(samples, white=WHITE, colors=3, opacity=opacity)
