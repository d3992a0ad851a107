"""Mask files of every kind give their instances, or one line."""

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from sphemb.data import FileError, inspect_mask, read_mask

# Two objects with ids 3 and 7 that touch, and one with id 200 in two parts.
STORED = np.zeros((12, 16), np.uint8)
STORED[1:5, 1:6] = 3
STORED[5:9, 1:6] = 7
STORED[2:6, 9:12] = STORED[9:11, 12:15] = 200
NUMBERED = np.select([STORED == 3, STORED == 7, STORED == 200], [1, 2, 3], 0)


def save(path, pixels, **settings):
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, **settings)
    else:
        Image.fromarray(pixels).save(path, **settings)
    return path


def save_palette(path, indices, palette=(0, 0, 0)):
    image = Image.fromarray(indices.astype(np.uint8), mode="L").convert("P")
    image.putdata(indices.ravel().tolist())
    colors = np.random.default_rng(0).integers(1, 256, 768).tolist()
    image.putpalette([*palette, *colors[3:]])
    image.save(path)
    return path


def kinds(mask):
    return [finding.kind for finding in mask.findings]


def png(pixels, color_type, bits=16):
    """A PNG of 16-bit channels or of few bits, which Pillow cannot write."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width = pixels.shape[:2]
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in pixels]
    else:
        digits = np.unpackbits(pixels[..., None], axis=-1)[..., -bits:]
        rows = [row.tobytes() for row in np.packbits(digits.reshape(height, -1), -1)]
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


class TestValues:
    @pytest.mark.parametrize("bits", [2, 4])
    def test_gray_of_few_bits_keeps_its_values(self, tmp_path, bits):
        values = np.select([STORED == 3, STORED == 7], [1, 3], 0).astype(np.uint8)
        (tmp_path / "a.png").write_bytes(png(values, 0, bits))
        mask = inspect_mask(tmp_path / "a.png", masks="classes")
        np.testing.assert_array_equal(mask.semantic, values)

    @pytest.mark.parametrize("largest", [20, 255, 1000, 65535])
    def test_pgm_keeps_its_values(self, tmp_path, largest):
        values = NUMBERED.astype("u1" if largest < 256 else ">u2")
        header = f"P5 {values.shape[1]} {values.shape[0]} {largest}\n".encode()
        (tmp_path / "a.pgm").write_bytes(header + values.tobytes())
        mask = inspect_mask(tmp_path / "a.pgm", masks="classes")
        np.testing.assert_array_equal(mask.semantic, NUMBERED)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_gray_png_holds_ids(self, tmp_path, dtype):
        factor = 1 if dtype == np.uint8 else 300
        path = save(tmp_path / "a.png", STORED.astype(dtype) * factor)
        instances = read_mask(path)
        assert instances.dtype == np.int32
        np.testing.assert_array_equal(instances, NUMBERED)
        assert inspect_mask(path).kind == "labels"
        assert not inspect_mask(path).findings

    @pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u4", "i8", ">u2"])
    def test_tiff_holds_ids(self, tmp_path, dtype):
        path = save(tmp_path / "a.tif", STORED.astype(dtype) * np.array(1, dtype))
        np.testing.assert_array_equal(read_mask(path), NUMBERED)

    @pytest.mark.parametrize("codec", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
    def test_compressed_tiff_is_read(self, tmp_path, codec):
        deep = Image.fromarray(STORED.astype(np.uint16) * 300)
        deep.save(tmp_path / "a.tif", compression=codec)
        np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), NUMBERED)

    def test_ids_need_not_be_small(self, tmp_path):
        path = save(tmp_path / "a.tif", STORED.astype(np.int32) * 10**7)
        np.testing.assert_array_equal(read_mask(path), NUMBERED)

    def test_minus_one_is_void(self, tmp_path):
        signed = STORED.astype(np.int16)
        signed[0] = -1
        instances = read_mask(save(tmp_path / "a.tif", signed))
        assert (instances[0] == -1).all()
        np.testing.assert_array_equal(instances[1:], NUMBERED[1:])

    def test_a_palette_holds_indices_and_void(self, tmp_path):
        indices = STORED.copy()
        indices[0] = 255
        path = save_palette(tmp_path / "a.png", indices)
        mask = inspect_mask(path)
        assert mask.kind == "palette"
        assert (mask.instances[0] == -1).all()
        np.testing.assert_array_equal(mask.instances[1:], NUMBERED[1:])
        assert not mask.findings

    def test_a_palette_tiff_holds_indices(self, tmp_path):
        colors = np.zeros((3, 256), np.uint16)
        colors[:, 1:] = np.random.default_rng(0).integers(1, 2**16, (3, 255))
        path = save(tmp_path / "a.tif", STORED, photometric="palette", colormap=colors)
        mask = inspect_mask(path)
        assert mask.kind == "palette"
        np.testing.assert_array_equal(mask.instances, NUMBERED)

    def test_every_color_is_an_instance_and_the_voc_border_void(self, tmp_path):
        colors = np.zeros((*STORED.shape, 3), np.uint8)
        for number, color in enumerate([(0, 0, 9), (0, 200, 0), (128, 0, 0)], 1):
            colors[number == NUMBERED] = color
        colors[0] = (224, 224, 192)
        for name in ("a.png", "a.tif"):
            mask = inspect_mask(save(tmp_path / name, colors))
            assert mask.kind == "colors"
            assert (mask.instances[0] == -1).all()
            np.testing.assert_array_equal(mask.instances[1:], NUMBERED[1:])

    def test_what_is_transparent_is_background(self, tmp_path):
        colors = np.full((4, 4, 4), 255, np.uint8)
        colors[:2, :, :3], colors[2:, :, :3] = (255, 0, 0), (0, 255, 0)
        colors[:, 3, 3] = 0
        instances = read_mask(save(tmp_path / "a.png", colors))
        assert instances.tolist() == [[2, 2, 2, 0]] * 2 + [[1, 1, 1, 0]] * 2

    def test_gray_saved_as_color_is_gray(self, tmp_path):
        path = save(tmp_path / "a.png", np.repeat(STORED[..., None], 3, axis=2))
        assert inspect_mask(path).kind == "labels"
        np.testing.assert_array_equal(read_mask(path), NUMBERED)

    def test_black_and_white_is_read(self, tmp_path):
        for name in ("a.png", "a.tif"):
            instances = read_mask(save(tmp_path / name, STORED > 0))
            np.testing.assert_array_equal(instances, STORED > 0)
        # As most other programs write bits: what is 0 is shown in white.
        settings = {"photometric": "miniswhite", "software": "another"}
        path = save(tmp_path / "b.tif", STORED == 0, **settings)
        np.testing.assert_array_equal(read_mask(path), STORED > 0)

    def test_an_empty_mask_has_no_instances(self, tmp_path):
        mask = inspect_mask(save(tmp_path / "a.png", np.zeros((4, 4), np.uint8)))
        assert not mask.instances.any()
        assert mask.only is None


class TestSettings:
    def test_components_are_the_connected_parts_of_a_value(self, tmp_path):
        binary = 255 * (STORED > 0).astype(np.uint8)
        mask = inspect_mask(save(tmp_path / "a.png", binary), masks="components")
        assert mask.instances.max() == 3  # 3 and 7 touch
        assert len(np.unique(mask.instances[STORED == 200])) == 2
        assert not mask.findings
        path = save(tmp_path / "b.png", STORED)
        assert read_mask(path, masks="components").max() == 4

    def test_corners_connect(self, tmp_path):
        diagonal = np.eye(8, dtype=np.uint8)
        path = save(tmp_path / "a.png", diagonal)
        np.testing.assert_array_equal(read_mask(path, masks="components"), diagonal)

    def test_a_single_instance_is_all_that_is_no_background(self, tmp_path):
        path = save(tmp_path / "a.png", STORED)
        np.testing.assert_array_equal(read_mask(path, masks="single"), STORED > 0)

    def test_classes_keep_their_values_and_their_parts_are_instances(self, tmp_path):
        path = save(tmp_path / "a.png", STORED)
        mask = inspect_mask(path, masks="classes", void=7)
        np.testing.assert_array_equal(
            mask.semantic, np.where(STORED == 7, -1, STORED.astype(int))
        )
        parts = read_mask(path, masks="components", void=7)
        np.testing.assert_array_equal(mask.instances, parts)
        assert inspect_mask(path).semantic is None

    def test_colors_are_no_classes(self, tmp_path):
        colors = np.stack([STORED, STORED, 0 * STORED], axis=-1)
        path = save(tmp_path / "a.png", colors)
        with pytest.raises(FileError, match="must hold the numbers of classes"):
            read_mask(path, masks="classes")

    def test_void_can_be_named(self, tmp_path):
        path = save(tmp_path / "a.png", STORED)
        expected = np.where(STORED == 200, -1, NUMBERED)
        np.testing.assert_array_equal(read_mask(path, void=200), expected)
        path = save_palette(tmp_path / "b.png", STORED)
        np.testing.assert_array_equal(read_mask(path, void=200), expected)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"masks": "ids"}, "masks must be one of 'instances', 'components'"),
            ({"void": 0}, "void must be >= 1, got 0: 0 is the background"),
            ({"void": -1}, "void must be >= 1, got -1"),
        ],
    )
    def test_impossible_ones_are_named(self, tmp_path, settings, message):
        with pytest.raises(ValueError, match=message):
            read_mask(tmp_path / "a.png", **settings)


class TestDoubts:
    def test_one_value_may_be_a_binary_mask(self, tmp_path):
        for value, kind in {1: "binary", 255: "0/255"}.items():
            mask = inspect_mask(
                save(tmp_path / "a.png", value * (STORED > 0).astype(np.uint8))
            )
            assert kinds(mask) == [kind]
            assert mask.only == value
            assert "a.png holds one value beside the background" in (
                mask.findings[0].message
            )

    def test_255_among_ids_may_mean_void(self, tmp_path):
        pixels = STORED.copy()
        pixels[0] = 255
        path = save(tmp_path / "a.png", pixels)
        assert kinds(inspect_mask(path)) == ["void"]
        assert kinds(inspect_mask(path, masks="classes")) == ["void"]
        assert not inspect_mask(path, void=255).findings

    def test_a_background_that_is_not_black_is_noticed(self, tmp_path):
        path = save_palette(tmp_path / "a.png", STORED, palette=(0, 0, 7))
        assert kinds(inspect_mask(path)) == ["palette"]


class TestRefusals:
    def refused(self, path, kind, *words):
        with pytest.raises(FileError) as error:
            read_mask(path)
        assert error.value.kind == kind
        message = str(error.value)
        assert "\n" not in message
        for word in (path.name, *words):
            assert word in message

    @pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif", "z.tif"])
    def test_a_file_that_is_cut_short_is_named(self, tmp_path, name):
        path = tmp_path / name
        noise = np.random.default_rng(0).integers(9, size=(64, 64)).astype(np.uint16)
        if name == "lzw.tif":
            Image.fromarray(noise).save(path, compression="tiff_lzw")
        else:
            save(path, noise, **({"compression": "zlib"} if name == "z.tif" else {}))
        whole = path.read_bytes()
        for length in (0, 10, len(whole) // 2):
            path.write_bytes(whole[:length])
            self.refused(path, "unreadable", "cannot be read")

    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    def test_damage_gives_a_mask_or_one_line(self, tmp_path, name):
        path = tmp_path / name
        save(path, STORED)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        rng = np.random.default_rng(0)
        for _ in range(200):
            damaged = whole.copy()
            places = rng.integers(len(whole), size=3)
            damaged[places] = rng.integers(256, size=3)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(FileError):
                assert read_mask(path).ndim == 2

    def test_what_is_absent_or_no_image_is_named(self, tmp_path):
        self.refused(tmp_path / "absent.png", "unreadable", "no such mask file")
        for name in ("a.png", "a.tif"):
            (tmp_path / name).write_text("no image")
            self.refused(tmp_path / name, "unreadable", "cannot be read")

    @pytest.mark.parametrize("name", ["a.jpg", "really_a_jpeg.png", "a.webp"])
    def test_what_does_not_keep_ids_is_named(self, tmp_path, name):
        encoding = "WEBP" if name == "a.webp" else "JPEG"
        Image.fromarray(STORED).save(tmp_path / name, format=encoding)
        self.refused(tmp_path / name, "not ids", encoding, "save masks as PNG")

    def test_several_pages_are_refused(self, tmp_path):
        path = save(
            tmp_path / "a.tif", np.stack([STORED] * 5), photometric="minisblack"
        )
        self.refused(path, "not ids", "must have one page, got 5")

    def test_floating_point_is_refused(self, tmp_path):
        path = save(tmp_path / "a.tif", STORED.astype(np.float32))
        self.refused(path, "not ids", "floating-point values")

    @pytest.mark.parametrize("value", [2**31, 2**64 - 1])
    def test_ids_beyond_32_bits_are_refused(self, tmp_path, value):
        path = save(tmp_path / "a.tif", np.full((4, 4), value, np.uint64))
        self.refused(path, "not ids", "from -1 (void) to 2147483647", str(value))

    def test_negative_ids_are_refused(self, tmp_path):
        path = save(tmp_path / "a.tif", np.full((4, 4), -2, np.int16))
        self.refused(path, "not ids", "got -2 to 0")

    def test_16_bit_colors_are_refused(self, tmp_path):
        path = save(tmp_path / "a.tif", np.ones((4, 4, 3), np.uint16))
        self.refused(path, "not ids", "got several channels of 16 bits")

    @pytest.mark.parametrize("channels", [2, 3, 4])
    def test_16_bit_colors_of_png_are_refused(self, tmp_path, channels):
        """Pillow would read their high bytes alone: 300 and 301 would be one id."""
        pixels = np.repeat(STORED[..., None].astype(np.uint16) * 300, channels, axis=2)
        path = tmp_path / "a.png"
        path.write_bytes(png(pixels, {2: 4, 3: 2, 4: 6}[channels]))
        self.refused(path, "not ids", "save the ids as one gray channel of 16 bits")

    def test_16_bit_colors_of_compressed_tiff_are_refused(self, tmp_path):
        pixels = np.repeat(STORED[..., None].astype(np.uint16) * 300, 3, axis=2)
        cv2.imwrite(str(tmp_path / "a.tif"), pixels)  # LZW
        self.refused(tmp_path / "a.tif", "not ids", "several channels of 16 bits")

    @pytest.mark.parametrize("channels", [(), (3,)])
    def test_a_photograph_is_refused(self, tmp_path, channels):
        rng = np.random.default_rng(0)
        pixels = rng.integers(256, size=(64, 64, *channels)).astype(np.uint8)
        path = save(tmp_path / "a.png", pixels)
        self.refused(path, "too many labels", "is it a photograph?")

    def test_many_small_instances_are_no_photograph(self, tmp_path):
        blocks = np.arange(1, 257, dtype=np.uint16).reshape(16, 16).repeat(4, 0)
        path = save(tmp_path / "a.png", blocks.repeat(4, 1))
        assert read_mask(path).max() == 256

    def test_a_bomb_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        for name in ("a.png", "a.tif"):
            path = save(tmp_path / name, STORED)
            self.refused(path, "unreadable", "more than the 100 pixels")


@pytest.mark.needs_data
class TestVoc:
    def test_real_palette_files_have_void_and_instances(self, data_dir):
        folder = data_dir / "voc_samples" / "labelme" / "SegmentationObject"
        for path in sorted(folder.glob("*.png")):
            with Image.open(path) as image:
                indices = np.array(image).astype(int)
            instances = read_mask(path)
            assert inspect_mask(path).kind == "palette"
            np.testing.assert_array_equal(instances == -1, indices == 255)
            _, numbers = np.unique(indices, return_inverse=True)
            expected = numbers.reshape(indices.shape)  # 0 is there, so it comes first
            np.testing.assert_array_equal(
                instances[indices < 255], expected[indices < 255]
            )
