"""Drawings keep to the protocol: cells, order of pasting, one colour per class."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sphemb._checks import InputError, InputTypeError
from sphemb.data import render_digits


@pytest.fixture(scope="module")
def glyphs():
    """Three digits of which no two look alike, also in part."""
    rng = np.random.default_rng(3)
    ink = rng.integers(1, 256, size=(3, 28, 28)).astype(np.uint8)
    return ink * (rng.uniform(size=ink.shape) < 0.6).astype(np.uint8)


CLASSES = np.array([4, 7, 7])
CORNERS = (0, 17, 35)


def draw(seed, glyphs, **settings):
    return render_digits(np.random.default_rng(seed), glyphs, CLASSES, **settings)


def find_pasted(instances, k, glyphs):
    """Returns the (y, x, glyph) whose ink explains the pixels of instance k."""
    visible = instances == k
    found = []
    for (y, x), g in itertools.product(itertools.product(CORNERS, repeat=2), range(3)):
        ink = np.zeros(instances.shape, bool)
        ink[y : y + 28, x : x + 28] = glyphs[g] > 0
        hidden_by_later = ink & ~visible
        if not (visible & ~ink).any() and (instances[hidden_by_later] > k).all():
            found.append((y, x, g))
    (only,) = found
    return only


class TestProtocol:
    def test_pasting_the_digits_again_in_order_gives_the_instances(self, glyphs):
        for seed in range(10):
            drawing = draw(seed, glyphs)
            again = np.zeros((64, 64), np.int32)
            cells = []
            for k in range(1, drawing["instances"].max() + 1):
                y, x, g = find_pasted(drawing["instances"], k, glyphs)
                cells.append((y, x))
                again[y : y + 28, x : x + 28][glyphs[g] > 0] = k
            np.testing.assert_array_equal(again, drawing["instances"])
            assert len(set(cells)) == len(cells)

    def test_a_pixel_is_black_exactly_where_no_digit_is(self, bundled):
        faint = np.minimum(bundled["train"].glyphs, 1)
        for ink in (bundled["train"].glyphs, faint):
            for seed in range(5):
                drawing = render_digits(
                    np.random.default_rng(seed), ink, bundled["train"].classes
                )
                black = drawing["image"].max(axis=-1) == 0
                np.testing.assert_array_equal(black, drawing["instances"] == 0)

    def test_the_number_of_digits_is_uniform_from_none_to_nine(self, bundled):
        glyphs, classes = bundled["train"]
        rng = np.random.default_rng(0)
        numbers = [
            render_digits(rng, glyphs, classes)["instances"].max() for _ in range(500)
        ]
        counts = np.bincount(numbers, minlength=10)
        assert len(counts) == 10
        # Five standard deviations of a binomial count with p = 1/10.
        assert np.abs(counts - 50).max() < 5 * np.sqrt(500 * 0.1 * 0.9)

    def test_colours_scale_with_ink_and_are_equal_within_a_class(self, glyphs):
        drawing = next(
            drawing
            for drawing in (draw(seed, glyphs) for seed in range(99))
            if drawing["instances"].max() >= 7
        )
        colours = {}
        for k in range(1, drawing["instances"].max() + 1):
            y, x, g = find_pasted(drawing["instances"], k, glyphs)
            mask = drawing["instances"] == k
            ink = np.zeros((64, 64))
            ink[y : y + 28, x : x + 28] = glyphs[g]
            pixels, ink = drawing["image"][mask].astype(float), ink[mask][:, None]
            colour = (pixels * ink).sum(0) / (ink * ink).sum()
            assert np.abs(pixels - ink * colour).max() < 1.2  # rounding, both ways
            previous = colours.setdefault(CLASSES[g], colour)
            np.testing.assert_allclose(colour, previous, atol=0.01)
        assert len(colours) == 2
        assert np.abs(colours[4] - colours[7]).max() > 0.1

    def test_every_image_has_a_palette_of_its_own(self):
        full = np.full((1, 28, 28), 255, np.uint8)
        colours = set()
        for seed in range(20):
            drawing = render_digits(
                np.random.default_rng(seed), full, np.array([5]), size=32
            )
            if drawing["instances"].any():
                colours.add(tuple(drawing["image"][0, 0]))
        assert len(colours) > 5

    def test_colours_are_bright_and_saturated(self):
        full = np.full((10, 28, 28), 255, np.uint8)
        for seed in range(20):
            drawing = render_digits(np.random.default_rng(seed), full, np.arange(10))
            colours = drawing["image"][drawing["instances"] > 0].astype(float)
            if len(colours):
                assert colours.max(-1).min() >= 0.7 * 255 - 1
                assert (colours.min(-1) <= 0.5 * colours.max(-1) + 1).all()

    def test_a_digit_that_is_covered_completely_leaves_no_gap_in_the_numbers(self):
        # Full squares in overlapping cells: only ever the overlaps are hidden, so let
        # one glyph have its ink in a corner that the neighbouring cell covers.
        hidden = np.zeros((2, 28, 28), np.uint8)
        hidden[0] = 200
        hidden[1, 20:, 20:] = 200
        gaps_closed = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            instances = render_digits(rng, hidden, np.array([0, 1]))["instances"]
            seen = np.unique(instances)
            np.testing.assert_array_equal(seen, np.arange(len(seen)))
            # The same numbers without the hiding glyph: how many were pasted.
            rng = np.random.default_rng(seed)
            alone = render_digits(rng, hidden[[1, 1]], np.array([0, 1]))["instances"]
            gaps_closed += instances.max() < alone.max()
        assert gaps_closed > 0

    def test_a_digit_without_ink_is_no_instance(self):
        empty = np.zeros((1, 28, 28), np.uint8)
        drawing = render_digits(np.random.default_rng(2), empty, np.array([3]))
        assert not drawing["instances"].any()
        assert not drawing["image"].any()

    def test_equal_seeds_give_equal_drawings_and_others_do_not(self, glyphs):
        one, same, other = draw(12, glyphs), draw(12, glyphs), draw(13, glyphs)
        np.testing.assert_array_equal(one["image"], same["image"])
        np.testing.assert_array_equal(one["instances"], same["instances"])
        assert (one["image"] != other["image"]).any()


class TestSizes:
    @pytest.mark.parametrize(
        ("size", "shape", "cells"),
        [(32, (32, 32), 1), (64, (64, 64), 9), ((96, 64), (96, 64), 12)],
    )
    def test_uses_every_cell_that_fits(self, size, shape, cells):
        dot = np.zeros((1, 28, 28), np.uint8)
        dot[0, 0, 0] = 255
        used = set()
        rng = np.random.default_rng(0)
        for _ in range(80):
            drawing = render_digits(rng, dot, np.array([1]), size=size, max_digits=99)
            assert drawing["image"].shape == (*shape, 3)
            assert drawing["image"].dtype == np.uint8
            assert drawing["instances"].shape == shape
            assert drawing["instances"].dtype == np.int32
            used |= set(zip(*np.nonzero(drawing["instances"]), strict=True))
        allowed = [0, 17, 35, 52]
        assert len(used) == cells
        assert all(y in allowed and x in allowed for y, x in used)

    @pytest.mark.parametrize("size", [24, 60, (64, 65), 0, (64, -8)])
    def test_refuses_what_a_network_cannot_take(self, glyphs, size):
        with pytest.raises(InputError, match="size must be"):
            draw(0, glyphs, size=size)

    def test_refuses_three_numbers_and_fractions(self, glyphs):
        with pytest.raises(InputError, match=r"size must be \(height, width\)"):
            draw(0, glyphs, size=(64, 64, 3))
        with pytest.raises(InputTypeError, match=r"size must be a Python int.*64\.5"):
            draw(0, glyphs, size=(64, 64.5))


class TestBadHandwriting:
    def test_names_the_argument(self, glyphs):
        rng = np.random.default_rng(12)
        with pytest.raises(InputError, match=r"glyphs must have shape \[M, 28, 28\]"):
            render_digits(rng, glyphs[:, :8], CLASSES)
        with pytest.raises(InputError, match=r"classes must have shape .*glyphs.*\(2,"):
            render_digits(rng, glyphs, CLASSES[:2])
        with pytest.raises(InputTypeError, match="glyphs must be uint8, got float64"):
            render_digits(rng, glyphs / 255.0, CLASSES)
        with pytest.raises(InputTypeError, match="classes must be integers"):
            render_digits(rng, glyphs, CLASSES / 2.0)
        with pytest.raises(InputError, match="glyphs must hold at least one digit"):
            render_digits(rng, glyphs[:0], CLASSES[:0])
        with pytest.raises(InputError, match="classes must be digits from 0 to 9"):
            [render_digits(rng, glyphs, CLASSES + 10) for _ in range(10)]
