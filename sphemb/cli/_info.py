"""Info: versions, devices, the folders that are used, and what is missing."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import re

import jax

import sphemb
from sphemb.data import tfds_data_dir
from sphemb.models import list_weights, weights_dir
from sphemb.training import devices

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "ml-collections",
    "numpy",
    "scipy",
)
_OF_EXTRA = re.compile(r"""([\w.-]+).*;.*\bextra\s*==\s*['"]([\w-]+)['"]""")


def run_info() -> dict[str, str]:
    """Prints what a question about an installation needs to be answered.

    Returns:
        The lines: what they are about -> what they say.
    """
    versions = {name: _version(name) for name in _PACKAGES}
    lines = {
        "sphemb": f"{sphemb.__version__}, in {pathlib.Path(sphemb.__file__).parent}",
        "python": f"{platform.python_version()}, on {platform.platform(terse=True)}",
        "packages": ", ".join(f"{k} {v or 'missing'}" for k, v in versions.items()),
        "devices": devices(),
        "compiled": _compiled(),
        "data sets": _datasets(),
        "weights": _weights(),
        "extras": _extras(),
    }
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:{width}}  {text}")
    return lines


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiled() -> str:
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    if not chosen:
        return (
            "programs are not kept; JAX_COMPILATION_CACHE_DIR=DIR keeps them from one "
            "start to the next"
        )
    files = [p for p in pathlib.Path(chosen).glob("*-cache") if p.is_file()]
    size = sum(path.stat().st_size for path in files)
    return f"{len(files)} programs, {size / 2**20:.0f} MiB, in {chosen}"


def _datasets() -> str:
    folder = pathlib.Path(tfds_data_dir())
    found = sorted(p.name for p in folder.glob("*") if p.is_dir())
    return f"{', '.join(found) or 'none prepared'}, in {folder} (TFDS_DATA_DIR)"


def _weights() -> str:
    found = [
        name if name == backbone else f"{name} (of {backbone or 'no backbone'})"
        for name, backbone in list_weights().items()
    ]
    where = f"in {weights_dir()} (SPHEMB_WEIGHTS_DIR)"
    return f"{', '.join(found) or 'none imported'}, {where}"


def _extras() -> str:
    """The optional packages, and how those that are missing are installed."""
    try:
        wanted = importlib.metadata.requires("sphemb") or []
    except importlib.metadata.PackageNotFoundError:
        return "unknown: sphemb runs from a folder that is not installed"
    extras: dict[str, list[str]] = {}
    for package, extra in (m.groups() for m in map(_OF_EXTRA.match, wanted) if m):
        extras.setdefault(extra, []).append(package)
    told = []
    for extra, packages in extras.items():
        missing = [package for package in packages if _version(package) is None]
        told.append(
            f"{extra}: pip install 'sphemb[{extra}]' brings {', '.join(missing)}"
            if missing
            else f"{extra}: installed"
        )
    return "; ".join(told)
