"""Annotation files in COCO's form: read, checked, found in a folder, as label maps."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import VOID, InputError
from sphemb._coco import paint_annotations
from sphemb.data.files._images import FileError, Finding, PathLike
from sphemb.data.files._masks import Mask, number_in_order

_NAMES = re.compile(r"instances|annotations|coco", re.IGNORECASE)
_Item = dict[str, Any]


class Annotations(NamedTuple):
    """The annotations of one image."""

    path: pathlib.Path  # the annotation file
    image: str  # the image's name in it
    size: tuple[int, int]  # (H, W) in it
    items: list[_Item]  # as they are in the file

    def __str__(self) -> str:
        return f"of {self.image} in {self.path}"


class Classes(NamedTuple):
    """The classes of COCO's categories."""

    numbers: Mapping[int, int]  # category id -> class; 0 makes it background
    things: frozenset[int]  # the ids of the categories that have instances
    names: tuple[str, ...]  # of the classes 0, 1, 2, ..


# The name and the file of an image, and its annotations
Entry = tuple[str, pathlib.Path, Annotations]


def load_annotations(path: pathlib.Path) -> _Item:
    """Reads an annotation file of COCO, and checks that its entries fit together.

    In the result each image has an id, a height and a width; each annotation has an
    image, and a category if categories are listed. Anything else is an InputError.
    """

    def must(text: str) -> InputError:
        return InputError(f"{path} must {text}")

    def unique_ids(entries: Any, what: str) -> set[int]:
        ids: set[int] = set()
        for entry in entries:
            number = entry.get("id")
            if type(number) is not int or number in ids:
                text = f"be an annotation file of COCO that gives every {what} an id of"
                raise must(f"{text} its own, a whole number, got {number!r}")
            ids.add(number)
        return ids

    def check_listed(item: _Item, what: str, ids: set[int]) -> None:
        number, of = item.get(f"{what}_id"), item.get("id")
        if type(number) is not int or number not in ids:
            hint = ": ids are whole numbers, not text" * isinstance(number, str)
            lacks = f"lacks {what} {number!r} of annotation {of!r}{hint}"
            raise must(f"list the {what} of every annotation, but {lacks}")

    try:
        content: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as JSON: {reason}") from error
    known: _Item = content if isinstance(content, dict) else {}
    for key, default in {"images": None, "annotations": None, "categories": ()}.items():
        if not _are_entries(known.get(key, default)):
            text = "be an annotation file of COCO with the lists images and"
            raise must(f"{text} annotations, but {key} is not a list of entries")
    images = unique_ids(known["images"], "image")
    categories = unique_ids(known.get("categories", ()), "category")
    listed: set[str] = set()
    for image in known["images"]:
        name = image.get("file_name")
        if isinstance(name, str):
            name = os.path.normpath(name)
            if name in listed:
                raise must(f"list every image once, but lists {name} twice")
            listed.add(name)
        size = (image.get("height"), image.get("width"))
        if not all(type(side) is int and side > 0 for side in size):
            of = image.get("file_name", image["id"])
            raise must(f"have the height and width of {of}, got {size}")
    crowds: set[Any] = set()
    for item in known["annotations"]:
        check_listed(item, "image", images)
        parts = item.get("segments_info", [item])  # the former of a panoptic one
        if not _are_entries(parts):
            image = item["image_id"]
            raise must(f"have a list of segments in segments_info of image {image}")
        if "segments_info" in item:
            unique_ids(parts, "segment of an image")
        for part in parts:
            if categories or "category_id" in part:
                check_listed(part, "category", categories)
            crowd = part.get("iscrowd", 0)
            if not isinstance(crowd, int | float) or crowd not in (0, 1):
                text = f"annotation {item.get('id')!r} has {crowd!r}"
                raise must(f"have an iscrowd of 0 or 1, but {text}")
            crowds.add(crowd)
    if crowds == {1}:
        raise must("have instances, but all of its annotations are crowds: void")
    return known


def _are_entries(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(e, dict) for e in value)


def category_names(categories: Sequence[_Item], path: PathLike) -> dict[int, str]:
    """Returns the names of COCO's categories by their ids; two of one name are refused.

    >>> category_names([{"id": 17, "name": "cat"}], "instances.json")
    {17: 'cat'}
    """
    names = {category["id"]: str(category["name"]) for category in categories}
    for number, name in names.items():
        if list(names.values()).count(name) > 1:
            text = f"{path} must have a name of its own for every category, but"
            raise InputError(f"{text} {number} is not the only one called {name}")
    return names


def by_image(
    content: _Item, *, panoptic: bool = False
) -> list[tuple[_Item, list[_Item]]]:
    """Returns images, by id, with their annotations; if panoptic, those with some."""
    found = defaultdict(list)
    for annotation in content["annotations"]:
        found[annotation["image_id"]].append(annotation)
    images = sorted(content["images"], key=lambda image: image["id"])
    pairs = [(image, found[image["id"]]) for image in images]
    return [pair for pair in pairs if pair[1] or not panoptic]


def read_annotations(annotations: Annotations) -> Mask:
    """Paints the instances of one image, numbered in the order of the file.

    Crowds are void; smaller instances lie over larger ones.
    """
    items, where = annotations.items, f"annotations {annotations}"
    try:
        painted = paint_annotations(items, annotations.size, where=where)
    except InputError as error:
        raise FileError(str(error)) from error
    wanted = sum(not item.get("iscrowd") for item in items)
    hidden = wanted - len(painted.shown)
    text = f"{where}: {hidden} of {wanted} instances have no pixel or are covered"
    findings = (Finding("warning", "vanishing", text),) if hidden else ()
    return Mask(painted.instances, "annotations", findings=findings)


def read_panoptic(
    colors: np.ndarray, segments: list[_Item], classes: Classes, *, who: str
) -> tuple[np.ndarray, np.ndarray]:
    """Turns colors, uint8 [H, W, 3], of a panoptic PNG into int32 [H, W] label maps.

    A pixel's id in ``segments_info`` is R + 256 G + 256² B. Segments of things are
    instances, 1, 2, .. in their order, those of stuff are background; crowds, and
    pixels of id 0, are void. The second map is of classes, also those of crowds.
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
        text = f"but has pixels of {unknown[0]}"
        raise InputError(f"{who} must hold the ids of its segments_info, {text}")
    painted = np.array(instances, np.int32)[order][place]
    numbered = number_in_order(np.maximum(painted, 0))[0]
    void = painted == VOID
    return np.where(void, VOID, numbered), np.array(semantic, np.int32)[order][place]


def find_annotation_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Finds an annotation file in COCO's folder or in ``annotations`` in it."""
    for path in (folder / "annotations" / name, folder / name):
        if path.is_file():
            return path
    text = f"coco_dir must hold COCO's {name}, directly or in annotations"
    raise InputError(f"{text}, but {folder} does not")


def find_annotations(
    root: pathlib.Path,
    split_names: Mapping[str, tuple[str, ...]],
    image_folders: tuple[str, ...],
) -> tuple[dict[str, list[Entry]], list[FileError]]:
    """Finds annotation files: split, or ``""`` -> images; errors of missing ones.

    The files are ``annotations/*.json``, or lie beside the images, perhaps in one of
    the ``image_folders``; the split is in the name of the file or of its folder.
    """
    files = sorted((root / "annotations").glob("*.json"))
    # COCO's captions lie beside the instances.
    files = [file for file in files if file.name.startswith("instances")] or files
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, *inside):
        if folder.name != "annotations":
            files += [f for f in sorted(folder.glob("*.json")) if _NAMES.search(f.name)]
    found: dict[str, list[Entry]] = {}
    problems: list[FileError] = []
    for file in files:
        above, stem = file.parent.name.lower(), file.stem.lower()
        of_split = (
            split
            for split, names in split_names.items()
            if (above in names and file.parent != root)
            or re.search(rf"(?<![a-z]){names[0]}", stem)
        )
        split = next(of_split, "")
        if split in found or (found and "" in (split, *found)):
            raise InputError(
                f"{file} must be of a split of its own, with train, val or test in its "
                f"name: there is another annotation file in {root}"
            )
        found[split], missing = _read_entries(file, root, image_folders)
        problems += missing
    return found, problems


def _read_entries(
    file: pathlib.Path, root: pathlib.Path, known: tuple[str, ...]
) -> tuple[list[Entry], list[FileError]]:
    pairs = {_safe_name(i, file): (i, a) for i, a in by_image(load_annotations(file))}
    folder = _image_folder(file, root, list(pairs), known)
    entries, missing = [], []
    for name, (image, items) in pairs.items():
        path, size = folder / name, (image["height"], image["width"])
        if os.path.isfile(path):
            entries.append((name, path, Annotations(file, name, size, items)))
        else:
            missing.append(path)
    if not missing:
        return entries, []
    text = f"every image that {file} lists must be there, but {len(missing)} of "
    text += f"{len(pairs)} are not, the first is {missing[0]}"
    return entries, [FileError(text, kind="no image", files=missing)]


def _safe_name(image: _Item, file: pathlib.Path) -> str:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise InputError(f"{file} must have a file_name for image {image.get('id')!r}")
    plain = os.path.normpath(name)
    if os.path.isabs(plain) or plain.split(os.sep)[0] == os.pardir:
        text = f"{file} must name images inside its folder"
        raise InputError(f"{text}, got file_name {name!r}")
    return pathlib.Path(plain).as_posix()


def _image_folder(
    file: pathlib.Path, root: pathlib.Path, names: list[str], known: tuple[str, ...]
) -> pathlib.Path:
    """The folder that holds the first image found in any of the known folders."""
    tail = re.sub(r"^(instances|annotations)_", "", file.stem)
    folders = [file.parent, *(file.parent / name for name in known)]
    folders += [root / name / tail for name in ("", *known)]
    folders += [root, *(root / name for name in known)]
    for name in names:
        for folder in folders:
            if os.path.isfile(folder / name):  # False also for impossible names
                return folder
    listed = ", ".join(dict.fromkeys(map(str, folders)))
    raise InputError(f"none of the images of {file} is in one of {listed}")
