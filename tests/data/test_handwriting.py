"""Handwriting: two sources, three splits that share nothing, and clear complaints."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from sphemb._checks import InputError, InputTypeError
from sphemb.data import load_handwriting


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
