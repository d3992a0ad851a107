"""Label maps of tiles as one, against SciPy's components of the whole."""

import numpy as np
import pytest
import scipy.ndimage

from sphemb._checks import InputError
from sphemb.data import Box, tile_image
from sphemb.instances import Piece, split_components, stitch_labels

SIZE = (61, 83)
TILES = {"tile": 24, "halo": 4, "multiple": 4}
CORNERS = np.ones((3, 3), bool)


def parts(foreground, band=1, **tiles):
    """The components of every core and a band around it."""
    height, width = foreground.shape
    for tile in tile_image(foreground.shape, **(TILES | tiles)):
        core = tile.core
        box = Box(*(x - band for x in core[:2]), *(x + band for x in core[2:]))
        box = box.clipped(height, width)
        labels = scipy.ndimage.label(foreground[box.slices], CORNERS)[0]
        yield Piece(labels, box[:2], tuple(core))


def blobs(seed, share=0.5):
    noise = np.random.default_rng(seed).normal(size=SIZE)
    smooth = scipy.ndimage.gaussian_filter(noise, 1.3)
    return smooth > np.quantile(smooth, 1 - share)


def partition(labels):
    """Label maps that are the same up to the names have the same partition."""
    first = {}
    return [first.setdefault(x, len(first)) for x in labels.ravel().tolist()]


class TestComponents:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
    def test_parts_of_tiles_become_the_parts_of_the_whole(self, seed, share):
        foreground = blobs(seed, share)
        found = stitch_labels(parts(foreground), SIZE, band=1, min_share=0.0)
        whole = scipy.ndimage.label(foreground, CORNERS)[0]
        assert partition(found.labels) == partition(whole)

    def test_a_path_through_all_tiles_is_one(self):
        spiral = np.zeros(SIZE, bool)
        spiral[::4] = True
        for i, row in enumerate(range(0, SIZE[0] - 4, 4)):
            spiral[row : row + 5, -1 if i % 2 else 0] = True
        found = stitch_labels(parts(spiral), SIZE, band=1, min_share=0.0)
        np.testing.assert_array_equal(found.labels, spiral)

    def test_names_are_those_of_the_untiled_map(self):
        foreground = blobs(3)
        found = stitch_labels(
            parts(foreground), SIZE, band=1, min_share=0.0, min_size=5
        )
        whole = split_components(
            foreground.astype(np.int32), 0, max_components=500, min_size=5
        )
        np.testing.assert_array_equal(found.labels, np.asarray(whole))
        np.testing.assert_array_equal(found.sizes, np.bincount(found.labels.ravel()))

    def test_corners_of_four_tiles_connect(self):
        seam = tile_image(SIZE, **TILES)[0].core
        diagonal = np.zeros(SIZE, bool)
        diagonal[seam.bottom - 1, seam.right - 1] = True
        diagonal[seam.bottom, seam.right] = True
        found = stitch_labels(parts(diagonal), SIZE, band=1, min_share=0.0)
        np.testing.assert_array_equal(found.labels, diagonal)

    def test_no_object_is_lost_for_being_cut(self):
        seam = tile_image(SIZE, **TILES)[0].core.right
        bar = np.zeros(SIZE, bool)
        bar[5, seam - 3 : seam + 3] = True
        found = stitch_labels(parts(bar), SIZE, band=1, min_share=0.0, min_size=6)
        np.testing.assert_array_equal(found.labels, bar)


def two(left, right, *, corner=4, seam=6, width=10):
    """A row in two pieces: columns up to 8, and from 4 on."""
    return [
        Piece(np.array([left]), (0, 0), (0, 0, 1, seam)),
        Piece(np.array([right]), (0, corner), (0, seam, 1, width)),
    ]


class TestOverlap:
    def test_what_both_tiles_see_is_one(self):
        pieces = two([0, 0, 1, 1, 1, 1, 1, 0], [2, 2, 2, 0, 0, 1])
        found = stitch_labels(pieces, (1, 10), band=2)
        assert found.labels.tolist() == [[0, 0, 1, 1, 1, 1, 1, 0, 0, 2]]
        assert found.names.tolist() == [0, 1, 2, 1]

    def test_a_small_overlap_is_not_enough(self):
        pieces = two([0, 0, 1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0])
        cut = stitch_labels(pieces, (1, 10), band=2, min_share=0.6)
        assert cut.labels.tolist() == [[0, 0, 1, 1, 1, 1, 2, 2, 2, 0]]
        joined = stitch_labels(pieces, (1, 10), band=2, min_share=0.5)
        assert joined.labels.max() == 1

    def test_only_the_band_counts(self):
        pieces = two([0, 0, 1, 1, 1, 0, 2, 2], [1, 0, 2, 2, 2, 2])
        assert stitch_labels(pieces, (1, 10), band=1).labels.max() == 2
        assert stitch_labels(pieces, (1, 10), band=2).names.tolist() == [0, 2, 1, 2, 1]

    def test_instances_of_two_classes_stay_two(self):
        pieces = two([0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1])
        kinds = [np.array([0, 7]), np.array([0, 8])]
        found = stitch_labels(pieces, (1, 10), band=2, kinds=kinds)
        assert found.labels.tolist() == [[0, 0, 1, 1, 1, 1, 2, 2, 2, 2]]
        kinds[1][1] = 7
        assert stitch_labels(pieces, (1, 10), band=2, kinds=kinds).labels.max() == 1

    @pytest.mark.parametrize("seed", range(4))
    def test_separate_objects_across_seams_are_whole_for_any_share(self, seed):
        whole = scipy.ndimage.label(blobs(seed, 0.3), CORNERS)[0]

        def pieces():
            rng = np.random.default_rng(seed)
            for tile in tile_image(SIZE, **TILES):
                inside = tile.outer.clipped(*SIZE)
                part = whole[inside.slices]
                names = np.concatenate([[0], 1 + rng.permutation(whole.max())])
                yield Piece(names[part], inside[:2], tuple(tile.core))

        for share in (0.0, 0.5, 1.0):
            found = stitch_labels(pieces(), SIZE, band=4, min_share=share)
            assert partition(found.labels) == partition(whole)


class TestMessages:
    @pytest.mark.parametrize(
        ("piece", "settings", "words"),
        [
            (Piece(np.zeros((2, 2)), (0, 0), (0, 0, 2, 2)), {}, "must be integers"),
            (Piece(np.full((2, 2), -1), (0, 0), (0, 0, 2, 2)), {}, "must be 0 or more"),
            (
                Piece(np.zeros((2, 2), int), (0, 0), (0, 0, 2, 3)),
                {},
                "must lie in the piece and in the image",
            ),
            (
                Piece(np.zeros((2, 2), int), (0, 0), (0, 0, 2, 2)),
                {"min_share": 2.0},
                "min_share must satisfy",
            ),
            (
                Piece(np.zeros((2, 2), int), (0, 0), (0, 0, 2, 2)),
                {"band": 0},
                "band must be >= 1",
            ),
        ],
    )
    def test_each_mistake_is_named(self, piece, settings, words):
        with pytest.raises(InputError, match=words):
            stitch_labels([piece], (2, 2), **({"band": 1} | settings))
