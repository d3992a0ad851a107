"""Whatever moves the pixels of an example moves all that describes them."""

from __future__ import annotations

import grain
import numpy as np
import pytest

from sphemb import VOID, InputError, data
from sphemb.data import CenterCrop, DigitsAugmentation, ImageAugmentation, PadExample

STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
WAYS = {
    "digits": DigitsAugmentation(permute_channels=False),
    "photographs": ImageAugmentation(size=(16, 16), quarter_turns=True, **STILL),
    "crop": CenterCrop(size=(8, 12)),
    "padding": PadExample((32, 40)),
}
MAPS = ("instances", "semantic", "mask")


def example(height=24, width=36):
    """Every map says the same of a pixel, and so does its colour."""
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


def changed(way, element, seed):
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
        element = example()
        curves = element.pop("boundaries")
        found = changed(way, element, seed)
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
        drawn = changed(way, {**element, "boundaries": curves}, seed)
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
        element = example()
        element[key] = element[key][..., :-1]
        if way == "photographs" and key == "boundaries":
            return
        with pytest.raises(InputError, match=f"{key} of example 'a' must have shape"):
            changed(way, element, 0)
