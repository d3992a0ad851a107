"""Images without labels: folders, splits, and a size without chance."""

import numpy as np
import pytest
from PIL import Image

from sphemb import VOID, InputError
from sphemb.data import (
    DATASETS,
    CenterCrop,
    ImageDataset,
    make_loader,
)


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


class TestCenterCrop:
    @pytest.mark.parametrize("size", [(30, 41), (9, 7), (16, 16), (100, 20)])
    def test_any_size_becomes_the_one_that_was_asked_for(self, size):
        image = np.random.default_rng(0).integers(256, size=(*size, 3)).astype(np.uint8)
        labels = np.arange(size[0] * size[1], dtype=np.int32).reshape(size)
        found = CenterCrop(size=(16, 16)).map(
            {"image": image, "instances": labels, "semantic": labels % 5, "name": "a"}
        )
        assert found["image"].shape == (16, 16, 3)
        assert found["image"].dtype == np.uint8
        np.testing.assert_array_equal(found["semantic"], found["instances"] % 5)
        assert found["instances"].shape == (16, 16)
        assert found["name"] == "a"

    def test_the_middle_stays_and_labels_lie_on_what_they_label(self):
        image = np.zeros((32, 64, 3), np.uint8)
        image[8:24, 24:40] = 200
        labels = (image[..., 0] > 0).astype(np.int32)
        found = CenterCrop(size=(16, 16)).map({"image": image, "instances": labels})
        expected = np.zeros((16, 16), bool)
        expected[4:12, 4:12] = True
        np.testing.assert_array_equal(found["instances"] == 1, expected)
        np.testing.assert_array_equal(found["image"][..., 0] > 100, expected)

    def test_nothing_is_left_to_chance(self):
        example = {
            "image": np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8),
            "instances": np.zeros((20, 30), np.int32),
            "name": "a",
        }

        class Same:
            def __len__(self):
                return 3

            def __getitem__(self, index):
                return example

        crop = (CenterCrop(size=(8, 8)),)
        runs = [
            next(iter(make_loader(Same(), batch_size=3, seed=s, transforms=crop)))
            for s in (0, 1)
        ]
        np.testing.assert_array_equal(runs[0]["image"], runs[1]["image"])

    def test_a_size_without_pixels_is_refused(self):
        with pytest.raises(
            InputError, match=r"config\.augmentation\.size must be >= 1"
        ):
            CenterCrop(size=(0, 8))
