"""COCO's files, and what predictions may call the images and classes in them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError
from sphemb.cli._image_names import ImageNames
from sphemb.cli._instance_tables import class_number
from sphemb.cli._label_files import unpredicted
from sphemb.data import VOC_NAMES, category_names, load_annotations
from sphemb.training import read_json


class Truth(NamedTuple):
    """What is true, and how predictions may refer to it.

    Attributes:
        content: as COCO's annotations.
        names: of all true images.
        ids: of the images in the order of the names; None where one does not count.
        numbers: whether a number in the results is the id of an image; else it is the
            image's name.
        kinds: what a class may be called -> its id; empty if any number will do.
        titles: of the classes, the background's first, where a list was given.
        voids: id of an image -> run lengths of what counts for nothing.
        predicted: name of a file of predictions -> id of its image.
        unpredicted: see `InstanceFiles`.
    """

    content: dict[str, Any]
    names: ImageNames
    ids: Sequence[int | None]
    numbers: bool
    kinds: Mapping[str, int]
    titles: list[str]
    voids: Mapping[int, Any]
    predicted: Mapping[str, int]
    unpredicted: int


def coco_truth(path: pathlib.Path, titles: list[str], *, who: str = "--names") -> Truth:
    """Reads COCO's annotations.

    Args:
        path: such as ``instances_val2017.json``.
        titles: what the numbers of classes in the predictions mean, if those are not
            the ids of COCO's categories; VOC's names of them will do, too.
        who: has the titles, for complaints.

    Raises:
        InputError: it holds something else.
    """
    content = load_annotations(path)
    if not all("name" in c for c in content.get("categories", [{}])):
        raise InputError(f"{path} must have the names of its categories")
    names_of = category_names(content["categories"], path)
    kinds = {name: number for number, name in names_of.items()}
    files = [str(i.get("file_name", i["id"])) for i in content["images"]]
    ids = [image["id"] for image in content["images"]]
    by_name = {VOC_NAMES[n]: c for n, c in kinds.items() if n in VOC_NAMES} | kinds
    kinds |= {str(c["id"]): c["id"] for c in content["categories"]}
    if titles:
        if not by_name.keys() & set(titles):
            raise InputError(
                f"{who} must have names of categories in {path}, got {titles[:3]}"
            )
        kinds = by_name | {
            str(n): by_name[t] for n, t in enumerate(titles) if t in by_name
        }
    names = ImageNames(files, path)
    return Truth(content, names, ids, True, kinds, [], {}, {}, 0)


def of_predicted(
    truth: Truth,
    found: Mapping[str, pathlib.Path],
    path: pathlib.Path,
    predictions: pathlib.Path,
    *,
    partial: bool,
) -> Truth:
    """Reduces the truth to the images of which there are predictions.

    Args:
        truth: of COCO's annotations.
        found: name -> file of predictions.
        path: of the annotations, for messages.
        predictions: the folder, for messages.
        partial: leave out true images without a prediction.

    Raises:
        InputError: a prediction without a truth; a true image without a prediction,
            unless that is allowed; a name that fits several images.
    """
    predicted: dict[str, int] = {}
    for name, place in truth.names.match(found).items():
        image = None if place is None else truth.ids[place]
        if image is None:
            raise InputError(
                f"{found[name]} must be of an image of {path}, got {name}"
                f"{truth.names.near(name)}"
            )
        predicted[name] = image
    counted = set(predicted.values())
    images = truth.content["images"]
    left = [i for i in images if i["id"] not in counted]
    if left and not partial:
        first = f"image {left[0].get('file_name', left[0]['id'])} of {path}"
        raise unpredicted(first, len(left), len(images), predictions)
    content = {
        **truth.content,
        "images": [i for i in images if i["id"] in counted],
        "annotations": [
            a for a in truth.content["annotations"] if a["image_id"] in counted
        ],
    }
    return truth._replace(content=content, predicted=predicted, unpredicted=len(left))


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
    places = {image: place for place, image in enumerate(truth.ids)}
    try:
        for result in read_json(path):
            called, kind = result["image_id"], result["category_id"]
            score = float(result["score"])
            result["segmentation"]
            image = called if truth.numbers else _named(called, truth)
            if type(image) is not int or image not in places:
                raise InputError(
                    f"{path} must have what {groundtruth} has, but its image_id "
                    f"{called!r} is not there"
                )
            file = result.get("file_name")
            if isinstance(file, str) and not truth.names.fits(file, places[image]):
                raise InputError(
                    f"{path} must have the ids of {groundtruth}, but image_id "
                    f"{called!r} is {file} in it, and "
                    f"{truth.names.files[places[image]]} there: predict with "
                    "--annotations"
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
                    "image_id": image,
                    "category_id": kind,
                    "score": score,
                }
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} must hold COCO's results, but one of them lacks {error}"
        ) from error
    return results


def _named(called: Any, truth: Truth) -> int | None:
    """Finds the id of an image of a folder by its name or number."""
    place = None
    if isinstance(called, str):
        place = truth.names.find(called)
    elif type(called) is int:
        place = truth.names.find_number(called)
    return None if place is None else truth.ids[place]
