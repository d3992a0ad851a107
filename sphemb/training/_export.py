"""A trained network and its task as one function that needs JAX alone.

Shape letters: B images, H rows, W columns.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.errors import InconclusiveDimensionOperation

from sphemb import __version__
from sphemb._checks import InputError, check_choice, check_count, check_shape
from sphemb.tasks import Maps, named_arrays
from sphemb.training._experiment import Trained

PLATFORMS = ("cpu", "cuda", "tpu")
# What Python code raises that wants a number where a symbol stands.
_SIZE_WANTED = (InconclusiveDimensionOperation, jax.errors.ConcretizationTypeError)
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def export_prediction(
    trained: Trained,
    *,
    smallest: int = 64,
    largest: int = 512,
    size: Sequence[int] | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
    """Lowers network, mean shift and labels to one function of an image batch.

    The function takes ``image``, float32 [B, H, W, 3] in [0, 1], and ``mask``, bool
    [B, H, W], False where pixels are padding, and returns what the task predicts. It
    contains the parameters. B is symbolic, and so are H and W, multiples of the stride
    with bounds: the grouping is lowered for each size of `sphemb.grouping.pad_points`.

    Args:
        trained: the network.
        smallest: H and W at least, in pixels.
        largest: H and W at most.
        size: (H, W) of all images, for a task that needs it, or for a smaller file.
        platforms: of ``"cpu"``, ``"cuda"``, ``"tpu"``, present or not.

    Returns:
        An export of ``jax.export``: ``serialize()`` gives the bytes.

    Raises:
        InputError: sides that are not multiples of the stride or in wrong order, an
            unknown platform, or a task that needs the size.
    """
    stride = trained.experiment.model.stride
    for platform in platforms:
        check_choice("platforms", platform, PLATFORMS)
    if not platforms:
        raise InputError("platforms must name one at least, got none")
    sides, bounds = (
        _open_sides(stride, smallest, largest)
        if size is None
        else (_whole_sides(stride, size), ())
    )
    shape = export.symbolic_shape(f"b, {sides}", constraints=bounds)
    task, network = trained.experiment.task, trained.experiment.network
    # On the host: parameters that lie on several devices would ask for as many again.
    variables = jax.device_get((trained.params, trained.batch_stats))
    task_state = jax.device_get(trained.task_state)

    def predict(image: jax.Array, mask: jax.Array) -> Maps:
        apply = functools.partial(network, *variables)
        found = task.predict(apply, task_state, {"image": image, "mask": mask})
        return named_arrays(found)

    arguments = (
        jax.ShapeDtypeStruct((*shape, 3), jnp.float32),
        jax.ShapeDtypeStruct(shape, bool),
    )
    try:
        return export.export(jax.jit(predict), platforms=platforms)(*arguments)
    except _SIZE_WANTED as error:
        if size is not None:
            raise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"config.task.name {type(task).__name__} must know the size of its images, "
            f"got sides from {smallest} to {largest} ({reason}): give a size"
        ) from error


def _open_sides(stride: int, smallest: int, largest: int) -> tuple[str, list[str]]:
    """Symbolic sides, and their bounds."""
    check_count("smallest", smallest, at_least=1)
    check_count("largest", largest, at_least=1)
    least, most = -(-smallest // stride), largest // stride
    if least >= most:
        raise InputError(
            f"smallest must be below largest by multiples of {stride}, the network's "
            f"stride, got {smallest} and {largest}: give a size for one alone"
        )
    bounds = [
        f"{side} {sign}" for side in "hw" for sign in (f">= {least}", f"<= {most}")
    ]
    return f"{stride}*h, {stride}*w", bounds


def _whole_sides(stride: int, size: Sequence[int]) -> str:
    """Sides that are numbers."""
    check_shape("size", size, "2", hint="height and width")
    for side in size:
        check_count("size", side, at_least=1)
        if side % stride:
            raise InputError(
                f"size must be multiples of {stride}, the network's stride, got "
                f"{tuple(size)}"
            )
    return ", ".join(map(str, size))


def describe_export(trained: Trained, exported: export.Exported) -> dict[str, Any]:
    """A description of an export for its users, for JSON.

    Returns:
        ``inputs`` and ``outputs``, name -> shape, with symbols, and dtype; ``reading``,
        page and values of files in training, see `sphemb.data.Reading`; ``stride``,
        ``platforms``, ``model``, ``task``, ``step``, ``class_names``, ``versions``.
    """
    image, mask = exported.in_avals
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    experiment = trained.experiment
    return {
        "inputs": {
            "image": _array(image) | {"values": "red, green, blue in 0 .. 1"},
            "mask": _array(mask) | {"values": "false where pixels are padding"},
        },
        "outputs": {name: _array(array) for name, array in outputs.items()},
        "reading": dataclasses.asdict(experiment.reading),
        "stride": experiment.model.stride,
        "platforms": list(exported.platforms),
        "model": experiment.config.model.name,
        "task": experiment.config.task.name,
        "step": trained.step,
        "class_names": list(trained.class_names),
        "calling_convention_version": exported.calling_convention_version,
        "versions": {
            "sphemb": __version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def _array(array: Any) -> dict[str, Any]:
    shape = [d if isinstance(d, int) else str(d) for d in array.shape]
    return {"shape": shape, "dtype": str(array.dtype)}
