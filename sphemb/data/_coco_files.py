"""COCO's annotation files: found, read, and put in order."""

from __future__ import annotations

import json
import pathlib
from collections import defaultdict
from typing import Any

from sphemb._checks import InputError
from sphemb.data._coco_masks import Classes
from sphemb.data._voc_files import BACKGROUND, VOC_CLASSES

_VOC_NAMES = {
    "airplane": "aeroplane",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}
"""The classes of VOC that COCO calls by another name."""


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
    """Numbers all categories by their id, or those of VOC as VOC does."""
    things = frozenset(c["id"] for c in listed if c.get("isthing", 1))
    if categories is None:
        ascending = sorted(listed, key=lambda category: category["id"])
        return Classes(
            {c["id"]: i for i, c in enumerate(ascending, start=1)},
            things,
            (BACKGROUND, *(str(category["name"]) for category in ascending)),
        )
    numbers = {}
    for category in listed:
        name = _VOC_NAMES.get(category["name"], category["name"])
        known = name in VOC_CLASSES
        numbers[category["id"]] = VOC_CLASSES.index(name) + 1 if known else 0
    if not any(numbers.values()):
        raise InputError(f"{path} must have categories of VOC by COCO's names")
    return Classes(numbers, things, (BACKGROUND, *VOC_CLASSES))
