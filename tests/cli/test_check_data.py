"""``sphemb check-data``: a table, a report, and a status that a script can use."""

import json

import numpy as np
import pytest
from PIL import Image

from sphemb.cli import main

IDS = np.kron([[1, 0], [0, 2]], np.ones((16, 16))).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    for split, names in {"train": "abc", "val": "d"}.items():
        for name in names:
            rng = np.random.default_rng(list(name.encode()))
            pixels = rng.integers(256, size=(32, 32, 3)).astype(np.uint8)
            for kind, array in {"images": pixels, "masks": IDS}.items():
                path = tmp_path / "data" / split / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return tmp_path / "data"


def check(capsys, *arguments):
    """The status and what is printed."""
    with pytest.raises(SystemExit) as exit_info:
        main(["check-data", *map(str, arguments)])
    captured = capsys.readouterr()
    return exit_info.value.code, captured.out, captured.err


def test_a_good_folder_is_a_table_and_status_0(folder, capsys):
    status, out, _ = check(capsys, folder)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == f"{folder}: a folder for each split"
    numbers = ["3", "3", "6", "2", "2", "0"]
    assert lines[3].split() == ["train", *numbers, "labels", "32x32"]
    limits = "max_components 50, config.task.max_groups 8, config.task.max_objects 16"
    assert f"limits for the fullest image, of 2 instances: config.task.{limits}" in out
    assert lines[-1] == "0 errors, 0 warnings"


def test_warnings_leave_status_0(folder, capsys):
    Image.fromarray(0 * IDS).save(folder / "train" / "masks" / "a.png")
    status, out, _ = check(capsys, folder)
    assert status == 0
    assert "warning, no instances: 1\n  a (train) has no instances" in out


def test_errors_are_status_1_and_in_the_report(folder, tmp_path, capsys):
    for name in "abc":
        (folder / "train" / "masks" / f"{name}.png").write_text("no image")
    report = tmp_path / "report.json"
    status, out, _ = check(capsys, folder, "--out", report, "--limit", 2)
    assert status == 1
    assert out.count("cannot be read") == 2
    assert "and 1 more, see --limit=0" in out
    assert "3 errors, 0 warnings" in out
    content = json.loads(report.read_text())
    assert content["errors"] == 3
    assert "a.png cannot be read" in content["files"][0]["findings"][0]["message"]


def test_settings_are_those_of_the_folder(folder, capsys):
    for path in folder.glob("*/masks/*.png"):
        Image.fromarray(255 * (IDS > 0).astype(np.uint8)).save(path)
    status, out, _ = check(capsys, folder)
    assert status == 1
    assert "masks='components'" in out
    status, _, _ = check(capsys, folder, "--masks", "components")
    assert status == 0


def test_a_mistake_is_one_line_and_status_2(folder, tmp_path, capsys):
    for arguments, words in {
        (tmp_path / "absent",): "dir must be a folder",
        (folder, "--stride", 0): "stride must be >= 1",
        (folder, "--out", tmp_path): "--out must be a file to write to",
    }.items():
        status, _, err = check(capsys, *arguments)
        assert status == 2
        assert len(err.splitlines()) == 1
        assert words in err
