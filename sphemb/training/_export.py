"""A trained network and its task as one function that needs JAX alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.errors import InconclusiveDimensionOperation

from sphemb._checks import InputError, check_choice, check_count, check_shape
from sphemb.tasks import Maps, named_arrays
from sphemb.training._devices import versions
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
    """
    for platform in platforms:
        check_choice("platforms", platform, PLATFORMS)
    if not platforms:
        raise InputError("platforms must name one at least, got none")
    sides, bounds = _sides(trained.experiment.stride, smallest, largest, size)
    shape = export.symbolic_shape(f"b, {sides}", constraints=bounds)
    task, network = trained.experiment.task, trained.experiment.network
    # On the host: parameters that lie on several devices would ask for as many again.
    variables = jax.device_get((trained.params, trained.batch_stats))
    task_state = jax.device_get(trained.task_state)

    def predict(image: jax.Array, mask: jax.Array) -> Maps:
        apply = functools.partial(network, *variables)
        found = task.predict(apply, task_state, {"image": image, "mask": mask})
        return named_arrays(found)

    image = jax.ShapeDtypeStruct((*shape, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct(shape, bool)
    try:
        return export.export(jax.jit(predict), platforms=platforms)(image, mask)
    except _SIZE_WANTED as error:
        if size is not None:
            raise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"config.task.name {type(task).__name__} must know the size of its images, "
            f"got sides from {smallest} to {largest} ({reason}): give a size"
        ) from error


def _sides(
    stride: int, smallest: int, largest: int, size: Sequence[int] | None
) -> tuple[str, list[str]]:
    """The sides as `export.symbolic_shape` reads them, and their bounds."""
    if size is not None:
        check_shape("size", size, "2", hint="height and width")
        for side in size:
            check_count("size", side, at_least=1)
            if side % stride:
                raise InputError(
                    f"size must be multiples of {stride}, the network's stride, got "
                    f"{tuple(size)}"
                )
        return ", ".join(map(str, size)), []
    check_count("smallest", smallest, at_least=1)
    check_count("largest", largest, at_least=1)
    least, most = -(-smallest // stride), largest // stride
    if least >= most:
        raise InputError(
            f"smallest must be below largest by multiples of {stride}, the network's "
            f"stride, got {smallest} and {largest}: give a size for one alone"
        )
    bounds = [f"{s} >= {least}" for s in "hw"] + [f"{s} <= {most}" for s in "hw"]
    return f"{stride}*h, {stride}*w", bounds


def describe_export(trained: Trained, exported: export.Exported) -> dict[str, Any]:
    """A description of an export for its users, for JSON."""
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
        "stride": experiment.stride,
        "platforms": list(exported.platforms),
        "model": experiment.config.model.name,
        "task": experiment.config.task.name,
        "step": trained.step,
        "class_names": list(trained.class_names),
        "calling_convention_version": exported.calling_convention_version,
        "versions": versions(_PACKAGES),
    }


def _array(array: Any) -> dict[str, Any]:
    shape = [d if isinstance(d, int) else str(d) for d in array.shape]
    return {"shape": shape, "dtype": str(array.dtype)}
