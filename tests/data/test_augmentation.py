"""Augmentation moves image and instances together and invents nothing."""

from __future__ import annotations

import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.data import DigitsAugmentation


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(256, size=(8, 8, 3)).astype(np.uint8),
        "instances": np.arange(64, dtype=np.int32).reshape(8, 8),
        "name": "a",
        "index": 3,
    }


def changed(example, seed, **settings):
    rng = np.random.default_rng(seed)
    return DigitsAugmentation(**settings).random_map(example, rng)


class TestAugmentation:
    def test_every_pixel_keeps_its_instance(self, example):
        seen = set()
        for seed in range(40):
            result = changed(example, seed, permute_channels=False)
            pixel_of = example["image"].reshape(64, 3)
            np.testing.assert_array_equal(
                result["image"], pixel_of[result["instances"]]
            )
            assert result["name"] == "a"
            assert result["index"] == 3
            seen.add(result["instances"].tobytes())
        assert len(seen) == 8  # the symmetries of the square

    def test_all_six_orders_of_the_channels_come_up_and_instances_stay(self, example):
        seen = set()
        for seed in range(60):
            result = changed(example, seed, flip=False, turn=False)
            np.testing.assert_array_equal(result["instances"], example["instances"])
            np.testing.assert_array_equal(
                np.sort(result["image"], -1), np.sort(example["image"], -1)
            )
            seen.add(result["image"].tobytes())
        assert len(seen) == 6

    def test_an_oblong_image_keeps_its_shape(self, example):
        oblong = {
            **example,
            "image": example["image"][:4],
            "instances": example["instances"][:4],
        }
        for seed in range(20):
            assert changed(oblong, seed)["image"].shape == (4, 8, 3)

    def test_switched_off_it_changes_nothing(self, example):
        off = changed(example, 1, flip=False, turn=False, permute_channels=False)
        np.testing.assert_array_equal(off["image"], example["image"])

    def test_refuses_grey_images(self, example):
        grey = {**example, "image": example["image"][..., 0]}
        with pytest.raises(
            InputError, match=r"example 'a' .*image \[H, W, 3\].*got \(8, 8\)"
        ):
            changed(grey, 0)
