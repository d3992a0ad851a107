"""COCO's files, and what predictions may call the images and classes in them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError
from sphemb.cli._instance_tables import class_number
from sphemb.data import VOC_NAMES
from sphemb.training import read_json


class Truth(NamedTuple):
    """What is true, and how predictions may refer to it.

    Attributes:
        content: as COCO's annotations.
        images: what an image may be called -> its id.
        kinds: what a class may be called -> its id; empty if any number will do.
        titles: of the classes, the background's first, where a list was given.
        voids: id of an image -> run lengths of what counts for nothing.
        unpredicted: see `InstanceFiles`.
    """

    content: dict[str, Any]
    images: Mapping[Any, int]
    kinds: Mapping[str, int]
    titles: list[str]
    voids: Mapping[int, Any]
    unpredicted: int


def coco_truth(
    path: pathlib.Path,
    found: Mapping[str, Any] | None,
    titles: list[str],
    *,
    who: str = "--names",
) -> Truth:
    """Reads COCO's annotations.

    Args:
        path: such as ``instances_val2017.json``.
        found: name -> file of predictions, if those are files: then only their images
            count.
        titles: what the numbers of classes in the predictions mean, if those are not
            the ids of COCO's categories; VOC's names of them will do, too.
        who: has the titles, for complaints.

    Raises:
        InputError: it holds something else.
    """
    content = read_json(path)
    try:
        sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
        kinds = {str(c["name"]): c["id"] for c in content["categories"]}
        objects = [(a["image_id"], a["category_id"]) for a in content["annotations"]]
        images = {
            pathlib.PurePath(str(i.get("file_name", i["id"]))).stem: i["id"]
            for i in content["images"]
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} must hold COCO's annotations, but lacks {error}"
        ) from error
    known = (set(sizes), set(kinds.values()))
    for image, kind in objects:
        if image not in known[0] or kind not in known[1]:
            raise InputError(
                f"{path} must list image and category of every annotation, but lacks "
                f"image {image!r} or category {kind!r}"
            )
    by_name = {VOC_NAMES[n]: c for n, c in kinds.items() if n in VOC_NAMES} | kinds
    kinds |= {str(c): c for c in kinds.values()}
    if titles:
        if not by_name.keys() & set(titles):
            raise InputError(
                f"{who} must have names of categories in {path}, got {titles[:3]}"
            )
        kinds = by_name | {
            str(n): by_name[t] for n, t in enumerate(titles) if t in by_name
        }
    if found is None:
        return Truth(content, {i: i for i in sizes}, kinds, [], {}, 0)
    predicted = {images[name] for name in found if name in images}
    content = {
        **content,
        "images": [i for i in content["images"] if i["id"] in predicted],
        "annotations": [
            a for a in content["annotations"] if a["image_id"] in predicted
        ],
    }
    return Truth(content, images, kinds, [], {}, len(sizes) - len(predicted))


def coco_results(
    path: pathlib.Path, groundtruth: pathlib.Path, truth: Truth
) -> list[dict[str, Any]]:
    """Reads COCO's results.

    Args:
        path: of the file.
        groundtruth: what it goes with, for complaints.
        truth: what was read of that.

    Raises:
        InputError: it holds something else, or what the truth does not have.
    """
    results = []
    try:
        for result in read_json(path):
            image, kind = result["image_id"], result["category_id"]
            score = float(result["score"])
            result["segmentation"]
            if image not in truth.images:
                raise InputError(
                    f"{path} must have what {groundtruth} has, but its image_id "
                    f"{image!r} is not there"
                )
            if truth.kinds and str(kind) not in truth.kinds:
                raise InputError(
                    f"{path} must have what {groundtruth} has, but its category_id "
                    f"{kind!r} is not there"
                )
            if not np.isfinite(score):
                raise InputError(f"{path} must have scores that are numbers, got NaN")
            kind = class_number(kind, truth.kinds)
            results.append(
                {
                    **result,
                    "image_id": truth.images[image],
                    "category_id": kind,
                    "score": score,
                }
            )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} must hold COCO's results, but one of them lacks {error}"
        ) from error
    return results
