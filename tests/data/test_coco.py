"""COCO's outlines, panoptic masks, stuff maps and coarse classes as a data set."""

from __future__ import annotations

import inspect
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sphemb import VOID
from sphemb._checks import InputError
from sphemb.data import (
    CITYSCAPES_CLASSES,
    CITYSCAPES_THINGS,
    COARSE_CLASSES,
    COARSE_STUFF,
    COARSE_THINGS,
    BuilderDataset,
    CocoMasks,
    coarse_class,
    coarse_labels,
    prepare_coco,
)

SIZE = (6, 8)
CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 32, "name": "tie", "isthing": 1},
    {"id": 63, "name": "couch", "isthing": 1},
    {"id": 187, "name": "sky-other-merged", "isthing": 0},
]
PERSON, TIE, COUCH, SKY = (category["id"] for category in CATEGORIES)


def rectangle(top, left, bottom, right):
    """A mask, bool, and its outline as a polygon."""
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    polygon = [left, top, right, top, right, bottom, left, bottom]
    return mask, [[float(value) for value in polygon]]


def encode_mask(mask):
    """COCO's uncompressed runs: column by column, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    bounds = [0, *changes.tolist(), mask.size]
    return {"size": list(mask.shape), "counts": np.diff(bounds).tolist()}


def compressed(mask):
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


PERSON_MASK, PERSON_OUTLINE = rectangle(0, 0, 5, 4)
TIE_MASK, TIE_OUTLINE = rectangle(1, 1, 3, 2)
COUCH_MASK, _ = rectangle(3, 2, 6, 8)
CROWD_MASK, _ = rectangle(0, 3, 2, 8)


def annotation(category, segmentation, *, image=7, crowd=0):
    return {
        "id": 100 * image + category,
        "image_id": image,
        "category_id": category,
        "iscrowd": crowd,
        "segmentation": segmentation,
    }


def write_images(root, *, year=2017):
    """Image 7 has all the annotations, image 9 none; val is the same."""
    images = []
    for i in (9, 7):
        name = f"{i:012d}.jpg"
        pixels = np.random.default_rng(i).integers(256, size=(*SIZE, 3))
        for split in ("train", "val"):
            folder = root / f"{split}{year}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        images.append({"id": i, "file_name": name, "height": 6, "width": 8})
    return images


def write_json(path, images, annotations, categories=CATEGORIES):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def write_outlines(root):
    images = write_images(root)
    things = [{"id": c["id"], "name": c["name"]} for c in CATEGORIES if c["isthing"]]
    annotations = [
        annotation(TIE, TIE_OUTLINE),
        annotation(PERSON, PERSON_OUTLINE),
        annotation(COUCH, encode_mask(COUCH_MASK)),
        annotation(PERSON, compressed(CROWD_MASK), crowd=1),
    ]
    for split in ("train", "val"):
        path = root / f"annotations/instances_{split}2017.json"
        write_json(path, images, annotations, things)
    return root


def write_panoptic(root):
    images = write_images(root)
    ids = np.zeros(SIZE, np.int64)
    ids[:, 4:] = 187 + 256 * 3 + 65536 * 90
    ids[COUCH_MASK] = 70000
    ids[PERSON_MASK], ids[TIE_MASK] = 65536 * 200 + 1, 300
    ids[0, 6:] = 5
    segments = [
        {"id": 300, "category_id": TIE, "iscrowd": 0},
        {"id": 65536 * 200 + 1, "category_id": PERSON, "iscrowd": 0},
        {"id": 9, "category_id": PERSON, "iscrowd": 0},  # no pixel is left of it
        {"id": 70000, "category_id": COUCH, "iscrowd": 0},
        {"id": 5, "category_id": PERSON, "iscrowd": 1},
        {"id": 187 + 256 * 3 + 65536 * 90, "category_id": SKY, "iscrowd": 0},
    ]
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    for split in ("train", "val"):
        path = root / f"panoptic_{split}2017.json"
        png = path.with_suffix("") / "000000000007.png"
        png.parent.mkdir(parents=True)
        Image.fromarray(colors.astype(np.uint8)).save(png)
        found = {"image_id": 7, "file_name": png.name, "segments_info": segments}
        write_json(path, images, [found])
    return root


@pytest.fixture(scope="module")
def outlines(tmp_path_factory):
    return write_outlines(tmp_path_factory.mktemp("outlines"))


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    return write_panoptic(tmp_path_factory.mktemp("panoptic"))


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def paint(*layers):
    labels = np.zeros(SIZE, np.int32)
    for mask, value in layers:
        labels[mask] = value
    return labels


@pytest.fixture(scope="module")
def source(outlines, tfds_dir):
    builder = prepare_coco(coco_dir=outlines, data_dir=tfds_dir)
    return BuilderDataset(builder).source("train")


class TestOutlines:
    def test_the_smaller_instance_lies_on_top_and_crowds_are_void(self, source):
        expected = paint(
            (CROWD_MASK, -1), (PERSON_MASK, 2), (COUCH_MASK, 3), (TIE_MASK, 1)
        )
        np.testing.assert_array_equal(source[0]["instances"], expected)
        assert source[0]["instances"].dtype == np.int32

    def test_classes_are_numbered_by_their_ids(self, source):
        expected = paint(
            (CROWD_MASK, 1), (PERSON_MASK, 1), (COUCH_MASK, 3), (TIE_MASK, 2)
        )
        np.testing.assert_array_equal(source[0]["semantic"], expected)
        names = ("background", "person", "tie", "couch")
        assert source.class_names == names

    def test_an_image_without_outlines_is_background(self, source):
        assert source[1]["name"] == "000000000009"
        assert not source[1]["instances"].any()

    def test_keeps_the_photographs_byte_for_byte(self, source, outlines):
        path = outlines / "train2017/000000000007.jpg"
        assert source.encoded(0)["image"] == path.read_bytes()
        assert source.size(0) == SIZE

    def test_tests_on_validation(self, outlines, tfds_dir):
        dataset = BuilderDataset(prepare_coco(coco_dir=outlines, data_dir=tfds_dir))
        assert len(dataset.source("validation")) == len(dataset.source("test")) == 2
        with pytest.raises(InputError, match=r"'val' .*validation, train"):
            dataset.source("val")

    def test_other_classes_than_vocs_are_background_that_hides(
        self, outlines, tfds_dir
    ):
        builder = prepare_coco(coco_dir=outlines, categories="voc", data_dir=tfds_dir)
        source = BuilderDataset(builder).source("train")
        example = source[0]
        person, sofa = 15, 18  # VOC's classes are in alphabetical order
        assert (source.class_names[person], source.class_names[sofa]) == (
            "person",
            "sofa",
        )
        np.testing.assert_array_equal(
            example["instances"],
            paint((CROWD_MASK, -1), (PERSON_MASK, 1), (COUCH_MASK, 2), (TIE_MASK, 0)),
        )
        np.testing.assert_array_equal(
            example["semantic"],
            paint(
                (CROWD_MASK | PERSON_MASK, person), (COUCH_MASK, sofa), (TIE_MASK, 0)
            ),
        )


class TestPanoptic:
    def prepare(self, panoptic, tfds_dir, **settings):
        builder = prepare_coco(
            coco_dir=panoptic, masks="panoptic", data_dir=tfds_dir, **settings
        )
        return BuilderDataset(builder).source("train")

    def test_things_are_instances_stuff_is_background_the_rest_void(
        self, panoptic, tfds_dir
    ):
        example = self.prepare(panoptic, tfds_dir)[0]
        instances, semantic = np.full(SIZE, -1), np.full(SIZE, -1)
        instances[:, 4:], semantic[:, 4:] = 0, 4
        for mask, instance, number in (
            (COUCH_MASK, 3, 3),
            (PERSON_MASK, 2, 1),
            (TIE_MASK, 1, 2),
        ):
            instances[mask], semantic[mask] = instance, number
        instances[0, 6:], semantic[0, 6:] = -1, 1
        np.testing.assert_array_equal(example["instances"], instances)
        np.testing.assert_array_equal(example["semantic"], semantic)

    def test_an_image_of_which_nothing_is_known_is_left_out(self, panoptic, tfds_dir):
        assert len(self.prepare(panoptic, tfds_dir)) == 1

    def test_other_classes_than_vocs_are_background(self, panoptic, tfds_dir):
        example = self.prepare(panoptic, tfds_dir, categories="voc")[0]
        assert not example["instances"][TIE_MASK].any()
        assert not example["semantic"][TIE_MASK].any()
        assert set(np.unique(example["instances"])) == {-1, 0, 1, 2}
        assert set(np.unique(example["semantic"])) == {-1, 0, 15, 18}


def name_of(**settings):
    return CocoMasks(**settings).builder_config.name


class TestNames:
    def test_no_two_settings_share_a_folder(self, outlines, panoptic, tmp_path):
        names = [
            name_of(coco_dir=outlines),
            name_of(coco_dir=outlines, categories="voc"),
            name_of(coco_dir=panoptic, masks="panoptic"),
        ]
        other = shutil.copytree(outlines, tmp_path / "other")
        assert name_of(coco_dir=other) == names[0]
        images = write_images(other)
        write_json(other / "annotations/instances_val2017.json", images, [])
        names.append(name_of(coco_dir=other))
        assert len(set(names)) == len(names)

    def test_preparing_takes_the_settings_of_the_builder(self):
        preparing, building = map(inspect.signature, (prepare_coco, CocoMasks))
        assert preparing.parameters == building.parameters


class TestBadInput:
    def refuses(self, root, message, **settings):
        with pytest.raises(InputError, match=message) as caught:
            prepare_coco(coco_dir=root, data_dir=root / "tfds", **settings)
        assert "\n" not in str(caught.value)
        assert not list((root / "tfds").glob("coco_masks/*/*"))

    def test_settings_that_there_are_not(self, outlines):
        self.refuses(outlines, "masks must be one of .*'boxes'", masks="boxes")
        self.refuses(outlines, "categories must be one of .*'cat'", categories="cat")
        self.refuses(outlines, "must hold COCO's instances_val2014.json", year=2014)
        with pytest.raises(InputError, match="coco_dir must be the folder of COCO"):
            CocoMasks(coco_dir="")

    def outlined(self, root, *annotations, **image):
        images = [{**entry, **image} for entry in write_images(root)]
        for split in ("train", "val"):
            path = root / f"instances_{split}2017.json"
            write_json(path, images, list(annotations))

    def test_a_file_that_is_no_json(self, tmp_path):
        self.outlined(tmp_path)
        (tmp_path / "instances_val2017.json").write_text('{"images": [')
        self.refuses(tmp_path, r"instances_val2017\.json cannot be read as JSON")

    def test_a_file_that_is_no_annotation_file(self, tmp_path):
        self.outlined(tmp_path)
        for content in ("{}", "[]", '{"images": [{}], "annotations": []}'):
            (tmp_path / "instances_val2017.json").write_text(content)
            self.refuses(tmp_path, r"val2017\.json must be an annotation file of COCO")

    def test_categories_without_one_of_voc(self, tmp_path):
        images = write_images(tmp_path)
        for split in ("train", "val"):
            path = tmp_path / f"instances_{split}2017.json"
            write_json(path, images, [], [{"id": 1, "name": "unicorn"}])
        self.refuses(tmp_path, "must have categories of VOC", categories="voc")

    def test_a_missing_image(self, tmp_path):
        self.outlined(tmp_path)
        (tmp_path / "val2017/000000000009.jpg").unlink()
        self.refuses(tmp_path, r"val2017/000000000009\.jpg cannot be read: No such")

    def test_an_image_outside_of_the_folder(self, tmp_path):
        images = write_images(tmp_path)
        images[0]["file_name"] = "../secret.jpg"
        for split in ("train", "val"):
            write_json(tmp_path / f"instances_{split}2017.json", images[:1], [])
        self.refuses(tmp_path, r"'\.\./secret\.jpg' must be a file in .*val2017")

    def test_an_image_that_is_cut_short(self, tmp_path):
        self.outlined(tmp_path)
        path = tmp_path / "val2017/000000000009.jpg"
        path.write_bytes(path.read_bytes()[:-30])
        self.refuses(tmp_path, r"000000000009\.jpg cannot be read: .*truncated")

    def test_an_image_of_another_size(self, tmp_path):
        self.outlined(tmp_path, height=7)
        self.refuses(tmp_path, r"size of the image, \(6, 8\), got \(7, 8\)")

    def test_an_outline_of_nothing(self, tmp_path):
        self.outlined(tmp_path, annotation(PERSON, []))
        self.refuses(tmp_path, r"000000000007\.jpg in .*val2017\.json")

    def test_an_unknown_category(self, tmp_path):
        self.outlined(tmp_path, annotation(2, PERSON_OUTLINE))
        self.refuses(
            tmp_path, r"val2017\.json must list the category .*lacks category 2"
        )

    def test_a_pixel_of_no_segment(self, tmp_path):
        write_panoptic(tmp_path)
        png = tmp_path / "panoptic_val2017/000000000007.png"
        Image.fromarray(np.full((*SIZE, 3), 1, np.uint8)).save(png)
        self.refuses(
            tmp_path, r"000000000007\.png must hold the ids .*65793", masks="panoptic"
        )

    def test_a_missing_png(self, tmp_path):
        write_panoptic(tmp_path)
        (tmp_path / "panoptic_val2017/000000000007.png").unlink()
        self.refuses(tmp_path, r"000000000007\.png cannot be read", masks="panoptic")

    def test_a_png_of_another_size(self, tmp_path):
        write_panoptic(tmp_path)
        png = tmp_path / "panoptic_val2017/000000000007.png"
        Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(png)
        self.refuses(tmp_path, r"\(6, 8\), got \(8, 6\)", masks="panoptic")


@pytest.fixture(scope="module")
def coco_dir(data_dir):
    return data_dir / "coco128"


@pytest.fixture(scope="module")
def dataset(coco_dir, tfds_dir):
    return BuilderDataset(
        prepare_coco(coco_dir=coco_dir, masks="panoptic", data_dir=tfds_dir)
    )


@pytest.mark.needs_data
class TestRealImages:
    def decode(self, coco_dir, split, number):
        content = json.loads((coco_dir / f"panoptic_{split}2017.json").read_text())
        things = {c["id"] for c in content["categories"] if c["isthing"]}
        (found,) = (a for a in content["annotations"] if a["image_id"] == number)
        png = Image.open(coco_dir / f"panoptic_{split}2017" / found["file_name"])
        colors = np.asarray(png).astype(np.int64)
        ids = colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
        return content, things, found["segments_info"], ids

    def test_has_all_images(self, dataset):
        for split in ("train", "validation", "test"):
            source = dataset.source(split)
            assert len(source) == 100
            assert source.size(99) == source[99]["instances"].shape

    def test_segments_of_a_photograph_come_as_decoded_one_by_one(
        self, dataset, coco_dir
    ):
        example = dataset.source("train")[0]
        assert example["name"] == "000000000009"
        _, things, segments, ids = self.decode(coco_dir, "train", 9)
        expected, number = np.where(ids == 0, -1, 0), 0
        for segment in segments:
            if segment["category_id"] in things:
                number += 1
                expected[ids == segment["id"]] = number
        assert number == 8
        np.testing.assert_array_equal(example["instances"], expected)

    def test_outlines_of_the_same_things_give_the_same_instances(
        self, dataset, coco_dir, tmp_path
    ):
        """The panoptic segments of three photographs, written as run lengths."""
        numbers = (9, 25, 30)
        content, things, *_ = self.decode(coco_dir, "train", 9)
        images = [image for image in content["images"] if image["id"] in numbers]
        categories = [c for c in content["categories"] if c["isthing"]]
        annotations = []
        for number in numbers:
            _, _, segments, ids = self.decode(coco_dir, "train", number)
            annotations += [
                annotation(
                    segment["category_id"],
                    compressed(ids == segment["id"]),
                    image=number,
                    crowd=segment["iscrowd"],
                )
                for segment in segments
                if segment["category_id"] in things
            ]
        for split in ("train", "val"):
            path = tmp_path / f"instances_{split}2017.json"
            write_json(path, images, annotations, categories)
            (tmp_path / f"{split}2017").mkdir()
            for image in images:
                source = coco_dir / "train2017" / image["file_name"]
                shutil.copy(source, tmp_path / f"{split}2017")
        builder = prepare_coco(coco_dir=tmp_path, data_dir=tmp_path / "tfds")
        outlined = BuilderDataset(builder).source("train")
        for i in range(len(numbers)):
            colored = dataset.source("train")[i]
            assert outlined[i]["name"] == colored["name"]
            np.testing.assert_array_equal(
                np.maximum(outlined[i]["instances"], 0),
                np.maximum(colored["instances"], 0),
            )


STUFF_SIZE = (6, 8)


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
            pixels = rng.integers(256, size=(*STUFF_SIZE, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / f"{i:012d}.jpg")
            Image.fromarray(codes_of(i)).save(maps / f"{i:012d}.png")
    return root


def codes_of(i):
    codes = np.random.default_rng(10 + i).integers(0, 182, STUFF_SIZE).astype(np.uint8)
    codes[0, :3] = 255
    return codes


@pytest.mark.parametrize("categories", [None, "coarse27"])
def test_classes_are_ids_or_coarse_and_instances_are_void(categories, coco, tmp_path):
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


def stuff_name(coco):
    return CocoMasks(coco_dir=coco, masks="stuff").builder_config.name


def test_other_maps_are_another_data_set(coco):
    first = stuff_name(coco)
    path = coco / "stuffthingmaps_trainval2017" / "val2017" / "000000000009.png"
    Image.fromarray(codes_of(0)).save(path)
    second = stuff_name(coco)
    path.unlink()
    assert first != second


def test_mistakes_are_named(coco, tmp_path):
    with pytest.raises(InputError, match=r"stuffthingmaps_trainval2017/val2017"):
        CocoMasks(coco_dir=tmp_path, masks="stuff", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"None or 'coarse27' with masks='stuff'"):
        CocoMasks(coco_dir=coco, masks="stuff", categories="voc", data_dir=tmp_path)
    path = coco / "stuffthingmaps_trainval2017" / "train2017" / "000000000001.png"
    whole = path.read_bytes()
    Image.fromarray(np.full(STUFF_SIZE, 200, np.uint8)).save(path)
    message = r"mask .*000000000001\.png: codes must be 0 to 181 or 255"
    with pytest.raises(InputError, match=message):
        prepare_coco(coco_dir=coco, masks="stuff", data_dir=tmp_path / "other")
    path.write_bytes(whole)


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
