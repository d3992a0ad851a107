"""Settings every test shares; they must be in place before jax is imported."""

from __future__ import annotations

import os
import pathlib

# With several simulated devices on few cores, XLA's thread pool must be larger than the
# number of devices, or collectives wait for each other until they abort.
os.environ.setdefault("NPROC", "16")
_DEVICES = "--xla_force_host_platform_device_count=8"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
_CACHE = pathlib.Path(__file__).parent.parent / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def no_stock_of_programs():
    """Lets go of what a file has compiled: a worker would hold gigabytes in the end."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Float64 for the length of one test, for finite differences."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real data for development; its tests are skipped without it."""
    default = pathlib.Path(__file__).parent.parent.parent / "shared" / "data"
    path = pathlib.Path(os.environ.get("SPHEMB_DATA_DIR", default))
    if not path.is_dir():
        pytest.skip("no development data: set SPHEMB_DATA_DIR to its folder")
    return path


@pytest.fixture(scope="session")
def drawings_dir(tmp_path_factory) -> pathlib.Path:
    """A TFDS data dir that the tests' drawings are prepared in once."""
    return tmp_path_factory.mktemp("tensorflow_datasets")
