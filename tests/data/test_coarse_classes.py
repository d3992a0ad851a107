"""The 27 coarse classes: ranges, names, merged stuff, and COCO's own file."""

import json

import numpy as np
import pytest

from sphemb import InputError
from sphemb.data import (
    CITYSCAPES_CLASSES,
    CITYSCAPES_THINGS,
    COARSE_CLASSES,
    COARSE_STUFF,
    COARSE_THINGS,
    BuilderDataset,
    coarse_class,
    coarse_labels,
    prepare_coco,
)
from tests.data.test_coco import write_panoptic


def name(category_id):
    return COARSE_CLASSES[coarse_class(category_id) - 1]


class TestClasses:
    def test_there_are_27_and_the_first_twelve_are_things(self):
        assert len(COARSE_CLASSES) == len(set(COARSE_CLASSES)) == 27
        assert len(COARSE_THINGS) == 12
        assert COARSE_CLASSES[9] == "person"
        assert COARSE_CLASSES[12:] == COARSE_STUFF
        assert len(CITYSCAPES_CLASSES) == len(set(CITYSCAPES_CLASSES)) == 27
        assert len(CITYSCAPES_THINGS) == 10

    @pytest.mark.parametrize(
        ("category_id", "coarse"),
        [
            (1, "person"),
            (2, "vehicle"),
            (13, "outdoor"),
            (16, "animal"),
            (33, "accessory"),
            (44, "kitchen"),
            (61, "food"),
            (70, "furniture"),
            (72, "electronic"),
            (82, "appliance"),
            (90, "indoor"),
            (92, "textile"),  # banner
            (106, "sky"),  # clouds
            (118, "floor"),  # floor-wood
            (120, "water"),  # fog
            (139, "raw-material"),  # paper
            (150, "solid"),  # rock
            (152, "textile"),  # rug
            (157, "sky"),  # sky-other
            (163, "plant"),  # straw
            (171, "wall"),  # wall-brick
            (181, "window"),  # window-other
            (182, "solid"),  # wood
        ],
    )
    def test_categories_lie_where_coco_stuff_puts_them(self, category_id, coarse):
        assert name(category_id) == coarse

    def test_every_class_has_a_category(self):
        fine = [coarse_class(i) for i in range(1, 183)]
        assert set(fine) == set(range(1, 28))
        assert all(n <= 12 for n in fine[:91])
        assert all(n > 12 for n in fine[91:])

    def test_an_id_that_no_category_has_is_named(self):
        for strange in (0, 183, 201):
            with pytest.raises(InputError, match=rf"category_id .* got {strange}"):
                coarse_class(strange)


class TestLabelMaps:
    def test_stuffthingmaps_are_the_ids_less_one(self):
        codes = np.arange(182, dtype=np.uint8).reshape(2, 91)
        found = coarse_labels(codes, of="coco_stuff")
        expected = [coarse_class(i + 1) for i in range(182)]
        np.testing.assert_array_equal(found.reshape(-1), expected)
        assert found.dtype == np.int32
        assert coarse_labels(np.array([255]), of="coco_stuff").tolist() == [-1]

    def test_cityscapes_ids_outside_the_classes_are_void(self):
        found = coarse_labels(np.arange(-1, 35), of="cityscapes")
        np.testing.assert_array_equal(found, [-1] * 8 + list(range(1, 28)) + [-1])
        assert CITYSCAPES_CLASSES[found[24 + 1] - 1] == "person"
        assert CITYSCAPES_CLASSES[found[7 + 1] - 1] == "road"
        assert CITYSCAPES_CLASSES[found[23 + 1] - 1] == "sky"

    def test_codes_of_something_else_are_named(self):
        with pytest.raises(InputError, match=r"codes must be 0 to 181 or 255.* 200"):
            coarse_labels(np.array([1, 200]), of="coco_stuff")
        with pytest.raises(InputError, match=r"codes must be integers"):
            coarse_labels(np.array([1.0]), of="coco_stuff")


def test_a_file_that_numbers_other_things_by_the_same_ids_is_refused(tmp_path):
    root = write_panoptic(tmp_path / "coco")
    path = root / "panoptic_val2017.json"
    content = json.loads(path.read_text())
    content["categories"][0]["supercategory"] = "galaxy"
    path.write_text(json.dumps(content))
    message = r"must number categories as COCO does, where 1 is of person, got galaxy"
    settings = {"masks": "panoptic", "categories": "coarse27"}
    with pytest.raises(InputError, match=message):
        prepare_coco(coco_dir=root, data_dir=tmp_path / "prepared", **settings)


@pytest.mark.needs_data
class TestRealAnnotations:
    def test_every_category_has_the_class_that_coco_calls_its_supercategory(
        self, data_dir
    ):
        path = data_dir / "coco128" / "panoptic_val2017.json"
        listed = json.loads(path.read_text())["categories"]
        assert len(listed) == 133
        for category in listed:
            assert name(category["id"]) == category["supercategory"], category["name"]
            assert (coarse_class(category["id"]) <= 12) == bool(category["isthing"])

    def test_panoptic_maps_become_coarse_ones(self, data_dir, tmp_path):
        settings = {"masks": "panoptic", "data_dir": tmp_path}
        folder = data_dir / "coco128"
        coarse, fine = (
            BuilderDataset(prepare_coco(coco_dir=folder, categories=c, **settings))
            for c in ("coarse27", None)
        )
        listed = json.loads((folder / "panoptic_val2017.json").read_text())
        ids = sorted(c["id"] for c in listed["categories"])
        table = np.array([coarse_class(i) for i in ids])
        seen = set()
        for i in range(8):
            one, other = (d.source("validation")[i] for d in (coarse, fine))
            known = other["semantic"] >= 0
            expected = np.where(known, table[other["semantic"] - 1], -1)
            np.testing.assert_array_equal(one["semantic"], expected)
            np.testing.assert_array_equal(one["instances"], other["instances"])
            seen |= set(np.unique(one["semantic"]).tolist())
        assert len(seen) > 10
        assert seen <= {-1, *range(1, 28)}
