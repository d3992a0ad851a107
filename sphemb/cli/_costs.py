"""What a training step and a prediction cost, from the programs that would run."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from sphemb.tasks import predict_and_measure
from sphemb.training import (
    Experiment,
    data_parallel,
    replicate,
    split_batch,
)

_CALLS = 2  # that are timed after a first one
_LONG = 3.0  # seconds of a first call that is enough by itself
_THREAD_BYTES = 5 * 2**19  # in which a thread of a CPU's pool convolves, measured
_SHARE = 0.8  # of the memory that is free: what is beside the program needs some, too


class Cost(NamedTuple):
    """What a program costs.

    Attributes:
        images: of a call, on all devices.
        size: (H, W) of these.
        device_bytes: memory of one device, by the compiler's plan: what the program is
            given, what it gives back, and what it needs in between; on CPUs also what
            the threads need, which is in no plan.
        kept_bytes: that part which does not depend on the number of images.
        seconds: of a call; None where it did not run, because its memory is not there.
    """

    images: int
    size: tuple[int, int]
    device_bytes: int
    kept_bytes: int
    seconds: float | None

    @property
    def image_bytes(self) -> float:
        """Memory of one more image on a device."""
        images = max(1, self.images // jax.device_count())
        return (self.device_bytes - self.kept_bytes) / images


def free_bytes() -> int | None:
    """Memory that is free for one device; None where nobody tells.

    Devices that are made of the machine's own memory share it.
    """
    device = jax.local_devices()[0]
    told = device.memory_stats() or {}
    if "bytes_limit" in told:
        return int(told["bytes_limit"]) - int(told.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024 // jax.local_device_count()
    except (OSError, KeyError):
        pass
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    except (OSError, ValueError, AttributeError):
        return None


def fits(device_bytes: float, free: int | None) -> bool:
    """Whether a program can run with what is free; unknown memory is enough."""
    return free is None or device_bytes <= _SHARE * free


def training_cost(experiment: Experiment, *, run: bool = True) -> Cost:
    """Compiles a training step, and times it if there is room.

    Args:
        experiment: whose; a batch of its data is read.
        run: time it.

    Returns:
        Its cost; reading the data is not in it.
    """
    step = data_parallel(
        experiment.train_step, replicated_output=True, donate_state=True
    )
    batch = next(experiment.train_batches())
    state = experiment.abstract_state

    def repeated(compiled: Callable[..., Any]) -> Callable[[], Any]:
        current = replicate(experiment.init_state())

        def call() -> Any:
            nonlocal current  # its memory is handed on from step to step
            current, scalars = compiled(current, split_batch(batch))
            return scalars

        return call

    return _cost(step, state, batch, repeated if run else None)


def prediction_cost(
    experiment: Experiment, index: int, *, split: str, run: bool = True
) -> Cost:
    """Compiles what scores a batch of one image's size, and times it if there is room.

    Args:
        experiment: whose; its network is a new one.
        index: of the image in the split; it fills the batch.
        split: which.
        run: time it.

    Returns:
        Its cost.
    """
    task, devices = experiment.task, jax.local_device_count()
    number = -(-experiment.config.evaluation.batch_size // devices) * devices

    def predict(state: Any, batch: Any) -> Any:
        params, batch_stats, task_state = state
        apply = functools.partial(experiment.network, params, batch_stats)
        return predict_and_measure(task, apply, task_state, batch)

    batch = next(experiment.one_pass(split, [index] * number, batch_size=number))
    own = experiment.abstract_state
    state = (own.params, own.batch_stats, own.task_state)

    def repeated(compiled: Callable[..., Any]) -> Callable[[], Any]:
        new = experiment.init_state()
        placed = replicate((new.params, new.batch_stats, new.task_state))
        return lambda: compiled(placed, split_batch(batch))

    program = data_parallel(predict, replicated_output=False)
    return _cost(program, state, batch, repeated if run else None)


def _cost(
    program: Any,
    state: Any,
    batch: dict[str, np.ndarray],
    repeated: Callable[[Callable[..., Any]], Callable[[], Any]] | None,
) -> Cost:
    compiled = program.lower(state, split_batch(batch)).compile()
    plan = compiled.memory_analysis()
    needed = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes  # outputs in the place of arguments
        + plan.temp_size_in_bytes
        + _thread_bytes()
    )
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in _arrays(state))
    kept += _thread_bytes()
    seconds = None
    if repeated is not None and fits(needed, free_bytes()):
        call = repeated(compiled)
        seconds = _seconds(call, 1)
        if seconds < _LONG:
            seconds = _seconds(call, _CALLS)
    return Cost(
        images=len(batch["image"]),
        size=tuple(batch["image"].shape[1:3]),
        device_bytes=int(needed),
        kept_bytes=int(min(kept, needed)),
        seconds=seconds,
    )


def _thread_bytes() -> int:
    """What the threads of a CPU set aside for themselves, for one of its devices.

    Convolutions are cut into blocks, which every thread packs anew in memory of its
    own. The plan of a GPU has such memory in it, that of a CPU has not.
    """
    if jax.default_backend() != "cpu":
        return 0
    threads = int(os.environ.get("NPROC") or 0)  # as XLA counts them
    if not threads:
        known = hasattr(os, "sched_getaffinity")
        threads = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return threads * _THREAD_BYTES // jax.local_device_count()


def _seconds(call: Callable[[], Any], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / number


def _arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
