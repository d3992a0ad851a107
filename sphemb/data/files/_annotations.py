"""Annotation files in COCO's form: read, checked, found in a folder, painted."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError
from sphemb._coco import paint_annotations
from sphemb._labels import VOID
from sphemb.data.files._images import FileError, Finding, PathLike
from sphemb.data.files._masks import Mask, number_in_order

_NAMES = re.compile(r"instances|annotations|coco", re.IGNORECASE)


class Annotations(NamedTuple):
    """The annotations of one image.

    Attributes:
        path: the annotation file.
        image: the image's name in it.
        size: (H, W) in it.
        items: the annotations as they are in the file.
    """

    path: pathlib.Path
    image: str
    size: tuple[int, int]
    items: list[dict[str, Any]]

    def __str__(self) -> str:
        return f"of {self.image} in {self.path}"


class Classes(NamedTuple):
    """The classes of COCO's categories.

    Attributes:
        numbers: category id -> class 1, 2, ..; 0 makes its instances background.
        things: the ids of the categories that have instances.
        names: of the classes 0, 1, 2, ..
    """

    numbers: Mapping[int, int]
    things: frozenset[int]
    names: tuple[str, ...]


class Annotated(NamedTuple):
    """The annotation files of a folder.

    Attributes:
        entries: split, or ``""`` -> (name, image file, annotations) of every image.
        problems: images that are listed and missing.
    """

    entries: dict[str, list[tuple[str, pathlib.Path, Annotations]]]
    problems: list[FileError]


def load_annotations(path: pathlib.Path) -> dict[str, Any]:
    """Reads an annotation file of COCO, and checks that its entries fit together.

    Args:
        path: such as ``instances_val2017.json`` or ``panoptic_val2017.json``.

    Returns:
        Its content. Each image has an id, a height and a width; each annotation has
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
        if not _are_entries(known.get(key, () if key == "categories" else None)):
            raise InputError(
                f"{path} must be an annotation file of COCO with the lists images and "
                f"annotations, but {key} is not a list of entries"
            )
    ids = {
        "image": _unique_ids(known["images"], "image", path),
        "category": _unique_ids(known.get("categories", ()), "category", path),
    }
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
    crowds: set[Any] = set()
    for item in known["annotations"]:
        _check_listed(item, "image", ids, path)
        parts = [item]
        if "segments_info" in item:  # a panoptic annotation
            parts = item["segments_info"]
            if not _are_entries(parts):
                raise InputError(
                    f"{path} must have a list of segments in segments_info of image "
                    f"{item['image_id']}"
                )
            _unique_ids(parts, "segment of an image", path)
        for part in parts:
            if ids["category"] or "category_id" in part:
                _check_listed(part, "category", ids, path)
            crowd = part.get("iscrowd", 0)
            if not isinstance(crowd, int | float) or crowd not in (0, 1):
                raise InputError(
                    f"{path} must have an iscrowd of 0 or 1, but annotation "
                    f"{item.get('id')!r} has {crowd!r}"
                )
            crowds.add(crowd)
    if crowds == {1}:
        raise InputError(
            f"{path} must have instances, but all of its annotations are crowds, which "
            "are void"
        )
    return known


def _are_entries(entries: Any) -> bool:
    return isinstance(entries, list | tuple) and all(
        isinstance(entry, dict) for entry in entries
    )


def _unique_ids(entries: Any, what: str, path: pathlib.Path) -> set[int]:
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


def _check_listed(
    item: dict[str, Any], what: str, ids: dict[str, set[int]], path: pathlib.Path
) -> None:
    number = item.get(f"{what}_id")
    if type(number) is not int or number not in ids[what]:
        text = ": ids are whole numbers, not text" * isinstance(number, str)
        raise InputError(
            f"{path} must list the {what} of every annotation, but lacks {what} "
            f"{number!r} of annotation {item.get('id')!r}{text}"
        )


def category_names(
    categories: Sequence[dict[str, Any]], path: PathLike
) -> dict[int, str]:
    """Returns the names of categories by their ids.

    Args:
        categories: as in COCO's annotations.
        path: of the file, for messages.

    Raises:
        InputError: two have the same name.

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


def read_annotations(annotations: Annotations) -> Mask:
    """Paints the instances of one image, numbered in the order of the file.

    Crowds are void; smaller instances lie over larger ones.

    Raises:
        FileError: an annotation has no outline, or an impossible one.
    """
    items, where = annotations.items, f"annotations {annotations}"
    try:
        painted = paint_annotations(items, annotations.size, where=where)
    except InputError as error:
        raise FileError(str(error)) from error
    wanted = sum(not item.get("iscrowd") for item in items)
    hidden = wanted - len(painted.shown)
    findings = ()
    if hidden:
        message = (
            f"{where}: {hidden} of {wanted} instances have no pixel, or others cover "
            "them"
        )
        findings = (Finding("warning", "vanishing", message),)
    return Mask(painted.instances, "annotations", findings=findings)


def find_annotation_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Finds an annotation file in COCO's folder or in ``annotations`` in it."""
    for path in (folder / "annotations" / name, folder / name):
        if path.is_file():
            return path
    raise InputError(
        f"coco_dir must hold COCO's {name}, directly or in annotations, but {folder} "
        "does not"
    )


def by_image(
    content: dict[str, Any], *, panoptic: bool
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Returns images, by id, with the annotations of each.

    An image without outlines is background; one without a panoptic annotation is left
    out.
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


def read_panoptic(
    colors: np.ndarray, segments: list[dict[str, Any]], classes: Classes, *, who: str
) -> tuple[np.ndarray, np.ndarray]:
    """Turns the colors of a panoptic PNG into label maps.

    A pixel's id is R + 256 G + 256² B. Segments of things are instances, those of stuff
    are background; crowds, and pixels of id 0, are void. Crowds have a class.

    Args:
        colors: uint8 [H, W, 3].
        segments: the ``segments_info`` of the image.
        classes: of the categories.
        who: names the PNG in messages.

    Returns:
        int32 [H, W] instances, numbered 1, 2, .. in the order of the segments, and
        int32 [H, W] classes.

    Raises:
        InputError: a pixel belongs to no segment.
    """
    ids = colors.astype(np.int32) @ np.array([1, 256, 256**2], np.int32)
    known, instances, semantic = [0], [VOID], [VOID]
    for i, segment in enumerate(segments, start=1):
        number = classes.numbers[segment["category_id"]]
        thing = number and segment["category_id"] in classes.things
        known.append(segment["id"])
        instances.append((VOID if segment.get("iscrowd") else i) if thing else 0)
        semantic.append(number)
    order = np.argsort(known)
    ascending = np.array(known)[order]
    place = np.minimum(np.searchsorted(ascending, ids), len(known) - 1)
    unknown = ids[ascending[place] != ids]
    if unknown.size:
        raise InputError(
            f"{who} must hold the ids of its segments_info, but has pixels of "
            f"{unknown[0]}"
        )
    painted = np.array(instances, np.int32)[order][place]
    numbered = number_in_order(np.maximum(painted, 0))[0]
    return (
        np.where(painted == VOID, VOID, numbered),
        np.array(semantic, np.int32)[order][place],
    )


def find_annotations(
    root: pathlib.Path,
    split_names: Mapping[str, tuple[str, ...]],
    image_folders: tuple[str, ...],
) -> Annotated | None:
    """Finds the annotation files of a folder and their images.

    The files are ``annotations/*.json``, or lie beside the images; the split is in the
    name of the file or of its folder.

    Args:
        root: the folder.
        split_names: split -> names of it.
        image_folders: names of a folder of images.

    Returns:
        None without such files.

    Raises:
        InputError: a file is not a COCO annotation file, its images cannot be found or
            lie outside of the folder, or two files are of one split.
    """
    files = sorted((root / "annotations").glob("*.json"))
    # COCO's captions lie beside the instances.
    files = [file for file in files if file.name.startswith("instances")] or files
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, *inside):
        if folder.name != "annotations":
            files += [f for f in sorted(folder.glob("*.json")) if _NAMES.search(f.name)]
    if not files:
        return None
    found = Annotated({}, [])
    for file in files:
        split = _split_of(file, root, split_names)
        if split in found.entries or (found.entries and "" in (split, *found.entries)):
            raise InputError(
                f"{file} must be of a split of its own, with train, val or test in its "
                f"name: there is another annotation file in {root}"
            )
        found.entries[split] = _read_entries(file, root, image_folders, found.problems)
    return found


def _split_of(
    file: pathlib.Path, root: pathlib.Path, split_names: Mapping[str, tuple[str, ...]]
) -> str:
    folder = file.parent.name.lower() if file.parent != root else ""
    for split, names in split_names.items():
        # The others begin with the first name: val2017 and valid are found, too.
        begins = rf"(?<![a-z]){names[0]}"
        if folder in names or re.search(begins, file.stem.lower()):
            return split
    return ""


def _read_entries(
    file: pathlib.Path,
    root: pathlib.Path,
    image_folders: tuple[str, ...],
    problems: list[FileError],
) -> list[tuple[str, pathlib.Path, Annotations]]:
    content = load_annotations(file)
    by_image = defaultdict(list)
    for item in content["annotations"]:
        by_image[item["image_id"]].append(item)
    images = {_safe_name(image, file): image for image in content["images"]}
    folder = _image_folder(file, root, list(images), image_folders)
    entries, missing = [], []
    for name, image in images.items():
        path, size = folder / name, (image["height"], image["width"])
        if os.path.isfile(path):
            items = by_image[image["id"]]
            entries.append((name, path, Annotations(file, name, size, items)))
        else:
            missing.append(path)
    if missing:
        problems.append(
            FileError(
                f"every image that {file} lists must be there, but {len(missing)} of "
                f"{len(images)} are not, the first is {missing[0]}",
                kind="no image",
                files=missing,
            )
        )
    return entries


def _safe_name(image: dict[str, Any], file: pathlib.Path) -> str:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise InputError(f"{file} must have a file_name for image {image.get('id')!r}")
    plain = os.path.normpath(name)
    if os.path.isabs(plain) or plain.split(os.sep)[0] == os.pardir:
        raise InputError(
            f"{file} must name images inside its folder, got file_name {name!r}"
        )
    return pathlib.Path(plain).as_posix()


def _image_folder(
    file: pathlib.Path,
    root: pathlib.Path,
    names: list[str],
    image_folders: tuple[str, ...],
) -> pathlib.Path:
    """The folder that holds the first image found in any of the known folders."""
    tail = re.sub(r"^(instances|annotations)_", "", file.stem)
    folders = [file.parent, *(file.parent / name for name in image_folders)]
    folders += [root / name / tail for name in ("", *image_folders)]
    folders += [root, *(root / name for name in image_folders)]
    for name in names:
        for folder in folders:
            if os.path.isfile(folder / name):  # False also for impossible names
                return folder
    listed = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise InputError(f"none of the images of {file} is in one of {listed}")
