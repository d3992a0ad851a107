"""Digits: handwriting, how it is rendered, and the TFDS builder."""

from __future__ import annotations

import inspect
import io
import itertools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from sphemb._checks import InputError, InputTypeError
from sphemb.data import (
    DATASETS,
    BuilderDataset,
    BuilderExamples,
    DrawnDigits,
    load_handwriting,
    prepare_digits,
    render_digits,
)


def contents(glyphs):
    return {glyph.tobytes() for glyph in glyphs}


def assert_disjoint(handwriting):
    for one, other in itertools.combinations(handwriting.values(), 2):
        assert not contents(one.glyphs) & contents(other.glyphs)


class TestBundledDigits:
    def test_has_three_splits_of_fixed_sizes(self, bundled):
        assert list(bundled) == ["train", "validation", "test"]
        assert [len(part.glyphs) for part in bundled.values()] == [1200, 200, 397]
        for glyphs, classes in bundled.values():
            assert glyphs.dtype == np.uint8
            assert glyphs.shape[1:] == (28, 28)
            assert classes.dtype == np.int64
            assert set(classes) == set(range(10))

    def test_never_shares_a_digit_between_splits(self, bundled):
        assert_disjoint(bundled)

    def test_is_the_same_every_time(self, bundled):
        for split, part in load_handwriting("sklearn").items():
            np.testing.assert_array_equal(part.glyphs, bundled[split].glyphs)
            np.testing.assert_array_equal(part.classes, bundled[split].classes)

    def test_keeps_to_the_box_that_mnist_uses(self, bundled):
        glyphs = bundled["train"].glyphs
        box = np.zeros((28, 28), bool)
        box[4:24, 4:24] = True
        assert glyphs[:, ~box].max() == 0
        assert (glyphs.max(axis=(1, 2)) > 200).all()

    def test_has_no_faint_ink_and_strokes_as_wide_as_in_mnist(self, bundled):
        glyphs = bundled["train"].glyphs
        assert glyphs[glyphs > 0].min() >= 64
        assert 130 < (glyphs > 0).sum(axis=(1, 2)).mean() < 180  # MNIST: 150


class TestMnistFromAFile:
    def test_holds_out_the_last_twelfth_for_validation(self, mnist_path, mnist_arrays):
        splits = load_handwriting("mnist", mnist_path=mnist_path)
        assert [len(part.glyphs) for part in splits.values()] == [22, 2, 4]
        np.testing.assert_array_equal(
            splits["validation"].glyphs, mnist_arrays["x_train"][-2:]
        )
        np.testing.assert_array_equal(splits["test"].classes, mnist_arrays["y_test"])
        assert_disjoint(splits)

    def test_says_that_the_file_is_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"mnist_path .*absent\.npz is no file"):
            load_handwriting("mnist", mnist_path=tmp_path / "absent.npz")

    def test_names_missing_arrays(self, tmp_path, mnist_arrays):
        del mnist_arrays["y_train"], mnist_arrays["x_test"]
        np.savez(tmp_path / "m.npz", **mnist_arrays)
        with pytest.raises(InputError, match=r"m\.npz lacks y_train, x_test"):
            load_handwriting("mnist", mnist_path=tmp_path / "m.npz")

    @pytest.mark.parametrize(
        ("change", "kind", "message"),
        [
            (
                {"x_train": np.zeros((24, 8, 8), np.uint8)},
                InputError,
                r"x_train of .* must have shape \[M, 28, 28\].*got \(24, 8, 8\)",
            ),
            (
                {"x_test": np.zeros((4, 28, 28), np.float32)},
                InputTypeError,
                r"x_test of .* must be uint8, got float32",
            ),
            (
                {"y_test": np.zeros(4, np.float32)},
                InputTypeError,
                r"y_test of .* must be integers, got float32",
            ),
            (
                {"y_test": np.zeros(5, np.uint8)},
                InputError,
                r"y_test of .* must have shape \[M\] = \(4,\) .*got \(5,\)",
            ),
            (
                {"y_train": np.arange(24)},
                InputError,
                r"y_train of .* digits from 0 to 9, got values from 0 to 23",
            ),
            (
                {"x_train": np.zeros((6, 28, 28), np.uint8), "y_train": np.arange(6)},
                InputError,
                "at least 12 training digits and 1 test digit, got 6 and 4",
            ),
        ],
    )
    def test_names_the_array_that_is_not_mnist(
        self, tmp_path, mnist_arrays, change, kind, message
    ):
        np.savez(tmp_path / "m.npz", **{**mnist_arrays, **change})
        with pytest.raises(kind, match=message):
            load_handwriting("mnist", mnist_path=tmp_path / "m.npz")

    def test_never_unpickles(self, tmp_path, mnist_arrays):
        mnist_arrays["x_train"] = np.array([{"a": 1}, None], dtype=object)
        np.savez(tmp_path / "m.npz", **mnist_arrays)
        with pytest.raises(InputError, match=r"m\.npz cannot be read .*allow_pickle"):
            load_handwriting("mnist", mnist_path=tmp_path / "m.npz")

    def test_says_that_the_file_is_damaged(self, mnist_path):
        mnist_path.write_bytes(mnist_path.read_bytes()[:3000])
        with pytest.raises(InputError, match=r"mnist\.npz cannot be read"):
            load_handwriting("mnist", mnist_path=mnist_path)

    def test_says_that_a_single_array_is_no_npz(self, tmp_path):
        np.save(tmp_path / "m.npy", np.zeros(3))
        with pytest.raises(InputError, match=r"m\.npy cannot be read as an \.npz"):
            load_handwriting("mnist", mnist_path=tmp_path / "m.npy")


class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A tiny data set in the form of TFDS's mnist."""

    VERSION = tfds.core.Version("3.0.1")

    def __init__(self, *, arrays, **kwargs):
        self._arrays = arrays
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        images, labels = self._arrays[f"x_{split}"], self._arrays[f"y_{split}"]
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            png = io.BytesIO()
            Image.fromarray(image).save(png, format="PNG")
            yield i, {"image": png.getvalue(), "label": int(label)}


class TestMnistFromTfds:
    @pytest.fixture
    def prepared(self, tmp_path, mnist_arrays):
        tfds.disable_progress_bar()
        Mnist(arrays=mnist_arrays, data_dir=tmp_path).download_and_prepare()
        return tmp_path

    def test_reads_what_was_prepared_without_tensorflow(
        self, prepared, mnist_path, monkeypatch
    ):
        expected = load_handwriting("mnist", mnist_path=mnist_path)
        monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
        for splits in (
            load_handwriting("mnist", data_dir=prepared),
            load_handwriting("mnist"),
        ):
            for split, part in splits.items():
                np.testing.assert_array_equal(part.glyphs, expected[split].glyphs)
                np.testing.assert_array_equal(part.classes, expected[split].classes)

    def test_says_both_ways_when_the_format_needs_tensorflow(self, prepared):
        info = prepared / "mnist" / "3.0.1" / "dataset_info.json"
        content = json.loads(info.read_text())
        content["fileFormat"] = "tfrecord"
        info.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"without TensorFlow: .*mnist_path.*TFDS"):
            load_handwriting("mnist", data_dir=prepared)

    def test_says_both_ways_when_there_is_none(self, tmp_path):
        with pytest.raises(
            InputError, match=r"no MNIST .*config\.data\.mnist_path=FILE.*array_record"
        ):
            load_handwriting("mnist", data_dir=tmp_path)


class TestSources:
    def test_a_file_that_would_not_be_read_is_refused(self, mnist_path):
        with pytest.raises(InputError, match="mnist_path needs source = 'mnist', got"):
            load_handwriting("sklearn", mnist_path=mnist_path)

    def test_an_unknown_one_is_refused_with_the_known_ones(self):
        with pytest.raises(InputError, match="'sklearn', 'mnist', got 'emnist'"):
            load_handwriting("emnist")

    @pytest.mark.needs_data
    def test_the_real_mnist_never_shares_a_digit_between_splits(self, data_dir):
        splits = load_handwriting("mnist", mnist_path=data_dir / "mnist" / "mnist.npz")
        sizes = [len(part.glyphs) for part in splits.values()]
        assert sizes == [55000, 5000, 10000]
        assert_disjoint(splits)


@pytest.fixture(scope="module")
def glyphs():
    """Three digits of which no two look alike, also in part."""
    rng = np.random.default_rng(3)
    ink = rng.integers(1, 256, size=(3, 28, 28)).astype(np.uint8)
    return ink * (rng.uniform(size=ink.shape) < 0.6).astype(np.uint8)


CLASSES = np.array([4, 7, 7])
CORNERS = (0, 17, 35)


def draw(seed, glyphs, **settings):
    return render_digits(np.random.default_rng(seed), glyphs, CLASSES, **settings)


def find_pasted(instances, k, glyphs):
    """Returns the (y, x, glyph) whose ink explains the pixels of instance k."""
    visible = instances == k
    found = []
    for (y, x), g in itertools.product(itertools.product(CORNERS, repeat=2), range(3)):
        ink = np.zeros(instances.shape, bool)
        ink[y : y + 28, x : x + 28] = glyphs[g] > 0
        hidden_by_later = ink & ~visible
        if not (visible & ~ink).any() and (instances[hidden_by_later] > k).all():
            found.append((y, x, g))
    (only,) = found
    return only


class TestProtocol:
    def test_pasting_the_digits_again_in_order_gives_the_instances(self, glyphs):
        for seed in range(10):
            drawing = draw(seed, glyphs)
            again = np.zeros((64, 64), np.int32)
            cells = []
            for k in range(1, drawing["instances"].max() + 1):
                y, x, g = find_pasted(drawing["instances"], k, glyphs)
                cells.append((y, x))
                again[y : y + 28, x : x + 28][glyphs[g] > 0] = k
            np.testing.assert_array_equal(again, drawing["instances"])
            assert len(set(cells)) == len(cells)

    def test_a_pixel_is_black_exactly_where_no_digit_is(self, bundled):
        faint = np.minimum(bundled["train"].glyphs, 1)
        for ink in (bundled["train"].glyphs, faint):
            for seed in range(5):
                drawing = render_digits(
                    np.random.default_rng(seed), ink, bundled["train"].classes
                )
                black = drawing["image"].max(axis=-1) == 0
                np.testing.assert_array_equal(black, drawing["instances"] == 0)

    def test_the_number_of_digits_is_uniform_from_none_to_nine(self, bundled):
        glyphs, classes = bundled["train"]
        rng = np.random.default_rng(0)
        numbers = [
            render_digits(rng, glyphs, classes)["instances"].max() for _ in range(500)
        ]
        counts = np.bincount(numbers, minlength=10)
        assert len(counts) == 10
        # Five standard deviations of a binomial count with p = 1/10.
        assert np.abs(counts - 50).max() < 5 * np.sqrt(500 * 0.1 * 0.9)

    def test_colors_scale_with_ink_and_are_equal_within_a_class(self, glyphs):
        drawing = next(
            drawing
            for drawing in (draw(seed, glyphs) for seed in range(99))
            if drawing["instances"].max() >= 7
        )
        colors = {}
        for k in range(1, drawing["instances"].max() + 1):
            y, x, g = find_pasted(drawing["instances"], k, glyphs)
            mask = drawing["instances"] == k
            ink = np.zeros((64, 64))
            ink[y : y + 28, x : x + 28] = glyphs[g]
            pixels, ink = drawing["image"][mask].astype(float), ink[mask][:, None]
            color = (pixels * ink).sum(0) / (ink * ink).sum()
            assert np.abs(pixels - ink * color).max() < 1.2  # rounding, both ways
            previous = colors.setdefault(CLASSES[g], color)
            np.testing.assert_allclose(color, previous, atol=0.01)
        assert len(colors) == 2
        assert np.abs(colors[4] - colors[7]).max() > 0.1

    def test_every_image_has_a_palette_of_its_own(self):
        full = np.full((1, 28, 28), 255, np.uint8)
        colors = set()
        for seed in range(20):
            drawing = render_digits(
                np.random.default_rng(seed), full, np.array([5]), size=32
            )
            if drawing["instances"].any():
                colors.add(tuple(drawing["image"][0, 0]))
        assert len(colors) > 5

    def test_colors_are_bright_and_saturated(self):
        full = np.full((10, 28, 28), 255, np.uint8)
        for seed in range(20):
            drawing = render_digits(np.random.default_rng(seed), full, np.arange(10))
            colors = drawing["image"][drawing["instances"] > 0].astype(float)
            if len(colors):
                assert colors.max(-1).min() >= 0.7 * 255 - 1
                assert (colors.min(-1) <= 0.5 * colors.max(-1) + 1).all()

    def test_a_digit_that_is_covered_completely_leaves_no_gap_in_the_numbers(self):
        # Full squares in overlapping cells: only ever the overlaps are hidden, so let
        # one glyph have its ink in a corner that the neighboring cell covers.
        hidden = np.zeros((2, 28, 28), np.uint8)
        hidden[0] = 200
        hidden[1, 20:, 20:] = 200
        gaps_closed = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            instances = render_digits(rng, hidden, np.array([0, 1]))["instances"]
            seen = np.unique(instances)
            np.testing.assert_array_equal(seen, np.arange(len(seen)))
            # The same numbers without the hiding glyph: how many were pasted.
            rng = np.random.default_rng(seed)
            alone = render_digits(rng, hidden[[1, 1]], np.array([0, 1]))["instances"]
            gaps_closed += instances.max() < alone.max()
        assert gaps_closed > 0

    def test_a_digit_without_ink_is_no_instance(self):
        empty = np.zeros((1, 28, 28), np.uint8)
        drawing = render_digits(np.random.default_rng(2), empty, np.array([3]))
        assert not drawing["instances"].any()
        assert not drawing["image"].any()

    def test_equal_seeds_give_equal_drawings_and_others_do_not(self, glyphs):
        one, same, other = draw(12, glyphs), draw(12, glyphs), draw(13, glyphs)
        np.testing.assert_array_equal(one["image"], same["image"])
        np.testing.assert_array_equal(one["instances"], same["instances"])
        assert (one["image"] != other["image"]).any()


class TestSizes:
    @pytest.mark.parametrize(
        ("size", "shape", "cells"),
        [(32, (32, 32), 1), (64, (64, 64), 9), ((96, 64), (96, 64), 12)],
    )
    def test_uses_every_cell_that_fits(self, size, shape, cells):
        dot = np.zeros((1, 28, 28), np.uint8)
        dot[0, 0, 0] = 255
        used = set()
        rng = np.random.default_rng(0)
        for _ in range(80):
            drawing = render_digits(rng, dot, np.array([1]), size=size, max_digits=99)
            assert drawing["image"].shape == (*shape, 3)
            assert drawing["image"].dtype == np.uint8
            assert drawing["instances"].shape == shape
            assert drawing["instances"].dtype == np.int32
            used |= set(zip(*np.nonzero(drawing["instances"]), strict=True))
        allowed = [0, 17, 35, 52]
        assert len(used) == cells
        assert all(y in allowed and x in allowed for y, x in used)

    @pytest.mark.parametrize("size", [24, 60, (64, 65), 0, (64, -8)])
    def test_refuses_what_a_network_cannot_take(self, glyphs, size):
        with pytest.raises(InputError, match="size must be"):
            draw(0, glyphs, size=size)

    def test_refuses_three_numbers_and_fractions(self, glyphs):
        with pytest.raises(InputError, match=r"size must be \(height, width\)"):
            draw(0, glyphs, size=(64, 64, 3))
        with pytest.raises(InputTypeError, match=r"size must be a Python int.*64\.5"):
            draw(0, glyphs, size=(64, 64.5))


class TestBadHandwriting:
    def test_names_the_argument(self, glyphs):
        rng = np.random.default_rng(12)
        with pytest.raises(InputError, match=r"glyphs must have shape \[M, 28, 28\]"):
            render_digits(rng, glyphs[:, :8], CLASSES)
        with pytest.raises(InputError, match=r"classes must have shape .*glyphs.*\(2,"):
            render_digits(rng, glyphs, CLASSES[:2])
        with pytest.raises(InputTypeError, match="glyphs must be uint8, got float64"):
            render_digits(rng, glyphs / 255.0, CLASSES)
        with pytest.raises(InputTypeError, match="classes must be integers"):
            render_digits(rng, glyphs, CLASSES / 2.0)
        with pytest.raises(InputError, match="glyphs must hold at least one digit"):
            render_digits(rng, glyphs[:0], CLASSES[:0])
        with pytest.raises(InputError, match="classes must be digits from 0 to 9"):
            [render_digits(rng, glyphs, CLASSES + 10) for _ in range(10)]


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
