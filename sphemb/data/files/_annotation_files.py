"""COCO annotation files in a folder of one's own, and the images that they list."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sphemb._checks import InputError
from sphemb.data.files._annotations import Annotations
from sphemb.data.files._coco_json import load_annotations
from sphemb.data.files._findings import FileError

_NAMES = re.compile(r"instances|annotations|coco", re.IGNORECASE)


class Annotated(NamedTuple):
    """The annotation files of a folder.

    Attributes:
        entries: split, or ``""`` -> (name, image file, annotations) of every image.
        problems: images that are listed and not there.
    """

    entries: dict[str, list[tuple[str, pathlib.Path, Annotations]]]
    problems: list[FileError]


def find_annotations(
    root: pathlib.Path,
    split_names: Mapping[str, tuple[str, ...]],
    image_folders: tuple[str, ...],
) -> Annotated | None:
    """Finds the annotation files of a folder and the images that they speak of.

    The files are ``annotations/*.json``, or lie beside the images; the split is in the
    name of the file or of its folder.

    Args:
        root: the folder.
        split_names: split -> what it is called.
        image_folders: what a folder of images is called.

    Returns:
        None if there are no such files.

    Raises:
        InputError: a file is no COCO annotation file, its images cannot be found or
            lie outside of the folder, or two files are of one split.
    """
    files = sorted((root / "annotations").glob("*.json"))
    instances = [file for file in files if file.name.startswith("instances")]
    files = instances or files  # COCO's captions lie beside them
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, *inside):
        if folder.name != "annotations":
            files += [f for f in sorted(folder.glob("*.json")) if _NAMES.search(f.name)]
    if not files:
        return None
    entries: dict[str, Any] = {}
    problems: list[FileError] = []
    for file in files:
        split = _split_of(file, root, split_names)
        if split in entries or ("" in (split, *entries) and entries):
            raise InputError(
                f"{file} must be of a split of its own, with train, val or test in its "
                f"name: there is another annotation file in {root}"
            )
        entries[split] = _read_entries(file, root, image_folders, problems)
    return Annotated(entries, problems)


def _split_of(
    file: pathlib.Path, root: pathlib.Path, split_names: Mapping[str, tuple[str, ...]]
) -> str:
    folder = file.parent.name.lower() if file.parent != root else ""
    for split, names in split_names.items():
        # The first name begins the others, so that val2017 and valid are known too.
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
    images = content["images"]
    by_image: dict[int, list[Any]] = {image["id"]: [] for image in images}
    for item in content["annotations"]:
        by_image[item["image_id"]].append(item)
    names = [_safe_name(image, file) for image in images]
    folder = _image_folder(file, root, names, image_folders)
    entries, missing = [], []
    for name, image in zip(names, images, strict=True):
        path = folder / name
        if not os.path.isfile(path):
            missing.append(path)
            continue
        size = (image["height"], image["width"])
        items = by_image[image["id"]]
        entries.append((name, path, Annotations(file, name, size, items)))
    if missing:
        problems.append(
            FileError(
                f"every image that {file} lists must be there, but {len(missing)} of "
                f"{len(names)} are not, the first is {missing[0]}",
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
    """The folder that has the first image of a file that any of them has."""
    tail = re.sub(r"^(instances|annotations)_", "", file.stem)
    folders = [file.parent, *(file.parent / name for name in image_folders)]
    folders += [root / name / tail for name in ("", *image_folders)]
    folders += [root, *(root / name for name in image_folders)]
    for name in names:
        for folder in folders:
            if os.path.isfile(folder / name):  # a file may say anything
                return folder
    listed = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise InputError(f"none of the images of {file} is in one of {listed}")
