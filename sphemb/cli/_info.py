"""The verb info: versions, devices and folders."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform

import sphemb
from sphemb.data import tfds_data_dir
from sphemb.models import list_weights, weights_dir
from sphemb.training import devices

_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain"),
    *("tensorflow-datasets", "ml-collections", "numpy", "scipy"),
)


def print_info() -> dict[str, str]:
    """Prints a line for each subject; returns subject -> line."""
    folder = pathlib.Path(sphemb.__file__).parent
    sets = pathlib.Path(tfds_data_dir())
    prepared = ", ".join(sorted(p.name for p in sets.glob("*") if p.is_dir()))
    weights = ", ".join(
        name if name == backbone else f"{name} (of {backbone or 'no backbone'})"
        for name, backbone in list_weights().items()
    )
    system = platform.platform(terse=True)
    lines = {
        "sphemb": f"{sphemb.__version__}, in {folder}",
        "python": f"{platform.python_version()}, on {system}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "devices": devices(),
        "data sets": f"{prepared or 'none prepared'}, in {sets} (TFDS_DATA_DIR)",
        "weights": f"{weights or 'none imported'}, in {weights_dir()} "
        "(SPHEMB_WEIGHTS_DIR)",
    }
    for name, text in lines.items():
        print(f"{name:9}  {text}")
    return lines


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
