"""COCO's run lengths, polygons and evaluation: every use of pycocotools.

Run lengths are the dictionary ``{"size": [H, W], "counts": text}`` of COCO's files:
numbers of pixels outside and inside of a mask in turn, column by column, compressed.
pycocotools reads beyond the text of damaged counts: nothing reaches it unchecked.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import VOID, InputError

_LONGEST_COUNT = 35  # bits
_MARGIN = 1  # image sizes that a polygon may extend beyond its image

_SIZES = ("small", "medium", "large")
# The order in which COCOeval.summarize leaves them in COCOeval.stats.
_STATS = ["AP", "AP50", "AP75", *(f"AP_{size}" for size in _SIZES)]
_STATS += ["AR@1", "AR@10", "AR@100", *(f"AR_{size}" for size in _SIZES)]


class Painted(NamedTuple):
    """Annotations of one image, painted."""

    instances: np.ndarray  # int32 [H, W], -1 void, 0 background, 1.. the visible items
    classes: np.ndarray  # int32 [H, W], of the topmost item, 0 where none is
    shown: list[int]  # the index in the list of the items 1, 2, ..


def encode_mask(
    mask: np.ndarray, *, corner: tuple[int, int] = (0, 0), size: Any = None
) -> dict[str, Any]:
    """Encodes a mask as run lengths that JSON can hold.

    The mask, bool [h, w], is that of an image, or of a window of it at a ``corner``
    (row, column) of an image of a ``size`` (H, W), without memory for the whole.
    >>> encode_mask(np.array([[True, False]]), corner=(1, 1), size=(2, 3))
    {'size': [2, 3], 'counts': '312'}
    """
    from pycocotools.mask import encode

    if size is None or not mask.any():
        whole = mask if size is None else np.broadcast_to(False, size)
        runs: Any = encode(np.asfortranarray(whole, np.uint8))
        return _as_json(runs)
    height, width = size
    columns, rows = np.nonzero(mask.T)
    pixels = (columns + corner[1]).astype(np.int64) * height + rows + corner[0]
    breaks = np.flatnonzero(np.diff(pixels) > 1)
    starts = pixels[np.append(0, breaks + 1)]
    ends = pixels[np.append(breaks, len(pixels) - 1)] + 1
    edges = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return _compress((counts if counts[-1] else counts[:-1]).tolist(), size)


def outline_runs(
    item: Mapping[str, Any], size: tuple[int, int], *, where: str
) -> dict[str, Any]:
    """The checked run lengths of an item's polygons or run lengths, in an image (H, W).

    ``where`` is what the item belongs to: "annotations of a.png in a.json".
    """
    from pycocotools.mask import frPyObjects, merge

    outline, name = item.get("segmentation"), f"annotation {item.get('id')}"
    if not isinstance(outline, dict | list) or not outline:
        raise InputError(f"{where} must have outlines, but {name} has no segmentation")
    try:
        if isinstance(outline, dict):
            return _compress(_checked_counts(outline, size), size)
        polygons: Any = [_checked_polygon(polygon, *size) for polygon in outline]
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where} cannot be drawn: {name} has {error}") from error
    parts: Any = frPyObjects(polygons, *size)
    return _as_json(merge(parts))


def paint_annotations(
    items: Sequence[Any], size: tuple[int, int], *, where: str, classes: Any = None
) -> Painted:
    """Paints the annotations, or results, of one image (H, W) over one another.

    Smaller items lie over larger ones, and all over crowds. Crowds are void. An item
    of class 0 becomes background and hides what it lies on. ``classes`` maps category
    ids to classes; by default every category is class 1.

    >>> large, small = {"size": [1, 4], "counts": [0, 4]}, [[1, 0, 2, 0, 2, 1, 1, 1]]
    >>> items = [{"segmentation": large}, {"segmentation": small}]
    >>> paint_annotations(items, (1, 4), where="annotations").instances
    array([[1, 2, 1, 1]], dtype=int32)
    """
    outlines = [_unpack(outline_runs(i, size, where=where)["counts"]) for i in items]
    areas = [sum(counts[1::2]) for counts in outlines]
    crowd = [bool(item.get("iscrowd")) for item in items]
    painted, semantic = np.zeros(size, np.int32), np.zeros(size, np.int32)
    void = np.zeros(size, bool)
    for i in sorted(range(len(items)), key=lambda i: (not crowd[i], -areas[i], i)):
        mask = _decode(outlines[i], size)
        number = 1 if classes is None else classes[items[i]["category_id"]]
        semantic[mask] = number
        painted[mask] = i + 1 if number and not crowd[i] else 0
        void[mask] = bool(number) and crowd[i]
    seen = np.bincount(painted.ravel(), minlength=len(items) + 1) > 0
    seen[0] = False
    numbers = (np.cumsum(seen) * seen).astype(np.int32)
    instances = np.where(void, np.int32(VOID), numbers[painted])
    return Painted(instances, semantic, (np.flatnonzero(seen) - 1).tolist())


def coco_file_scores(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Average precision and recall as COCO defines them, from the content of its files.

    The annotations are those of ``instances_*.json``: ``images``, ``annotations`` and
    ``categories``. A missing ``area`` is that of the mask. The results are a list of
    ``image_id``, ``category_id``, ``segmentation``, ``score``. The scores are ``AP``
    (mean over .5:.05:.95), ``AP50``, ``AP75``, ``AR@1``, ``AR@10``, ``AR@100``, and
    ``AP_`` and ``AR_`` with ``small``, ``medium``, ``large``: means over the classes
    that have such objects, NaN without any; ``AP/{name}``. Damaged or missing outlines
    and images that are not listed are refused.

    References:
        Lin et al. (2014), "Microsoft COCO", and cocodataset.org/#detection-eval.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sizes = {i["id"]: (i["height"], i["width"]) for i in annotations["images"]}

    def with_runs(items: Sequence[Mapping[str, Any]], where: str) -> list[Any]:
        copies = []
        for item in items:
            image = item["image_id"]
            if image not in sizes:
                raise InputError(f"{where} must be of listed images, got {image!r}")
            runs = outline_runs(item, sizes[image], where=f"{where} of image {image}")
            copies.append({"iscrowd": 0, **item, "segmentation": runs})
        return copies

    # pycocotools takes id 0 as "no annotation" and writes into its arguments.
    objects = with_runs(annotations["annotations"], "annotations")
    for number, item in enumerate(objects, start=1):
        item["id"] = number
        known = item.get("area")
        if not isinstance(known, int | float) or not math.isfinite(known):
            item["area"] = float(sum(_unpack(item["segmentation"]["counts"])[1::2]))
    detections = with_runs(results, "results")
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = {**annotations, "annotations": objects}
        truth.createIndex()
        if detections:
            found = truth.loadRes(detections)
        else:
            found: Any = COCO()
            found.dataset = {**annotations, "annotations": []}
            found.createIndex()
        evaluation: Any = COCOeval(truth, found, iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = np.asarray(evaluation.stats, np.float64)
    values = np.where(values < 0, np.nan, values)  # pycocotools writes -1 for none
    names = {c["id"]: c["name"] for c in annotations["categories"]}
    # [levels, recalls, classes], of objects of all sizes and 100 detections.
    precision = evaluation.eval["precision"][..., 0, -1]
    scores = dict(zip(_STATS, values.tolist(), strict=True))
    for k, category in enumerate(evaluation.params.catIds):
        known = precision[..., k][precision[..., k] > -1]
        mean = float(known.mean()) if known.size else math.nan
        scores[f"AP/{names[category]}"] = mean
    return scores


def _as_json(runs: Any) -> dict[str, Any]:
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def _compress(counts: list[int], size: Sequence[int]) -> dict[str, Any]:
    from pycocotools.mask import frPyObjects

    runs: Any = {"size": list(size), "counts": counts}
    return _as_json(frPyObjects(runs, *size))


def _decode(counts: list[int], size: Sequence[int]) -> np.ndarray:
    """Draws counts as bool [H, W]; NumPy 2 warns of `pycocotools.mask.decode`."""
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return inside.reshape(size[1], size[0]).T


def _checked_polygon(polygon: Any, height: int, width: int) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("a polygon that is no list of three or more x, y")
    for i, value in enumerate(polygon):
        side = (width, height)[i % 2]
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"a polygon with the coordinate {value!r}")
        if not -_MARGIN * side <= value <= (1 + _MARGIN) * side:
            raise ValueError(f"a polygon far outside of the image, at {value:g}")
    return [float(value) for value in polygon]


def _checked_counts(runs: Mapping[str, Any], size: Sequence[int]) -> list[int]:
    """The counts as numbers, if they fill an image of this size."""
    own = runs.get("size")
    if not isinstance(own, list | tuple) or list(own) != list(size):
        raise ValueError(f"run lengths of size {own}, not {list(size)}")
    counts = runs.get("counts")
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    counts = _unpack(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list) or not all(
        type(count) is int and count >= 0 for count in counts
    ):
        raise ValueError("run lengths that are no list of counts")
    pixels = math.prod(size)
    if sum(counts) != pixels:
        raise ValueError(f"run lengths of {sum(counts)} pixels, not {pixels}")
    return counts


def _unpack(text: str) -> list[int]:
    """Unpacks compressed counts."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise ValueError(f"run lengths with the character {character!r}")
        value |= (digit & 31) << shift
        shift += 5
        if shift > _LONGEST_COUNT:
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
