"""The instances of a label image: their table, run lengths and outlines.

Shape letters: H W image size, h w size of an instance's box, C samples of a pixel.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage

from sphemb._coco import encode_mask
from sphemb._files import written_whole
from sphemb.data import Box

_DECIMALS = 4  # of a number in a table
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # (x, y): right, down, left, up
# Steps of a contour by the code of a border pixel, see `perimeter`.
_LENGTHS = np.zeros(50)
_LENGTHS[[5, 7, 15, 17, 25, 27]] = 1.0
_LENGTHS[[21, 33]] = np.sqrt(2.0)
_LENGTHS[[13, 23]] = (1.0 + np.sqrt(2.0)) / 2.0

Point = tuple[int, int]
Ring = list[Point]


class Region(NamedTuple):
    """An instance of a label map; the names are those of scikit-image's regionprops."""

    label: int
    area: int
    centroid: tuple[float, float]  # row and column
    bbox: tuple[int, int, int, int]  # (top, left, bottom, right), ends exclusive
    perimeter: float
    intensity_mean: tuple[float, ...]  # of each of the samples
    runs: dict[str, Any]  # its mask as COCO's compressed run lengths

    @property
    def row(self) -> tuple[Any, ...]:
        """Its row of the table, in the order of `columns`."""
        tail = (self.perimeter, *self.intensity_mean)
        rounded = (round(value, _DECIMALS) for value in tail)
        middle = (round(value, _DECIMALS) for value in self.centroid)
        return (self.label, self.area, *middle, *self.bbox, *rounded)


def columns(samples: int) -> tuple[str, ...]:
    """The names that ``skimage.measure.regionprops_table`` gives to `Region.row`."""
    middle = (f"centroid-{i}" for i in range(2))
    box = (f"bbox-{i}" for i in range(4))
    means = (f"intensity_mean-{i}" for i in range(samples))
    intensities = means if samples > 1 else ("intensity_mean",)
    return ("label", "area", *middle, *box, "perimeter", *intensities)


def regions_of(
    labels: np.ndarray, intensities: Callable[[Box], np.ndarray]
) -> Iterator[Region]:
    """The instances of a label map int [H, W] by number; 0 is the background.

    ``intensities`` reads values [h, w, C] of a part of the image.
    """
    for number, window, mask in _masks(labels):
        rows, across = np.nonzero(mask)
        top, left = window[0].start, window[1].start
        box = Box(top, left, window[0].stop, window[1].stop)
        yield Region(
            label=number,
            area=len(rows),
            centroid=(top + float(rows.mean()), left + float(across.mean())),
            bbox=tuple(box),
            perimeter=perimeter(mask),
            intensity_mean=tuple(intensities(box)[mask].mean(axis=0).tolist()),
            runs=encode_mask(mask, corner=(top, left), size=labels.shape),
        )


def _masks(labels: np.ndarray) -> Iterator[tuple[int, tuple[slice, ...], np.ndarray]]:
    """The number, the box and the mask [h, w] of each instance."""
    for number, window in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if window is not None:
            yield number, window, labels[window] == number


def perimeter(mask: np.ndarray) -> float:
    r"""Estimates the length of the outline of a mask, bool [h, w].

    The border are the pixels with one of their four neighbors outside. Of a border
    pixel with :math:`n` of its four and :math:`m` of its four diagonal neighbors on the
    border, the code :math:`1 + 2n + 10m` says how many steps, of length 1 or
    :math:`\sqrt 2`, a contour takes there.

    References:
        Benkrid & Crookes, "Design and FPGA implementation of a perimeter estimator",
        2000; scikit-image's ``perimeter`` with ``neighborhood=4``.

    >>> perimeter(np.ones((3, 5), bool))
    12.0
    """
    padded = np.pad(mask, 2)

    def moved(array: np.ndarray, rows: int, across: int) -> np.ndarray:
        height, width = array.shape
        return array[1 + rows : height - 1 + rows, 1 + across : width - 1 + across]

    sides = ((0, 1), (0, -1), (1, 0), (-1, 0))
    corners = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    inner = np.logical_and.reduce([moved(padded, *step) for step in sides])
    border = np.pad(moved(padded, 0, 0) & ~inner, 1).astype(np.int64)
    code = moved(border, 0, 0) + 2 * sum(moved(border, *step) for step in sides)
    code += 10 * sum(moved(border, *step) for step in corners)
    return float(np.bincount(code.ravel(), minlength=50) @ _LENGTHS)


def outline(mask: np.ndarray, corner: Point = (0, 0)) -> list[list[Ring]]:
    """Traces a mask, bool [h, w], along the edges of its pixels.

    Pixels that share edges are a polygon: its outer ring, then its holes. A ring has
    the corners (x, y) and ends with the first; no other corner occurs twice. As GeoJSON
    has it, x, y run counterclockwise along outer rings and clockwise along holes. The
    area of the polygons is the number of pixels.

    Args:
        mask: the mask.
        corner: (x, y) of its upper left corner in the image.

    References:
        RFC 7946, Section 3.1.6.

    >>> outline(np.array([[True, True]]))
    [[[(0, 0), (2, 0), (2, 1), (0, 1), (0, 0)]]]
    """
    pieces, _ = scipy.ndimage.label(mask)
    return [
        _rings(piece, (corner[0] + across.start, corner[1] + rows.start))
        for _, (rows, across), piece in _masks(pieces)
    ]


def _rings(piece: np.ndarray, corner: Point) -> list[Ring]:
    """The rings of pixels that share edges, the outer one first."""
    padded = np.pad(piece, 1)
    edges = set()  # (x, y) of the begin, and the heading, with the pixel on the right
    for heading, (x, y) in enumerate(_STEPS):
        left = np.roll(padded, (x, -y), axis=(0, 1))  # the pixel on the other side
        rows, across = np.nonzero(padded & ~left)
        down, right = heading in (2, 3), heading in (1, 2)
        begins = zip(
            (across + (corner[0] - 1 + right)).tolist(),
            (rows + (corner[1] - 1 + down)).tolist(),
            strict=True,
        )
        edges |= {(*begin, heading) for begin in begins}
    rings, seen = [], set()
    for edge in sorted(edges):  # the first of a ring begins in a corner
        ring, before = [], None
        while edge not in seen:
            seen.add(edge)
            x, y, heading = edge
            if heading != before:
                ring.append((x, y))
            before = heading
            x, y = x + _STEPS[heading][0], y + _STEPS[heading][1]
            # Where two pixels of the piece meet in a corner only, the turn to the left
            # leads to the other one, so that rings touch and do not cross themselves.
            turns = ((x, y, (heading + turn) % 4) for turn in (-1, 0, 1))
            edge = next(turn for turn in turns if turn in edges)
        if ring:
            rings.append([*ring, ring[0]])
    return rings


def write_outlines(
    path: pathlib.Path, labels: np.ndarray, kinds: Mapping[int, str] | None = None
) -> None:
    """Writes the outlines of a label map int [H, W] as GeoJSON, as QuPath reads it.

    An instance is a detection with its label as the name and, where ``kinds`` has one,
    the class. Coordinates are pixels, (0, 0) the upper left corner of the image.
    """
    features = []
    for number, (rows, across), mask in _masks(labels):
        polygons = outline(mask, (across.start, rows.start))
        several = len(polygons) > 1
        geometry = {
            "type": "MultiPolygon" if several else "Polygon",
            "coordinates": polygons if several else polygons[0],
        }
        properties: dict[str, Any] = {"objectType": "detection", "name": str(number)}
        if kinds is not None:
            properties["classification"] = {"name": kinds[number]}
        features.append(
            {"type": "Feature", "geometry": geometry, "properties": properties}
        )
    content = {"type": "FeatureCollection", "features": features}
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, separators=(",", ":")) + "\n")
