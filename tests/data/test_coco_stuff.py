"""COCO-Stuff's maps as a data set."""

import numpy as np
import pytest
from PIL import Image

from sphemb import VOID, InputError
from sphemb.data import (
    BuilderDataset,
    CocoMasks,
    coarse_class,
    prepare_coco,
)

SIZE = (6, 8)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Two images in each split, and their maps."""
    root = tmp_path_factory.mktemp("stuff") / "coco"
    for split in ("train2017", "val2017"):
        maps = root / "stuffthingmaps_trainval2017" / split
        for folder in (root / split, maps):
            folder.mkdir(parents=True)
        for i in range(2):
            rng = np.random.default_rng(i)
            pixels = rng.integers(256, size=(*SIZE, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / f"{i:012d}.jpg")
            Image.fromarray(codes_of(i)).save(maps / f"{i:012d}.png")
    return root


def codes_of(i):
    codes = np.random.default_rng(10 + i).integers(0, 182, SIZE).astype(np.uint8)
    codes[0, :3] = 255
    return codes


@pytest.mark.parametrize("categories", [None, "coarse27"])
def test_classes_are_ids_or_coarse_and_nobody_knows_instances(
    categories, coco, tmp_path
):
    settings = {"masks": "stuff", "categories": categories, "data_dir": tmp_path}
    source = BuilderDataset(prepare_coco(coco_dir=coco, **settings)).source("train")
    assert len(source) == 2
    for i in range(2):
        example, codes = source[i], codes_of(i).astype(int)
        assert example["name"] == f"{i:012d}"
        assert (example["instances"] == VOID).all()
        expected = codes + 1
        if categories:
            names = [0, *(coarse_class(k) for k in range(1, 183))]
            expected = np.array([*names, *[0] * 74])[expected]
        expected = np.where(codes == 255, VOID, expected)
        np.testing.assert_array_equal(example["semantic"], expected)


def name_of(coco):
    return CocoMasks(coco_dir=coco, masks="stuff").builder_config.name


def test_other_maps_are_another_data_set(coco):
    first = name_of(coco)
    path = coco / "stuffthingmaps_trainval2017" / "val2017" / "000000000009.png"
    Image.fromarray(codes_of(0)).save(path)
    second = name_of(coco)
    path.unlink()
    assert first != second


def test_mistakes_are_named(coco, tmp_path):
    with pytest.raises(InputError, match=r"stuffthingmaps_trainval2017/val2017"):
        CocoMasks(coco_dir=tmp_path, masks="stuff", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"None or 'coarse27' with masks='stuff'"):
        CocoMasks(coco_dir=coco, masks="stuff", categories="voc", data_dir=tmp_path)
    path = coco / "stuffthingmaps_trainval2017" / "train2017" / "000000000001.png"
    whole = path.read_bytes()
    Image.fromarray(np.full(SIZE, 200, np.uint8)).save(path)
    message = r"mask .*000000000001\.png: codes must be 0 to 181 or 255"
    with pytest.raises(InputError, match=message):
        prepare_coco(coco_dir=coco, masks="stuff", data_dir=tmp_path / "other")
    path.write_bytes(whole)
