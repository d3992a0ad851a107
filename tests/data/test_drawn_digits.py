"""The TFDS builder: quiet, without TensorFlow, and one folder for every setting."""

from __future__ import annotations

import inspect
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sphemb._checks import InputError
from sphemb.data import (
    DATASETS,
    BuilderDataset,
    BuilderExamples,
    DrawnDigits,
    prepare_digits,
    render_digits,
)

SMALL = {"size": 32, "train": 6, "validation": 2, "test": 3, "seed": 5}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_digits(data_dir=tmp_path_factory.mktemp("tfds"), **SMALL)


class TestPreparing:
    def test_has_the_three_splits_in_the_order_of_drawing(self, prepared):
        for split, number in (("train", 6), ("validation", 2), ("test", 3)):
            examples = BuilderExamples(prepared, split)
            assert len(examples) == number
            names = [examples[i]["name"] for i in range(number)]
            assert names == [f"{split}-{i:06d}" for i in range(number)]

    def test_gives_back_the_very_pixels_that_were_drawn(self, prepared, bundled):
        examples = BuilderExamples(prepared, "validation")
        for i in range(2):
            expected = render_digits(
                np.random.default_rng((5, 1, i)), *bundled["validation"], size=32
            )
            assert examples[i]["image"].dtype == np.uint8
            assert examples[i]["instances"].dtype == np.int32
            np.testing.assert_array_equal(examples[i]["image"], expected["image"])
            np.testing.assert_array_equal(
                examples[i]["instances"], expected["instances"]
            )

    def test_a_larger_set_begins_with_the_smaller_one(self, prepared, tmp_path):
        larger = prepare_digits(data_dir=tmp_path, **{**SMALL, "train": 8})
        few, many = BuilderExamples(prepared, "train"), BuilderExamples(larger, "train")
        for i in range(6):
            np.testing.assert_array_equal(few[i]["image"], many[i]["image"])

    def test_does_not_draw_again_what_is_there(self, prepared):
        files = {f: f.stat().mtime for f in prepared.data_path.iterdir()}
        again = prepare_digits(data_dir=prepared.root, **SMALL)
        assert again.data_path == prepared.data_path
        assert {f: f.stat().mtime for f in again.data_path.iterdir()} == files

    def test_says_nothing(self, tmp_path, capfd):
        prepare_digits(data_dir=tmp_path, **SMALL)
        assert capfd.readouterr() == ("", "")

    def test_a_preparation_that_breaks_off_leaves_nothing_behind(
        self, tmp_path, mnist_path
    ):
        mnist_path.write_bytes(mnist_path.read_bytes()[:3000])
        with pytest.raises(InputError, match=r"mnist\.npz cannot be read") as caught:
            prepare_digits("mnist", mnist_path=mnist_path, data_dir=tmp_path, **SMALL)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("drawn_digits/*/*"))

    def test_a_full_disk_is_reported_and_leaves_nothing_behind(self, tmp_path):
        pytest.importorskip("resource")
        code = (
            "import resource, signal, sphemb.data as d\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try:\n"
            f"    d.prepare_digits(data_dir={str(tmp_path)!r}, **{SMALL!r})\n"
            "except ValueError as error:\n"
            "    print(type(error).__name__, error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-B", "-c", code],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("InputError digits cannot be written to")
        assert done.stdout.count("\n") == 1
        assert not list(tmp_path.glob("drawn_digits/*/*"))

    def test_two_processes_at_once_both_get_the_set(self, tmp_path):
        code = (
            "import sphemb.data as d, sys\n"
            f"b = d.prepare_digits(data_dir={str(tmp_path)!r}, **{SMALL!r})\n"
            "assert len(d.BuilderExamples(b, 'train')) == 6\n"
        )
        runs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [run.wait(timeout=300) for run in runs] == [0, 0]

    def test_never_imports_tensorflow(self, tmp_path):
        code = (
            "import sphemb.data as d, sys\n"
            f"b = d.prepare_digits(**{SMALL!r})\n"
            "d.BuilderExamples(b, 'train')[0]\n"
            "assert 'tensorflow' not in sys.modules\n"
            "print(b.data_path)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TFDS_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(str(tmp_path))

    def test_says_where_it_cannot_write(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match=r"cannot be written to .*file"):
            prepare_digits(data_dir=tmp_path / "file", **SMALL)

    def test_names_the_splits_there_are(self, prepared):
        with pytest.raises(InputError, match=r"'val' .*train, validation, test"):
            BuilderExamples(prepared, "val")

    def test_survives_pickling(self, prepared):
        again = pickle.loads(pickle.dumps(prepared))
        assert len(BuilderExamples(again, "train")) == 6


class TestReading:
    def test_tells_the_size_without_decoding(self, prepared):
        assert BuilderExamples(prepared, "test").size(0) == (32, 32)

    def test_gives_the_bytes_that_are_kept(self, prepared):
        examples = BuilderExamples(prepared, "test")
        encoded = examples.encoded(1)
        assert encoded["name"] == examples[1]["name"]
        image = np.asarray(Image.open(io.BytesIO(encoded["image"])))
        np.testing.assert_array_equal(image, examples[1]["image"])

    def test_the_data_set_opens_every_split(self, prepared):
        dataset = BuilderDataset(prepared)
        for split, number in (("train", 6), ("validation", 2), ("test", 3)):
            assert len(dataset.source(split)) == number
        assert len(dataset.source("train[:50%]")) == 3

    def test_a_configuration_gets_the_data_set_by_its_name(self, prepared):
        settings = {**SMALL, "data_dir": prepared.root}
        dataset = DATASETS["digits"](**settings)
        assert len(dataset.source("test")) == 3
        opening, building = map(inspect.signature, (DATASETS["digits"], DrawnDigits))
        assert opening.parameters == building.parameters


def name_of(*args, **settings):
    return DrawnDigits(*args, **settings).builder_config.name


class TestNames:
    def test_no_two_settings_share_a_folder(self, mnist_path, mnist_arrays, tmp_path):
        changed = tmp_path / "changed.npz"
        mnist_arrays["x_train"][0, 0, 0] ^= 1
        np.savez(changed, **mnist_arrays)
        settings = [
            {},
            {"size": 40},
            {"size": (32, 40)},
            {"size": (40, 32)},
            {"train": 7},
            {"validation": 7},
            {"test": 7},
            {"seed": 6},
            {"handwriting": "mnist"},
            {"handwriting": "mnist", "mnist_path": mnist_path},
            {"handwriting": "mnist", "mnist_path": changed},
        ]
        names = [name_of(**{**SMALL, **change}) for change in settings]
        assert len(set(names)) == len(names)

    def test_the_place_of_a_file_does_not_matter(self, mnist_path, tmp_path):
        copy = tmp_path / "copy.npz"
        copy.write_bytes(mnist_path.read_bytes())
        assert name_of("mnist", mnist_path=mnist_path) == name_of(
            "mnist", mnist_path=copy
        )

    def test_an_empty_path_is_no_path(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        for handwriting in ("sklearn", "mnist"):
            empty = DrawnDigits(handwriting, mnist_path="", data_dir="")
            left_out = DrawnDigits(handwriting)
            assert empty.data_path == left_out.data_path
            assert empty.root == str(tmp_path)

    def test_draws_from_an_mnist_file(self, mnist_path, tmp_path):
        builder = prepare_digits(
            "mnist", mnist_path=mnist_path, data_dir=tmp_path, **SMALL
        )
        assert BuilderExamples(builder, "test")[2]["image"].shape == (32, 32, 3)


class TestBadSettings:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"size": 30}, "size must be multiples of 8 from 32 on, got 30"),
            ({"train": 0}, "train must be >= 1, got 0"),
            ({"test": 2.5}, r"test must be a Python int .*2\.5"),
            ({"seed": -1}, "seed must be >= 0, got -1"),
            ({"handwriting": "cursive"}, "handwriting must be one of .*'cursive'"),
            (
                {"handwriting": "mnist", "mnist_path": "absent.npz"},
                r"mnist_path must be an mnist\.npz, but absent\.npz is no file",
            ),
            (
                {"mnist_path": "mnist.npz"},
                "mnist_path needs handwriting = 'mnist', got 'sklearn': use --config",
            ),
        ],
    )
    def test_names_the_setting(self, tmp_path, change, message):
        with pytest.raises(InputError, match=message):
            prepare_digits(data_dir=tmp_path, **{**SMALL, **change})
        assert not list(tmp_path.iterdir())

    def test_missing_handwriting_is_one_line(self, tmp_path):
        with pytest.raises(InputError, match="no MNIST found") as caught:
            prepare_digits("mnist", data_dir=tmp_path, **SMALL)
        assert "\n" not in str(caught.value)
