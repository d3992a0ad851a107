"""Tiles: pure geometry."""

import itertools

import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.data import Box, tile_image

CASES = [
    ((100, 70), {"tile": 32, "halo": 4, "multiple": 8}),
    ((33, 200), {"tile": 40, "halo": 7, "multiple": 4}),
    ((64, 64), {"tile": 16, "halo": 0, "multiple": 16}),
    ((5, 9), {"tile": 64, "halo": 8, "multiple": 8}),
    ((17, 400), {"tile": 17, "halo": 8, "multiple": 1}),
]


@pytest.mark.parametrize(("size", "settings"), CASES)
class TestTileImage:
    def test_every_pixel_lies_in_one_core(self, size, settings):
        times = np.zeros(size, int)
        for tile in tile_image(size, **settings):
            times[tile.core.slices] += 1
        assert (times == 1).all()

    def test_all_tiles_have_one_size_and_begin_at_multiples(self, size, settings):
        tiles = tile_image(size, **settings)
        assert len({tile.outer.size for tile in tiles}) == 1
        for tile in tiles:
            assert not any(side % settings["multiple"] for side in tile.outer)
            for place, length in zip(tile.core, (*size, *size), strict=True):
                assert place % settings["multiple"] == 0 or place == length

    def test_a_core_is_a_halo_away_from_all_but_the_borders(self, size, settings):
        for outer, core in tile_image(size, **settings):
            before = zip(core[:2], outer[:2], strict=True)
            assert all(c - o >= settings["halo"] or c == 0 for c, o in before)
            behind = zip(core[2:], outer[2:], size, strict=True)
            assert all(o - c >= settings["halo"] or c == n for c, o, n in behind)

    def test_tiles_come_line_by_line(self, size, settings):
        corners = [tile.core[:2] for tile in tile_image(size, **settings)]
        assert corners == sorted(corners)
        rows, columns = ({c[i] for c in corners} for i in range(2))
        assert corners == list(itertools.product(sorted(rows), sorted(columns)))


class TestMessages:
    def test_a_halo_that_leaves_no_core_is_refused(self):
        with pytest.raises(InputError, match="tile must be more than twice the halo"):
            tile_image((100, 100), tile=32, halo=13, multiple=16)

    def test_a_size_must_be_positive(self):
        with pytest.raises(InputError, match="W must be >= 1, got 0"):
            tile_image((4, 0), tile=4, halo=1)


class TestBox:
    def test_a_box_is_cut_and_counted_from_another(self):
        box = Box(-2, 3, 10, 30).clipped(8, 20)
        assert box == (0, 3, 8, 20)
        assert box.size == (8, 17)
        assert Box(4, 5, 6, 9).within(box) == (4, 2, 6, 6)
