"""Every way to read an image file gives the same pixels, or the same line."""

from __future__ import annotations

import io
import json
import struct
import zlib

import cv2
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from sphemb._checks import InputError
from sphemb.data import (
    BoundaryDataset,
    Box,
    BuilderDataset,
    ImageDataset,
    ImageWindows,
    check_data,
    open_folder,
    prepare_coco,
    prepare_voc,
    read_image,
    read_size,
)

SIZE = H, W = 12, 20
RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 2**16, (H, W, 3), dtype=np.uint16)
RGB = (DEEP >> 8).astype(np.uint8)
ALPHA = RNG.integers(0, 256, (H, W), dtype=np.uint8)
BITS = RGB[..., 0] > 99


def gray(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=-1)


def eight(values):
    return np.rint(values / 257).astype(np.uint8)


def over_black(colors, alpha):
    return np.rint(colors * (alpha[..., None] / 255)).astype(np.uint8)


def tiff(pixels, **settings):
    return lambda path: tifffile.imwrite(path, pixels, **settings)


def pillow(pixels, mode=None, **settings):
    def write(path):
        image = Image.fromarray(pixels)
        (image.convert(mode) if mode else image).save(path, **settings)

    return write


def opencv(pixels):
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    return lambda path: cv2.imwrite(str(path), pixels[..., order])


def lzw(pixels, **settings):
    """What tifffile writes, with the strips packed, which it cannot by itself."""

    def write(path):
        tifffile.imwrite(path, pixels, rowsperstrip=5, **settings)
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        starts, counts = [], []
        for start, count in parts:
            strip = io.BytesIO()
            plain = Image.frombytes("L", (count, 1), bytes(data[start : start + count]))
            plain.save(strip, "TIFF", compression="tiff_lzw")
            with tifffile.TiffFile(io.BytesIO(strip.getvalue())) as file:
                page = file.pages.first
                begin, length = page.dataoffsets[0], page.databytecounts[0]
            starts.append(len(data))
            counts.append(length)
            data += strip.getvalue()[begin : begin + length]
        path.write_bytes(data)
        with tifffile.TiffFile(path, mode="r+b") as file:
            tags = file.pages.first.tags
            for tag, value in {"Compression": 5, "StripOffsets": starts}.items():
                tags[tag].overwrite(value)
            tags["StripByteCounts"].overwrite(counts)

    return write


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def png_with_exif_behind(path):
    Image.fromarray(RGB).save(path)
    data = path.read_bytes()
    content = oriented(6).tobytes()[6:]
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + content))
    path.write_bytes(data[:-12] + chunk + data[-12:])


def palette(path, **settings):
    Image.fromarray(RGB).quantize(16).save(path, **settings)


def looked_up(hidden=None):
    image = Image.fromarray(RGB).quantize(16)
    colors = np.array(image.convert("RGB"))
    if hidden is not None:
        colors[np.asarray(image) == hidden] = 0
    return colors


PLANES = np.ascontiguousarray(np.moveaxis(DEEP, -1, 0))
EXTRA = np.dstack([RGB, ALPHA])
MULTIPLIED = np.dstack([over_black(RGB, ALPHA), ALPHA])
TWO = np.dstack([RGB[..., 0], ALPHA])
ROTATED = {
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.swapaxes(0, 1),
    6: np.rot90(RGB, -1),
    7: np.rot90(RGB, 2).swapaxes(0, 1),
    8: np.rot90(RGB),
}
MINISBLACK, MINISWHITE = "minisblack", "miniswhite"

# name -> how it is written, and what a viewer shows
SHOWN = {
    "gray.tif": (tiff(RGB[..., 0]), gray(RGB[..., 0])),
    "white_8.tif": (tiff(RGB[..., 0], photometric=MINISWHITE), gray(255 - RGB[..., 0])),
    "white_16.tif": (
        tiff(DEEP[..., 0], photometric=MINISWHITE),
        gray(255 - eight(DEEP[..., 0])),
    ),
    "white_16_zip.tif": (
        tiff(DEEP[..., 0], photometric=MINISWHITE, compression="zlib"),
        gray(255 - eight(DEEP[..., 0])),
    ),
    "white_16_lzw.tif": (
        lzw(DEEP[..., 0], photometric=MINISWHITE),
        gray(255 - eight(DEEP[..., 0])),
    ),
    "big_endian.tif": (tiff(DEEP[..., 0], byteorder=">"), gray(eight(DEEP[..., 0]))),
    "bigtiff.tif": (tiff(DEEP[..., 0], bigtiff=True), gray(eight(DEEP[..., 0]))),
    "predictor.tif": (
        tiff(DEEP[..., 0], compression="zlib", predictor=2),
        gray(eight(DEEP[..., 0])),
    ),
    "deep.tif": (tiff(DEEP, photometric="rgb"), eight(DEEP)),
    "deep_lzw.tif": (opencv(DEEP), eight(DEEP)),  # with a predictor
    "deep_planes.tif": (
        tiff(PLANES, photometric="rgb", planarconfig="separate"),
        eight(DEEP),
    ),
    "deep_planes_lzw.tif": (
        lzw(PLANES, photometric="rgb", planarconfig="separate"),
        eight(DEEP),
    ),
    "tiles.tif": (tiff(RGB, tile=(16, 16), photometric="rgb"), RGB),
    "infrared.tif": (tiff(EXTRA, photometric="rgb", extrasamples=[0]), RGB),
    "infrared_lzw.tif": (lzw(EXTRA, photometric="rgb", extrasamples=[0]), RGB),
    "infrared_and_alpha.tif": (
        tiff(
            np.dstack([RGB, RGB[..., 0], ALPHA]), photometric="rgb", extrasamples=[0, 2]
        ),
        over_black(RGB, ALPHA),
    ),
    "multiplied.tif": (
        tiff(MULTIPLIED, photometric="rgb", extrasamples=[1]),
        over_black(RGB, ALPHA),
    ),
    "multiplied_lzw.tif": (
        lzw(MULTIPLIED, photometric="rgb", extrasamples=[1]),
        over_black(RGB, ALPHA),
    ),
    "alpha.tif": (
        tiff(EXTRA, photometric="rgb", extrasamples=[2]),
        over_black(RGB, ALPHA),
    ),
    "gray_and_more.tif": (
        tiff(TWO, photometric=MINISBLACK, planarconfig="contig", extrasamples=[0]),
        gray(RGB[..., 0]),
    ),
    "gray_and_alpha.tif": (
        tiff(TWO, photometric=MINISBLACK, planarconfig="contig", extrasamples=[2]),
        over_black(gray(RGB[..., 0]), ALPHA),
    ),
    "bits.tif": (tiff(BITS, photometric=MINISBLACK), gray(BITS * np.uint8(255))),
    "bits_white.tif": (pillow(BITS, compression="group4"), gray(BITS * np.uint8(255))),
    "palette.tif": (palette, looked_up()),
    "palette_alpha.tif": (
        lambda path: Image.fromarray(RGB).quantize(16).convert("PA").save(path),
        looked_up(),
    ),
    "signed.tif": (
        tiff((DEEP[..., 0] >> 1).astype(np.int16)),
        gray(eight(DEEP[..., 0] >> 1)),
    ),
    "long.tif": (tiff(DEEP[..., 0].astype(np.uint32)), gray(eight(DEEP[..., 0]))),
    **{
        f"turned_{number}.{kind}": (pillow(RGB, exif=oriented(number)), shown)
        for number, shown in ROTATED.items()
        for kind in ("png", "tif")
    },
    "exif_behind.png": (png_with_exif_behind, ROTATED[6]),
    "deep.png": (opencv(DEEP), eight(DEEP)),
    "deep_gray.png": (pillow(DEEP[..., 0]), gray(eight(DEEP[..., 0]))),
    "alpha.png": (pillow(EXTRA), over_black(RGB, ALPHA)),
    "gray_and_alpha.png": (pillow(TWO), over_black(gray(RGB[..., 0]), ALPHA)),
    "palette.png": (lambda path: palette(path, transparency=3), looked_up(3)),
    "key.png": (
        pillow(RGB[..., 0], transparency=int(RGB[0, 0, 0])),
        gray(np.where(RGB[..., 0] == RGB[0, 0, 0], 0, RGB[..., 0])),
    ),
    "bits.png": (pillow(BITS), gray(BITS * np.uint8(255))),
}
# name -> how it is written, and what the line says
REFUSED = {
    "floats.tif": (tiff(RGB[..., 0].astype(np.float32)), "floating-point values"),
    "halves.tif": (tiff(RGB[..., 0].astype(np.float16)), "floating-point values"),
    "complex.tif": (tiff(RGB[..., 0].astype(np.complex64)), "floating-point values"),
    "negative.tif": (tiff(RGB[..., 0].astype(np.int16) - 9), "within 16 bits, got -9"),
    "large.tif": (tiff(DEEP[..., 0].astype(np.int32) * 9), "within 16 bits, got"),
    "channels.tif": (
        tiff(EXTRA, photometric=MINISBLACK, planarconfig="contig"),
        "got 4 channels without a color",
    ),
    "five_planes.tif": (
        tiff(
            np.moveaxis(np.dstack([EXTRA, ALPHA]), -1, 0),
            photometric=MINISBLACK,
            planarconfig="separate",
        ),
        "got 5 channels without a color",
    ),
    "unexplained.tif": (opencv(EXTRA), "no tag ExtraSamples"),
}


def coco_tree(root, names, *, sizes=None, items=lambda name: []):
    """COCO's form, of images that lie in ``train2017``; val has one of them."""
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    first = names[0]
    (root / "val2017" / first).write_bytes((root / "train2017" / first).read_bytes())
    for split, some in {"train": names, "val": [first]}.items():
        images = []
        for i, name in enumerate(some):
            height, width = (sizes or {}).get(name) or read_size(
                root / "train2017" / name
            )
            images.append(
                {"id": i, "file_name": name, "height": height, "width": width}
            )
        annotations = [
            {"id": 100 * i + k, "image_id": i, "category_id": 1, "iscrowd": 0} | item
            for i, name in enumerate(some)
            for k, item in enumerate(items(name), start=1)
        ]
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "thing"}],
        }
        path = root / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content))


def readers(root, tmp_path):
    """Name of a reader -> file name -> its pixels."""
    folder = root / "train2017"

    def tiled(path):
        image = ImageWindows(path)
        height, width = image.size
        rows = [
            np.hstack(
                [
                    image.read(Box(i, j, min(i + 7, height), min(j + 7, width)))
                    for j in range(0, width, 7)
                ]
            )
            for i in range(0, height, 7)
        ]
        return np.vstack(rows)

    trained = open_folder(root).source("train")
    unlabelled = ImageDataset(folder, validation_fraction=0, test_fraction=0)
    unlabelled = unlabelled.source("train")
    builder = prepare_coco(coco_dir=root, data_dir=tmp_path / "prepared")
    prepared = BuilderDataset(builder).source("train")
    named = {
        "folder": (
            {pair.image.name: i for i, pair in enumerate(trained.pairs)},
            trained,
        ),
        "unlabelled": (
            {pair.image.name: i for i, pair in enumerate(unlabelled.pairs)},
            unlabelled,
        ),
        "prepared": ({f"{i}": i for i in range(len(prepared))}, prepared),
    }
    found = {
        "read_image": lambda name: read_image(folder / name),
        "predict": lambda name: ImageWindows(folder / name).whole(),
        "tiles": lambda name: tiled(folder / name),
    }
    order = sorted(path.name for path in folder.iterdir())
    for reader, (places, source) in named.items():

        def read(name, reader=reader, places=places, source=source):
            i = order.index(name) if reader == "prepared" else places[name]
            image = source[i]["image"]
            assert source.size(i) == image.shape[:2]
            return image

        found[reader] = read
    return found


class TestOneReader:
    def test_every_reader_gives_what_a_viewer_shows(self, tmp_path):
        folder = tmp_path / "data" / "train2017"
        folder.mkdir(parents=True)
        for name, (write, _) in SHOWN.items():
            write(folder / name)
        coco_tree(tmp_path / "data", sorted(SHOWN))
        for reader, read in readers(tmp_path / "data", tmp_path).items():
            for name, (_, shown) in SHOWN.items():
                np.testing.assert_array_equal(
                    read(name), shown, err_msg=f"{reader}, {name}", strict=True
                )
                assert read_size(folder / name) == shown.shape[:2], name

    @pytest.mark.parametrize("name", REFUSED)
    def test_every_reader_refuses_with_the_same_line(self, name, tmp_path):
        root = tmp_path / "data"
        (root / "train2017").mkdir(parents=True)
        write, line = REFUSED[name]
        path = root / "train2017" / name
        write(path)
        coco_tree(root, [name], sizes={name: SIZE})
        for read in (
            lambda: read_image(path),
            lambda: ImageWindows(path).whole(),
            lambda: open_folder(root).source("train")[0],
            lambda: prepare_coco(coco_dir=root, data_dir=tmp_path / "prepared"),
        ):
            with pytest.raises(InputError, match=line) as error:
                read()
            assert name in str(error.value)
            assert "\n" not in str(error.value)
        assert any(line in found.message for found in check_data(root).errors)

    @pytest.mark.parametrize("name", ["deep.png", "deep_lzw.tif", "deep_planes.tif"])
    def test_a_file_that_was_cut_short_is_refused(self, name, tmp_path):
        path = tmp_path / name
        SHOWN[name][0](path)
        data = path.read_bytes()
        for length in (len(data) // 2, len(data) - 60):
            path.write_bytes(data[:length])
            for read in (read_image, lambda path: ImageWindows(path).whole()):
                with pytest.raises(InputError, match=rf"{name} cannot be read"):
                    read(path)

    @pytest.mark.needs_data
    def test_the_cases_give_what_is_expected(self, data_dir):
        cases = data_dir.parent / "cases" / "image_formats"
        if not cases.is_dir():
            pytest.skip(f"no {cases}")
        expected = np.load(cases / "expected.npz")
        for path in sorted(cases.glob("*.*")):
            if path.name not in expected:
                continue
            for shown in (read_image(path), ImageWindows(path).whole()):
                np.testing.assert_array_equal(shown, expected[path.name], path.name)


# Labels of a photograph that a camera turned


STORED = np.zeros(SIZE, bool)
STORED[2:7, 3:11] = True
OUTLINE = [[3, 2, 11, 2, 11, 7, 3, 7]]


METHODS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
}


def turned(pixels, number):
    image = Image.fromarray(pixels.astype(np.uint8))
    return np.asarray(image.transpose(METHODS[number]) if number > 1 else image)


class TestTurned:
    def photograph(self, path, number):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.where(STORED[..., None], 200, 50).astype(np.uint8)
        pixels = np.repeat(pixels, 3, axis=-1)
        Image.fromarray(pixels).save(path, quality=95, exif=oriented(number))

    def check(self, example, number):
        expected = turned(STORED, number).astype(bool)
        np.testing.assert_array_equal(example["instances"] > 0, expected)
        np.testing.assert_array_equal(example["image"][..., 0] > 125, expected)

    @pytest.mark.parametrize("drawn_on", ["stored", "upright"])
    @pytest.mark.parametrize("number", [1, 3, 6, 7])
    def test_outlines_are_turned_with_their_image(self, number, drawn_on, tmp_path):
        upright = number >= 5 and drawn_on == "upright"
        size, outline = SIZE, OUTLINE
        if upright:
            size = SIZE[::-1]
            rows, columns = np.nonzero(turned(STORED, number))
            top, bottom = int(rows.min()), int(rows.max()) + 1
            left, right = int(columns.min()), int(columns.max()) + 1
            outline = [[left, top, right, top, right, bottom, left, bottom]]
        root = tmp_path / "data"
        self.photograph(root / "train2017" / "a.jpg", number)
        coco_tree(
            root,
            ["a.jpg"],
            sizes={"a.jpg": size},
            items=lambda name: [{"segmentation": outline}],
        )
        self.check(open_folder(root).source("train")[0], number)
        builder = prepare_coco(coco_dir=root, data_dir=tmp_path / "prepared")
        source = BuilderDataset(builder).source("train")
        self.check(source[0], number)
        warned = [f for f in check_data(root).warnings if f.kind == "turned"]
        assert len(warned) == (number == 3)
        np.testing.assert_array_equal(source[0]["semantic"], source[0]["instances"])
        assert source.size(0) == source[0]["instances"].shape

    @pytest.mark.parametrize("number", [1, 3, 6])
    def test_mask_files_are_not_turned_which_is_warned_of(self, number, tmp_path):
        """Where the size does not tell, masks of the stored pixels lie wrong."""
        self.photograph(tmp_path / "images" / "a.jpg", number)
        upright = turned(STORED, number).astype(np.uint8)
        (tmp_path / "masks").mkdir()
        Image.fromarray(upright).save(tmp_path / "masks" / "a.png")
        warned = [f for f in check_data(tmp_path).warnings if f.kind == "turned"]
        assert len(warned) == (number == 3)
        assert all("and the masks not" in f.message for f in warned)

    def test_outlines_of_another_size_are_refused(self, tmp_path):
        root = tmp_path / "data"
        self.photograph(root / "train2017" / "a.jpg", 6)
        items = [{"segmentation": OUTLINE}]
        coco_tree(root, ["a.jpg"], sizes={"a.jpg": (13, 20)}, items=lambda _: items)
        with pytest.raises(InputError, match="must be 20 x 12"):
            open_folder(root).source("train")[0]
        with pytest.raises(InputError, match="must have the size of the image"):
            prepare_coco(coco_dir=root, data_dir=tmp_path / "prepared")

    @pytest.mark.parametrize("number", [3, 6])
    def test_masks_of_voc_are_turned_with_their_image(self, number, tmp_path):
        root = tmp_path / "tree"
        self.photograph(root / "JPEGImages" / "a.jpg", number)
        self.photograph(root / "JPEGImages" / "b.jpg", number)
        for kind in ("Class", "Object"):
            folder = root / f"Segmentation{kind}"
            folder.mkdir()
            for name in "ab":
                Image.fromarray(STORED.astype(np.uint8)).save(folder / f"{name}.png")
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\n")
        (lists / "val.txt").write_text("b\n")
        builder = prepare_voc(voc_dir=root, data_dir=tmp_path / "prepared")
        self.check(BuilderDataset(builder).source("train")[0], number)

    @pytest.mark.parametrize("number", [3, 6])
    def test_boundaries_are_turned_with_their_image(self, number, tmp_path):
        root = tmp_path / "tree"
        truth = np.empty((1, 2), object)
        kind = [("Segmentation", object), ("Boundaries", object)]
        for k in range(2):
            cell = np.empty((1, 1), kind)
            cell[0, 0] = (STORED.astype(np.uint8), STORED.astype(np.uint8))
            truth[0, k] = cell
        for split in ("train", "val", "test"):
            self.photograph(root / "images" / split / "a.jpg", number)
            folder = root / "groundTruth" / split
            folder.mkdir(parents=True)
            scipy.io.savemat(folder / "a.mat", {"groundTruth": truth})
        dataset = BoundaryDataset(bsds_dir=root, data_dir=tmp_path / "prepared")
        example = dataset.source("train")[0]
        self.check(example, number)
        expected = turned(STORED, number)
        np.testing.assert_array_equal(example["boundaries"], [expected, expected])
