"""Windows of image files, which have the pixels of the whole image, and tiles."""

import itertools
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from sphemb._checks import InputError
from sphemb.data import (
    Box,
    ImageWindows,
    Reading,
    Resolution,
    read_image,
    tile_image,
    write_labels,
    write_tiff,
)

BOX = Box(3, 5, 20, 31)


@pytest.fixture(scope="module")
def colors():
    return np.random.default_rng(0).integers(0, 256, (24, 37, 3), dtype=np.uint8)


def with_pillow(path, pixels, **settings):
    Image.fromarray(pixels).save(path, **settings)


def sideways(path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)


def palette(path, pixels):
    image = Image.fromarray(pixels).quantize(16)
    image.info["transparency"] = 3
    image.save(path, transparency=3)


FILES = {
    "color.png": with_pillow,
    "gray.png": lambda path, pixels: with_pillow(path, pixels[..., 0]),
    "deep.png": lambda path, pixels: with_pillow(path, pixels[..., 0] * np.uint16(257)),
    "alpha.png": lambda path, p: with_pillow(path, np.dstack([p, p[..., 0]])),
    "palette.png": palette,
    "photo.jpg": sideways,
    "pillow.tif": with_pillow,
    "lzw.tif": lambda path, pixels: with_pillow(path, pixels, compression="tiff_lzw"),
    "mapped.tif": tifffile.imwrite,
    "gray.tif": lambda path, pixels: tifffile.imwrite(path, pixels[..., 0]),
    "deep.tif": lambda path, pixels: tifffile.imwrite(
        path, pixels[..., 0] * np.uint16(257)
    ),
    "white_is_0.tif": lambda path, pixels: tifffile.imwrite(
        path, pixels[..., 0], photometric="miniswhite"
    ),
    "tiled.tif": lambda path, pixels: tifffile.imwrite(
        path, pixels, tile=(16, 16), compression="zlib"
    ),
    "planes.tif": lambda path, pixels: tifffile.imwrite(
        path, np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate"
    ),
}


class TestWindows:
    @pytest.mark.parametrize("name", FILES)
    def test_a_window_is_what_the_whole_image_has_there(self, name, colors, tmp_path):
        FILES[name](tmp_path / name, colors)
        whole = read_image(tmp_path / name)
        image = ImageWindows(tmp_path / name)
        assert image.size == whole.shape[:2]
        box = BOX.clipped(*image.size)
        np.testing.assert_array_equal(image.read(box), whole[box.slices])
        np.testing.assert_array_equal(image.whole(), whole)

    @pytest.mark.parametrize("scale", [1, 257])
    def test_colors_of_16_bits_are_scaled_to_8(self, scale, colors, tmp_path):
        path = tmp_path / "deep.tif"
        tifffile.imwrite(path, colors.astype(np.uint16) * np.uint16(scale))
        wanted = colors if scale == 257 else np.rint(colors / 257)
        np.testing.assert_array_equal(ImageWindows(path).whole(), wanted)

    def test_what_lies_beyond_is_mirrored(self, colors, tmp_path):
        with_pillow(tmp_path / "x.png", colors)
        height, width = colors.shape[:2]
        found = ImageWindows(tmp_path / "x.png").read(
            Box(10, 20, height + 6, width + 9)
        )
        padded = np.pad(colors, ((0, 6), (0, 9), (0, 0)), mode="symmetric")
        np.testing.assert_array_equal(found, padded[10:, 20:])

    @pytest.mark.parametrize("name", ["x.png", "x.tif", "lzw.tif"])
    def test_more_pixels_are_read_than_pillow_allows(
        self, name, colors, tmp_path, monkeypatch
    ):
        FILES.get(name, with_pillow)(tmp_path / name, colors)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        np.testing.assert_array_equal(
            ImageWindows(tmp_path / name).read(BOX), colors[BOX.slices]
        )
        assert Image.MAX_IMAGE_PIXELS == 100


class TestMessages:
    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"no such image file: .*x\.png"):
            ImageWindows(tmp_path / "x.png")

    @pytest.mark.parametrize("name", ["x.tif", "x.png"])
    def test_a_file_that_was_cut_short_is_named(self, name, colors, tmp_path):
        path = tmp_path / name
        FILES["mapped.tif" if name == "x.tif" else "color.png"](path, colors)
        path.write_bytes(path.read_bytes()[:-400])
        with pytest.raises(InputError, match=rf"{name} cannot be read"):
            ImageWindows(path).whole()

    def test_a_window_beside_the_image_is_refused(self, colors, tmp_path):
        with_pillow(tmp_path / "x.png", colors)
        with pytest.raises(InputError, match="a window must lie in the image"):
            ImageWindows(tmp_path / "x.png").read(Box(24, 0, 30, 4))


class TestWriteTiff:
    @pytest.mark.parametrize("shape", [(700, 90), (20, 600, 3), (512, 512)])
    def test_what_is_written_in_parts_is_read_as_a_whole(self, shape, tmp_path):
        dtype = np.uint8 if len(shape) == 3 else np.uint32
        pixels = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
        write_tiff(
            tmp_path / "x.tif",
            lambda first, last: pixels[first:last],
            size=shape[:2],
            dtype=dtype,
            channels=3 if len(shape) == 3 else 1,
        )
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "x.tif"), pixels)
        assert [path.name for path in tmp_path.iterdir()] == ["x.tif"]

    def test_a_write_that_breaks_off_leaves_nothing(self, tmp_path):
        def rows(first, last):
            raise OSError("no space left")

        with pytest.raises(InputError, match="cannot be written to"):
            write_tiff(tmp_path / "x.tif", rows, size=(4, 4), dtype=np.uint8)
        assert not list(tmp_path.iterdir())


IN_MICRONS = {"imagej": True, "metadata": {"unit": "micron"}}


class TestResolution:
    """What a file states of its physical size is kept."""

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"resolutionunit": "CENTIMETER"}, (2.5, 4.0, 3)),
            ({"resolutionunit": "INCH"}, (2.5, 4.0, 2)),
            ({"resolutionunit": "NONE"}, None),
            (IN_MICRONS, (2.5, 4.0, 1, "micron")),
            (
                {"imagej": True, "metadata": {"unit": r"\u00B5m"}},
                (2.5, 4, 1, r"\u00B5m"),
            ),
        ],
    )
    def test_a_tiff_is_written_with_the_tags_that_were_read(
        self, colors, tmp_path, settings, expected
    ):
        gray = colors[..., 0]
        tifffile.imwrite(tmp_path / "x.tif", gray, resolution=(2.5, 4.0), **settings)
        image = ImageWindows(tmp_path / "x.tif")
        assert image.kind == "TIFF"
        assert image.resolution == (expected and Resolution(*expected))
        write_tiff(
            tmp_path / "y.tif",
            lambda first, last: gray[first:last],
            size=gray.shape,
            dtype=np.uint32,
            resolution=image.resolution,
        )
        assert ImageWindows(tmp_path / "y.tif").resolution == image.resolution
        tags = []
        for name in ("x.tif", "y.tif"):
            with tifffile.TiffFile(tmp_path / name) as file:
                page = file.pages.first
                tags.append([page.tags[tag].value for tag in (282, 283, 296)])
                tags[-1].append((file.imagej_metadata or {}).get("unit"))
        if expected:
            assert tags[0] == tags[1]
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "y.tif"), gray)

    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}, (20000, 40000, 3)),
            (
                {
                    **{"PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm"},
                    **{"PhysicalSizeY": 0.65, "PhysicalSizeYUnit": "µm"},
                },
                (1e5 / 3.25, 1e5 / 6.5, 3),
            ),
            ({"PhysicalSizeX": 0.5}, None),
            (dict.fromkeys(("PhysicalSizeX", "PhysicalSizeY"), 0), None),
            ({f"PhysicalSize{x}Unit": "pixel" for x in "XY"}, None),
        ],
    )
    def test_ome_metadata_come_before_tags(self, colors, tmp_path, metadata, expected):
        path = tmp_path / "x.ome.tif"
        tags = {"resolution": (1.0, 1.0), "resolutionunit": "NONE"}
        tifffile.imwrite(path, colors[..., 0], metadata=metadata, ome=True, **tags)
        found = ImageWindows(path).resolution
        assert (found and found[:3]) == (expected and pytest.approx(expected))

    def test_a_png_is_written_with_what_was_read_of_any_format(self, colors, tmp_path):
        for name in ("x.png", "x.jpg", "x.tif"):
            with_pillow(tmp_path / name, colors, dpi=(300, 600))
            image = ImageWindows(tmp_path / name)
            labels = colors[..., 0]
            write_labels(tmp_path / "y.png", labels, resolution=image.resolution)
            with Image.open(tmp_path / "y.png") as file:
                assert file.info["dpi"] == pytest.approx((300, 600), abs=0.02)
        with Image.open(tmp_path / "x.png") as file:
            stated = file.info["dpi"]
        assert ImageWindows(tmp_path / "x.png").resolution == Resolution(*stated, 2)

    def test_a_turned_image_has_it_turned(self, colors, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        with_pillow(tmp_path / "x.jpg", colors, exif=exif, dpi=(300, 600))
        image = ImageWindows(tmp_path / "x.jpg")
        assert image.turned_from == colors.shape[:2]
        assert image.resolution == Resolution(600, 300, 2)

    @pytest.mark.parametrize("number", [(0, 1), (1, 0), (0, 0)])
    def test_numbers_that_mean_nothing_are_none(self, colors, tmp_path, number):
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, colors, resolution=(2, 2), resolutionunit="INCH")
        with tifffile.TiffFile(path) as file:
            place = file.pages.first.tags["XResolution"].valueoffset
        content = bytearray(path.read_bytes())
        content[place : place + 8] = struct.pack("<II", *number)
        path.write_bytes(content)
        assert ImageWindows(path).resolution is None
        np.testing.assert_array_equal(ImageWindows(path).whole(), colors)

    def test_intensities_are_the_values_of_the_file(self, colors, tmp_path):
        deep = colors[..., 0] * np.uint16(3)
        tifffile.imwrite(tmp_path / "x.tif", deep)
        image = ImageWindows(tmp_path / "x.tif", Reading(intensity="percentile"))
        assert image.samples == 1
        found = image.intensities(BOX)
        np.testing.assert_array_equal(found, deep[BOX.slices][..., None])
        with_pillow(tmp_path / "x.png", colors)
        assert ImageWindows(tmp_path / "x.png").samples == 3


CASES = [
    ((100, 70), {"tile": 32, "halo": 4, "multiple": 8}),
    ((33, 200), {"tile": 40, "halo": 7, "multiple": 4}),
    ((64, 64), {"tile": 16, "halo": 0, "multiple": 16}),
    ((5, 9), {"tile": 64, "halo": 8, "multiple": 8}),
    ((17, 400), {"tile": 17, "halo": 8, "multiple": 1}),
]


@pytest.mark.parametrize(("size", "settings"), CASES)
class TestTileImage:
    def test_every_pixel_lies_in_one_core(self, size, settings):
        times = np.zeros(size, int)
        for tile in tile_image(size, **settings):
            times[tile.core.slices] += 1
        assert (times == 1).all()

    def test_all_tiles_have_one_size_and_begin_at_multiples(self, size, settings):
        tiles = tile_image(size, **settings)
        assert len({tile.outer.size for tile in tiles}) == 1
        for tile in tiles:
            assert not any(side % settings["multiple"] for side in tile.outer)
            for place, length in zip(tile.core, (*size, *size), strict=True):
                assert place % settings["multiple"] == 0 or place == length

    def test_a_core_is_a_halo_away_from_all_but_the_borders(self, size, settings):
        for outer, core in tile_image(size, **settings):
            before = zip(core[:2], outer[:2], strict=True)
            assert all(c - o >= settings["halo"] or c == 0 for c, o in before)
            behind = zip(core[2:], outer[2:], size, strict=True)
            assert all(o - c >= settings["halo"] or c == n for c, o, n in behind)

    def test_tiles_come_line_by_line(self, size, settings):
        corners = [tile.core[:2] for tile in tile_image(size, **settings)]
        assert corners == sorted(corners)
        rows, columns = ({c[i] for c in corners} for i in range(2))
        assert corners == list(itertools.product(sorted(rows), sorted(columns)))


class TestTileMessages:
    def test_a_halo_that_leaves_no_core_is_refused(self):
        with pytest.raises(InputError, match="tile must be more than twice the halo"):
            tile_image((100, 100), tile=32, halo=13, multiple=16)

    def test_a_size_must_be_positive(self):
        with pytest.raises(InputError, match="W must be >= 1, got 0"):
            tile_image((4, 0), tile=4, halo=1)


class TestBox:
    def test_a_box_is_cut_and_counted_from_another(self):
        box = Box(-2, 3, 10, 30).clipped(8, 20)
        assert box == (0, 3, 8, 20)
        assert box.size == (8, 17)
        assert Box(4, 5, 6, 9).within(box) == (4, 2, 6, 6)
