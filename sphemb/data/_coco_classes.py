"""COCO's categories as classes."""

from __future__ import annotations

import pathlib
from typing import Any

from sphemb._checks import InputError
from sphemb.data._coarse_classes import COARSE_CLASSES, coarse_class
from sphemb.data._voc_files import BACKGROUND, VOC_CLASSES
from sphemb.data.files import Classes, category_names

VOC_NAMES = {
    "airplane": "aeroplane",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}
"""The classes of VOC that COCO calls by another name, by that name."""


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
