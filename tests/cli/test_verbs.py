"""The verbs from a shell: files out, one line for an error."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sphemb.cli import main, run_training
from tests.scenes import write_folder
from tests.tiny import tiny_config

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(drawings_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("verbs") / "run"
    config = tiny_config(drawings_dir)
    config.train.eval_every = 2
    return workdir, run_training(config, workdir)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images of sizes that the network does not take as they are."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, size in {"grey": (19, 30), "colour": (33, 21, 3)}.items():
        pixels = rng.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def refused(capsys, *arguments):
    """The one line that a verb prints before it exits with status 2."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(a) for a in arguments])
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


class TestTrain:
    def test_summary_scores_and_pictures_are_left(self, run):
        workdir, summary = run
        assert json.loads((workdir / "summary.json").read_text()) == summary
        assert 0 <= summary["mean_best_iou"] <= 1
        assert {"recall@0.5", "average_recall", "images_per_second"} < set(summary)
        assert summary["num_images"] == 6
        assert {"jax", "flax", "sphemb"} < set(summary["versions"])
        names = {path.name for path in (workdir / "pictures").glob("*.png")}
        assert names == {
            "curves.png",
            "gradients.png",
            "grouping.png",
            "similarities.png",
            "sphere.png",
        }

    def test_validation_scores_are_logged(self, run):
        lines = (run[0] / "metrics.jsonl").read_text().splitlines()
        steps = [
            r["step"] for r in map(json.loads, lines) if "validation/mean_best_iou" in r
        ]
        assert steps == [2, 4]


class TestPipes:
    @pytest.mark.parametrize(
        ("arguments", "unbuffered"),
        [
            (["info"], ""),
            (["check-data", "{folder}"], "1"),
            pytest.param(["info"], "1", marks=pytest.mark.nightly),
            pytest.param(["check-data", "{folder}"], "", marks=pytest.mark.nightly),
        ],
    )
    def test_a_reader_that_leaves_ends_without_a_traceback(
        self, tmp_path, arguments, unbuffered
    ):
        folder = write_folder(tmp_path / "folder", 2)
        words = [word.format(folder=folder) for word in arguments]
        code = "from sphemb.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        process.stdout.close()
        errors = process.stderr.read().decode()
        assert process.wait() == 141
        assert not errors


class TestTrainVerb:
    def test_it_trains_what_the_flags_say_and_goes_on(
        self, drawings_dir, tmp_path, capsys
    ):
        own = tmp_path / "own.py"
        own.write_text(
            "import pathlib\n"
            "from tests.tiny import tiny_config\n"
            "def get_config():\n"
            f"    return tiny_config(pathlib.Path({str(drawings_dir)!r}))\n"
        )
        workdir = tmp_path / "run"
        arguments = ["train", f"--workdir={workdir}", f"--config={own}"]
        main([*arguments, "--config.train.num_steps=1", "--config.seed", "3"])
        assert json.loads((workdir / "config.json").read_text())["seed"] == 3
        main([*arguments, "--config.seed=3", "--config.train.num_steps=1"])
        assert json.loads((workdir / "summary.json").read_text())["step"] == 1
        assert "after step 1" in capsys.readouterr().out

    def test_help_has_the_defaults_and_the_configs(self, capsys):
        for verb, words in {
            "train": ("runs/NAME", "voc_spectral", "--config.train.num_steps"),
            "advise": ("(default: 500)", "(default: 0.15)", "--no-costs"),
            "check-data": ("(default: 8)", "(default: instances)"),
            "evaluate": ("(default: test)",),
        }.items():
            with pytest.raises(SystemExit) as exit_info:
                main([verb, "-h"])
            assert exit_info.value.code == 0
            told = " ".join(capsys.readouterr().out.split())
            assert all(word in told for word in words)
            assert "None" not in told

    def test_a_mistake_in_the_flags_is_one_line(self, tmp_path, capsys):
        for arguments, words in {
            (): "Expected one of {train, evaluate, predict, ",
            ("train",): "Missing from sphemb train: --config NAME[:VARIANT] a Python",
            ("learn",): "Unrecognized options: learn",
            ("evaluate", "--workdir", tmp_path, "--confg=1"): "options: --confg=1",
            ("evaluate", "--workdir", tmp_path, "--config.seed=1"): "'--config.seed=1'",
            ("evaluate", "--workdir", tmp_path, "--split=all"): "choice 'all'",
            ("train", "--config=digit"): "--config must be a Python file or one of",
            ("train", "--config=digits", "--workdirs=a"): "you meant: --workdir PATH",
            ("train", "--config=digits", "--process=x"): "could be instantiated from",
            ("advise", tmp_path, "--images", "few"): "--images: invalid literal",
            ("score", "boundary"): "Available subcommands: semantic, instances, bound",
            ("train", f"--{'x' * 300} y"): f"--{'x' * 300} y",
        }.items():
            line = refused(capsys, *arguments)
            assert words in line
            assert line.startswith("error: ")


class TestEvaluate:
    def test_evaluating_again_gives_the_same_scores(self, run, capsys):
        workdir, summary = run
        main(["evaluate", "--workdir", str(workdir), "--report"])
        again = json.loads((workdir / "summary.json").read_text())
        assert again == summary
        printed = capsys.readouterr().out
        assert f"{summary['mean_best_iou']:.3f}" in printed
        assert f"report: {workdir / 'report.html'}" in printed
        page = (workdir / "report.html").read_text(encoding="utf-8")
        assert "run: 6 test images, after step 4" in page
        assert "The worst images" in page

    def test_a_folder_without_a_run_is_refused(self, tmp_path, capsys):
        assert "no config.json" in refused(capsys, "evaluate", "--workdir", tmp_path)


class TestPredict:
    def test_each_image_gets_labels_of_its_size_and_an_overlay(
        self, run, folder, tmp_path
    ):
        main(["predict", "--model", str(run[0]), str(folder), "--out", str(tmp_path)])
        for stem, size in {"grey": (19, 30), "colour": (33, 21)}.items():
            with Image.open(tmp_path / f"{stem}_labels.png") as image:
                assert image.mode == "I;16"
                labels = np.asarray(image)
            assert labels.shape == size
            assert (labels == 0).any()
            with Image.open(tmp_path / f"{stem}_overlay.png") as image:
                assert image.size == size[::-1]

    def test_an_image_too_small_for_a_group_has_no_instances(
        self, run, tmp_path, capsys
    ):
        dot = tmp_path / "dot.png"
        Image.new("RGB", (1, 1), "red").save(dot)
        out = tmp_path / "out"
        main(["predict", "--model", str(run[0]), str(dot), "--out", str(out)])
        with Image.open(out / "dot_labels.png") as image:
            assert np.asarray(image).tolist() == [[0]]
        with Image.open(out / "dot_overlay.png") as image:
            assert image.getpixel((0, 0)) == (255, 0, 0)
        printed = capsys.readouterr().out
        assert "dot.png, 1 x 1: 0 instances in" in printed

    def test_one_bad_file_leaves_nothing_written(self, run, folder, tmp_path, capsys):
        broken = tmp_path / "zz.png"  # the last in order
        broken.write_text("no image")
        out = tmp_path / "out"
        arguments = ["--model", run[0], folder, broken, "--out", out]
        assert "zz.png cannot be read" in refused(capsys, "predict", *arguments)
        assert not out.exists()

    def test_a_file_in_the_place_of_the_folder_is_named(
        self, run, folder, tmp_path, capsys
    ):
        taken = tmp_path / "taken"
        taken.write_text("mine")
        for out in (taken, taken / "deeper"):
            arguments = ["--model", run[0], folder, "--out", out]
            line = refused(capsys, "predict", *arguments)
            assert "--out must be a folder for results" in line
            assert "taken" in line
        assert taken.read_text() == "mine"

    def test_results_are_not_overwritten_unasked(self, run, folder, tmp_path, capsys):
        kept = tmp_path / "grey_labels.png"
        kept.write_text("mine")
        arguments = ["predict", "--model", run[0], folder, "--out", tmp_path]
        assert "exists already: give --overwrite" in refused(capsys, *arguments)
        assert [p.name for p in tmp_path.iterdir()] == ["grey_labels.png"]
        assert kept.read_text() == "mine"
        main([*map(str, arguments), "--overwrite"])
        assert Image.open(kept).size == (30, 19)

    def test_an_unreadable_image_is_named(self, run, tmp_path, capsys):
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
        out = tmp_path / "out"
        line = refused(capsys, "predict", "--model", run[0], broken, "--out", out)
        assert "broken.png" in line

    def test_two_images_of_one_name_are_refused(self, run, folder, tmp_path, capsys):
        other = tmp_path / "grey.jpg"
        Image.open(folder / "grey.png").save(other)
        shutil.copy(folder / "grey.png", tmp_path)
        line = refused(
            capsys,
            "predict",
            "--model",
            run[0],
            other,
            tmp_path / "grey.png",
            "--out",
            tmp_path / "out",
        )
        assert "several are called grey" in line


class TestScript:
    """``train.py`` in a process of its own."""

    def train(self, tmp_path, *arguments):
        done = subprocess.run(
            [
                sys.executable,
                ROOT / "train.py",
                *arguments,
                f"--workdir={tmp_path / 'run'}",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists()
        return done.stderr.splitlines()[-1]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                ["--config=configs/digits.py", "--config.task.colour=1"],
                "unknown config key config.task.colour",
            ),
            pytest.param(
                ["--config=configs/digits.py:emnist"],
                "sklearn, finetune, sphere, mnist, got",
                marks=pytest.mark.nightly,
            ),
            pytest.param(
                ["--config=configs/digit.py"],
                "no such file configs/digit.py",
                marks=pytest.mark.nightly,
            ),
            pytest.param(
                ["--config=configs/digits.py", "--config.task.margin=2"],
                "got 2.0",
                marks=pytest.mark.nightly,
            ),
        ],
    )
    def test_a_mistake_ends_with_a_line_and_a_status(self, tmp_path, arguments, words):
        line = self.train(tmp_path, *arguments)
        assert line.startswith("error: ")
        assert words in line
