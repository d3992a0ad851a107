"""What a wheel holds: the package, its configurations, and nothing else."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import sphemb
from sphemb.cli._config_flags import shipped_configs

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ("sphemb", "configs", "benchmarks", "tests", "examples")
FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "train.py")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The names in a wheel that is built from a copy, without a network."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools builds the wheel")
    if int(setuptools.__version__.split(".")[0]) < 77:  # what pyproject.toml asks for
        pytest.skip(f"the wheel needs setuptools 77, not {setuptools.__version__}")
    tree = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", "*.png")
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    for file in FILES:
        shutil.copy(ROOT / file, tree)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('out'))"
    subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, check=True
    )
    (wheel,) = (tree / "out").glob("*.whl")
    assert wheel.name.startswith(f"sphemb-{sphemb.__version__}-py3-")
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name).decode() for name in file.namelist()}


def test_the_package_its_types_and_all_configs_are_there(names):
    assert {"sphemb/__init__.py", "sphemb/py.typed", "sphemb/cli/_main.py"} < set(names)
    assert {f"sphemb/configs/{name}.py" for name in shipped_configs()} < set(names)
    assert "sphemb/configs/common.py" in names


def test_nothing_else_is_installed(names):
    tops = {name.split("/")[0] for name in names}
    assert tops == {"sphemb", f"sphemb-{sphemb.__version__}.dist-info"}
    assert all(
        name.endswith((".py", "py.typed", ".css", ".js"))
        for name in names
        if "." not in name.split("/")[0]
    )


def test_configs_need_no_checkout(names):
    for name, text in names.items():
        if name.startswith("sphemb/"):
            assert "from configs import" not in text, name
    assert "__path__" not in names["sphemb/configs/__init__.py"]


def test_the_command_is_there(names):
    entry = f"sphemb-{sphemb.__version__}.dist-info/entry_points.txt"
    assert "sphemb = sphemb.cli:main" in names[entry]
