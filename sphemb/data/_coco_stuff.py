"""COCO-Stuff's label maps: one PNG for each image, things and stuff by their class.

H W image size.
"""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np

from sphemb._checks import InputError
from sphemb._labels import VOID
from sphemb.data._coarse_classes import coarse_labels
from sphemb.data.files import PaletteColors, decode_indices

_FOLDERS = ("stuffthingmaps_trainval2017", "stuffthingmaps", "annotations", "")
_VOID_CODE = 255


def find_stuff_maps(folder: pathlib.Path, tail: str) -> list[pathlib.Path]:
    """The PNGs of a split, by name.

    Args:
        folder: of COCO.
        tail: ``"train2017"`` or ``"val2017"``.

    Returns:
        The files.

    Raises:
        InputError: there are none.
    """
    for name in _FOLDERS:
        found = sorted((folder / name / tail).glob("*.png"))
        if found:
            return found
    raise InputError(
        f"coco_dir must hold COCO-Stuff's {_FOLDERS[0]}/{tail}/*.png, but {folder} "
        "does not"
    )


def stuff_digest(files: list[pathlib.Path]) -> bytes:
    """Tells one set of maps from another by their names and sizes.

    There are 123,287 of them; to read them all would take longer than all the rest.
    """
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.digest()


def read_stuff(
    data: bytes, *, categories: str | None, who: str, palettes: PaletteColors
) -> tuple[np.ndarray, np.ndarray]:
    """Turns a PNG into label maps.

    Args:
        data: the file's bytes.
        categories: ``"coarse27"``, or None for COCO-Stuff's ids, 1 to 182.
        who: what to call the map in a complaint.
        palettes: of the maps before.

    Returns:
        int32 [H, W] instances, void everywhere, for nobody knows which pixels of a
        class are one thing; and int32 [H, W] classes, -1 void.

    Raises:
        InputError: the file is no such map.
    """
    codes = decode_indices(data, who=who, palettes=palettes).astype(np.int32)
    try:
        coarse = coarse_labels(codes, of="coco_stuff")
    except InputError as error:
        raise InputError(f"{who}: {error}") from error
    fine = np.where(codes == _VOID_CODE, VOID, codes + 1).astype(np.int32)
    return np.full_like(fine, VOID), coarse if categories else fine
