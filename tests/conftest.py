"""Settings every test shares; they must be in place before jax is imported."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib

# With several simulated devices on few cores, XLA's thread pool must be larger than the
# number of devices, or collectives wait for each other until they abort.
os.environ.setdefault("NPROC", "16")
_FLAGS = {"xla_force_host_platform_device_count": "8"}
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Most of the time is compilation, two thirds of it optimization. Later versions do
    # not know one of these flags, and `.ci/newest` has programs as users have them.
    _FLAGS |= {
        "xla_backend_optimization_level": "0",
        "xla_cpu_use_fusion_emitters": "false",
    }
_given = os.environ.get("XLA_FLAGS", "")
_added = [f"--{k}={v}" for k, v in _FLAGS.items() if k not in _given]
os.environ["XLA_FLAGS"] = " ".join([_given, *_added]).strip()
_CACHE = pathlib.Path(__file__).parent.parent / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

_MOST_RESIDENT = 6 * 2**30


@pytest.fixture(scope="module", autouse=True)
def no_stock_of_programs():
    """Lets go of what was compiled where a worker holds gigabytes."""
    yield
    if _resident_bytes() > _MOST_RESIDENT:
        jax.clear_caches()


def _resident_bytes() -> int:
    statm = pathlib.Path("/proc/self/statm")
    if not statm.exists():
        return _MOST_RESIDENT + 1
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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
