"""BSDS500 as files: where it is published, its folders, what annotators have drawn.

A annotators, H W image size.
"""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np

from sphemb._checks import InputError
from sphemb.data.files import (
    FileError,
    Files,
    FolderFiles,
    PathLike,
    Publication,
    load_variable,
    reading_matlab,
)

BSDS = Publication(
    what="BSDS500",
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/"
    "BSR_bsds500.tgz",
    # Berkeley publishes no digest. Projects that have the archive state this one, all
    # with its 70,763,455 bytes.
    algorithm="sha256",
    digest="97e49d31764f3912f0c4122707d53062ac9e783ba0f095e447a4d53c1a41af8e",
    root="BSR/BSDS500/data",
    landmark="groundTruth",
    folders=("images", "groundTruth"),
)
FOLDERS = {"train": "train", "validation": "val", "test": "test"}
"""Split -> its folder."""


def find_tree(folder: PathLike) -> pathlib.Path:
    """Returns a folder, or the one in it that the published archive unpacks to."""
    outside = pathlib.Path(folder).expanduser()
    parts = pathlib.PurePosixPath(BSDS.root).parts
    inside = [outside.joinpath(*parts[start:]) for start in range(len(parts), -1, -1)]
    return next((p for p in inside if (p / BSDS.landmark).is_dir()), outside)


def image_path(split: str, name: str) -> str:
    """Where the photograph of a name is."""
    return f"images/{FOLDERS[split]}/{name}.jpg"


def truth_path(split: str, name: str) -> str:
    """Where the annotations of a name are."""
    return f"groundTruth/{FOLDERS[split]}/{name}.mat"


def read_names(files: Files) -> dict[str, list[str]]:
    """Returns the names in each split, every one with a photograph and annotations."""
    names = {}
    for split, folder in FOLDERS.items():
        images = files.names(f"images/{folder}", suffix=".jpg")
        truths = files.names(f"groundTruth/{folder}", suffix=".mat")
        if not images and not truths:
            wanted = files.where(f"images/{folder}")
            raise InputError(
                f"{wanted} must hold photographs, *.jpg, with annotations, *.mat, in "
                f"groundTruth/{folder} beside images, got none"
            )
        alone = sorted(set(images) ^ set(truths))
        if alone:
            there, missing = image_path(split, alone[0]), truth_path(split, alone[0])
            if alone[0] in truths:
                there, missing = missing, there
            more = f", and {len(alone) - 1} more in {folder}" * (len(alone) > 1)
            raise InputError(f"{files.where(there)} has no {missing} beside it{more}")
        names[split] = images
    return names


def digest_tree(root: PathLike, names: dict[str, list[str]]) -> str:
    """Digests the annotations of a tree and the sizes of its images."""
    digest = hashlib.sha256(repr(names).encode())
    for split, inside in names.items():
        for name in inside:
            image = pathlib.Path(root, image_path(split, name))
            digest.update(f"{name} {image.stat().st_size}".encode())
            digest.update(pathlib.Path(root, truth_path(split, name)).read_bytes())
    return digest.hexdigest()[:8]


def read_boundaries(path: PathLike) -> np.ndarray:
    """Reads where the annotators of an image drew boundaries.

    The file is a ground truth of BSDS500: a cell array ``groundTruth`` with a structure
    for every annotator, in which ``Boundaries`` is a map of curves one pixel wide.

    Args:
        path: the ``.mat`` file.

    Returns:
        bool [A, H, W], True on boundaries.

    Raises:
        FileError: the file is missing, damaged, cut short, or of something else.

    References:
        Arbelaez, Maire, Fowlkes, Malik, "Contour Detection and Hierarchical Image
        Segmentation", PAMI 2011.
    """
    file = pathlib.Path(path).expanduser()
    try:
        data = FolderFiles(file.parent).read(file.name)
    except InputError as error:
        raise FileError(str(error), files=(file,)) from error
    return decode_boundaries(data, who=str(file))


def decode_boundaries(data: bytes, *, who: str) -> np.ndarray:
    """Decodes what `read_boundaries` reads.

    Args:
        data: the file's bytes.
        who: what to call the file in a complaint.

    Returns:
        bool [A, H, W].

    Raises:
        FileError: as of `read_boundaries`.
    """
    with reading_matlab(who, "a ground truth of BSDS500"):
        annotators = load_variable(data, "groundTruth").ravel()
        if not all(isinstance(a, np.ndarray) for a in annotators):
            raise ValueError("groundTruth must be a cell array of structures")
        maps = [np.asarray(a[0, 0]["Boundaries"]) for a in annotators]
        shapes = sorted({found.shape for found in maps})
        kinds = {found.dtype.kind for found in maps}
    flat = len(shapes) == 1 and len(shapes[0]) == 2 and min(shapes[0]) > 0
    if not flat or not kinds <= set("biuf"):
        raise FileError(
            f"{who} must have maps groundTruth.Boundaries [H, W] of numbers, all of "
            f"one size, got {shapes or 'none'}"
        )
    return np.stack(maps) != 0
