"""The same number of threads for every library."""

from __future__ import annotations

import os

_VARIABLES = ("NPROC", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit_threads(threads: int) -> None:
    """Limits XLA, OpenMP and BLAS, here and in child processes, before their import.

    Where the system can pin a process to cores it is pinned too, so that a library with
    a mind of its own gains nothing by more threads.
    """
    for variable in _VARIABLES:
        os.environ[variable] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
