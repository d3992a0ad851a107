"""Image files: found, read, judged and written; tiles and windows of large images.

Everything that reads an image goes through `read_values`, so that training, scores and
predictions see the same pixels. H W image size, h w size of a window; places are (row,
column), ends are exclusive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import os
import pathlib
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from sphemb._checks import InputError, check_count, check_integer, check_shape
from sphemb._files import written_whole
from sphemb.data.files import _images
from sphemb.data.files._images import (
    AS_SHOWN,
    FileError,
    PathLike,
    Reading,
    Resolution,
    Source,
)
from sphemb.data.files._tiff import TiffImage, opened_tiff

_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "jp2", "bmp", "gif", "pbm", "pgm", "ppm", "pnm"),
        *("tga", "tif", "tiff", "webp"),
    )
)
_PERCENTILES = (1.0, 99.8)
_MOST_PIXELS = 2**31  # Pillow and NumPy count places with 32 bits
_STRIP = 128  # rows that are compressed together in a TIFF
_USED = 0.5  # the least share of the range of the bits without a warning
_LEVELS = 32  # the least number of the 256 shown that hold nearly all values
_TURNED = {  # whether the labels are a mask file: what is assumed, and what to do
    True: (
        "turned by a camera's orientation, and the masks not, whose size fits both",
        ": where masks were drawn on the stored pixels, turn them",
    ),
    False: (
        "turned by a camera's orientation, with their outlines, whose size fits both",
        ": where outlines were drawn on the upright image, save it upright",
    ),
}


def find_images(paths: PathLike | Iterable[PathLike]) -> list[pathlib.Path]:
    """Finds the image files of a list of files, folders and patterns.

    Of a folder these are the images directly inside it, of a pattern such as
    ``"photos/**/*.png"`` its matches. The result is sorted and has each file once,
    whatever links lead to it. A path without a file is refused.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    wanted = [os.path.expanduser(os.fspath(path)) for path in paths]
    if not wanted:
        raise InputError("paths must name at least one image file or folder, got none")
    return each_once(file for text in wanted for file in sorted(_files_of(text)))


def each_once(files: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Files, sorted, without other names of the same file."""
    found: dict[str, pathlib.Path] = {}
    for file in files:
        # os.path rather than pathlib, which raises at links in rings.
        found.setdefault(os.path.realpath(file), file)
    return sorted(found.values())


def images_in(folder: PathLike) -> list[pathlib.Path]:
    """The images directly in a folder, by all of their names, sorted."""
    return sorted(file for file in pathlib.Path(folder).iterdir() if is_image(file))


def _files_of(text: str) -> list[pathlib.Path]:
    path = pathlib.Path(text)
    if os.path.isfile(path):  # pathlib raises at impossible names
        return [path]
    if os.path.isdir(path):
        files = images_in(path)
        listed = ", ".join(sorted(suffix[1:] for suffix in _SUFFIXES))
        lacks = f"no images ({listed}) in the folder {text}"
    elif glob.has_magic(text):
        files = [*filter(is_image, map(pathlib.Path, glob.glob(text, recursive=True)))]
        lacks = f"no image matches the pattern {text}"
    else:
        files, lacks = [], f"no such file or folder: {text}"
    if not files:
        raise InputError(lacks)
    return files


def is_image(path: pathlib.Path) -> bool:
    """Whether a file has the name of an image; nothing is read."""
    if path.name.startswith(".") or path.suffix.lower() not in _SUFFIXES:
        return False
    return os.path.isfile(path) or (path.is_symlink() and not os.path.exists(path))


def read_image(path: PathLike, reading: Reading = AS_SHOWN) -> np.ndarray:
    """Reads an image file as RGB, uint8 [H, W, 3], the way a viewer shows it.

    Gray becomes RGB, transparency is laid over black, palettes are looked up, 16-bit
    values are scaled to 8 bits, a camera's orientation is applied, and of several
    pages the first is taken, unless ``reading`` names another. A file that is missing,
    damaged, larger than ``Image.MAX_IMAGE_PIXELS`` or not an image is a `FileError`.
    """
    return read_values(pathlib.Path(path), reading).shown()


def read_size(path: PathLike, reading: Reading = AS_SHOWN) -> tuple[int, int]:
    """Returns the (H, W) of the result of `read_image`, without decoding pixels."""
    return read_header(pathlib.Path(path), reading).size


@contextlib.contextmanager
def _opened(source: Source, who: str) -> Iterator[TiffImage | _images.PillowImage]:
    who = who or f"image {source}"
    with _images.decoding(source, who), opened_tiff(source) as tiff:
        if tiff is not None:
            yield tiff
        else:
            with Image.open(_images.readable(source)) as image:
                yield _images.PillowImage(source, image)


def read_header(
    source: Source, reading: Reading = AS_SHOWN, *, who: str = ""
) -> _images.Header:
    """Reads size and orientation; ``who`` names a source of bytes in errors."""
    with _opened(source, who) as image:
        return image.header(0 if reading.page == "max" else int(reading.page))


def count_pages(path: pathlib.Path) -> int:
    """Counts the pages of an image file: of a stack, of channels, of an animation."""
    with _opened(path, "") as image:
        return image.num_pages


def read_values(
    source: Source, reading: Reading = AS_SHOWN, *, who: str = ""
) -> _images.Values:
    """Decodes an image; see `read_header` and `read_image`."""
    with _opened(source, who) as image:
        if reading.page != "max":
            values = image.values(int(reading.page))
        else:
            values = image.values(0)
            if image.num_pages > 1:
                values = _maximum(values, map(image.values, range(1, image.num_pages)))
        return _stretched(values, reading)


def _maximum(first: _images.Values, others: Iterable[_images.Values]) -> _images.Values:
    everywhere = (slice(None), slice(None))
    highest = np.array(first.at(everywhere))
    for k, values in enumerate(others, start=1):
        found = values.at(everywhere)
        if found.shape != highest.shape or values.white != first.white:
            got = f"{highest.shape} up to {first.white} and, of page {k}, {found.shape}"
            text = "must have pages of one form for their maximum, got [H, W, C] ="
            raise _images.Refused(f"{text} {got} up to {values.white}")
        np.maximum(highest, found, out=highest)
    return _images.Values(highest, white=first.white, colors=highest.shape[2])


def _stretched(values: _images.Values, reading: Reading) -> _images.Values:
    if reading.intensity == "full":
        return values
    if reading.intensity == "range":
        advice = "for an image give 'full', 'percentile' or LOW..HIGH/WHITE"
        raise InputError(f"intensity 'range' is that of a data set: {advice}")
    if reading.intensity == "percentile":
        below = np.cumsum(values.counts())
        wanted = below[-1] * np.array(_PERCENTILES) / 100
        low, high = np.searchsorted(below, wanted).tolist()
    else:
        low, high, white = reading.bounds
        if values.white != white:
            text = f"has values up to {values.white}, but intensity {reading.intensity}"
            advice = "give all images the same depth, or take intensity 'percentile'"
            raise _images.Refused(f"{text} is for those up to {white}: {advice}")
    return dataclasses.replace(values, low=low, high=high)


def image_files(source: Any) -> list[pathlib.Path]:
    """The image files of a source's examples; none where it has no files."""
    source = getattr(source, "source", source)  # of a SkippingSource
    entries = getattr(source, "pairs", None) or getattr(source, "files", ())
    return [entry.image for entry in entries]


def with_measured_range(reading: Reading, files: Iterable[pathlib.Path]) -> Reading:
    """Replaces the intensity ``"range"`` by the lowest and highest value of images."""
    if reading.intensity != "range":
        return reading
    low, high, white, first = _images.WHITE, 0, 0, None
    for file in files:
        try:
            values = read_values(file, Reading(page=reading.page))
        except FileError:
            continue  # the reader of the example reports it
        present = np.flatnonzero(values.counts())
        if first is None:
            first, white = file, values.white
        if values.white != white:
            text = f"{first} go up to {white} and those of {file} up to {values.white}"
            raise InputError(
                f"intensity 'range' needs images of one depth, but values of {text}: "
                "take intensity 'percentile'"
            )
        low, high = min(low, int(present[0])), max(high, int(present[-1]))
    if first is None or low == high:
        found = "none" if first is None else f"only {low}"
        text = "intensity 'range' needs training images of several values"
        raise InputError(f"{text}, got {found}")
    return Reading(reading.page, f"{low}..{high}/{white}")


class ImageValues:
    """Collects warnings about the image files of a data set."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        # kind of warning, and format, depth or labels -> files
        self._files: dict[tuple[str, Any], list[pathlib.Path]] = defaultdict(list)
        self._pages: dict[str, set[int]] = defaultdict(set)
        self._counts: dict[int, Any] = defaultdict(int)

    def add(
        self, file: pathlib.Path, *, drawn_on: Any = None, masked: bool = False
    ) -> None:
        """Adds a readable image with a mask file, or outlines for a (H, W)."""
        with contextlib.suppress(FileError):
            header = read_header(file, self._reading)
            kept = header.orientation != 1 and header.stored == header.size
            if kept and (masked or drawn_on == header.stored):
                self._files["turned", masked].append(file)
            pages = count_pages(file)
            if pages > 1 and self._reading.page == 0:
                self._files["pages", header.kind].append(file)
                self._pages[header.kind].add(pages)
            if header.bits > 8 and self._reading.intensity == "full":
                values = read_values(file, self._reading)
                self._counts[values.white] += values.counts()
                self._files["unused bits", values.white].append(file)

    @property
    def findings(self) -> list[_images.Finding]:
        """One warning for each kind of file, not for each file."""
        found = []
        for (kind, key), files in self._files.items():
            if kind == "pages":
                pages = self._pages[key]
                most = " to ".join(map(str, sorted({min(pages), max(pages)})))
                what = f"({key}) of {most} pages, of which page 0 is read"
                advice = ": config.data.page picks another, or max, the maximum of all"
            elif kind == "turned":
                what, advice = _TURNED[key]
            else:
                what, advice = _unused_bits(self._counts[key]), ""
            if what:
                images = f"{len(files)} image{'s' * (len(files) != 1)}"
                text = f"{images} {what}, the first is {files[0]}{advice}"
                names = tuple(map(str, files))
                found.append(_images.Finding("warning", kind, text, names))
        return found


def _unused_bits(counts: np.ndarray) -> str:
    """A clause about values that use few of their bits; empty where they use enough."""
    white = len(counts) - 1
    low, high = np.flatnonzero(counts)[[0, -1]].tolist()
    below = np.cumsum(counts)
    ends = np.searchsorted(below, below[-1] * np.array([0.01, 0.998]))
    levels = int(np.ptp(np.rint(ends * (255 / white)))) + 1
    few = high - low < _USED * white
    advice = "range or percentile" if few else "percentile"
    if not few and levels >= _LEVELS:
        return ""
    return (
        f"with values from {low} to {high}, {100 * (high - low) / white:.2g} % of the "
        f"{white} that their bits can hold, and 98.8 % of them in {levels} of 256 "
        f"levels of gray: config.data.intensity={advice} would use all"
    )


@contextlib.contextmanager
def _written_whole(path: pathlib.Path, suffix: str) -> Iterator[pathlib.Path]:
    if path.suffix.lower() != suffix:
        raise InputError(f"path must end in {suffix}, got {path}")
    try:
        with written_whole(path) as unfinished:
            yield unfinished
    except OSError as error:
        raise InputError(f"image cannot be written to {path}: {error}") from error


def write_image(
    path: PathLike, image: np.ndarray, *, resolution: Resolution | None = None
) -> None:
    """Writes uint8 [H, W, 3], or gray uint16 [H, W], as PNG, whole or not at all."""
    image = np.asarray(image)
    color = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    gray = image.dtype == np.uint16 and image.ndim == 2
    with _written_whole(pathlib.Path(path), ".png") as unfinished:
        if image.size == 0 or not (color or gray):
            text = "must be uint8 [H, W, 3] or uint16 [H, W] with pixels"
            raise InputError(f"image {text}, got {image.dtype} {image.shape}")
        per_inch = resolution and resolution.per_inch
        Image.fromarray(image).save(unfinished, format="PNG", dpi=per_inch)


def write_labels(
    path: PathLike, labels: np.ndarray, *, resolution: Resolution | None = None
) -> None:
    """Writes instances, int [H, W] in 0 .. 65535, as a 16-bit gray PNG."""
    labels = np.asarray(labels)
    check_shape("labels", labels, "H W")
    check_integer("labels", labels)
    low, high = labels.min(initial=0), labels.max(initial=0)
    if low < 0 or high > _images.WHITE:
        text = f"must lie in 0 .. {_images.WHITE} to be written as 16-bit PNG"
        raise InputError(f"labels {text}, got {low} to {high}")
    write_image(path, labels.astype(np.uint16), resolution=resolution)


def write_tiff(
    path: PathLike,
    rows: Callable[[int, int], np.ndarray],
    *,
    size: tuple[int, int],
    dtype: np.dtype | type,
    channels: int = 1,
    resolution: Resolution | None = None,
) -> None:
    """Writes a compressed TIFF in parts, whole or not at all.

    ``rows`` gives the pixels from one row up to another, [h, W] or, with 3 channels,
    [h, W, 3], as unsigned integers. The parts are strips: ImageJ does not read tiles.
    """
    height, width = size
    check_count("H", height, at_least=1)
    check_count("W", width, at_least=1)

    def strips() -> Iterator[bytes]:
        for top in range(0, height, _STRIP):
            band = np.asarray(rows(top, min(top + _STRIP, height)), dtype)
            yield zlib.compress(band.tobytes())

    across, down, unit, imagej = resolution or (1, 1, 1, "")
    # ImageJ reads the unit as Java reads properties, in ASCII.
    text = "".join(c if c.isascii() else f"\\u{ord(c):04X}" for c in imagej)
    with _written_whole(pathlib.Path(path), ".tif") as unfinished:
        tifffile.imwrite(
            unfinished,
            strips(),
            shape=(height, width) if channels == 1 else (height, width, channels),
            dtype=dtype,
            rowsperstrip=_STRIP,
            compression="zlib",
            resolution=(across, down),
            resolutionunit=unit,
            description=f"ImageJ=1.11a\nunit={text}\n" if text else None,
            photometric="minisblack" if channels == 1 else "rgb",
            bigtiff=height * width * channels * np.dtype(dtype).itemsize >= 2**31,
            metadata=None,
        )


class Box(NamedTuple):
    """A rectangle of pixels: from row and column up to row and column."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """The slices of an array [H, W, ...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def clipped(self, height: int, width: int) -> Box:
        """The part of it that lies in an image."""
        top, left, bottom, right = self
        return Box(max(top, 0), max(left, 0), min(bottom, height), min(right, width))

    def within(self, outer: Box) -> Box:
        """The same pixels, counted from the upper left corner of another box."""
        (top, left), (height, width) = outer[:2], self.size
        row, column = self.top - top, self.left - left
        return Box(row, column, row + height, column + width)


class Tile(NamedTuple):
    """One tile of an image; the cores of all tiles cover it without overlap."""

    outer: Box  # the network's input, padded beyond the image, below and to the right
    core: Box  # the part of the result that is kept


def tile_image(
    size: tuple[int, int], *, tile: int, halo: int, multiple: int = 1
) -> list[Tile]:
    """Cuts an image (H, W) into tiles of one size, each with a halo around its core.

    Tiles and cores begin at multiples of ``multiple``, that of a network's input, so
    that its cells lie as in the whole image. ``tile``, the least side, and ``halo``,
    the least distance of a core from the border of its tile (except at the image's
    border), are rounded up to it. The last tiles of a row or column overlap more.

    >>> tiles = tile_image((16, 40), tile=16, halo=2, multiple=4)
    >>> [tile.outer.left for tile in tiles], [tile.core.left for tile in tiles]
    ([0, 8, 16, 24], [0, 12, 20, 28])
    """
    for name, value in {"H": size[0], "W": size[1], "tile": tile}.items():
        check_count(name, value, at_least=1)
    check_count("halo", halo)
    check_count("multiple", multiple, at_least=1)
    side, margin = (value + -value % multiple for value in (tile, halo))
    if side <= 2 * margin and max(size) > side:
        text = f"tile must be more than twice the halo, got {tile} and {halo}"
        raise InputError(f"{text}, in the network's steps of {multiple} pixels")
    rows, columns = (_spans(length, side, margin, multiple) for length in size)
    return [
        Tile(Box(top, left, below, beside), Box(row, column, last_row, last_column))
        for top, below, row, last_row in rows
        for left, beside, column, last_column in columns
    ]


def _spans(
    length: int, side: int, margin: int, multiple: int
) -> list[tuple[int, int, int, int]]:
    padded = length + -length % multiple
    side = min(side, padded)
    starts = [*range(0, padded - side, max(side - 2 * margin, 1)), padded - side]
    seams = [0, *(start + margin for start in starts[1:]), length]
    spans = zip(starts, itertools.pairwise(seams), strict=True)
    return [(start, start + side, *core) for start, core in spans]


class ImageWindows:
    """An image file of any size, read a window at a time.

    TIFF files are mapped into memory, large compressed ones by way of a temporary file.
    Other files are decoded as a whole when the first window is read, and kept until
    :meth:`close`. Attributes are ``path``; ``size`` (H, W), at most 2^31 pixels;
    ``num_pages``; ``kind``, the format, such as "TIFF"; ``resolution``, if the file
    states it; and ``turned_from``, (H, W) of the stored pixels, if a camera's
    orientation turns them.
    """

    def __init__(self, path: PathLike, reading: Reading = AS_SHOWN) -> None:
        self.path = pathlib.Path(path)
        self._reading = reading
        self._values: _images.Values | None = None
        self._held: _images.Values | None = None
        with _any_size():
            header = read_header(self.path, reading)
            self.num_pages = count_pages(self.path)
        self.size = height, width = header.size
        self.kind, self.resolution = header.kind, header.resolution
        self.turned_from = header.stored if header.orientation != 1 else None
        if height * width > _MOST_PIXELS:
            text = f"must have at most {_MOST_PIXELS:,} pixels, got {height} x {width}"
            raise InputError(f"image {self.path} {text}")

    @classmethod
    def of_array(cls, array: np.ndarray, reading: Reading = AS_SHOWN) -> ImageWindows:
        """An image in memory, read as a file with these values is.

        Args:
            array: [H, W], [H, W, 1], [H, W, 3] or, with opacity, [H, W, 4]: bool,
                uint8, uint16, or floating-point values from 0 to 1.
            reading: the intensity counts.
        """
        image = cls.__new__(cls)
        image.path, image._reading = pathlib.Path("array"), reading
        try:
            image._held = _stretched(_images.of_array(array), reading)
        except _images.Refused as error:
            raise InputError(f"image {error}") from None
        image._values = image._held
        image.num_pages, image.turned_from = 1, None
        image.kind, image.resolution = "array", None
        image.size = image._values.samples.shape[:2]
        return image

    def read(self, box: Box) -> np.ndarray:
        """Reads a window as uint8 [h, w, 3], mirrored beyond the image."""
        inside = box.clipped(*self.size)
        if min(*inside.size, *box.size) < 1:
            text = f"a window must lie in the image {self.path} of size {self.size}"
            raise InputError(f"{text}, got {tuple(box)}")
        rows = inside.top - box.top, box.bottom - inside.bottom
        columns = inside.left - box.left, box.right - inside.right
        pixels = self._decoded().shown(inside.slices)
        return np.pad(pixels, (rows, columns, (0, 0)), mode="symmetric")

    def intensities(self, box: Box) -> np.ndarray:
        """The file's own values in a part of the image, [h, w, 1 or 3], 0 is black."""
        return self._decoded().at(box.slices)

    @property
    def samples(self) -> int:
        """How many values a pixel has, 1 or 3; see :meth:`intensities`."""
        return self.intensities(Box(0, 0, 1, 1)).shape[2]

    def _decoded(self) -> _images.Values:
        if self._values is None:
            with _any_size():
                self._values = read_values(self.path, self._reading)
        return self._values

    def whole(self) -> np.ndarray:
        """Reads the whole image, uint8 [H, W, 3]."""
        return self.read(Box(0, 0, *self.size))

    @property
    def pages_read(self) -> str:
        """Which page of how many is read; empty for a single page."""
        if self.num_pages == 1:
            return ""
        if self._reading.page == "max":
            return f"maximum of {self.num_pages} pages"
        return f"page {self._reading.page} of {self.num_pages}"

    def close(self) -> None:
        """Frees the pixels; the next window decodes them again."""
        self._values = self._held


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Lifts Pillow's limit of pixels, which is against attacks."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
