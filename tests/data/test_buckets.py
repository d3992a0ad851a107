"""Padding to few sizes, and what the padding is."""

from __future__ import annotations

import numpy as np
import pytest

from sphemb import VOID, InputError
from sphemb.data import PadExample, make_loader, padded_size, size_buckets


class Sized:
    """Empty examples of given sizes."""

    def __init__(self, *sizes):
        self._sizes = sizes

    def __len__(self):
        return len(self._sizes)

    def size(self, index):
        return self._sizes[index]

    def __getitem__(self, index):
        size = self._sizes[index]
        image = np.full((*size, 3), 10 * index, np.uint8)
        return {
            "image": image,
            "instances": np.ones(size, np.int32),
            "name": str(index),
        }


class TestBuckets:
    def test_every_example_fits_its_bucket_and_the_fullest_comes_first(self):
        source = Sized((60, 90), (33, 64), (64, 96), (10, 10))
        found = size_buckets(source, [0, 1, 2, 3], multiple=32)
        assert found == {(64, 96): [0, 2], (32, 32): [3], (64, 64): [1]}
        assert next(iter(found)) == (64, 96)

    def test_the_size_depends_on_the_example_alone(self):
        source = Sized((60, 90), (60, 90), (61, 130))
        for some in ([0], [0, 1], [0, 2]):
            found = size_buckets(source, some, multiple=64)
            assert padded_size((60, 90), 64) == (64, 128)
            assert 0 in found[64, 128]

    def test_only_the_wanted_examples_are_looked_at(self):
        assert size_buckets(Sized((8, 8), (9, 9)), [1], multiple=4) == {(12, 12): [1]}


class TestPadding:
    def test_a_batch_of_padded_examples_says_where_the_padding_is(self):
        source = Sized((3, 5), (4, 6))
        loader = make_loader(
            source, batch_size=2, transforms=(PadExample((4, 8)),), num_threads=0
        )
        batch = next(iter(loader))
        assert batch["image"].shape == (2, 4, 8, 3)
        assert batch["mask"].dtype == bool
        assert batch["mask"].sum(axis=(1, 2)).tolist() == [15, 24]
        np.testing.assert_array_equal(batch["instances"] == VOID, ~batch["mask"])
        np.testing.assert_array_equal(batch["image"][1], np.float32(10 / 255))

    def test_a_map_of_classes_is_void_in_the_padding(self):
        example = Sized((3, 5))[0]
        classes = np.full((3, 5), 7)
        padded = PadExample((4, 8)).map({**example, "semantic": classes})["semantic"]
        np.testing.assert_array_equal(padded[:3, :5], classes)
        assert (padded[3:] == VOID).all()
        assert (padded[:, 5:] == VOID).all()

    def test_a_larger_example_is_named(self):
        with pytest.raises(InputError, match=r"'0' must be at most 2 x 8, got 3 x 5"):
            PadExample((2, 8)).map(Sized((3, 5))[0])
