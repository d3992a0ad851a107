"""What a wheel and a source distribution hold: the package with its configurations."""

import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import sphemb
from sphemb.cli import shipped_configs
from sphemb.training import model_names

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ("sphemb", "benchmarks", "tests", "examples")
FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "train.py")
CONFIGS = {f"sphemb/configs/{n}.py" for n in (*shipped_configs(), "common", "__init__")}


@pytest.fixture(scope="module", params=["link", "text"])
def built(request, tmp_path_factory):
    """The names in a wheel and in a source distribution, built without a network.

    They are built from a copy, where ``configs`` is a link or the text file that git
    may write in its place on Windows.
    """
    setuptools = pytest.importorskip("setuptools", reason="setuptools builds the wheel")
    if int(setuptools.__version__.split(".")[0]) < 77:  # what pyproject.toml asks for
        pytest.skip(f"the wheel needs setuptools 77, not {setuptools.__version__}")
    tree = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__", "*.png")
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    for file in FILES:
        shutil.copy(ROOT / file, tree)
    if request.param == "link":
        (tree / "configs").symlink_to("sphemb/configs")
    else:
        (tree / "configs").write_text("sphemb/configs")
    code = (
        "from setuptools import build_meta as b; b.build_sdist('out'); "
        "b.build_wheel('out')"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, check=True
    )
    (wheel,) = (tree / "out").glob("*.whl")
    (source,) = (tree / "out").glob("*.tar.gz")
    assert wheel.name.startswith(f"sphemb-{sphemb.__version__}-py3-")
    with zipfile.ZipFile(wheel) as file:
        in_wheel = {name: file.read(name) for name in file.namelist()}
    with tarfile.open(source) as file:
        in_source = [member.name.partition("/")[2] for member in file.getmembers()]
    return in_wheel, in_source


def test_the_package_its_types_and_all_configs_are_there(built):
    for names in built:
        assert {
            "sphemb/__init__.py",
            "sphemb/py.typed",
            "sphemb/cli/_main.py",
            *CONFIGS,
            *(f"sphemb/shipped/{name}.safetensors" for name in model_names()),
        } < set(names)


def test_the_configs_are_there_once(built):
    for names in built:
        found = [name for name in names if name.endswith("configs/voc.py")]
        assert found == ["sphemb/configs/voc.py"]
        assert not {name for name in names if name.split("/")[0] == "configs"}


def test_nothing_else_is_installed(built):
    names, _ = built
    tops = {name.split("/")[0] for name in names}
    assert tops == {"sphemb", f"sphemb-{sphemb.__version__}.dist-info"}
    assert all(
        name.endswith((".py", "py.typed", ".css", ".html", ".js", ".safetensors"))
        for name in names
        if "." not in name.split("/")[0]
    )


def test_the_source_distribution_trains_from_its_folder(built):
    _, names = built
    assert "train.py" in names


def test_the_command_is_there(built):
    names, _ = built
    entry = f"sphemb-{sphemb.__version__}.dist-info/entry_points.txt"
    assert "sphemb = sphemb.cli:main" in names[entry].decode()
