"""Examples that cannot be used are told once and stood in for."""

from __future__ import annotations

import numpy as np
import pytest

from sphemb import InputError
from sphemb.data import SkippingSource, make_loader


class Faulty:
    """Six examples, some of which are unreadable or impossible."""

    def __init__(self, *bad):
        self._bad = bad

    def __len__(self):
        return 6

    def size(self, index):
        return (8, 8 + index)

    def __getitem__(self, index):
        if index in self._bad:
            raise InputError(f"image {index}.png cannot be read:\n truncated")
        instances = np.full((8, 8), -7 if index == 5 else 1, np.int32)
        image = np.zeros((8, 8, 3), np.uint8)
        return {"image": image, "instances": instances, "name": f"{index}.png"}


class TestSkipping:
    def test_the_next_usable_example_stands_in_and_each_fault_is_told_once(
        self, capsys
    ):
        source = SkippingSource(Faulty(1, 2))
        names = [source[i]["name"] for i in range(6)] + [source[1]["name"]]
        stand_ins = ["0.png", "3.png", "3.png", "3.png", "4.png", "0.png", "3.png"]
        assert names == stand_ins
        told = capsys.readouterr().err.splitlines()
        assert told[:2] == [
            "skipped: image 1.png cannot be read: truncated",
            "skipped: image 2.png cannot be read: truncated",
        ]
        assert "'5.png' must be -1 (void), 0 (background) or 1, 2" in told[2]
        assert len(told) == 3
        assert sorted(source.skipped) == [1, 2, 5]

    def test_the_size_is_that_of_what_stands_in(self):
        assert SkippingSource(Faulty(1, 2)).size(1) == (8, 11)

    def test_those_that_can_be_used_are_known(self):
        source = SkippingSource(Faulty(0, 3))
        assert source.usable(2) == [1, 2]
        assert source.usable(9) == [1, 2, 4]
        with pytest.raises(InputError, match="none of the 6 examples can be used"):
            SkippingSource(Faulty(0, 1, 2, 3, 4)).usable(1)

    def test_where_nothing_can_be_used_it_ends(self):
        with pytest.raises(InputError, match="none of the 6 examples can be used"):
            SkippingSource(Faulty(0, 1, 2, 3, 4))[0]

    def test_a_loader_goes_on_with_it_and_without_it_names_the_file(self):
        settings = {"batch_size": 2, "num_threads": 2}
        batches = list(make_loader(SkippingSource(Faulty(1)), **settings))
        assert [b["index"].tolist() for b in batches] == [[0, 1], [2, 3], [4, 5]]
        with pytest.raises(InputError, match=r"image 1\.png cannot be read"):
            list(make_loader(Faulty(1), **settings))
