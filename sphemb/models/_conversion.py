"""From PyTorch's names and layouts to those of our backbones.

A leaf that is missing, left over or of the wrong shape would give a network that runs
and is wrong, so each is refused by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from sphemb._checks import InputError, check_choice
from sphemb.models._backbones import BACKBONES
from sphemb.models._efficientnet import STAGES

Path = tuple[str, ...]
"""Of a leaf: the collection, the modules, the variable."""

_VARIABLES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# What only a classifier needs, and the counters of torch's batch normalisation.
_RESNET_UNUSED = re.compile(r"fc\.(weight|bias)|.*\.num_batches_tracked")
_EFFICIENTNET_UNUSED = re.compile(r"(_conv_head|_bn1|_fc)\.\w+|.*\.num_batches_tracked")
_RESNET_LAYERS = {"shortcut": "downsample.0", "shortcut_norm": "downsample.1"}
_EFFICIENTNET_LAYERS = {
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}


def convert_state_dict(
    state: Mapping[str, Any], backbone: str, *, where: str = "the state dict"
) -> dict[str, Any]:
    """Turns a PyTorch state dict into a backbone's variables.

    Args:
        state: arrays by name: a ResNet of torchvision or timm, or an EfficientNet-Lite0
            with the names ``_conv_stem``, ``_blocks.0._depthwise_conv``, ... The
            classifier and the counters of the batch normalisation are left aside.
        backbone: a name of `BACKBONES`.
        where: the file, for complaints.

    Returns:
        ``params`` and ``batch_stats``, nested dicts of float32 arrays.

    Raises:
        InputError: a leaf is missing, left over, has another shape, or is not finite.
    """
    check_choice("backbone", backbone, tuple(BACKBONES))
    resnet = backbone.startswith("resnet")
    translate = _resnet_name if resnet else _efficientnet_name
    unused = _RESNET_UNUSED if resnet else _EFFICIENTNET_UNUSED
    names = {path: translate(path) for path in leaf_shapes(backbone)}
    given = {name for name in state if not unused.fullmatch(name)}
    _refuse(set(names.values()) - given, where, f"lacks what {backbone} needs")
    _refuse(given - set(names.values()), where, f"holds what {backbone} has not")
    leaves = {}
    for path, shape in leaf_shapes(backbone).items():
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
        leaves[path] = np.ascontiguousarray(array, np.float32)
        check_leaf(name, leaves[path], where)
    return traverse_util.unflatten_dict(leaves)


@functools.cache
def leaf_shapes(backbone: str) -> dict[Path, tuple[int, ...]]:
    """The shape of each of a backbone's variables.

    >>> leaf_shapes("resnet18")["params", "stem_conv", "kernel"]
    (7, 7, 3, 64)
    """
    model = BACKBONES[backbone]()
    image = jax.ShapeDtypeStruct((1, model.stride, model.stride, 3), np.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), image)
    leaves: dict[Path, Any] = traverse_util.flatten_dict(tree)
    return {path: leaf.shape for path, leaf in leaves.items()}


def check_leaf(name: str, array: np.ndarray, where: str) -> None:
    """Refuses NaN, infinity and negative variances."""
    if not np.isfinite(array).all():
        raise InputError(f"{where} must hold finite numbers, got others in {name}")
    if name.endswith("var") and (array < 0).any():
        raise InputError(f"{where} must have variances >= 0, got others in {name}")


def _refuse(names: set[str], where: str, complaint: str) -> None:
    if names:
        first = sorted(names)
        more = f" and {len(first) - 3} more" if len(first) > 3 else ""
        raise InputError(f"{where} {complaint}: {', '.join(first[:3])[:200]}{more}")


def _resnet_name(path: Path) -> str:
    *_, layer, variable = path
    if path[1].startswith("stem"):
        prefix = {"stem_conv": "conv1", "stem_norm": "bn1"}[layer]
    else:
        stage, block = _stage_and_block(path[1])
        layer = _RESNET_LAYERS.get(layer, layer.replace("norm", "bn"))
        prefix = f"layer{stage}.{block - 1}.{layer}"
    return f"{prefix}.{_VARIABLES[variable]}"


def _efficientnet_name(path: Path) -> str:
    *_, layer, variable = path
    if path[1].startswith("stem"):
        prefix = {"stem_conv": "_conv_stem", "stem_norm": "_bn0"}[layer]
    else:
        stage, block = _stage_and_block(path[1])
        index = sum(row.blocks for row in STAGES[: stage - 1]) + block - 1
        prefix = f"_blocks.{index}.{_EFFICIENTNET_LAYERS[layer]}"
    return f"{prefix}.{_VARIABLES[variable]}"


def _stage_and_block(module: str) -> tuple[int, int]:
    stage, block = re.findall(r"\d+", module)
    return int(stage), int(block)
