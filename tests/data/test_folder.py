"""Folders of all layouts, with masks, annotations or images alone."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sphemb import VOID
from sphemb._checks import InputError
from sphemb.data import (
    DATASETS,
    CenterCrop,
    FileError,
    ImageDataset,
    make_loader,
    open_folder,
    read_image,
    read_size,
)

HEIGHT, WIDTH = 12, 16
IDS = np.zeros((HEIGHT, WIDTH), np.uint8)
IDS[1:5, 1:6], IDS[6:11, 8:15] = 1, 2


def draw(path, seed=0, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *os.fsencode(path.name)])
    Image.fromarray(rng.integers(256, size=(*size, 3)).astype(np.uint8)).save(path)


def mark(path, ids=IDS):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def names(source):
    return [source[i]["name"] for i in range(len(source))]


def write_coco(path, names, annotations, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": i, "file_name": name, "height": size[0], "width": size[1]}
        for i, name in enumerate(names)
    ]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


def box(image, x, y, width, height, **more):
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {"id": 1, "image_id": image, "segmentation": [polygon], **more}


class TestLayouts:
    @pytest.mark.parametrize("pattern", ["{split}/{kind}", "{kind}/{split}"])
    @pytest.mark.parametrize("masks", ["masks", "labels"])
    def test_folders_for_splits_are_found(self, tmp_path, pattern, masks):
        for split, found in {"train": "abc", "val": "de", "test": "f"}.items():
            for name in found:
                images = tmp_path / pattern.format(split=split, kind="images")
                draw(images / f"{name}.jpg")
                mark(tmp_path / pattern.format(split=split, kind=masks) / f"{name}.png")
        dataset = open_folder(tmp_path)
        assert names(dataset.source("train")) == ["a", "b", "c"]
        assert names(dataset.source("validation")) == ["d", "e"]
        assert names(dataset.source("test")) == ["f"]

    @pytest.mark.parametrize("suffix", ["_mask", "_masks", "_labels"])
    def test_masks_may_lie_beside_their_images(self, tmp_path, suffix):
        for split, found in {"train": "abc", "valid": "de"}.items():
            for name in found:
                draw(tmp_path / split / f"{name}.png")
                mark(tmp_path / split / f"{name}{suffix}.png")
        dataset = open_folder(tmp_path)
        assert names(dataset.source("train")) == ["a", "b", "c"]
        assert dataset.source("test") is dataset.source("validation")

    def test_a_mask_in_a_folder_of_its_own_may_have_a_suffix(self, tmp_path):
        for name in ("a", "b_mask"):
            draw(tmp_path / "images" / f"{name}.png")
            mark(tmp_path / "masks" / f"{name}_mask.png")
        dataset = open_folder(tmp_path, validation_fraction=0, test_fraction=0)
        assert names(dataset.source("train")) == ["a", "b_mask"]

    def test_an_example_is_what_training_takes(self, tmp_path):
        draw(tmp_path / "a.png")
        mark(tmp_path / "a_mask.png")
        source = open_folder(tmp_path, validation_fraction=0, test_fraction=0).source(
            "train"
        )
        example = source[0]
        assert source.size(0) == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(example["image"], read_image(tmp_path / "a.png"))
        np.testing.assert_array_equal(example["instances"], IDS)
        assert example["instances"].dtype == np.int32

    @pytest.mark.parametrize("pattern", ["{split}/{kind}", "{kind}/{split}"])
    def test_test_images_without_masks_are_left_out(self, tmp_path, pattern):
        for split in ("train", "val"):
            draw(tmp_path / pattern.format(split=split, kind="images") / "a.png")
            mark(tmp_path / pattern.format(split=split, kind="masks") / "a.png")
        draw(tmp_path / pattern.format(split="test", kind="images") / "b.png")
        dataset = open_folder(tmp_path)
        assert dataset.source("test") is dataset.source("validation")

    def test_missing_validation_is_taken_from_training(self, tmp_path):
        for i in range(12):
            draw(tmp_path / "train" / f"{i}.png")
            mark(tmp_path / "train" / f"{i}_mask.png")
        draw(tmp_path / "test" / "t.png")
        mark(tmp_path / "test" / "t_mask.png")
        dataset = open_folder(tmp_path, validation_fraction=0.4)
        parts = [set(names(dataset.source(s))) for s in ("train", "validation")]
        assert set.union(*parts) == {str(i) for i in range(12)}
        assert all(parts)
        assert names(dataset.source("test")) == ["t"]


class TestDivision:
    @pytest.fixture
    def folder(self, tmp_path):
        for i in range(40):
            draw(tmp_path / "images" / f"{i:02}.png")
            mark(tmp_path / "masks" / f"{i:02}.png")
        return tmp_path

    def splits(self, folder, **settings):
        dataset = open_folder(folder, **settings)
        return {
            s: set(names(dataset.source(s))) for s in ("train", "validation", "test")
        }

    def test_one_more_image_moves_no_other(self, folder):
        before = self.splits(folder)
        assert sorted(map(len, before.values()))[0] > 0
        assert sum(map(len, before.values())) == 40
        draw(folder / "images" / "0new.png")
        mark(folder / "masks" / "0new.png")
        after = self.splits(folder)
        for split, found in before.items():
            assert after[split] - found <= {"0new"}
            assert found <= after[split]

    def test_few_images_are_enough_for_every_split(self, tmp_path):
        for i in range(3):
            draw(tmp_path / f"{i}.png")
            mark(tmp_path / f"{i}_mask.png")
        for seed in range(5):
            splits = self.splits(tmp_path, seed=seed)
            assert [len(found) for found in splits.values()] == [1, 1, 1]

    def test_another_seed_divides_otherwise(self, folder):
        assert self.splits(folder) != self.splits(folder, seed=1)

    def test_without_a_share_for_tests_the_validation_images_are_tested(self, folder):
        splits = self.splits(folder, test_fraction=0)
        assert splits["test"] == splits["validation"]
        assert len(splits["train"] | splits["validation"]) == 40

    def test_a_split_without_images_says_what_to_do(self, folder):
        dataset = open_folder(folder, validation_fraction=0, test_fraction=0)
        for split in ("validation", "test"):
            with pytest.raises(InputError, match="raise validation_fraction"):
                dataset.source(split)
        with pytest.raises(InputError, match="must leave images to train on"):
            open_folder(folder, validation_fraction=0.5, test_fraction=0.5)


class TestComplaints:
    def folder(self, tmp_path, number=3):
        for i in range(number):
            draw(tmp_path / "images" / f"{i}.png")
            mark(tmp_path / "masks" / f"{i}.png")
        return tmp_path

    def one(self, folder):
        return open_folder(folder, validation_fraction=0, test_fraction=0).source(
            "train"
        )

    def test_images_without_masks_are_counted(self, tmp_path):
        folder = self.folder(tmp_path)
        (folder / "masks" / "1.png").unlink()
        (folder / "masks" / "2.png").unlink()
        with pytest.raises(FileError, match=r"2 of 3 have none, .*1\.png: an im") as e:
            open_folder(folder)
        assert e.value.kind == "no mask"
        assert [path.name for path in e.value.files] == ["1.png", "2.png"]

    def test_masks_without_images_are_counted(self, tmp_path):
        folder = self.folder(tmp_path)
        (folder / "images" / "0.png").unlink()
        with pytest.raises(FileError, match=r"1 of 3 have none, .*masks/0\.png"):
            open_folder(folder)

    def test_two_files_of_one_name_are_named(self, tmp_path):
        folder = self.folder(tmp_path)
        draw(folder / "images" / "0.jpg")
        with pytest.raises(InputError, match=r"one image, but .*0\.jpg and .*0\.png"):
            open_folder(folder)

    def test_sizes_that_differ_name_both_files(self, tmp_path):
        folder = self.folder(tmp_path, 1)
        draw(folder / "images" / "0.png", size=(HEIGHT, WIDTH + 1))
        with pytest.raises(FileError, match=r"masks/0\.png must be 12 x 17 .*images/0"):
            self.one(folder)[0]

    def test_a_turned_photograph_is_explained(self, tmp_path):
        folder = self.folder(tmp_path, 1)
        exif = Image.Exif()
        exif[0x0112] = 6
        with Image.open(folder / "images" / "0.png") as image:
            image.load()
        image.save(folder / "images" / "0.png", exif=exif)
        source = self.one(folder)
        assert source.size(0) == (WIDTH, HEIGHT)
        with pytest.raises(FileError, match=r"16 x 12 .* 12 x 16: images are turned"):
            source[0]
        mark(folder / "masks" / "0.png", np.rot90(IDS, -1))
        assert source[0]["instances"].shape == (WIDTH, HEIGHT)

    @pytest.mark.parametrize("value", [1, 255])
    def test_masks_that_are_all_binary_are_refused_in_one_line(self, tmp_path, value):
        folder = self.folder(tmp_path)
        for i in range(2):
            mark(folder / "masks" / f"{i}.png", value * (IDS > 0).astype(np.uint8))
        mark(folder / "masks" / "2.png", 0 * IDS)
        with pytest.raises(FileError, match=f"all 2 with objects .* value {value}:"):
            open_folder(folder)
        counts = {"components": 2, "single": 1}
        for masks, count in counts.items():
            dataset = open_folder(
                folder, masks=masks, validation_fraction=0, test_fraction=0
            )
            assert dataset.source("train")[0]["instances"].max() == count

    def test_some_binary_masks_pass(self, tmp_path):
        folder = self.folder(tmp_path)
        mark(folder / "masks" / "0.png", (IDS > 0).astype(np.uint8))
        assert self.one(folder)[0]["instances"].max() == 1

    def test_an_unknown_layout_lists_what_is_there(self, tmp_path):
        (tmp_path / "stuff").mkdir()
        with pytest.raises(InputError, match=r"must hold images and .* got stuff"):
            open_folder(tmp_path)
        with pytest.raises(InputError, match=r"dir must be a folder .*absent"):
            open_folder(tmp_path / "absent")
        with pytest.raises(InputError, match=r"--config\.data\.dir"):
            open_folder(None)

    def test_a_split_without_masks_is_named(self, tmp_path):
        draw(tmp_path / "train" / "images" / "a.png")
        mark(tmp_path / "train" / "masks" / "a.png")
        draw(tmp_path / "val" / "images" / "b.png")
        with pytest.raises(InputError, match="val must hold images and masks"):
            open_folder(tmp_path)

    def test_a_folder_without_a_train_split_is_named(self, tmp_path):
        draw(tmp_path / "val" / "images" / "b.png")
        mark(tmp_path / "val" / "masks" / "b.png")
        with pytest.raises(InputError, match="must have a train split, got validation"):
            open_folder(tmp_path)

    def test_an_unknown_split_is_named(self, tmp_path):
        with pytest.raises(InputError, match="split must be one of 'train'"):
            open_folder(self.folder(tmp_path)).source("val")


class TestSizes:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
    def test_the_header_tells_what_the_pixels_tell(self, tmp_path, suffix, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(path, exif=exif)
        assert read_size(path) == read_image(path).shape[:2]

    def test_what_is_no_image_is_named(self, tmp_path):
        (tmp_path / "a.png").write_text("no image")
        with pytest.raises(FileError, match=r"a\.png cannot be read"):
            read_size(tmp_path / "a.png")
        with pytest.raises(FileError, match="no such image file"):
            read_size(tmp_path / "b.png")


class TestCoco:
    def test_polygons_and_run_lengths_are_drawn_and_crowds_void(self, tmp_path):
        draw(tmp_path / "images" / "a.jpg")
        crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
        crowd[8:, :3] = 1
        packed = coco_mask.encode(np.asfortranarray(IDS == 2))
        packed["counts"] = packed["counts"].decode()
        flat = crowd.T.ravel()
        edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
        counts = np.diff([0, *edges, flat.size]).tolist()
        annotations = [
            box(0, 1, 1, 5, 4),
            {"id": 2, "image_id": 0, "segmentation": packed},
            {
                "id": 3,
                "image_id": 0,
                "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
            },
        ]
        write_coco(tmp_path / "annotations" / "all.json", ["a.jpg"], annotations)
        source = open_folder(tmp_path, validation_fraction=0, test_fraction=0).source(
            "train"
        )
        expected = np.where(crowd > 0, -1, IDS.astype(int))
        np.testing.assert_array_equal(source[0]["instances"], expected)
        assert source[0]["name"] == "a"

    def test_run_lengths_are_read_as_pycocotools_writes_them(self, tmp_path):
        draw(tmp_path / "a.png", size=(60, 70))
        rng = np.random.default_rng(0)
        for share in (0.001, 0.1, 0.9):
            shape = rng.uniform(size=(60, 70)) < share
            packed = coco_mask.encode(np.asfortranarray(shape.astype(np.uint8)))
            packed["counts"] = packed["counts"].decode()
            item = {"id": 1, "image_id": 0, "segmentation": packed}
            write_coco(tmp_path / "instances.json", ["a.png"], [item], (60, 70))
            dataset = open_folder(tmp_path, validation_fraction=0, test_fraction=0)
            instances = dataset.source("train")[0]["instances"]
            np.testing.assert_array_equal(instances, shape)

    def test_smaller_instances_lie_over_larger_ones(self, tmp_path):
        draw(tmp_path / "a.png")
        annotations = [box(0, 2, 2, 2, 2), box(0, 0, 0, 8, 8), box(0, 1, 1, 4, 4)]
        write_coco(tmp_path / "instances.json", ["a.png"], annotations)
        dataset = open_folder(tmp_path, validation_fraction=0, test_fraction=0)
        instances = dataset.source("train")[0]["instances"]
        assert [int((instances == i).sum()) for i in (1, 2, 3)] == [4, 48, 12]

    def test_coco_s_own_layout_has_splits(self, tmp_path):
        for split, name in {"train2017": "a.jpg", "val2017": "b.jpg"}.items():
            draw(tmp_path / split / name)
            path = tmp_path / "annotations" / f"instances_{split}.json"
            write_coco(path, [name], [box(0, 1, 1, 4, 4)])
            (tmp_path / "annotations" / f"captions_{split}.json").write_text("[]")
        dataset = open_folder(tmp_path)
        assert names(dataset.source("train")) == ["a"]
        assert names(dataset.source("validation")) == ["b"]

    def test_a_file_in_the_folder_of_each_split_is_found(self, tmp_path):
        for split, name in {"train": "a.jpg", "valid": "b.jpg"}.items():
            draw(tmp_path / split / name)
            path = tmp_path / split / "_annotations.coco.json"
            write_coco(path, [name], [box(0, 1, 1, 4, 4)])
        dataset = open_folder(tmp_path)
        assert names(dataset.source("validation")) == ["b"]

    @pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "a/../../b"])
    def test_names_that_leave_the_folder_are_refused(self, tmp_path, name):
        draw(tmp_path / "secret.png")
        draw(tmp_path / "data" / "a.png")
        write_coco(tmp_path / "data" / "instances.json", ["a.png", name], [])
        with pytest.raises(InputError, match="inside its folder, got file_name"):
            open_folder(tmp_path / "data")

    def test_listed_images_that_are_absent_are_counted(self, tmp_path):
        draw(tmp_path / "a.png")
        write_coco(tmp_path / "instances.json", ["b.png", "a.png"], [])
        with pytest.raises(FileError, match=r"1 of 2 are not, .*b\.png"):
            open_folder(tmp_path)
        (tmp_path / "a.png").unlink()
        with pytest.raises(InputError, match="none of the images of"):
            open_folder(tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("no json", "cannot be read as JSON"),
            ("[]", "must be an annotation file of COCO"),
            ('{"images": [3], "annotations": []}', "must be an annotation file of"),
            (
                '{"images": [{"id": 1, "height": 1, "width": 1}], "annotations": []}',
                "must have a file_name",
            ),
            (
                '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}',
                "height and width of a.png",
            ),
            (
                '{"images": [], "annotations": [{"id": 5, "image_id": [2]}]}',
                r"lacks image \[2\] of annotation 5",
            ),
            ('{"images": [{}, {}], "annotations": []}', "an id of its own"),
        ],
    )
    def test_what_is_no_annotation_file_is_named(self, tmp_path, content, message):
        draw(tmp_path / "a.png")
        (tmp_path / "instances.json").write_text(content)
        with pytest.raises(InputError, match=message) as error:
            open_folder(tmp_path)
        assert "instances.json" in str(error.value)

    @pytest.mark.parametrize(
        ("outline", "message"),
        [
            (None, "annotation 1 has no segmentation"),
            ([], "annotation 1 has no segmentation"),
            ([[1, 2, 3, 4]], "no list of three or more"),
            ([[1, 2, 3, 4, 5, "6"]], "the coordinate '6'"),
            ([[1, 2, 3, 4, 5, 1e9]], "far outside of the image"),
            ({"size": [12, 17], "counts": [204]}, r"size \[12, 17\], not \[12, 16\]"),
            ({"size": [12, 16], "counts": [193]}, "193 pixels, not 192"),
            ({"size": [12, 16], "counts": [2**62] * 4}, "pixels, not 192"),
            ({"size": [12, 16], "counts": [200, -8]}, "no list of counts"),
            ({"size": [12, 16], "counts": "~~"}, "the character '~'"),
            ({"size": [12, 16], "counts": "PP"}, "cut short"),
            ({"size": [12, 16], "counts": "11"}, "2 pixels, not 192"),
            ({"size": [12, 16]}, "annotation 1 has run lengths"),
        ],
    )
    def test_an_impossible_outline_is_named(self, tmp_path, outline, message):
        draw(tmp_path / "a.png")
        item = {"id": 1, "image_id": 0, "segmentation": outline}
        write_coco(tmp_path / "instances.json", ["a.png"], [item])
        source = open_folder(tmp_path, validation_fraction=0, test_fraction=0).source(
            "train"
        )
        with pytest.raises(FileError, match=message) as error:
            source[0]
        assert "annotations of a.png in" in str(error.value)

    def test_a_size_that_is_not_the_image_s_is_named(self, tmp_path):
        draw(tmp_path / "a.png")
        write_coco(tmp_path / "instances.json", ["a.png"], [], size=(HEIGHT, 99))
        source = open_folder(tmp_path, validation_fraction=0, test_fraction=0).source(
            "train"
        )
        with pytest.raises(FileError, match=r"annotations of a\.png .* 12 x 99"):
            source[0]


@pytest.mark.needs_data
class TestNuclei:
    def test_the_folder_opens_as_it_is(self, data_dir):
        dataset = open_folder(data_dir / "dsb2018")
        sources = [dataset.source(s) for s in ("train", "validation", "test")]
        assert sum(map(len, sources)) == 538
        assert min(map(len, sources)) > 60
        for source in sources:
            example = source[0]
            assert example["image"].shape == (*source.size(0), 3)
            assert example["instances"].shape == source.size(0)
            assert example["instances"].max() >= 1


def write(folder, number, size=(10, 14)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        pixels = np.random.default_rng(i).integers(256, size=(*size, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


class TestFolder:
    def test_every_image_is_in_one_split_and_all_of_it_is_void(self, tmp_path):
        dataset = ImageDataset(write(tmp_path / "own", 20))
        names = []
        for split in ("train", "validation", "test"):
            source = dataset.source(split)
            names += [source[i]["name"] for i in range(len(source))]
        assert sorted(names) == sorted(str(i) for i in range(20))
        example = dataset.source("train")[0]
        assert example["image"].shape == (10, 14, 3)
        assert (example["instances"] == VOID).all()
        assert dataset.source("train").size(0) == (10, 14)
        assert DATASETS["images"] is ImageDataset

    def test_folders_for_splits_are_the_splits(self, tmp_path):
        write(tmp_path / "own" / "train", 3)
        write(tmp_path / "own" / "val", 2)
        dataset = ImageDataset(tmp_path / "own")
        sizes = [len(dataset.source(s)) for s in ("train", "validation", "test")]
        assert sizes == [3, 2, 2]

    def test_images_deep_within_are_found_by_their_paths(self, tmp_path):
        write(tmp_path / "own [1]" / "monday" / "left", 6)
        write(tmp_path / "own [1]" / "tuesday", 6)
        dataset = ImageDataset(tmp_path / "own [1]", test_fraction=0.0)
        source = dataset.source("train")
        names = {source[i]["name"] for i in range(len(source))}
        assert any(name.startswith("monday/left/") for name in names)
        assert any(name.startswith("tuesday/") for name in names)

    def test_they_go_through_the_loader(self, tmp_path):
        source = ImageDataset(write(tmp_path / "own", 8)).source("train")
        transform = CenterCrop(size=(8, 8))
        batch = next(iter(make_loader(source, batch_size=2, transforms=(transform,))))
        assert batch["image"].shape == (2, 8, 8, 3)
        assert (batch["instances"] == VOID).all()

    def test_mistakes_are_named(self, tmp_path):
        with pytest.raises(InputError, match=r"give --config\.data\.dir=DIR"):
            ImageDataset()
        with pytest.raises(InputError, match=r"dir must be a folder of images, got"):
            ImageDataset(tmp_path / "nowhere")
        with pytest.raises(InputError, match=r"must hold images, got none"):
            ImageDataset(tmp_path)
        with pytest.raises(InputError, match=r"must leave images to train on"):
            ImageDataset(tmp_path, validation_fraction=0.6, test_fraction=0.5)
