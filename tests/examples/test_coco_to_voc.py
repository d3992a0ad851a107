"""The VOC classes of COCO, exported: read back as VOC they are what they were."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from examples import coco_to_voc
from sphemb._checks import InputError
from sphemb.data import BuilderDataset, prepare_coco, prepare_voc

SEGMENTS = [
    {"id": 7, "category_id": 1, "iscrowd": 0},
    {"id": 258, "category_id": 63, "iscrowd": 0},
    {"id": 9, "category_id": 77, "iscrowd": 0},
    {"id": 10, "category_id": 1, "iscrowd": 1},
]
NAMES = {1: "person", 63: "couch", 77: "cell phone"}
NAMES_OF_VOC = (
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "dining table", "dog", "horse", "motorcycle", "person", "potted plant"),
    *("sheep", "couch", "train", "tv"),
)


@pytest.fixture(scope="module")
def coco_dir(tmp_path_factory):
    """Two images for each split; the second shows a telephone only."""
    root = tmp_path_factory.mktemp("coco")
    for split in ("train", "val"):
        images, annotations = [], []
        for i in (1, 2):
            name = f"{split}-{i}"
            ids = np.zeros((6, 8), np.int64)
            ids[1:] = 9
            if i == 1:
                ids[2:, :4], ids[3:, 5:], ids[:1, 4:] = 7, 258, 10
            colours = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
            for folder, suffix in (("", "jpg"), ("panoptic_", "png")):
                path = root / f"{folder}{split}2017" / f"{name}.{suffix}"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(colours).save(path)
            size = {"height": 6, "width": 8}
            images.append({"id": i, "file_name": f"{name}.jpg", **size})
            used = [s for s in SEGMENTS if (ids == s["id"]).any()]
            annotations.append(
                {"image_id": i, "file_name": f"{name}.png", "segments_info": used}
            )
        categories = [{"id": i, "name": n, "isthing": 1} for i, n in NAMES.items()]
        content = {
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (root / f"panoptic_{split}2017.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def dataset(coco_dir):
    builder = prepare_coco(
        coco_dir=coco_dir, masks="panoptic", categories="voc", data_dir=coco_dir / "t"
    )
    return BuilderDataset(builder)


def test_the_tree_reads_back_as_what_was_prepared(dataset, coco_dir, tmp_path):
    assert coco_to_voc.export(dataset, tmp_path / "tree") == {"train": 1, "val": 1}
    again = prepare_voc(voc_dir=tmp_path / "tree", data_dir=tmp_path / "tfds")
    for split in ("train", "validation", "test"):
        source, other = dataset.source(split), BuilderDataset(again).source(split)
        assert len(other) == 1
        assert other.encoded(0)["image"] == source.encoded(0)["image"]
        assert other[0]["name"] == source[0]["name"]
        for key in ("image", "instances", "semantic"):
            np.testing.assert_array_equal(other[0][key], source[0][key])
        assert set(np.unique(other[0]["instances"])) == {-1, 0, 1, 2}


@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_photographs_are_saved_upright(coco_dir, tmp_path, orientation):
    shutil.copytree(coco_dir, tmp_path / "coco", ignore=shutil.ignore_patterns("t"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in (tmp_path / "coco").glob("*2017/*.jpg"):
        Image.open(path).save(path, exif=exif)
    builder = prepare_coco(
        coco_dir=tmp_path / "coco",
        masks="panoptic",
        categories="voc",
        data_dir=tmp_path / "t",
    )
    dataset = BuilderDataset(builder)
    coco_to_voc.export(dataset, tmp_path / "tree")
    again = prepare_voc(voc_dir=tmp_path / "tree", data_dir=tmp_path / "tfds")
    mine, other = dataset.source("train")[0], BuilderDataset(again).source("train")[0]
    for key in ("instances", "semantic"):
        np.testing.assert_array_equal(other[key], mine[key])
    assert other["image"].shape == mine["image"].shape
    stored = np.asarray(Image.open(tmp_path / "tree" / "JPEGImages" / "train-1.jpg"))
    np.testing.assert_array_equal(stored, other["image"])


def test_the_palette_is_vocs():
    palette = coco_to_voc.voc_palette()
    assert palette[[0, 1, 2, 15, 20]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
    ]
    assert palette[255].tolist() == [224, 224, 192]


def test_the_command_prepares_exports_and_counts(
    coco_dir, tmp_path, monkeypatch, capsys
):
    command = ["coco_to_voc.py", f"--coco_dir={coco_dir}", "--masks=panoptic"]
    command += [f"--out={tmp_path / 'tree'}", f"--data_dir={coco_dir / 't'}"]
    monkeypatch.setattr(sys, "argv", command)
    coco_to_voc.main()
    assert "1 images in train, 1 in val" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: out must be absent or an empty"):
        coco_to_voc.main()


def test_says_where_it_cannot_write(dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        coco_to_voc.export(dataset, tmp_path / "file" / "tree")


@pytest.mark.needs_data
def test_photographs_with_an_object_of_voc_come_through(data_dir, tmp_path):
    """Twenty real ones of each split, counted by their annotations alone."""
    wanted = {}
    for split in ("train", "val"):
        for folder in (f"{split}2017", f"panoptic_{split}2017"):
            (tmp_path / folder).symlink_to(data_dir / "coco128" / folder)
        name = f"panoptic_{split}2017.json"
        content = json.loads((data_dir / "coco128" / name).read_text())
        content["annotations"] = content["annotations"][:20]
        (tmp_path / name).write_text(json.dumps(content))
        vocs = {c["id"] for c in content["categories"] if c["name"] in NAMES_OF_VOC}
        wanted[split] = sum(
            any(s["category_id"] in vocs and not s["iscrowd"] for s in segments)
            for segments in (a["segments_info"] for a in content["annotations"])
        )
    builder = prepare_coco(
        coco_dir=tmp_path, masks="panoptic", categories="voc", data_dir=tmp_path
    )
    counts = coco_to_voc.export(BuilderDataset(builder), tmp_path / "tree")
    assert counts == wanted
    assert 0 < min(counts.values()) < 20
    masks = list((tmp_path / "tree" / "SegmentationObject").iterdir())
    assert len(masks) == sum(counts.values())
    assert {Image.open(path).mode for path in masks} == {"P"}
