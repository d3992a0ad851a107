"""Several processes that train one network: TPU pods, GPU clusters, a few machines."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import jax

from sphemb._checks import InputError, check_count
from sphemb._gathering import gather_objects

# What the libraries under JAX call it when another process does not answer any more.
_SEVERED = re.compile(
    r"gloo|nccl|heartbeat|barrier|coordination.?service|connection (reset|refused|clos)"
    r"|socket closed",
    re.IGNORECASE,
)


class LostProcessError(Exception):
    """Another process of the run has ended, or does not answer any more.

    What is computed together cannot go on, and JAX, asked to shut down, would wait for
    the one that is lost: this process should end without being tidy.
    """


@contextlib.contextmanager
def noticing_lost() -> Iterator[None]:
    """Words what JAX raises within it when another process of the run is lost.

    Raises:
        LostProcessError: instead of what JAX raised.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        mine = isinstance(error, InputError) or jax.process_count() == 1
        if mine or not _SEVERED.search(str(error)):
            raise
        reason = " ".join(str(error).split())
        raise LostProcessError(
            "another process of this run has ended or does not answer; start all of "
            "them again, the same commands go on from the last checkpoint (process "
            f"{jax.process_index()} was told: {reason})"
        ) from error


def join_processes(
    coordinator: str | None = None,
    *,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes that share a run; call it before anything touches a device.

    Every process runs the same command and trains on its own share of the data; their
    devices act as one. One of them, number 0, writes logs and pictures; all write
    checkpoints, so that the workdir must be a folder that all of them see.

    Args:
        coordinator: ``"HOST:PORT"`` of process 0; ``"auto"`` where JAX can find out by
            itself (Cloud TPU pods, Slurm, Open MPI, Kubernetes); None for one process.
        num_processes: how many there are, with ``HOST:PORT``.
        process_id: which of them this is, from 0, with ``HOST:PORT``.

    Raises:
        InputError: the settings do not go together, or the others do not answer.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise InputError(
                "num_processes and process_id must come with coordinator=HOST:PORT"
            )
        return
    address = None
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
        address = coordinator
    try:
        jax.distributed.initialize(address, num_processes, process_id)
        # They connect when they first exchange something, for which gloo waits half a
        # minute; later one of them may be busy with its data for longer.
        gather_objects("connected")
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the processes of coordinator {coordinator} cannot be joined: {reason}"
        ) from error
