"""Where arrays live: one state on every device, one shard of the batch on each.

The only file that knows of ``pmap``. The functions that it maps are pure and speak of
one device; the mapped axis is called ``"batch"``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sphemb._checks import InputError


def devices() -> str:
    """The devices of a run in words, such as ``"1 cpu device (2 cores)"``."""
    kind = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        kind = f"{os.cpu_count()} cores"
    count = jax.device_count()
    name = f"{jax.default_backend()} device" + "s" * (count > 1)
    return f"{count} {name} ({kind})"


def replicate(tree: Any) -> Any:
    """Puts a pytree on every local device, unstacked.

    A donated state must have this placement before the first step, or processes that
    share a run fail on their second use of it.
    """
    mesh = Mesh(np.asarray(jax.local_devices()), ("batch",))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cuts a host's batch [B, ...] into [devices, B / devices, ...].

    Raises:
        InputError: B is not divisible by the number of local devices.
    """
    count = jax.local_device_count()

    def split(array: np.ndarray) -> np.ndarray:
        if array.shape[0] % count:
            raise InputError(
                f"the batch size of a host must be divisible by its {count} devices, "
                f"got {array.shape[0]}: change config.loader.batch_size"
            )
        return array.reshape(count, array.shape[0] // count, *array.shape[1:])

    return {name: split(array) for name, array in batch.items()}


def spread_batch(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Puts a batch [B, ...] on all local devices, each of which gets some images.

    For functions that are compiled as if there were one device, beside a state from
    `replicate`: the compiler lets each device look at its own images, and adds up.
    """
    mesh = Mesh(np.asarray(jax.local_devices()), ("batch",))
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("batch")))


def data_parallel(
    function: Callable[[Any, Any], Any],
    *,
    replicated_output: bool,
    donate_state: bool = False,
) -> Callable[[Any, Any], Any]:
    """Maps a one-device function ``(state, batch)`` over the local devices.

    Args:
        function: sees the whole state and one device's shard of the batch.
        replicated_output: the output is the same on all devices (it was reduced), and
            comes back unstacked; otherwise with a leading device axis.
        donate_state: the state's memory is reused for the output.

    Returns:
        The mapped function; its batch is what `split_batch` gives.
    """
    return jax.pmap(
        function,
        axis_name="batch",
        in_axes=(None, 0),
        out_axes=None if replicated_output else 0,
        donate_argnums=(0,) if donate_state else (),
    )
