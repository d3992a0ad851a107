"""A network's variables: whether they fit it, and its backbone's among them."""

from __future__ import annotations

from typing import Any

import jax

from sphemb._checks import InputError

_KINDS = ("params", "batch_stats")


def variables_of(state: Any) -> dict[str, Any]:
    """The variables of a state, as Flax has them."""
    return {name: getattr(state, name) for name in _KINDS}


def check_variables(variables: Any, wanted: Any, where: str) -> None:
    """Makes sure that variables are those of a network.

    Args:
        variables: dict of ``params`` and ``batch_stats``.
        wanted: the network's own, or their shapes.
        where: the setting that they come from.

    Raises:
        InputError: names or shapes differ.
    """
    different = sorted(
        set(_leaf_shapes(variables).items()) ^ set(_leaf_shapes(wanted).items())
    )
    if different:
        name, shape = different[0]
        raise InputError(
            f"{where} must hold this network's parameters, but {len(different)} "
            f"differ, such as {name} {shape}: is config.model the same?"
        )


def backbone_of(variables: Any, *, where: str, network: str) -> dict[str, Any]:
    """The variables of a network's backbone.

    Args:
        variables: dict of ``params`` and ``batch_stats``.
        where: the setting that they come from.
        network: its name.

    Raises:
        InputError: it has none.
    """
    if any("backbone" not in found for found in variables.values()):
        raise InputError(
            f"{where} must be a run whose network has a backbone, got one of {network}"
        )
    return {name: found["backbone"] for name, found in variables.items()}


def with_backbone(variables: Any, backbone: dict[str, Any]) -> dict[str, Any]:
    """Variables with another backbone's."""
    return {
        name: {**found, "backbone": backbone[name]} for name, found in variables.items()
    }


def _leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
