"""The ids by which COCO's annotations call the images and classes of a prediction."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sphemb._checks import InputError
from sphemb.cli._coco_files import coco_truth


class AnnotationIds(NamedTuple):
    """What COCO's results have in the place of names and numbers.

    Attributes:
        images: name of an image's file without its ending -> id.
        classes: number of a class in the run -> id of the category of that name; the
            background has none, nor what the annotations do not know.
    """

    images: Mapping[str, int]
    classes: Mapping[int, int]


def annotation_ids(
    path: pathlib.Path,
    images: Sequence[pathlib.Path],
    class_names: Sequence[str],
) -> AnnotationIds:
    """Looks images and classes up by name.

    Args:
        path: COCO's annotations, such as ``instances_val2017.json``.
        images: the files that are predicted.
        class_names: of the run, from 0 on.

    Raises:
        InputError: the file holds something else, or lacks an image or all classes.
    """
    if not class_names:
        raise InputError(
            "--annotations needs a run whose classes have names, but this one has no "
            "classes.json"
        )
    found = {image.stem: image for image in images}
    truth = coco_truth(path, found, list(class_names), who="the run's classes")
    for name, image in found.items():
        if name not in truth.images:
            raise InputError(
                f"{image} must be an image of --annotations {path}, by its name"
            )
    classes = {
        number: truth.kinds[name]
        for number, name in enumerate(class_names)
        if name in truth.kinds
    }
    return AnnotationIds({name: truth.images[name] for name in found}, classes)
