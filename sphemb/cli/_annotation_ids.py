"""The ids by which COCO's annotations call the images and classes of a prediction."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sphemb._checks import InputError
from sphemb.cli._coco_files import coco_truth
from sphemb.data import ImageWindows


class AnnotationIds(NamedTuple):
    """What COCO's results have in the place of names and numbers.

    Attributes:
        images: image file -> id.
        sizes: image file -> (H, W) that the annotations give.
        classes: number of a class in the run -> id of the category of that name; the
            background has none, nor what the annotations do not know.
    """

    images: Mapping[pathlib.Path, int]
    sizes: Mapping[pathlib.Path, tuple[int, int]]
    classes: Mapping[int, int]


def annotation_ids(
    path: pathlib.Path,
    images: Sequence[pathlib.Path],
    class_names: Sequence[str],
) -> AnnotationIds:
    """Looks images up by their paths, see `ImageNames`, and classes by name.

    Args:
        path: COCO's annotations, such as ``instances_val2017.json``.
        images: the files that are predicted.
        class_names: of the run, from 0 on.

    Raises:
        InputError: the file holds something else, lacks an image or all classes, or has
            several images that a path fits.
    """
    if not class_names:
        raise InputError(
            "--annotations needs a run whose classes have names, but this one has no "
            "classes.json"
        )
    truth = coco_truth(path, list(class_names), who="the run's classes")
    # Links and ".." in a path are folders that the annotations do not know.
    whole = {os.path.abspath(i.with_suffix("")): i for i in images}
    listed = {i["id"]: (i["height"], i["width"]) for i in truth.content["images"]}
    ids: dict[pathlib.Path, int] = {}
    for name, place in truth.names.match(whole, endings=True).items():
        found = None if place is None else truth.ids[place]
        if found is None:
            raise InputError(
                f"{whole[name]} must be an image of --annotations {path}, by its path"
                f"{truth.names.near(name)}"
            )
        ids[whole[name]] = found
    classes = {
        number: truth.kinds[name]
        for number, name in enumerate(class_names)
        if name in truth.kinds
    }
    sizes = {image: listed[found] for image, found in ids.items()}
    return AnnotationIds(ids, sizes, classes)


def check_fit(images: Sequence[ImageWindows], ids: AnnotationIds) -> None:
    """Refuses images whose results would not lie over their annotations.

    Raises:
        InputError: a camera's orientation turns an image, but its annotations are those
            of the stored pixels; or an image has another size than there.
    """
    for image in images:
        if image.turned_from and ids.sizes[image.path] == image.turned_from:
            raise InputError(
                f"{image.path} must be stored upright for --annotations, but its "
                "camera's orientation turns it, and its outlines are those of the "
                "stored pixels: save it upright and turn them, or leave the flag out"
            )
        if ids.sizes[image.path] != image.size:
            raise InputError(
                f"{image.path} must have the size that --annotations give it, "
                f"{' x '.join(map(str, ids.sizes[image.path]))}, got "
                f"{' x '.join(map(str, image.size))}: was it resized?"
            )
