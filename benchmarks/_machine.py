"""The machine and the versions that a number belongs to."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

import jax

_PACKAGES = ("sphemb", "jax", "jaxlib", "numpy", "torch", "scikit-learn")
_BUSY = 0.5


def _field(path: str, name: str) -> str:
    """The value of the first ``name : value`` line of a file of /proc."""
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError:
        return ""
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(values, "")


def _bytes(name: str) -> int | None:
    value = _field("/proc/meminfo", name)
    return int(value.split()[0]) * 1024 if value else None


def available_bytes() -> int | None:
    """Memory that new work may take; None where the system does not tell."""
    return _bytes("MemAvailable")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe(threads: int) -> dict[str, Any]:
    """Names the machine, the versions, the date and the load."""
    import sphemb

    versions = {package: _version(package) for package in _PACKAGES}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": _bytes("MemTotal"),
        "device": jax.devices()[0].device_kind,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions | {"sphemb": sphemb.__version__},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "load": load,
        "busy": load is not None and load > _BUSY,
    }
