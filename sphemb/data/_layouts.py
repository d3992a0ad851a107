"""How a folder of images and masks is laid out, found by looking at it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from sphemb._checks import InputError
from sphemb.data.files import Annotations, FileError, find_annotations, images_in

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}
_IMAGE_FOLDERS = ("images", "image", "imgs")
_MASK_FOLDERS = ("masks", "labels", "mask", "label")
_MASK_SUFFIXES = tuple(f"_{word}" for word in _MASK_FOLDERS)


class Pair(NamedTuple):
    """An image and what is known about its instances.

    Attributes:
        name: the image's file name without the ending.
        image: the image file.
        mask: the mask file, or the image's part of an annotation file.
    """

    name: str
    image: pathlib.Path
    mask: pathlib.Path | Annotations


class Layout(NamedTuple):
    """The pairs of a folder.

    Attributes:
        kind: the layout in words.
        pairs: split -> pairs; where the folder has no splits, all are under ``""``.
        problems: images without a mask and masks without an image.
    """

    kind: str
    pairs: dict[str, list[Pair]]
    problems: list[FileError]


def find_layout(root: pathlib.Path) -> Layout:
    """Finds the pairs of a folder.

    Args:
        root: the folder.

    Returns:
        Its layout.

    Raises:
        InputError: there is no such folder, or no layout that is known.
    """
    if not root.is_dir():
        raise InputError(f"dir must be a folder of images and masks, got {root}")
    problems: list[FileError] = []
    kind, pairs = "", {}
    images, masks = _subfolder(root, _IMAGE_FOLDERS), _subfolder(root, _MASK_FOLDERS)
    # Beside images and masks, a folder called test may be anything.
    if _splits_of(root) and not (images and masks):
        kind = "a folder for each split"
        for split, folder in _splits_of(root).items():
            pairs[split] = _pairs_within(folder, problems)
        for split, folder in _splits_of(root).items():
            if pairs[split] or not any(pairs.values()):
                continue
            if split != "test":  # where images without masks often lie
                raise InputError(
                    f"{folder} must hold images and masks, as the other splits do"
                )
            del pairs[split]
        pairs = {split: found for split, found in pairs.items() if found}
    elif images and masks and _splits_of(images):
        kind = f"{images.name} and {masks.name}, divided into splits"
        mask_splits = _splits_of(masks)
        for split, folder in _splits_of(images).items():
            if split not in mask_splits:
                if split == "test":
                    continue
                raise InputError(
                    f"{masks} must have a folder {folder.name} as {images} has"
                )
            pairs[split] = _pair_folders(folder, mask_splits[split], problems)
    elif found := _pairs_within(root, problems):
        kind, pairs = "one folder without splits", {"": found}
    if not pairs and not problems:
        annotated = find_annotations(root, SPLIT_NAMES, _IMAGE_FOLDERS)
        if annotated is not None:
            kind = "images with COCO annotations"
            problems += annotated.problems
            pairs = {
                split: [Pair(_stem(name), path, part) for name, path, part in entries]
                for split, entries in annotated.entries.items()
            }
    if pairs and not problems and not {"", "train"} & pairs.keys():
        raise InputError(f"{root} must have a train split, got {', '.join(pairs)}")
    if not pairs and not problems:
        there = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root} must hold images and masks ({{train,val}}/{{images,masks}}, "
            "{images,masks}/{train,val}, {images,masks}, NAME_mask.png beside NAME.ext,"
            f" or COCO json), got {there}"
        )
    return Layout(kind, pairs, problems)


def _stem(name: str) -> str:
    return pathlib.PurePosixPath(name).with_suffix("").as_posix()


def _subfolder(folder: pathlib.Path, names: Iterable[str]) -> pathlib.Path | None:
    there = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _splits_of(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    found = {split: _subfolder(folder, names) for split, names in SPLIT_NAMES.items()}
    return {split: path for split, path in found.items() if path is not None}


def _pairs_within(folder: pathlib.Path, problems: list[FileError]) -> list[Pair]:
    """The pairs of one folder without splits; none where masks are not files."""
    images, masks = (_subfolder(folder, n) for n in (_IMAGE_FOLDERS, _MASK_FOLDERS))
    if images and masks:
        return _pair_folders(images, masks, problems)
    files = images_in(folder)
    stems = {path.stem for path in files}
    masks_there = [path for path in files if _masked_stem(path.stem, stems)]
    if not masks_there:
        return []
    rest = [path for path in files if path not in masks_there]
    return _pair_files(rest, masks_there, folder, folder, problems)


def _pair_folders(
    images: pathlib.Path, masks: pathlib.Path, problems: list[FileError]
) -> list[Pair]:
    return _pair_files(images_in(images), images_in(masks), images, masks, problems)


def _masked_stem(stem: str, stems: set[str]) -> str:
    """The stem of the image that a mask's name points to, or nothing."""
    for suffix in _MASK_SUFFIXES:
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            # An image may be called so itself: then it has a mask called yet longer.
            own_mask = any(stem + other in stems for other in _MASK_SUFFIXES)
            return "" if own_mask else stem[: -len(suffix)]
    return ""


def _pair_files(
    images: list[pathlib.Path],
    masks: list[pathlib.Path],
    image_folder: pathlib.Path,
    mask_folder: pathlib.Path,
    problems: list[FileError],
) -> list[Pair]:
    if not images:
        raise InputError(f"no images in {image_folder}")
    by_stem = _unique(images, {path: path.stem for path in images}, "image")
    keys = {}
    for path in masks:
        stripped = _masked_stem(path.stem, set())
        exact = path.stem in by_stem and image_folder != mask_folder
        keys[path] = path.stem if exact or not stripped else stripped
    masks_by_stem = _unique(masks, keys, "mask")
    unmasked = [path for stem, path in by_stem.items() if stem not in masks_by_stem]
    unseen = [path for stem, path in masks_by_stem.items() if stem not in by_stem]
    if unmasked:
        problems.append(
            FileError(
                f"every image needs a mask in {mask_folder}, but "
                f"{len(unmasked)} of {len(images)} have none, the first is "
                f"{unmasked[0]}: an image without objects needs a mask of zeros",
                kind="no mask",
                files=unmasked,
            )
        )
    if unseen:
        problems.append(
            FileError(
                f"every mask needs an image in {image_folder}, but {len(unseen)} of "
                f"{len(masks)} have none, the first is {unseen[0]}",
                kind="no image",
                files=unseen,
            )
        )
    return [
        Pair(stem, path, masks_by_stem[stem])
        for stem, path in sorted(by_stem.items())
        if stem in masks_by_stem
    ]


def _unique(
    paths: list[pathlib.Path], keys: dict[pathlib.Path, str], what: str
) -> dict[str, pathlib.Path]:
    found: dict[str, pathlib.Path] = {}
    for path in paths:
        other = found.setdefault(keys[path], path)
        if other != path:
            raise InputError(
                f"every name must have one {what}, but {other} and {path} share one"
            )
    return found
