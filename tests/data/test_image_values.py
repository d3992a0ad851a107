"""Pages and depths of image files: which values are read, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from sphemb._checks import InputError
from sphemb.data import (
    Box,
    ImageDataset,
    ImageWindows,
    Reading,
    check_data,
    open_folder,
    read_image,
    read_size,
)

SIZE = H, W = 12, 20
RNG = np.random.default_rng(0)
PAGES = RNG.integers(0, 256, (4, H, W), dtype=np.uint8)
PAGES[0] = 0  # a stack often begins with a blank page
COLORS = np.repeat(PAGES[..., None], 3, axis=-1)


def animated(path):
    first, *rest = [Image.fromarray(page) for page in COLORS]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=rest, **lossless)


def smaller_copies(path, pages=PAGES):
    """Every page is followed by a copy of half its size, which is no page."""
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, metadata=None)
            file.write(page[::2, ::2], metadata=None, subfiletype=1)


STACKS = {
    "stack.tif": lambda path: tifffile.imwrite(path, PAGES, photometric="minisblack"),
    "stack_zip.tif": lambda path: tifffile.imwrite(
        path, PAGES, photometric="minisblack", compression="zlib"
    ),
    "channels.ome.tif": lambda path: tifffile.imwrite(
        path, PAGES, photometric="minisblack", metadata={"axes": "CYX"}
    ),
    "one_piece.tif": lambda path: tifffile.imwrite(
        path, PAGES, imagej=True, truncate=True
    ),
    "truncated.tif": lambda path: tifffile.imwrite(
        path, PAGES, photometric="minisblack", truncate=True
    ),
    "pyramid.tif": smaller_copies,
    "pillow.tif": animated,
    "animated.gif": animated,
    "animated.png": animated,
    "animated.webp": animated,
}


def write_pair(folder, name, write, *, split=""):
    images, masks = (folder / split / kind for kind in ("images", "masks"))
    for path in (images, masks):
        path.mkdir(parents=True, exist_ok=True)
    write(images / name)
    ids = np.zeros(SIZE, np.uint8)
    ids[2:5, 2:9], ids[7:10, 4:15] = 1, 2
    Image.fromarray(ids).save(masks / f"{name.rpartition('.')[0]}.png")
    return images / name


class TestPages:
    @pytest.mark.parametrize("name", STACKS)
    @pytest.mark.parametrize("page", [0, 2, "3", "max"])
    def test_a_page_is_the_same_for_training_and_prediction(self, name, page, tmp_path):
        path = write_pair(tmp_path, name, STACKS[name])
        expected = COLORS.max(axis=0) if page == "max" else COLORS[int(page)]
        reading = Reading(page=page)
        example = open_folder(
            tmp_path, page=page, validation_fraction=0, test_fraction=0
        ).source("train")[0]
        unlabelled = ImageDataset(
            path.parent, page=page, validation_fraction=0, test_fraction=0
        ).source("train")[0]
        image = ImageWindows(path, reading)
        for found in (
            example["image"],
            unlabelled["image"],
            read_image(path, reading),
            image.whole(),
        ):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(image.read(Box(3, 5, 9, 17)), expected[3:9, 5:17])
        assert read_size(path, reading) == image.size == SIZE
        assert image.num_pages == 4

    @pytest.mark.parametrize("name", STACKS)
    def test_a_page_that_is_not_there_is_refused(self, name, tmp_path):
        path = write_pair(tmp_path, name, STACKS[name])
        line = rf"{name} has 4 pages, 0 to 3, but page 4 is to be read"
        for read in (read_image, read_size, ImageWindows):
            with pytest.raises(InputError, match=line):
                read(path, Reading(page=4))
        Image.fromarray(PAGES[1]).save(tmp_path / "flat.png")
        with pytest.raises(InputError, match="has one page, 0, but page 1"):
            read_image(tmp_path / "flat.png", Reading(page=1))

    @pytest.mark.parametrize("page", [-1, "first", 1.5, True])
    def test_what_is_no_page_is_refused(self, page):
        with pytest.raises(InputError, match="page must be a number from 0 on, or"):
            Reading(page=page)

    def test_pages_of_several_sizes_have_no_maximum(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(PAGES[1], metadata=None)
            file.write(PAGES[1][:6], metadata=None)
        with pytest.raises(InputError, match=r"pages of one form .*of page 1, \(6, 20"):
            read_image(tmp_path / "a.tif", Reading(page="max"))
        assert read_size(tmp_path / "a.tif", Reading(page=1)) == (6, 20)

    def test_a_check_says_which_page_is_read_once_for_each_kind(self, tmp_path):
        for split in ("train", "val"):
            for name in ("stack", "b", "c"):
                write_pair(tmp_path, f"{name}.tif", STACKS["stack.tif"], split=split)
            write_pair(tmp_path, "d.gif", animated, split=split)
            write_pair(tmp_path, "e.png", Image.fromarray(PAGES[1]).save, split=split)
        found = [f for f in check_data(tmp_path).warnings if f.kind == "pages"]
        assert [len(f.files) for f in found] == [6, 2]
        assert found[0].message.startswith(
            "6 images (TIFF) of 4 pages, of which page 0 is read, the first is "
        )
        for page in (1, "max"):
            report = check_data(tmp_path, page=page)
            assert not [f for f in report.warnings if f.kind == "pages"]
        lines = [f.message for f in check_data(tmp_path, page=1).errors]
        assert len(lines) == 2  # the flat image of each split
        assert all(
            "has one page, 0, but page 1 is to be read" in line for line in lines
        )

    def test_a_photograph_with_a_second_view_is_one_page(self, tmp_path):
        path = tmp_path / "a.jpg"
        first, second = (Image.fromarray(COLORS[k]) for k in (1, 2))
        first.save(path, format="MPO", save_all=True, append_images=[second])
        assert ImageWindows(path).num_pages == 1


TWELVE = RNG.integers(200, 4096, (H, W), dtype=np.uint16)
TWELVE[0, :2] = 200, 4095
DEEP_COLORS = RNG.integers(0, 4096, (H, W, 3), dtype=np.uint16)


def as_gray(values):
    return np.repeat(values[..., None], 3, axis=-1)


def stretched(values, low, high):
    parts = (values.astype(np.float64) - low) / (high - low)
    return np.rint(255 * np.clip(parts, 0, 1)).astype(np.uint8)


def tiff(pixels):
    return lambda path: tifffile.imwrite(path, pixels)


class TestIntensities:
    def test_a_range_is_that_of_the_training_images(self, tmp_path):
        pixels = {
            "train": [TWELVE, TWELVE // 2],
            "val": [TWELVE * 2],
            "test": [TWELVE // 4],
        }
        for split, images in pixels.items():
            for i, values in enumerate(images):
                write_pair(tmp_path, f"{i}.tif", tiff(values), split=split)
        dataset = open_folder(tmp_path, intensity="range")
        assert dataset.reading == Reading(intensity="100..4095/65535")
        for split, images in {**pixels, "validation": pixels["val"]}.items():
            if split == "val":
                continue
            source = dataset.source(split)
            for i, values in enumerate(images):
                expected = as_gray(stretched(values, 100, 4095))
                np.testing.assert_array_equal(source[i]["image"], expected)
                image = ImageWindows(source.pairs[i].image, dataset.reading)
                np.testing.assert_array_equal(image.whole(), expected)

    @pytest.mark.parametrize("kind", ["tif", "png"])
    def test_percentiles_are_those_of_the_whole_image_in_every_tile(
        self, kind, tmp_path
    ):
        order = np.sort(DEEP_COLORS.ravel())
        low, high = (order[int(np.ceil(order.size * q)) - 1] for q in (0.01, 0.998))
        expected = stretched(DEEP_COLORS, low, high)
        path = tmp_path / f"a.{kind}"
        if kind == "tif":
            tifffile.imwrite(path, DEEP_COLORS, photometric="rgb")
        else:
            import cv2

            cv2.imwrite(str(path), DEEP_COLORS[..., ::-1])
        reading = Reading(intensity="percentile")
        np.testing.assert_array_equal(read_image(path, reading), expected)
        for box in (Box(0, 0, 5, 5), Box(5, 7, 12, 20)):
            np.testing.assert_array_equal(
                ImageWindows(path, reading).read(box), expected[box.slices]
            )

    def test_images_of_8_bits_stay_as_they_are_unless_asked(self, tmp_path):
        dark = (PAGES[1] // 4).astype(np.uint8)
        path = tmp_path / "a.png"
        Image.fromarray(dark).save(path)
        np.testing.assert_array_equal(read_image(path), as_gray(dark))
        found = read_image(path, Reading(intensity="0..63/255"))
        np.testing.assert_array_equal(found, as_gray(stretched(dark, 0, 63)))

    def test_an_image_of_one_value_is_black(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.full(SIZE, 700, np.uint16))
        assert not read_image(tmp_path / "a.tif", Reading(intensity="percentile")).any()

    def test_another_depth_than_that_of_the_range_is_refused(self, tmp_path):
        Image.fromarray(PAGES[1]).save(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"a\.png has values up to 255, but inten"):
            read_image(tmp_path / "a.png", Reading(intensity="0..4095/65535"))
        with pytest.raises(InputError, match="'range' is that of a data set"):
            read_image(tmp_path / "a.png", Reading(intensity="range"))
        write_pair(tmp_path, "1.tif", tiff(TWELVE), split="train")
        write_pair(tmp_path, "2.png", Image.fromarray(PAGES[1]).save, split="train")
        write_pair(tmp_path, "3.tif", tiff(TWELVE), split="val")
        with pytest.raises(InputError, match="needs images of one depth"):
            open_folder(tmp_path, intensity="range").source("train")

    @pytest.mark.parametrize("intensity", ["half", "5..5/255", "9..300/255", "0..1"])
    def test_what_is_no_intensity_is_refused(self, intensity):
        with pytest.raises(InputError, match="intensity must be"):
            Reading(intensity=intensity)

    @pytest.mark.parametrize("bits", [8, 10, 12])
    def test_a_check_says_how_much_of_the_bits_is_used(self, bits, tmp_path):
        for i in range(6):
            values = RNG.integers(0, 2**bits, SIZE, dtype=np.uint16)
            values[0, :2] = 0, 2**bits - 1
            write_pair(tmp_path, f"{i}.tif", tiff(values), split="train")
        write_pair(tmp_path, "7.png", Image.fromarray(PAGES[1]).save, split="val")
        report = check_data(tmp_path)
        (found,) = (f for f in report.warnings if f.kind == "unused bits")
        share = {8: "0.39", 10: "1.6", 12: "6.2"}[bits]
        assert found.message.startswith("6 images with values from 0 to ")
        assert f"{2**bits - 1}, {share} % of the 65535 that their" in found.message
        assert "config.data.intensity=range" in found.message
        report = check_data(tmp_path, intensity="percentile")
        assert not [f for f in report.warnings if f.kind == "unused bits"]

    def test_one_bright_pixel_hides_nothing_from_the_check(self, tmp_path):
        values = np.tile(TWELVE, (9, 9))
        values[5, 5] = 65535
        for i in range(6):
            write_pair(tmp_path, f"{i}.tif", tiff(values))
            mask = np.zeros((9 * H, 9 * W), np.uint8)
            mask[2:9, 2:9], mask[20:30, 20:40] = 1, 2
            Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
        (found,) = (f for f in check_data(tmp_path).warnings if f.kind == "unused bits")
        assert "config.data.intensity=percentile" in found.message

    def test_images_that_use_their_bits_are_not_warned_of(self, tmp_path):
        for i in range(6):
            values = RNG.integers(0, 2**16, SIZE, dtype=np.uint16)
            write_pair(tmp_path, f"{i}.tif", tiff(values))
        assert not [f for f in check_data(tmp_path).warnings if f.kind == "unused bits"]
