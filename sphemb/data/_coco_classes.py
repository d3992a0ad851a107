"""COCO's categories as classes, and label maps of its annotations.

H W image size.
"""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from sphemb._checks import InputError
from sphemb._labels import VOID
from sphemb.data._coarse_classes import COARSE_CLASSES, coarse_class
from sphemb.data._voc_files import BACKGROUND, VOC_CLASSES
from sphemb.data.files import (
    Annotations,
    category_names,
    decode_runs,
    number_in_order,
    run_lengths,
)

VOC_NAMES = {
    "airplane": "aeroplane",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}
"""The classes of VOC that COCO calls by another name, by that name."""


def find_annotation_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Finds an annotation file in COCO's folder or in ``annotations`` in it."""
    for path in (folder / "annotations" / name, folder / name):
        if path.is_file():
            return path
    raise InputError(
        f"coco_dir must hold COCO's {name}, directly or in annotations, but {folder} "
        "does not"
    )


class Classes(NamedTuple):
    """What becomes of COCO's categories.

    Attributes:
        numbers: category id -> class 1, 2, ..; 0 makes its instances background.
        things: the ids of the categories that have instances.
        names: of the classes 0, 1, 2, ..
    """

    numbers: Mapping[int, int]
    things: frozenset[int]
    names: tuple[str, ...]


def by_image(
    content: dict[str, Any], *, panoptic: bool
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Returns images, by id, with the annotations of each.

    Without an outline an image is background; without a panoptic annotation nothing is
    known about it, and it is left out.
    """
    found = defaultdict(list)
    for annotation in content["annotations"]:
        found[annotation["image_id"]].append(annotation)
    images = sorted(content["images"], key=lambda image: image["id"])
    return [
        (image, found[image["id"]])
        for image in images
        if found[image["id"]] or not panoptic
    ]


def choose_classes(
    listed: list[dict[str, Any]], categories: str | None, path: pathlib.Path
) -> Classes:
    """Numbers all categories by their id, or as VOC or COCO-Stuff's coarse 27 do."""
    things = frozenset(c["id"] for c in listed if c.get("isthing", 1))
    if categories is None:
        names = category_names(listed, path)
        ascending = sorted(names)
        return Classes(
            {number: i for i, number in enumerate(ascending, start=1)},
            things,
            (BACKGROUND, *(names[number] for number in ascending)),
        )
    if categories == "coarse27":
        coarse = _coarse_numbers(listed, path)
        return Classes(coarse, things, (BACKGROUND, *COARSE_CLASSES))
    numbers = {}
    for category in listed:
        name = VOC_NAMES.get(category["name"], category["name"])
        known = name in VOC_CLASSES
        numbers[category["id"]] = VOC_CLASSES.index(name) + 1 if known else 0
    if not any(numbers.values()):
        raise InputError(f"{path} must have categories of VOC by COCO's names")
    return Classes(numbers, things, (BACKGROUND, *VOC_CLASSES))


def _coarse_numbers(listed: list[dict[str, Any]], path: pathlib.Path) -> dict[int, int]:
    numbers = {}
    for category in listed:
        number = coarse_class(category["id"])
        # COCO's files call the coarse class a supercategory; other files may number
        # other things by the same ids.
        found = category.get("supercategory", COARSE_CLASSES[number - 1])
        if found != COARSE_CLASSES[number - 1]:
            raise InputError(
                f"{path} must number categories as COCO does, where "
                f"{category['id']} is of {COARSE_CLASSES[number - 1]}, got {found}"
            )
        numbers[category["id"]] = number
    return numbers


def paint_outlines(
    annotations: Annotations, classes: Classes
) -> tuple[np.ndarray, np.ndarray]:
    """Paints polygons and run lengths over one another.

    Where instances overlap the smaller one lies on top, so that a tie is seen on the
    person who wears it. What becomes background hides what it lies on all the same.
    Crowds are void where no instance is; their class is known nevertheless.

    Args:
        annotations: of one image, as in ``instances_*.json``.
        classes: what becomes of the categories.

    Returns:
        int32 [H, W] instances, numbered 1, 2, .. in the order of the file, and int32
        [H, W] classes.

    Raises:
        InputError: an outline cannot be drawn.
    """
    runs = [run_lengths(item, annotations) for item in annotations.items]
    areas = [int(coco_mask.area(run)) for run in runs]
    crowd = [bool(item.get("iscrowd")) for item in annotations.items]
    painted = np.zeros(annotations.size, np.int32)
    semantic = np.zeros(annotations.size, np.int32)
    void = np.zeros(annotations.size, bool)
    for i in sorted(range(len(runs)), key=lambda i: (not crowd[i], -areas[i], i)):
        shape = decode_runs(runs[i])
        number = classes.numbers[annotations.items[i]["category_id"]]
        semantic[shape] = number
        painted[shape] = i + 1 if number and not crowd[i] else 0
        void[shape] = bool(number) and crowd[i]
    return np.where(void, VOID, number_in_order(painted)[0]), semantic


def read_panoptic(
    colours: np.ndarray, segments: list[dict[str, Any]], classes: Classes, *, who: str
) -> tuple[np.ndarray, np.ndarray]:
    """Turns the colours of a panoptic PNG into label maps.

    A pixel's id is R + 256 G + 256² B. Segments of things are instances, those of stuff
    are background; crowds, and pixels of id 0, which nobody labelled, are void. Crowds
    have a class all the same.

    Args:
        colours: uint8 [H, W, 3].
        segments: the ``segments_info`` of the image.
        classes: what becomes of the categories.
        who: what to call the PNG in a complaint.

    Returns:
        int32 [H, W] instances, numbered 1, 2, .. in the order of the segments, and
        int32 [H, W] classes.

    Raises:
        InputError: a pixel belongs to no segment.
    """
    ids = colours.astype(np.int32) @ np.array([1, 256, 256**2], np.int32)
    known, instances, semantic = [0], [VOID], [VOID]
    for i, segment in enumerate(segments, start=1):
        number = classes.numbers[segment["category_id"]]
        thing = number and segment["category_id"] in classes.things
        known.append(segment["id"])
        instances.append((VOID if segment.get("iscrowd") else i) if thing else 0)
        semantic.append(number)
    order = np.argsort(known)
    ascending = np.array(known)[order]
    place = np.searchsorted(ascending, ids)
    place = np.minimum(place, len(known) - 1)
    strange = ids[ascending[place] != ids]
    if strange.size:
        raise InputError(
            f"{who} must hold the ids of its segments_info, but has pixels of "
            f"{strange[0]}"
        )
    painted = np.array(instances, np.int32)[order][place]
    numbered = number_in_order(np.maximum(painted, 0))[0]
    return (
        np.where(painted == VOID, VOID, numbered),
        np.array(semantic, np.int32)[order][place],
    )
