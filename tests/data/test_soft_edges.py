"""Soft edges are distinguished from objects that are small, thin or touching."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from sphemb.data import FileError, check_data, inspect_mask, read_mask
from sphemb.data.files import number_in_order
from sphemb.data.files._masks import soft_pieces

SHAPE = (72, 96)
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]
GRAY = (60, 140, 230)
COLORS = ((200, 30, 30), (20, 180, 60), (240, 230, 20))


def discs(values):
    """Three discs, one of which touches another."""
    mask = np.zeros((*SHAPE, 3), np.uint8)
    for value, (row, column) in zip(
        values, [(20, 20), (46, 34), (40, 74)], strict=True
    ):
        mask[(ROWS - row) ** 2 + (COLUMNS - column) ** 2 < 15**2] = value
    return mask if np.ndim(values) == 2 else mask[..., 0]


def jpeg(mask, quality):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


SOFT = {
    "drawn larger": lambda mask: cv2.resize(mask, None, fx=0.5, fy=0.5),
    "bilinear": lambda mask: cv2.resize(mask, None, fx=0.7, fy=0.7),
    "cubic": lambda mask: cv2.resize(
        mask, None, fx=1.4, fy=1.4, interpolation=cv2.INTER_CUBIC
    ),
    "area": lambda mask: cv2.resize(
        mask, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA
    ),
    "blurred": lambda mask: cv2.GaussianBlur(mask, (0, 0), 1.0),
    "JPEG": lambda mask: jpeg(mask, 90),
}


@pytest.mark.parametrize("how", SOFT)
@pytest.mark.parametrize("values", [GRAY, COLORS], ids=["gray", "colors"])
@pytest.mark.parametrize("ground", [0, 255], ids=["black", "white"])
def test_soft_edges_are_refused_and_hard_ones_are_not(tmp_path, how, values, ground):
    mask = discs(values)
    mask = np.where(mask == 0, ground, mask).astype(np.uint8) if ground else mask
    Image.fromarray(mask).save(tmp_path / "hard.png")
    assert read_mask(tmp_path / "hard.png").max() in (3, 4, 5)
    Image.fromarray(SOFT[how](mask)).save(tmp_path / "soft.png")
    for masks in ("instances", "components", "classes"):
        if masks == "classes" and values is COLORS:
            continue
        with pytest.raises(FileError, match=r"soft\.png must h(ave|old)") as error:
            read_mask(tmp_path / "soft.png", masks=masks)
        # Where nearly all pixels differ it is taken for a photograph.
        assert error.value.kind in ("soft edges", "too many labels")
        assert "\n" not in str(error.value)


def test_16_bits_and_rectangles_too(tmp_path):
    wide = (discs(GRAY).astype(np.uint16) * 250)[::2]
    soft = cv2.resize(wide, None, fx=0.5, fy=0.5)
    Image.fromarray(soft).save(tmp_path / "a.png")
    with pytest.raises(FileError, match="must have hard edges"):
        read_mask(tmp_path / "a.png")
    boxes = np.zeros(SHAPE, np.uint8)
    for i, value in enumerate((60, 120, 180, 240)):
        boxes[5 + 16 * i : 14 + 16 * i, 7 + 8 * i : 40 + 8 * i] = value
    Image.fromarray(cv2.resize(boxes, None, fx=0.5, fy=0.5)).save(tmp_path / "b.png")
    with pytest.raises(FileError, match="must have hard edges"):
        read_mask(tmp_path / "b.png")


def test_what_was_predicted_may_have_them(tmp_path):
    Image.fromarray(SOFT["drawn larger"](discs(GRAY))).save(tmp_path / "a.png")
    assert inspect_mask(tmp_path / "a.png", soft=True).instances.max() > 9


def thin(kind):
    """Good masks with many objects that are small, thin or touch each other."""
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, np.int32)
    ids = rng.permutation(2000) + 1
    if kind == "dots":
        mask[2::4, 2::4] = ids[: mask[2::4, 2::4].size].reshape(18, 24)
    elif kind == "dots on objects":
        mask[:] = discs((1, 2, 3))
        mask[3::7, 3::7] = ids[: mask[3::7, 3::7].size].reshape(10, 14) + 3
    elif kind == "lines":
        mask[::3] = np.arange(1, 25)[:, None]
    elif kind.startswith("crossing lines"):
        if kind.endswith("beside a disc"):
            mask[(ROWS - 20) ** 2 + (COLUMNS - 20) ** 2 < 15**2] = 30
        mask[40::6] = np.arange(1, 7)[:, None]
        mask[38:, 5::8] = np.arange(7, 19)[None]
    elif kind == "mosaic":
        tiles = ids[: 36 * 48].reshape(36, 48)
        mask[:] = np.kron(tiles, np.ones((2, 2), int))
    elif kind == "borders":
        for i, value in enumerate(range(2, 20, 2)):
            row, column = 12 + 24 * (i // 3), 14 + 30 * (i % 3)
            distance = np.hypot(ROWS - row, COLUMNS - column)
            mask[distance < 11] = value - 1
            mask[distance < 10] = value
    elif kind == "crowd":
        seeds = rng.uniform(0, 1, (120, 2)) * SHAPE
        distance = np.hypot(
            ROWS[..., None] - seeds[:, 0], COLUMNS[..., None] - seeds[:, 1]
        )
        mask[:] = np.where(distance.min(-1) < 4, ids[distance.argmin(-1)], 0)
    return mask


@pytest.mark.parametrize(
    "kind",
    [
        *("dots", "dots on objects", "lines", "mosaic", "borders", "crowd"),
        *("crossing lines", "crossing lines beside a disc"),
    ],
)
def test_small_objects_are_objects(kind):
    mask = thin(kind)
    numbered, values = number_in_order(mask)
    assert len(values) > 8
    assert not soft_pieces(numbered, mask[..., None])


@pytest.mark.needs_data
def test_no_real_mask_is_taken_for_soft(data_dir):
    for pattern in ("dsb2018/labels/*.png", "voc2012_inst/Segmentation*/*.png"):
        files = sorted(data_dir.glob(pattern))[::29]
        if not files:
            pytest.skip(f"no {pattern} in the development data")
        for path in files:
            mask = np.asarray(Image.open(path)).astype(np.int32)
            mask[mask == 255] = 0
            for step in (1, 2, 4):
                part = mask[::step, ::step]
                assert not soft_pieces(number_in_order(part)[0], part[..., None]), path


def test_the_check_reports_them(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        mask = SOFT["bilinear"](discs(GRAY))
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
        image = Image.new("RGB", mask.shape[::-1], (ord(name), 0, 0))
        image.save(tmp_path / "images" / f"{name}.png")
    report = check_data(tmp_path)
    assert [f.kind for f in report.errors] == ["soft edges"] * 3
