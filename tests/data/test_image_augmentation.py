"""Augmentation of photographs: image and mask move together."""

from __future__ import annotations

import numpy as np
import pytest

from sphemb import VOID, InputError
from sphemb.data import ImageAugmentation

STILL = {
    "scale": (1.0, 1.0),
    "rotation": 0.0,
    "flip": False,
    "margin": 0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
}
H, W = 48, 64


@pytest.fixture
def example():
    """Instances of different sizes, each in a colour that tells its number."""
    instances = np.zeros((H, W), np.int32)
    instances[4:20, 8:30] = 3
    instances[24:44, 30:60] = 5
    image = np.stack([40 * instances, 0 * instances, 200 - 30 * instances], axis=-1)
    return {"image": image.astype(np.uint8), "instances": instances, "name": "a"}


def changed(example, seed=0, **settings):
    augment = ImageAugmentation(**settings)
    return augment.random_map(example, np.random.default_rng(seed))


class TestGeometry:
    def test_switched_off_it_changes_nothing(self, example):
        for size in (None, (H, W)):
            same = changed(example, size=size, **STILL)
            np.testing.assert_array_equal(same["image"], example["image"])
            np.testing.assert_array_equal(same["instances"], example["instances"])
            assert same["name"] == "a"

    def test_image_and_instances_agree_wherever_they_go(self, example):
        settings = STILL | {"scale": (0.5, 1.5), "rotation": 10.0, "flip": True}
        for seed in range(20):
            found = changed(
                example, seed, size=(40, 40), quarter_turns=True, **settings
            )
            assert found["image"].shape == (40, 40, 3)
            shown = np.rint(found["image"][..., 0] / 40.0)
            inside = found["instances"] != VOID
            # Bilinear values between two instances are of neither.
            assert np.mean(shown[inside] == found["instances"][inside]) > 0.85
            assert set(np.unique(found["instances"])) <= {VOID, 0, 3, 5}

    def test_classes_move_with_the_instances(self, example):
        both = {
            **example,
            "semantic": np.array([0, 0, 0, 9, 0, 4])[example["instances"]],
        }
        for seed in range(5):
            found = changed(both, seed, size=(40, 40), quarter_turns=True)
            expected = np.array([0, 0, 0, 9, 0, 4, VOID])[found["instances"]]
            np.testing.assert_array_equal(found["semantic"], expected)

    def test_a_mirror_is_exact_and_comes_half_of_the_time(self, example):
        settings = STILL | {"flip": True}
        mirrored = 0
        for seed in range(200):
            found = changed(example, seed, size=(H, W), **settings)["instances"]
            if (found == example["instances"]).all():
                continue
            np.testing.assert_array_equal(found, example["instances"][:, ::-1])
            mirrored += 1
        assert 70 < mirrored < 130

    def test_quarter_turns_with_mirrors_are_the_eight_symmetries_exactly(self, example):
        square = {
            **example,
            "image": example["image"][:, :H],
            "instances": np.ascontiguousarray(example["instances"][:, :H]),
        }
        wanted = {
            np.rot90(mirror, k).tobytes()
            for mirror in (square["instances"], square["instances"][:, ::-1])
            for k in range(4)
        }
        settings = STILL | {"flip": True, "quarter_turns": True}
        found = {
            changed(square, seed, size=(H, H), **settings)["instances"].tobytes()
            for seed in range(60)
        }
        assert found == wanted

    def test_the_scale_is_that_of_the_objects_area(self, example):
        twice = changed(example, size=(2 * H, 2 * W), **(STILL | {"scale": (2.0, 2.0)}))
        np.testing.assert_array_equal(
            twice["instances"], example["instances"].repeat(2, 0).repeat(2, 1)
        )

    def test_a_small_example_lies_whole_in_a_void_frame(self, example):
        for seed in range(10):
            found = changed(example, seed, size=(80, 96), **STILL)["instances"]
            assert (found == VOID).sum() == 80 * 96 - H * W
            assert (found == 5).sum() == (example["instances"] == 5).sum()

    def test_the_authors_crop_takes_a_margin_and_leaves_a_multiple(self, example):
        sizes = set()
        for seed in range(60):
            found = changed(example, seed, **(STILL | {"margin": 20}))["instances"]
            assert (found != VOID).all()
            assert found.shape[0] % 8 == 0
            assert found.shape[1] % 8 == 0
            assert found.shape[0] >= 8
            sizes.add(found.shape)
        assert {48, 64} & {side for size in sizes for side in size}
        assert len(sizes) > 8


class TestColour:
    def test_the_instances_stay_and_colours_move_within_their_bounds(self, example):
        settings = STILL | {"brightness": 0.2}
        factors = []
        for seed in range(50):
            found = changed(example, seed, **settings)
            np.testing.assert_array_equal(found["instances"], example["instances"])
            factors.append(found["image"][0, 0, 2] / example["image"][0, 0, 2])
        assert 0.79 < min(factors) < 0.85
        assert 1.15 < max(factors) < 1.21

    def test_grey_has_no_colour_to_jitter(self, example):
        grey = np.full((H, W, 3), 90, np.uint8)
        settings = STILL | {"hue": 0.1, "saturation": 0.5, "contrast": 0.5}
        found = changed({**example, "image": grey}, 1, **settings)
        np.testing.assert_array_equal(found["image"], grey)

    def test_hue_turns_and_keeps_the_brightest_channel_as_bright(self, example):
        settings = STILL | {"hue": 0.3}
        found = changed(example, 3, **settings)["image"]
        assert np.abs(found.astype(int) - example["image"]).max() > 20
        brightest = example["image"].max(axis=-1).astype(int)
        assert np.abs(found.max(axis=-1) - brightest).max() <= 1


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"size": (40, 41)}, r"augmentation\.size must be multiples of 8, got"),
            ({"scale": (1.5, 0.5)}, r"augmentation\.scale must satisfy 1\.5 <= "),
            ({"rotation": -1.0}, r"augmentation\.rotation must satisfy 0 <= "),
            ({"hue": 1.0}, r"augmentation\.hue must satisfy 0 <= .* < 1"),
            ({"margin": -1}, r"augmentation\.margin must be >= 0, got -1"),
        ],
    )
    def test_one_out_of_range_is_named(self, settings, words):
        with pytest.raises(InputError, match=words):
            ImageAugmentation(**settings)

    def test_an_image_that_is_no_colour_image_is_named(self, example):
        with pytest.raises(InputError, match=r"example 'a' must have image uint8"):
            changed({**example, "image": example["image"][..., 0]})

    def test_one_draw_gives_one_result_and_another_another(self, example):
        same = [changed(example, 7, size=(32, 32))["image"] for _ in range(2)]
        np.testing.assert_array_equal(*same)
        other = changed(example, 8, size=(32, 32))["image"]
        assert (other != same[0]).any()
