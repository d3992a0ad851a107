"""TIFF files, decoded by tifffile; what it cannot decode goes to Pillow's libtiff."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
import math
import pathlib
import re
import struct
from collections import ChainMap
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile
from PIL import Image

from sphemb.data.files import _images

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # errors are enough

_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IN_MEMORY = 2**26  # pixels of a compressed TIFF that are decoded in memory
_IMAGEJ_UNIT = re.compile(r"ImageJ=.*^unit=([^\r\n]+)", re.DOTALL | re.MULTILINE)
# Units of length in a centimeter; OME's own is the first.
_OME_UNITS = {"µm": 1e4, "\N{GREEK SMALL LETTER MU}m": 1e4}
_OME_UNITS |= {"pm": 1e10, "Å": 1e8, "nm": 1e7, "mm": 10.0, "cm": 1.0, "m": 1e-2}
# Samples of a color; other TIFF than these is decoded by Pillow as a whole.
_COLOR_SAMPLES = {
    tifffile.PHOTOMETRIC.MINISBLACK: 1,
    tifffile.PHOTOMETRIC.MINISWHITE: 1,
    tifffile.PHOTOMETRIC.PALETTE: 1,
    tifffile.PHOTOMETRIC.RGB: 3,
}


class Page(NamedTuple):
    """A page; ``place`` counts those that are stored in one piece behind the first."""

    page: Any
    place: int = 0


class TiffImage:
    """A TIFF that tifffile has opened."""

    def __init__(self, source: _images.Source, tiff: Any) -> None:
        self._source, self._tiff = source, tiff

    @functools.cached_property
    def _pages(self) -> list[Page]:
        """The pages without smaller copies of them and masks of what is transparent."""
        pages = [
            Page(page)
            for i, page in enumerate(self._tiff.pages)
            if i == 0 or not (page.is_reduced or page.is_mask)
        ]
        images = _described_images(self._tiff)
        if len(pages) == 1 < images:
            return [Page(pages[0].page, k) for k in range(images)]
        return pages

    @property
    def num_pages(self) -> int:
        """The number of pages."""
        return len(self._pages)

    def _page(self, number: int) -> Page:
        if number == 0:
            return Page(self._tiff.pages.first)
        if number >= self.num_pages:
            raise _images.refuse_page(number, self.num_pages)
        return self._pages[number]

    def header(self, number: int) -> _images.Header:
        """The header of a page."""
        return tiff_header(self._page(number).page)

    def values(self, number: int) -> _images.Values:
        """Decodes a page."""
        found = self._page(number)
        page, header = found.page, tiff_header(found.page)
        _images.check_limit(header.stored)
        if page.dtype is not None and page.dtype.kind not in "bui":
            raise _images.Refused(_images.FLOATING)
        colors = _COLOR_SAMPLES.get(page.photometric)
        paletted = page.photometric == tifffile.PHOTOMETRIC.PALETTE
        packed = colors is None or page.dtype is None
        if packed or (paletted and page.samplesperpixel > 1):
            return _by_pillow(self._source, page)
        opacity, premultiplied = _opacity(page, colors)
        inverted = white_is_zero(page)
        if inverted and premultiplied:
            text = "counts from white down and has colors multiplied by their opacity"
            raise _images.Refused(f"{text}: save it with black at 0")
        try:
            samples = decoded(self._source, self._tiff, found)
        except Undecoded:
            return _by_pillow(self._source, page)
        palette = None
        if page.dtype.kind == "b":
            samples, white = samples.astype(np.uint8), 1
        elif page.dtype in (np.uint8, np.uint16):
            white = 2**page.bitspersample - 1
        else:
            samples = _images.within_16_bits(samples)
            white = 255 if page.dtype == np.int8 else _images.WHITE
        if paletted:
            palette, white = tiff_palette(page), 255
        return _images.Values(
            _images.upright(samples, header.orientation),
            white=white,
            colors=colors,
            inverted=inverted,
            opacity=None if premultiplied else opacity,
            palette=palette,
        )


@contextlib.contextmanager
def opened_tiff(source: _images.Source) -> Iterator[TiffImage | None]:
    """Opens a TIFF; None for other files and where tifffile cannot, but Pillow may."""
    file, known = None, False
    if _images.first_bytes(source, 4) in _BEGINNINGS:
        with contextlib.suppress(*_images.DAMAGED):
            file = tifffile.TiffFile(_images.readable(source))
            known = isinstance(file.pages.first, tifffile.TiffPage)
    try:
        yield TiffImage(source, file) if known else None
    finally:
        if file is not None:
            file.close()


def _described_images(tiff: Any) -> int:
    """How many images the description counts, of which only the first has a page."""
    if tiff.is_imagej:  # stacks above 4 GiB
        return int((tiff.imagej_metadata or {}).get("images", 1))
    notes = tiff.shaped_metadata[0] if tiff.is_shaped else {}
    if not notes.get("truncated"):
        return 1
    return math.prod(notes["shape"]) // max(math.prod(tiff.pages.first.shape), 1)


def _resolution(page: Any) -> _images.Resolution | None:
    """What OME's, else ImageJ's description of the file and a page's tags state."""
    with contextlib.suppress(*_images.DAMAGED):
        stated = _ome_pixels(page.parent.ome_metadata)
        if "PhysicalSizeX" in stated:
            return _ome_resolution(stated)
    with contextlib.suppress(*_images.DAMAGED):
        names = ("XResolution", "YResolution")
        across, down = (Fraction(*page.tags.valueof(name)) for name in names)
        unit = page.tags.valueof("ResolutionUnit", _images.INCH)
        imagej = _IMAGEJ_UNIT.match(page.parent.pages.first.description)
        imagej = imagej.group(1).strip() if imagej else ""
        return _images.make_resolution(across, down, unit, imagej)
    return None


def _ome_pixels(description: str | None) -> dict[str, str]:
    """What OME-XML says of the pixels of the first image."""
    found = ElementTree.fromstring(description or "<OME/>").find(".//{*}Pixels")
    return {} if found is None else found.attrib


def _ome_resolution(pixels: dict[str, str]) -> _images.Resolution | None:
    """Pixels per centimeter; None in units that are none of length."""
    numbers = []
    for name in ("PhysicalSizeX", "PhysicalSizeY"):
        unit = _OME_UNITS.get(pixels.get(f"{name}Unit", "µm"), math.nan)
        numbers.append(unit / float(pixels.get(name, "nan")))
    across, down = numbers
    return _images.make_resolution(across, down, _images.CENTIMETER)


def tiff_header(page: Any) -> _images.Header:
    """The header of a page."""
    size = page.imagelength, page.imagewidth
    orientation = page.tags.valueof(_images.ORIENTATION, 1)
    own = {"bits": page.bitspersample, "resolution": _resolution(page)}
    return _images.make_header(size, orientation, "TIFF", **own)


def white_is_zero(page: Any) -> bool:
    """Whether values count from white down."""
    # tifffile declares this for bits, but writes True as 1 all the same.
    own = page.dtype.kind == "b" and page.software == "tifffile.py"
    return page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and not own


def tiff_palette(page: Any) -> np.ndarray:
    """The palette: uint8 [n, 3]."""
    colors = np.asarray(page.colormap).T  # of 16 bits
    eight = colors.max(initial=0) < 256  # as some programs write it
    return (colors if eight else colors >> 8).astype(np.uint8)


def _opacity(page: Any, colors: int) -> tuple[int | None, bool]:
    """The index of the declared opacity, and whether colors are multiplied by it."""
    kinds = [int(kind) for kind in page.extrasamples]
    extra = page.samplesperpixel - colors
    if extra < 0:
        text = f"must have {colors} samples a pixel, got {page.samplesperpixel}"
        raise _images.Refused(text)
    if extra > len(kinds):
        text = f"has {page.samplesperpixel} samples a pixel, {colors} of them the color"
        advice = "save it with that tag, or as gray or RGB"
        raise _images.Refused(f"{text}, and no tag ExtraSamples: {advice}")
    if colors == 1 and kinds.count(0) > 1:
        text = f"must be gray or RGB, got {page.samplesperpixel} channels"
        raise _images.Refused(f"{text} without a color: save the channels to be seen")
    for place, kind in enumerate(kinds[:extra], start=colors):
        if kind in (1, 2):
            return place, kind == 1
    return None, False


class Undecoded(Exception):
    """An encoding that tifffile cannot undo."""


def decoded(source: _images.Source, tiff: Any, found: Page) -> np.ndarray:
    """Samples [H, W, C] as stored, mapped from the file where they are not encoded."""
    page, place = found
    if page.axes not in ("YX", "YXS", "SYX"):
        raise _images.Refused(f"must be flat, got a page with the axes {page.axes}")
    parts = zip(page.dataoffsets, page.databytecounts, strict=True)
    end = max((start + count for start, count in parts), default=0)
    # Without this a file that was cut short could come out as zeros.
    if end + place * page.nbytes > tiff.filehandle.size:
        raise OSError("the file is cut short")
    if place or (page.is_memmappable and isinstance(source, pathlib.Path)):
        dtype = page.dtype.newbyteorder(tiff.byteorder)
        offset = page.dataoffsets[0] + place * page.nbytes
        samples = tiff.filehandle.memmap_array(dtype, page.shape, offset)
    elif page.compression not in tifffile.TIFF.DECOMPRESSORS or (
        page.compression in _PACKED and page.bitspersample % 8
    ):
        raise Undecoded
    else:
        large = page.imagelength * page.imagewidth > _IN_MEMORY
        try:
            samples = page.asarray(out="memmap" if large else None)
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
            raise Undecoded from error
    if page.axes == "SYX":
        return np.moveaxis(samples, 0, -1)
    return samples[..., None] if samples.ndim == 2 else samples


def _unpack(data: bytes, compression: int, out: int) -> bytes:
    """Unpacks ``out`` bytes by libtiff, as the strip of a gray image of one row."""
    begin = 8 + 2 + 9 * 12 + 4
    tags = {256: out, 257: 1, 258: 8, 259: compression, 262: 1, 273: begin}
    tags |= {277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    with Image.open(io.BytesIO(header + entries + bytes(4) + data)) as image:
        return image.tobytes()


# tifffile unpacks LZW and ZSTD only with imagecodecs, a large library.
_CODECS: Any = tifffile.TIFF.DECOMPRESSORS
_PACKED: dict[int, Any] = {
    code: functools.partial(_unpack, compression=int(code))
    for code in (tifffile.COMPRESSION.LZW, tifffile.COMPRESSION.ZSTD)
    if code not in _CODECS
}
tifffile.TIFF.DECOMPRESSORS = ChainMap(_PACKED, _CODECS)


def _by_pillow(source: _images.Source, page: Any) -> _images.Values:
    """What libtiff shows of a page, where it follows the same rules."""
    bits, samples = page.bitspersample, page.samplesperpixel
    if (
        (bits > 8 and samples > 1)
        or (page.extrasamples and page.photometric != tifffile.PHOTOMETRIC.PALETTE)
        or (page.planarconfig == 2 and samples > 1)
    ):
        compression = getattr(page.compression, "name", page.compression)
        raise _images.Refused(
            f"has {samples} samples of {bits} bits a pixel in an encoding that cannot "
            f"be read ({compression}): save it uncompressed, with deflate or with LZW"
        )
    with Image.open(_images.readable(source)) as image:
        image.seek(page.index)
        image.load()  # Pillow turns a TIFF itself
        values = _images.shown_by_pillow(image)
    if image.size[::-1] != tiff_header(page).size:
        raise OSError("its tags of size and orientation disagree")
    if values.white == _images.WHITE:
        # Pillow gives deep values as they are stored.
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        white = 2**bits - 1 if bits < 16 else _images.WHITE
        values = dataclasses.replace(values, inverted=inverted, white=white)
    return values
