"""Image files are found, read as a viewer shows them, and written atomically."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sphemb._checks import InputError, InputTypeError
from sphemb.data import find_images, read_image, write_image, write_labels


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(256, size=(6, 9, 3)).astype(np.uint8)


class TestFinding:
    @pytest.fixture
    def folder(self, tmp_path, rgb):
        (tmp_path / "deep").mkdir()
        for name in ("b.png", "a.JPG", "c.tif", ".hidden.png", "deep/d.png"):
            Image.fromarray(rgb).save(tmp_path / name)
        (tmp_path / "notes.txt").write_text("no image")
        return tmp_path

    def names(self, paths, folder):
        return [str(path.relative_to(folder)) for path in paths]

    def test_a_folder_stands_for_the_images_in_it(self, folder):
        assert self.names(find_images(folder), folder) == ["a.JPG", "b.png", "c.tif"]

    def test_a_pattern_stands_for_its_matches(self, folder):
        found = find_images(str(folder / "**" / "*.png"))
        assert self.names(found, folder) == ["b.png", "deep/d.png"]

    def test_each_file_comes_once_and_in_order(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        found = find_images(["c.tif", folder, "deep/../b.png", str(folder / "*.png")])
        assert sorted(path.resolve().name for path in found) == [
            "a.JPG",
            "b.png",
            "c.tif",
        ]
        assert found == sorted(found)

    def test_a_file_named_like_a_pattern_is_a_file(self, folder, rgb):
        Image.fromarray(rgb).save(folder / "x[1].png")
        found = find_images(folder / "x[1].png")
        assert self.names(found, folder) == ["x[1].png"]

    def test_says_what_was_looked_for(self, folder):
        (folder / "empty").mkdir()
        with pytest.raises(InputError, match=r"no such file or folder: .*absent\.png"):
            find_images([folder, folder / "absent.png"])
        with pytest.raises(InputError, match=r"no images \(.*png.*\) in .*empty"):
            find_images(folder / "empty")
        with pytest.raises(InputError, match=r"no image matches .*\*\.bmp"):
            find_images(str(folder / "*.bmp"))
        with pytest.raises(InputError, match="paths must name at least one"):
            find_images([])


class TestReading:
    def read(self, array, path, **settings):
        image = array if isinstance(array, Image.Image) else Image.fromarray(array)
        image.save(path, **settings)
        result = read_image(path)
        assert result.dtype == np.uint8
        assert result.shape[2] == 3
        return result

    def test_color_comes_back_as_it_is(self, tmp_path, rgb):
        np.testing.assert_array_equal(self.read(rgb, tmp_path / "a.png"), rgb)

    def test_gray_and_black_and_white_become_rgb(self, tmp_path, rgb):
        gray = rgb[..., 0]
        expected = np.repeat(gray[..., None], 3, -1)
        np.testing.assert_array_equal(self.read(gray, tmp_path / "a.png"), expected)
        bits = Image.fromarray(gray > 99)
        expected = 255 * np.repeat((gray > 99)[..., None], 3, -1)
        np.testing.assert_array_equal(self.read(bits, tmp_path / "b.png"), expected)

    def test_transparency_is_laid_over_black(self, tmp_path, rgb):
        alpha = np.full((6, 9, 1), 255, np.uint8)
        alpha[:3], alpha[3] = 0, 128
        result = self.read(np.concatenate([rgb, alpha], -1), tmp_path / "a.png")
        assert not result[:3].any()
        half = np.abs(result[3].astype(int) - np.rint(rgb[3] * (128 / 255)))
        assert half.max() <= 1
        np.testing.assert_array_equal(result[4:], rgb[4:])

    def test_sixteen_bits_are_scaled_to_eight(self, tmp_path):
        deep = np.array([[0, 128, 257], [32768, 65535, 300]], np.uint16)
        expected = np.rint(deep / 257).astype(np.uint8)
        for name in ("a.png", "a.tif"):
            result = self.read(deep, tmp_path / name)
            np.testing.assert_array_equal(result[..., 0], expected)
            np.testing.assert_array_equal(result[..., 0], result[..., 2])

    def test_palettes_are_looked_up(self, tmp_path):
        image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
        image = image.convert("P")
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        result = self.read(image, tmp_path / "a.png")
        assert result[0, 1].tolist() == [40, 50, 60]
        transparent = self.read(image, tmp_path / "b.png", transparency=1)
        assert transparent[0, 1].tolist() == [0, 0, 0]
        assert transparent[1, 0].tolist() == [70, 80, 90]

    def test_the_orientation_of_a_camera_is_applied(self, tmp_path, rgb):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        result = self.read(rgb, tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(result, np.rot90(rgb, -1))

    def test_of_several_frames_the_first_is_taken(self, tmp_path, rgb):
        path = tmp_path / "a.tif"
        second = Image.fromarray(255 - rgb)
        Image.fromarray(rgb).save(path, save_all=True, append_images=[second])
        np.testing.assert_array_equal(read_image(path), rgb)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp", "webp"])
    def test_a_file_that_is_cut_short_is_named_in_one_line(self, tmp_path, suffix):
        path = tmp_path / f"short.{suffix}"
        noise = np.random.default_rng(0).integers(256, size=(64, 64, 3))
        Image.fromarray(noise.astype(np.uint8)).save(path)
        whole = path.read_bytes()
        for length in (0, 10, len(whole) // 2):
            path.write_bytes(whole[:length])
            with pytest.raises(
                InputError, match=rf"short\.{suffix} cannot be read"
            ) as e:
                read_image(path)
            assert "\n" not in str(e.value)

    def test_what_is_no_image_is_named(self, tmp_path):
        (tmp_path / "a.png").write_text("not a picture")
        with pytest.raises(InputError, match=r"a\.png cannot be read: cannot identify"):
            read_image(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"no such image file: .*absent\.png"):
            read_image(tmp_path / "absent.png")
        with pytest.raises(InputError, match="no such image file"):
            read_image(tmp_path)

    def test_floating_point_values_are_refused(self, tmp_path):
        Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(InputError, match=r"a\.tif holds floating-point values"):
            read_image(tmp_path / "a.tif")

    @pytest.mark.parametrize("most", [20, 40])
    def test_a_bomb_is_refused(self, tmp_path, rgb, monkeypatch, most):
        path = tmp_path / "bomb.png"
        Image.fromarray(rgb).save(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(
            InputError, match=rf"bomb\.png has more than the {most} pix"
        ):
            read_image(path)


class TestWriting:
    labels = np.array([[0, 1, 300], [65535, 2, 0]])

    def test_gives_back_the_numbers(self, tmp_path):
        for dtype in (np.int32, np.int64, np.uint16):
            write_labels(tmp_path / "a.png", self.labels.astype(dtype))
            with Image.open(tmp_path / "a.png") as image:
                assert image.mode.startswith("I;16")
                np.testing.assert_array_equal(np.asarray(image), self.labels)
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

    @pytest.mark.parametrize(
        ("labels", "kind", "message"),
        [
            (np.full((2, 2), 65536), InputError, r"0 \.\. 65535 .*0 to 65536"),
            (np.full((2, 2), -1), InputError, "got -1 to 0"),
            (np.zeros((2, 2)), InputTypeError, "labels must be integers, got float"),
            (np.zeros((1, 2, 2), int), InputError, r"labels must have shape \[H, W\]"),
            (np.zeros((0, 2), int), InputError, "with pixels"),
        ],
    )
    def test_refuses_what_does_not_fit_and_keeps_the_old_file(
        self, tmp_path, labels, kind, message
    ):
        path = tmp_path / "a.png"
        write_labels(path, self.labels)
        before = path.read_bytes()
        with pytest.raises(kind, match=message):
            write_labels(path, labels)
        assert path.read_bytes() == before

    def test_says_where_it_cannot_write(self, tmp_path):
        with pytest.raises(InputError, match=r"image cannot be written to .*absent"):
            write_labels(tmp_path / "absent" / "a.png", self.labels)
        with pytest.raises(InputError, match=r"path must end in \.png"):
            write_labels(tmp_path / "a.jpg", self.labels)
        (tmp_path / "folder.png").mkdir()
        with pytest.raises(InputError, match="image cannot be written"):
            write_labels(tmp_path / "folder.png", self.labels)
        assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]

    def test_color_comes_back_as_it_was_written(self, tmp_path, rgb):
        write_image(tmp_path / "a.png", rgb)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

    @pytest.mark.parametrize("dtype", [np.float32, np.uint16])
    def test_color_of_other_numbers_is_refused(self, tmp_path, rgb, dtype):
        with pytest.raises(InputError, match=rf"image must be uint8.*{dtype.__name__}"):
            write_image(tmp_path / "a.png", rgb.astype(dtype))
        assert not list(tmp_path.iterdir())
