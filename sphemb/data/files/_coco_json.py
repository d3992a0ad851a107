"""COCO's annotation files, read and checked."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from sphemb._checks import InputError
from sphemb.data.files._findings import PathLike


def load_annotations(path: pathlib.Path) -> dict[str, Any]:
    """Reads an annotation file of COCO, and checks what its entries say of each other.

    Args:
        path: such as ``instances_val2017.json`` or ``panoptic_val2017.json``.

    Returns:
        What it holds. Each image has an id, a height and a width; each annotation has
        an image, and a category if categories are listed.

    Raises:
        InputError: it cannot be read or holds something else: ids that are text or that
            are not listed, an image that is listed twice, an ``iscrowd`` that is not 0
            or 1, crowds alone.
    """
    try:
        content: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as JSON: {reason}") from error
    known: dict[str, Any] = content if isinstance(content, dict) else {}
    for key in ("images", "annotations", "categories"):
        entries = known.get(key, () if key == "categories" else None)
        if not _are_entries(entries):
            raise InputError(
                f"{path} must be an annotation file of COCO with the lists images and "
                f"annotations, but {key} is not a list of entries"
            )
    images = _own_ids(known["images"], "image", path)
    listed: set[str] = set()
    for image in known["images"]:
        name = image.get("file_name")
        if isinstance(name, str):
            name = os.path.normpath(name)
            if name in listed:
                raise InputError(
                    f"{path} must list every image once, but lists {name} twice"
                )
            listed.add(name)
        size = (image.get("height"), image.get("width"))
        if not all(type(side) is int and side > 0 for side in size):
            raise InputError(
                f"{path} must have the height and width of "
                f"{image.get('file_name', image['id'])}, got {size[0]!r} and "
                f"{size[1]!r}"
            )
    categories = _own_ids(known.get("categories", ()), "category", path)
    crowds: set[bool] = set()
    for item in known["annotations"]:
        _check_listed(item, "image", images, path)
        for part in _segments(item, path):
            if categories or "category_id" in part:
                _check_listed(part, "category", categories, path)
            crowd = part.get("iscrowd", 0)
            if not isinstance(crowd, int | float) or crowd not in (0, 1):
                raise InputError(
                    f"{path} must have an iscrowd of 0 or 1, but annotation "
                    f"{item.get('id')!r} has {crowd!r}"
                )
            crowds.add(bool(crowd))
    if crowds == {True}:
        raise InputError(
            f"{path} must have instances, but all of its annotations are crowds, which "
            "are void"
        )
    return known


def category_names(
    categories: Sequence[dict[str, Any]], path: PathLike
) -> dict[int, str]:
    """Returns the names of categories, which must differ, by their ids.

    Args:
        categories: as in COCO's annotations.
        path: of the file, for messages.

    Returns:
        id -> name.

    Raises:
        InputError: two have one name.

    >>> category_names([{"id": 17, "name": "cat"}], "instances.json")
    {17: 'cat'}
    """
    names = {category["id"]: str(category["name"]) for category in categories}
    for number, name in names.items():
        if list(names.values()).count(name) > 1:
            raise InputError(
                f"{path} must have a name of its own for every category, but {number} "
                f"is not the only one called {name}"
            )
    return names


def _are_entries(entries: Any) -> bool:
    return isinstance(entries, list | tuple) and all(
        isinstance(entry, dict) for entry in entries
    )


def _own_ids(entries: Any, what: str, path: pathlib.Path) -> set[int]:
    """The ids of entries, which must be whole numbers."""
    ids: set[int] = set()
    for entry in entries:
        number = entry.get("id")
        if type(number) is not int or number in ids:
            raise InputError(
                f"{path} must be an annotation file of COCO that gives every {what} an "
                f"id of its own, a whole number, got {number!r}"
            )
        ids.add(number)
    return ids


def _segments(item: dict[str, Any], path: pathlib.Path) -> list[dict[str, Any]]:
    """The segments of a panoptic annotation; of another kind, itself."""
    if "segments_info" not in item:
        return [item]
    if not _are_entries(item["segments_info"]):
        raise InputError(
            f"{path} must have a list of segments in segments_info of image "
            f"{item['image_id']}"
        )
    _own_ids(item["segments_info"], "segment of an image", path)
    return item["segments_info"]


def _check_listed(
    item: dict[str, Any], what: str, ids: set[int], path: pathlib.Path
) -> None:
    number = item.get(f"{what}_id")
    if type(number) is int and number in ids:
        return
    text = ": ids are whole numbers, not text" * isinstance(number, str)
    raise InputError(
        f"{path} must list the {what} of every annotation, but lacks {what} "
        f"{number!r} of annotation {item.get('id')!r}{text}"
    )
