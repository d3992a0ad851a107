"""COCO's annotation files: found, read, and put in order."""

from __future__ import annotations

import json
import pathlib
from collections import defaultdict
from typing import Any

from sphemb._checks import InputError
from sphemb.data._coarse_classes import COARSE_CLASSES, coarse_class
from sphemb.data._coco_masks import Classes
from sphemb.data._voc_files import BACKGROUND, VOC_CLASSES

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


def load_annotations(path: pathlib.Path) -> dict[str, Any]:
    """Reads an annotation file."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error


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
        ascending = sorted(listed, key=lambda category: category["id"])
        return Classes(
            {c["id"]: i for i, c in enumerate(ascending, start=1)},
            things,
            (BACKGROUND, *(str(category["name"]) for category in ascending)),
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
