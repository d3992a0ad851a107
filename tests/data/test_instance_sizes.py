"""Sizes of instances against scikit-image, and what a coarse map loses."""

import numpy as np
import pytest
from skimage.measure import regionprops

from sphemb import InputError
from sphemb.data import check_data, measure_instances, open_folder
from tests.scenes import write_folder

STRIDES = (8, 4, 2, 1)


def blobs(seed):
    """Random rectangles, some over others, some beside others, and some void."""
    rng = np.random.default_rng(seed)
    instances = np.zeros((40, 56), np.int32)
    for number in (3, 1, 7, 12, 4, 9):
        row, column = rng.integers(0, (36, 50))
        height, width = rng.integers(1, 20, size=2)
        instances[row : row + height, column : column + width] = number
    instances[:2] = -1
    return {
        "image": np.zeros((40, 56, 3), np.uint8),
        "instances": instances,
        "name": "",
    }


@pytest.fixture(scope="module")
def source():
    return [blobs(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def sizes(source):
    return measure_instances(source, strides=STRIDES)


class TestMeasures:
    def test_areas_and_sides_are_those_of_the_regions(self, source, sizes):
        regions = [regionprops(np.maximum(s["instances"], 0)) for s in source]
        assert sizes.counts.tolist() == [len(r) for r in regions]
        flat = [region for r in regions for region in r]
        assert sizes.areas.tolist() == [region.area for region in flat]
        sides = [max(r.bbox[2] - r.bbox[0], r.bbox[3] - r.bbox[1]) for r in flat]
        assert sizes.sides.tolist() == sides

    def test_neighbours_touch(self, source, sizes):
        wanted = []
        for example in source:
            padded = np.pad(example["instances"], 1)
            for number in np.unique(example["instances"]):
                if number <= 0:
                    continue
                beside = [
                    np.roll(padded, shift, axis)[padded == number]
                    for shift in (1, -1)
                    for axis in (0, 1)
                ]
                others = np.concatenate(beside)
                wanted.append(bool(((others > 0) & (others != number)).any()))
        assert sizes.touching.tolist() == wanted

    def test_what_vanishes_is_small_or_in_no_middle_of_a_cell(self, source, sizes):
        for stride in STRIDES:
            wanted = []
            for example in source:
                instances = example["instances"]
                kept = instances[stride // 2 :: stride, stride // 2 :: stride]
                for number in np.unique(instances[instances > 0]):
                    small = (instances == number).sum() < stride**2
                    wanted.append(bool(small or number not in kept))
            assert sizes.vanishing[stride].tolist() == wanted
        assert not sizes.vanishing[1].any()

    def test_parts_merge_into_the_whole(self, source, sizes):
        first = measure_instances(source, indices=[0, 1], strides=STRIDES)
        rest = measure_instances(source, indices=range(2, 6), strides=STRIDES)
        merged = first.merge(rest)
        assert merged.areas.tolist() == sizes.areas.tolist()
        assert merged.images.tolist() == sizes.images.tolist()
        for stride in STRIDES:
            assert (merged.vanishing[stride] == sizes.vanishing[stride]).all()


def test_a_folder_loses_what_check_data_says(tmp_path):
    folder = write_folder(tmp_path / "data")
    total = check_data(folder, stride=8).totals()["train"]
    sizes = measure_instances(open_folder(folder).source("train"))
    assert len(sizes.areas) == total["instances"]
    assert sizes.vanishing[8].sum() == total["vanishing"]


def test_what_cannot_be_used_is_left_out_and_told(tmp_path):
    folder = write_folder(tmp_path / "data")
    source = open_folder(folder).source("train")
    source.pairs[1].mask.write_text("no image")
    sizes = measure_instances(source)
    assert len(sizes.counts) == len(source) - 1
    assert "cannot be read" in sizes.unusable[0]


def test_a_stride_below_one_is_refused():
    with pytest.raises(InputError, match="strides must be >= 1, got 0"):
        measure_instances([blobs(0)], strides=(0,))
