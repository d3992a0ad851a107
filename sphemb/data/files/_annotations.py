"""Instances from COCO annotations: polygons and run lengths.

H W image size.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from sphemb._labels import VOID
from sphemb.data.files._findings import FileError, Finding
from sphemb.data.files._masks import Mask, number_in_order

_LONGEST_NUMBER = 35  # bits of a run length
_POLYGON_REACH = 1  # image sizes that a polygon may go beyond its image


class Annotations(NamedTuple):
    """The annotations of one image.

    Attributes:
        path: the annotation file.
        image: the image's name in it.
        size: (H, W) in it.
        items: the annotations as they are in the file.
    """

    path: pathlib.Path
    image: str
    size: tuple[int, int]
    items: list[dict[str, Any]]

    def __str__(self) -> str:
        return f"of {self.image} in {self.path}"


def read_annotations(annotations: Annotations) -> Mask:
    """Draws the instances of one image.

    Crowds are void. Smaller instances lie over larger ones, so that a part that is
    annotated as an instance of its own is seen.

    Args:
        annotations: of the image.

    Returns:
        The mask, numbered in the order of the file.

    Raises:
        FileError: an annotation has no outline, or an impossible one.
    """
    instances, found = _painted(annotations)
    wanted = sum(not item.get("iscrowd") for item in annotations.items)
    findings = ()
    if len(found) < wanted:
        message = (
            f"annotations {annotations}: {wanted - len(found)} of {wanted} instances "
            "have no pixel, or others cover them"
        )
        findings = (Finding("warning", "vanishing", message),)
    return Mask(instances, "annotations", findings=findings)


def draw_annotations(
    items: Sequence[dict[str, Any]],
    size: tuple[int, int],
    *,
    path: pathlib.Path,
    image: str | int = "an image",
) -> tuple[np.ndarray, list[int]]:
    """Draws annotations, or results, of one image as a label map.

    Crowds are void; smaller instances lie over larger ones.

    Args:
        items: as in COCO's ``annotations``, or in its results.
        size: (H, W).
        path: of the file, for complaints.
        image: what it is called in it.

    Returns:
        int32 [H, W], -1 void, 0 background, 1, 2, .. what can be seen, in the order of
        the items; and the category of each.

    Raises:
        FileError: an annotation has no outline, or an impossible one.
    """
    instances, found = _painted(Annotations(path, str(image), size, list(items)))
    return instances, [items[number - 1]["category_id"] for number in found]


def _painted(annotations: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """The label map, and the places, from 1, of the items that it numbers."""
    runs = [run_lengths(item, annotations) for item in annotations.items]
    areas = [int(coco_mask.area(run)) for run in runs]
    crowds = np.zeros(annotations.size, bool)
    drawn = np.zeros(annotations.size, np.int32)
    for i in sorted(range(len(runs)), key=lambda i: (-areas[i], i)):
        shape = decode_runs(runs[i])
        if annotations.items[i].get("iscrowd"):
            crowds |= shape
        else:
            drawn[shape] = i + 1
    instances, found = number_in_order(drawn)
    instances = np.where(crowds & (instances == 0), VOID, instances)
    return instances.astype(np.int32), found


def decode_runs(runs: Any) -> np.ndarray:
    """Draws compressed run lengths as bool [H, W].

    The same as `pycocotools.mask.decode`, which is not ready for NumPy 2.
    """
    # Counts of pixels outside and inside in turn, column after column.
    counts = _unpack(runs["counts"].decode())
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return inside.reshape(runs["size"][::-1]).T


def run_lengths(item: dict[str, Any], annotations: Annotations) -> Any:
    """One annotation in the form that pycocotools computes with."""
    height, width = annotations.size
    outline = item.get("segmentation")
    try:
        if isinstance(outline, dict):
            counts = _check_runs(outline, height, width)
            runs: Any = {"size": [height, width], "counts": counts}
            return coco_mask.frPyObjects(runs, height, width)
        if isinstance(outline, list) and outline:
            polygons: Any = [_check_polygon(p, height, width) for p in outline]
            parts: Any = coco_mask.frPyObjects(polygons, height, width)
            return coco_mask.merge(parts)
    except (ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise FileError(
            f"annotations {annotations} cannot be drawn: annotation {item.get('id')} "
            f"has {reason}"
        ) from error
    raise FileError(
        f"annotations {annotations} must have outlines, but annotation "
        f"{item.get('id')} has no segmentation"
    )


def _check_polygon(polygon: Any, height: int, width: int) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("a polygon that is no list of three or more x, y")
    for i, value in enumerate(polygon):
        side = (width, height)[i % 2]
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"a polygon with the coordinate {value!r}")
        if not -_POLYGON_REACH * side <= value <= (1 + _POLYGON_REACH) * side:
            raise ValueError(f"a polygon far outside of the image, at {value:g}")
    return [float(value) for value in polygon]


def _check_runs(runs: dict[str, Any], height: int, width: int) -> list[int]:
    """The counts, which may be compressed, if they fill the image."""
    if list(runs["size"]) != [height, width]:
        raise ValueError(f"run lengths of size {runs['size']}, not {[height, width]}")
    counts = runs["counts"]
    counts = _unpack(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list) or not all(
        type(count) is int and count >= 0 for count in counts
    ):
        raise ValueError("run lengths that are no list of counts")
    if sum(counts) != height * width:
        raise ValueError(f"run lengths of {sum(counts)} pixels, not {height * width}")
    return counts


def _unpack(text: str) -> list[int]:
    """Unpacks COCO's compressed counts.

    Each is written in digits of five bits, lowest first, of which all but the last have
    a sixth bit set; from the fourth on it is the difference to the count before last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise ValueError(f"run lengths with the character {character!r}")
        value |= (digit & 31) << shift
        shift += 5
        if shift > _LONGEST_NUMBER:
            raise ValueError("a run length that no image has")
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that are cut short")
    return counts
