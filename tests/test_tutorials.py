"""The tutorials are typed along: every command, in its order, in an empty folder.

The folders and images that a reader is asked for are drawn under the names that the
page has for them, if the page does not draw them, and a training learns small things
for few steps.
"""

from __future__ import annotations

import pathlib
import runpy
import shutil

import jax
import pytest

from sphemb.cli import main, read_config
from tests.commands import ROOT, TUTORIALS, Command, read_tutorial
from tests.data.test_bsds import write_tree
from tests.scenes import write_folder

# What training is given beside its own flags, where the configuration has it.
SMALLER = {
    "data.size": 32,
    "data.train": 24,
    "data.validation": 8,
    "data.test": 8,
    "data.data_dir": "prepared",  # in the reader's folder
    "augmentation.size": "32,32",
    "loader.batch_size": 8,
    "loader.num_threads": 0,
    "model.features": "8,16",
    "model.head_features": 8,
    "model.decoder_features": 8,
    "model.fusion_features": 4,
    "task.num_samples": 64,
    "task.window": 32,
    "task.num_clusters": 3,
    "task.start_images": 8,
    "task.start_steps": 2,
    "task.cluster_images": 16,
    "task.cluster_pixels": 16,
    "task.predict_steps": 2,
    "task.thresholds": 3,
    "train.num_steps": 2,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
    "train.eval_every": 0,
    "optimizer.warmup_steps": 0,
    "evaluation.num_validation": 2,
    "evaluation.num_test": 4,
}


def smaller(words: tuple[str, ...]) -> list[str]:
    """The flags that make a training one of seconds."""
    config = read_config(*_config_of(words))
    found = []
    for name, value in SMALLER.items():
        section, key = name.split(".")
        if key in config[section]:
            found.append(f"--config.{name}={value}")
    return found


def _config_of(words: tuple[str, ...]) -> tuple[str, list[str]]:
    (config,) = [w.split("=", 1)[1] for w in words if w.startswith("--config=")]
    return config, [w for w in words if w.startswith("--config.")]


def status(arguments: list[str]) -> int:
    """How a verb of `sphemb` ends."""
    try:
        main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def type_along(command: Command) -> None:
    """Does what a command says, smaller where it trains."""
    program, *arguments = command.words
    if program == "pip":
        return  # what the environment of the tests has
    if program == "python" and arguments[0] == "train.py":
        program, arguments = "sphemb", ["train", *arguments[1:]]
    if program == "sphemb":
        if arguments[0] == "train":
            arguments += smaller(command.words)
        if arguments[0] == "advise":
            arguments.append("--no-costs")
        assert status(arguments) == 0, command
    elif arguments[0] == "-m":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", arguments[1:])
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", arguments)
            runpy.run_path(arguments[0], run_name="__main__")


@pytest.fixture
def desk(page, tmp_path, monkeypatch):
    """A folder as the reader's: the checkout, and the data under the page's names."""
    for name in ("configs", "examples", "train.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    if page == "docs/picie.md":
        shutil.copytree(write_folder(tmp_path / "drawn") / "images", tmp_path / "DIR")
    write_tree(tmp_path / "BSDS500")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    jax.clear_caches()  # all pages in one process would hold gigabytes of programs


# What is there when all has been typed; a new page needs a line here.
LEFT = {
    "docs/boundaries.md": ("maps/300.png", "scores/scores.json"),
    "docs/compose.md": ("faces.png", "series.png"),
    "docs/digits.md": (
        "runs/digits/report.html",
        "runs/digits-finetune/summary.json",
        "gradients.png",
        "advice_of_run/advice.json",
    ),
    "docs/own_data.md": ("results/0_labels.png", "runs/folder/report.html"),
    "docs/picie.md": ("clusters/0_labels.png", "runs/picie_digits/report.html"),
    "docs/spectral.md": ("runs/digits_spectral/pictures/grouping.png",),
}


@pytest.mark.nightly
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_can_be_typed_along(page, desk):
    for command in read_tutorial(page):
        type_along(command)
    missing = [name for name in LEFT[page] if not (desk / name).is_file()]
    assert not missing


def test_every_tutorial_has_commands_and_is_in_the_list_of_tutorials():
    assert set(TUTORIALS) == set(LEFT)
    listed = (ROOT / "docs/tutorials.md").read_text()
    for page in TUTORIALS:
        assert read_tutorial(page), page
        assert f"({pathlib.PurePath(page).name})" in listed, page


def test_trainings_of_tutorials_take_the_smaller_settings():
    trainings = [
        command
        for page in TUTORIALS
        for command in read_tutorial(page)
        if "train.py" in command.words
    ]
    assert len(trainings) > 8
    for command in trainings:
        name, changes = _config_of(command.words)
        config = read_config(str(ROOT / name), [*changes, *smaller(command.words)])
        assert config.train.num_steps == 2, command
        assert config.loader.batch_size == 8
