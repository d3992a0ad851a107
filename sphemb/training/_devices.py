"""Devices and processes: placement of arrays, ``pmap``, several processes, SIGTERM."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sphemb import __version__
from sphemb._checks import InputError, check_count
from sphemb._errors import LostProcessError
from sphemb._files import gather_objects
from sphemb.data import LABEL_MAPS

# Words in the errors of the libraries below JAX when another process does not answer.
_SEVERED = re.compile(
    r"gloo|nccl|heartbeat|barrier|coordination.?service|connection (reset|refused|clos)"
    r"|socket closed",
    re.IGNORECASE,
)


def devices() -> str:
    """The devices of a run in words, such as ``"1 cpu device (2 cores)"``."""
    platform, count = jax.default_backend(), jax.device_count()
    cores = f"{os.cpu_count()} cores"
    kind = cores if platform == "cpu" else jax.devices()[0].device_kind
    return f"{count} {platform} device{'s' * (count > 1)} ({kind})"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of sphemb and of other packages."""
    return {"sphemb": __version__} | {p: metadata.version(p) for p in packages}


def _placed(tree: Any, *axes: str) -> Any:
    mesh = Mesh(np.asarray(jax.local_devices()), ("batch",))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))


def replicate(tree: Any) -> Any:
    """Puts a pytree on every local device, unstacked, as several processes need it."""
    return _placed(tree)


def spread_batch(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Shards a batch [B, ...] over all local devices, for functions under ``jit``.

    A compact one is sent as it is, and converted there; see `split_batch`, too.
    """
    return _converted(_placed(batch, "batch"))


@jax.jit
def _converted(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Images of 8 bits as float32 in [0, 1], and label maps as int32."""
    labels = {key: batch[key].astype(jnp.int32) for key in LABEL_MAPS if key in batch}
    image = batch["image"]
    if image.dtype == jnp.uint8:
        # Rounded as the host's x / 255; XLA multiplies by a rounded inverse. 1 / 255 is
        # .111.. in base 256: its first three digits times x are exact, the rest is
        # added, in one rounding.
        values = image.astype(jnp.float32)
        image = values * (0x010101 / 2**24) + values * (2**-24 / 255)
    return {**batch, **labels, "image": image}


def split_batch(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Cuts a host's batch [B, ...] into [devices, B / devices, ...], on the devices."""
    count = jax.local_device_count()

    def split(array: np.ndarray) -> np.ndarray:
        if array.shape[0] % count:
            raise InputError(
                f"the batch size of a host must be divisible by its {count} devices, "
                f"got {array.shape[0]}: change config.loader.batch_size"
            )
        return array.reshape(count, array.shape[0] // count, *array.shape[1:])

    return spread_batch({name: split(array) for name, array in batch.items()})


def data_parallel(
    function: Callable[[Any, Any], Any],
    *,
    replicated_output: bool,
    donate_state: bool = False,
) -> Callable[[Any, Any], Any]:
    """Maps a one-device function ``(state, batch)`` over the local devices.

    The batch comes from `split_batch`. With ``replicated_output`` the output is equal
    on all devices and unstacked; otherwise it has a leading device axis.
    """
    return jax.pmap(
        function,
        axis_name="batch",
        in_axes=(None, 0),
        out_axes=None if replicated_output else 0,
        donate_argnums=(0,) if donate_state else (),
    )


@contextlib.contextmanager
def noticing_lost() -> Iterator[None]:
    """Raises `LostProcessError`, in one line, for JAX's errors about a lost process."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        mine = isinstance(error, InputError) or jax.process_count() == 1
        if mine or not _SEVERED.search(str(error)):
            raise
        reason = " ".join(str(error).split())
        raise LostProcessError(
            "another process of this run has ended or does not answer; start all of "
            "them again, the same commands resume from the last checkpoint (process "
            f"{jax.process_index()} got: {reason})"
        ) from error


def join_processes(
    coordinator: str | None = None,
    *,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes that share a run; call it before any use of a device.

    Every process runs the same command on its own share of the data, and must see the
    workdir. ``coordinator`` is ``"HOST:PORT"`` of process 0, with the other arguments;
    or ``"auto"`` where JAX can detect all (Cloud TPU pods, Slurm, Open MPI,
    Kubernetes). `InputError` if they do not match, or the others do not answer.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise InputError(
                "num_processes and process_id must come with coordinator=HOST:PORT"
            )
        return
    if coordinator != "auto":
        if num_processes is None or process_id is None:
            raise InputError(
                f"coordinator {coordinator} must come with num_processes and process_id"
            )
        check_count("num_processes", num_processes, at_least=1)
        check_count("process_id", process_id)
        if process_id >= num_processes:
            raise InputError(
                f"process_id must be below num_processes = {num_processes}, got "
                f"{process_id}"
            )
    try:
        address = None if coordinator == "auto" else coordinator
        jax.distributed.initialize(address, num_processes, process_id)
        # Processes connect at their first exchange, for which gloo waits half a minute;
        # later one of them may be busy with its data for longer.
        gather_objects("connected")
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the processes of coordinator {coordinator} cannot be joined: {reason}"
        ) from error


@contextlib.contextmanager
def noticing_sigterm() -> Iterator[Callable[[int], bool]]:
    """Gives a function of the step: whether to save after it, and stop."""
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    # Python allows a handler in the main thread only.
    before = main and signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
