"""Files that are written whole, and Python objects gathered from all processes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import secrets
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary file that replaces ``path`` when the block ends.

    After an error the temporary file is gone and ``path`` is unchanged. A link is
    replaced, not its target. Several processes may write the same file, on different
    machines too. A pipe or a device is written directly.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    # A new name, within the length that file systems allow, and not that of a link.
    token = secrets.token_hex(4)
    unfinished = path.with_name(f".{path.name[:40]}.{token}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def gather_objects(value: T) -> list[T]:
    """Returns the value of every process, in the order of their indices.

    The values are pickled, so that int64 and float64 keep their 64 bits, which JAX
    would halve. All processes must call this, and each waits for the others.
    """
    import jax
    from jax.experimental.multihost_utils import process_allgather

    def gathered(row: np.ndarray) -> Any:
        return np.ascontiguousarray(process_allgather(row))

    if jax.process_count() == 1:
        return [value]
    sent = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = gathered(np.array([sent.size], np.int64).view(np.uint8)).view(np.int64)
    # A power of two, so that few programs are compiled.
    longest = 1 << (int(sizes.max()) - 1).bit_length()
    rows = gathered(np.pad(sent, (0, longest - sent.size)))
    lengths = sizes.ravel()
    return [pickle.loads(r[:n].tobytes()) for r, n in zip(rows, lengths, strict=True)]
