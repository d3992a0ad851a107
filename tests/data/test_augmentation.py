"""Augmentations move images and all their maps together."""

from __future__ import annotations

import grain
import numpy as np
import pytest
from matplotlib import colors

from sphemb import VOID, data
from sphemb._checks import InputError
from sphemb.data import (
    CenterCrop,
    DigitsAugmentation,
    ImageAugmentation,
    PadExample,
    make_loader,
)


@pytest.fixture
def drawing():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(256, size=(8, 8, 3)).astype(np.uint8),
        "instances": np.arange(64, dtype=np.int32).reshape(8, 8),
        "name": "a",
        "index": 3,
    }


def digits_changed(drawing, seed, **settings):
    rng = np.random.default_rng(seed)
    return DigitsAugmentation(**settings).random_map(drawing, rng)


class TestDigits:
    def test_every_pixel_keeps_its_instance(self, drawing):
        seen = set()
        for seed in range(40):
            result = digits_changed(drawing, seed, permute_channels=False)
            pixel_of = drawing["image"].reshape(64, 3)
            np.testing.assert_array_equal(
                result["image"], pixel_of[result["instances"]]
            )
            assert result["name"] == "a"
            assert result["index"] == 3
            seen.add(result["instances"].tobytes())
        assert len(seen) == 8  # the symmetries of the square

    def test_all_six_orders_of_the_channels_come_up_and_instances_stay(self, drawing):
        seen = set()
        for seed in range(60):
            result = digits_changed(drawing, seed, flip=False, turn=False)
            np.testing.assert_array_equal(result["instances"], drawing["instances"])
            np.testing.assert_array_equal(
                np.sort(result["image"], -1), np.sort(drawing["image"], -1)
            )
            seen.add(result["image"].tobytes())
        assert len(seen) == 6

    def test_an_oblong_image_keeps_its_shape(self, drawing):
        oblong = {
            **drawing,
            "image": drawing["image"][:4],
            "instances": drawing["instances"][:4],
        }
        for seed in range(20):
            assert digits_changed(oblong, seed)["image"].shape == (4, 8, 3)

    def test_switched_off_it_changes_nothing(self, drawing):
        off = digits_changed(drawing, 1, flip=False, turn=False, permute_channels=False)
        np.testing.assert_array_equal(off["image"], drawing["image"])

    def test_refuses_gray_images(self, drawing):
        gray = {**drawing, "image": drawing["image"][..., 0]}
        with pytest.raises(
            InputError, match=r"example 'a' .*image \[H, W, 3\].*got \(8, 8\)"
        ):
            digits_changed(gray, 0)


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
    """Instances of different sizes, each in a color of its own."""
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


def test_an_image_that_shrinks_is_averaged_and_not_sampled():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (128, 192, 3), dtype=np.uint8)
    image[:, 96:] //= 2
    labels = np.repeat([[1, 2]], 96, axis=1).repeat(128, axis=0).astype(np.int32)
    augment = ImageAugmentation(
        size=(16, 24), scale=(0.125, 0.125), rotation=0.0, flip=False, brightness=0.0,
        contrast=0.0, saturation=0.0, hue=0.0,
    )  # fmt: skip
    example = {"image": image, "instances": labels, "name": "a"}
    found = augment.random_map(example, np.random.default_rng(0))
    expected = image.reshape(16, 8, 24, 8, 3).mean(axis=(1, 3))
    assert np.abs(found["image"].astype(float) - expected).max() <= 1.5
    np.testing.assert_array_equal(found["instances"], labels[4::8, 4::8])


class TestColour:
    def test_the_instances_stay_and_colors_move_within_their_bounds(self, example):
        settings = STILL | {"brightness": 0.2}
        factors = []
        for seed in range(50):
            found = changed(example, seed, **settings)
            np.testing.assert_array_equal(found["instances"], example["instances"])
            factors.append(found["image"][0, 0, 2] / example["image"][0, 0, 2])
        assert 0.79 < min(factors) < 0.85
        assert 1.15 < max(factors) < 1.21

    def test_gray_has_no_color_to_jitter(self, example):
        gray = np.full((H, W, 3), 90, np.uint8)
        settings = STILL | {"hue": 0.1, "saturation": 0.5, "contrast": 0.5}
        found = changed({**example, "image": gray}, 1, **settings)
        np.testing.assert_array_equal(found["image"], gray)

    def test_hue_turns_and_keeps_the_brightest_channel_as_bright(self, example):
        settings = STILL | {"hue": 0.3}
        found = changed(example, 3, **settings)["image"]
        assert np.abs(found.astype(int) - example["image"]).max() > 20
        brightest = example["image"].max(axis=-1).astype(int)
        assert np.abs(found.max(axis=-1) - brightest).max() <= 1

    def test_it_is_hue_then_saturation_then_contrast_then_brightness(self):
        jitter = np.array([0.9, -0.7, 0.8, -0.6])
        bright, contrast, saturation = 1 + np.array([0.3, 0.4, 0.5]) * jitter[:3]
        image = np.random.default_rng(0).integers(256, size=(40, 50, 3))
        hsv = colors.rgb_to_hsv(image / 255)
        hsv[..., 0] = (hsv[..., 0] + 0.2 * jitter[3]) % 1
        rgb = colors.hsv_to_rgb(hsv)
        gray = (rgb @ [0.299, 0.587, 0.114])[..., None]
        rgb = gray + saturation * (rgb - gray)
        rgb = bright * (gray.mean() + contrast * (rgb - gray.mean()))
        expected = 255 * np.clip(rgb, 0, 1)
        assert np.mean((rgb < 0) | (rgb > 1)) > 0.05
        settings = {"brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "hue": 0.2}
        augment = ImageAugmentation(**settings)
        found = augment._recolor(image.astype(np.uint8), jitter)
        assert found.dtype == np.uint8
        np.testing.assert_allclose(found, expected, atol=0.5 + 1e-3)


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

    def test_an_image_that_is_no_color_image_is_named(self, example):
        with pytest.raises(InputError, match=r"example 'a' must have image uint8"):
            changed({**example, "image": example["image"][..., 0]})

    def test_one_draw_gives_one_result_and_another_another(self, example):
        same = [changed(example, 7, size=(32, 32))["image"] for _ in range(2)]
        np.testing.assert_array_equal(*same)
        other = changed(example, 8, size=(32, 32))["image"]
        assert (other != same[0]).any()


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


CALM = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
WAYS = {
    "digits": DigitsAugmentation(permute_channels=False),
    "photographs": ImageAugmentation(size=(16, 16), quarter_turns=True, **CALM),
    "crop": CenterCrop(size=(8, 12)),
    "padding": PadExample((32, 40)),
}
MAPS = ("instances", "semantic", "mask")


def mapped_example(height=24, width=36):
    """Every map says the same of a pixel, and so does its color."""
    blocks = np.random.default_rng(0).integers(2, size=(height // 4, width // 4))
    ones = np.kron(blocks, np.ones((4, 4), np.int32)).astype(np.int32)
    return {
        "image": np.repeat(np.uint8(200 * ones)[..., None], 3, axis=-1),
        "instances": ones,
        "semantic": 7 * ones,
        "boundaries": np.stack([ones, 1 - ones, np.full_like(ones, VOID)]).astype(
            np.int8
        ),
        "mask": ones > 0,
        "name": "a",
    }


def moved(way, element, seed):
    transform = WAYS[way]
    if hasattr(transform, "map"):
        return transform.map(element)
    return transform.random_map(element, np.random.default_rng(seed))


class TestMaps:
    def test_every_transform_is_tried(self):
        kinds = (grain.transforms.Map, grain.transforms.RandomMap)
        public = [getattr(data, name) for name in data.__all__]
        transforms = {c for c in public if isinstance(c, type) and issubclass(c, kinds)}
        assert transforms == {type(way) for way in WAYS.values()}

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("seed", range(4))
    def test_all_of_them_move_with_the_image(self, way, seed):
        element = mapped_example()
        curves = element.pop("boundaries")
        found = moved(way, element, seed)
        size = found["image"].shape[:2]
        assert {found[key].shape for key in MAPS} == {size}
        valid = found["instances"] != VOID
        ones = found["instances"] == 1
        np.testing.assert_array_equal(found["semantic"] == 7, ones)
        np.testing.assert_array_equal(found["mask"], ones)
        # Bilinear images and labels differ on the edges of blocks alone.
        dark = found["image"][..., 0] < 100
        assert np.mean((dark == ones)[valid]) < 0.25
        if way == "photographs":  # which leaves the annotators out
            return
        drawn = moved(way, {**element, "boundaries": curves}, seed)
        first, second, absent = drawn["boundaries"]
        assert first.shape == size
        assert (absent == VOID).all()
        # Curves are mended, and so may only grow.
        assert (first[valid & ones] == 1).all()
        assert (second[valid & ~ones] == 1).all()
        np.testing.assert_array_equal(first == VOID, ~valid)

    def test_curves_stay_connected_in_a_scaled_crop(self):
        line = np.eye(60, dtype=np.int32)
        element = {
            "image": np.zeros((60, 60, 3), np.uint8),
            "instances": line,
            "boundaries": np.stack([line, np.roll(line, 7, axis=1)]).astype(np.int8),
            "name": "a",
        }
        found = CenterCrop(size=(20, 20)).map(element)
        for curve in (found["instances"], found["boundaries"][0]):
            assert (np.diag(curve) == 1).all()
        assert found["boundaries"].dtype == np.int8
        assert (found["boundaries"][1] == 1).sum() >= 17

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("key", ["semantic", "mask", "boundaries"])
    def test_one_of_another_size_is_refused(self, way, key):
        element = mapped_example()
        element[key] = element[key][..., :-1]
        if way == "photographs" and key == "boundaries":
            return
        with pytest.raises(InputError, match=f"{key} of example 'a' must have shape"):
            moved(way, element, 0)
