"""Python objects, gathered from all processes of a run."""

from __future__ import annotations

import pickle
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


def gather_objects(value: T) -> list[T]:
    """Returns the value of every process, in the order of their indices.

    The values are pickled, so that int64 and float64 keep their 64 bits, which JAX
    would halve. All processes must call this, and each waits for the others.

    >>> gather_objects(np.int64(2**40))
    [np.int64(1099511627776)]
    """
    if jax.process_count() == 1:
        return [value]
    sent = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = _gathered(np.array([sent.size], np.int64).view(np.uint8)).view(np.int64)
    # A power of two, so that few programs are compiled.
    longest = 1 << (int(sizes.max()) - 1).bit_length()
    received = _gathered(np.pad(sent, (0, longest - sent.size)))
    return [
        pickle.loads(row[:size].tobytes())
        for row, size in zip(received, sizes.ravel(), strict=True)
    ]


def _gathered(row: np.ndarray) -> Any:
    return np.ascontiguousarray(multihost_utils.process_allgather(row))
