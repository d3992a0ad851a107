"""Instances of a label image: their table is regionprops', their outlines exact."""

import itertools
import json

import numpy as np
import pytest
from skimage.measure import label, perimeter, points_in_poly, regionprops_table

from sphemb._coco import encode_mask
from sphemb.cli import _regions
from sphemb.cli._regions import outline, regions_of, write_outlines

SHAPES = [(1, 1), (1, 7), (9, 13), (8, 5)]
RING = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]], bool)  # its hole meets the outside
CORNERS = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool)
ISLAND = np.pad(np.pad(np.array([[True]]), 1), 1, constant_values=True)


def masks():
    rng = np.random.default_rng(0)
    drawn = (rng.random(shape) < p for shape in 9 * SHAPES for p in (0.3, 0.6, 0.9))
    return [RING, CORNERS, ISLAND, *(mask for mask in drawn if mask.any())]


def signed_area(ring):
    x, y = np.array(ring).T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


def edges(ring):
    """The unit edges of a ring, without their direction."""
    for (x, y), (u, v) in itertools.pairwise(ring):
        assert (x == u) != (y == v)
        steps = max(abs(u - x), abs(v - y))
        for i in range(steps):
            ends = [
                (x + (u - x) * k // steps, y + (v - y) * k // steps) for k in (i, i + 1)
            ]
            yield frozenset(ends)


class TestRegions:
    @pytest.mark.parametrize("samples", [1, 3])
    def test_the_table_is_that_of_regionprops(self, samples):
        rng = np.random.default_rng(samples)
        labels = rng.integers(0, 5, (19, 23)).astype(np.int32)
        labels[3:9, 4:17], labels[15:, 15:], labels[labels == 3] = 6, 7, 0
        values = rng.integers(0, 2**16, (*labels.shape, samples), dtype=np.uint16)
        names = ("label", "area", "centroid", "bbox", "perimeter", "intensity_mean")
        image = values if samples > 1 else values[..., 0]
        expected = regionprops_table(labels, image, properties=names)
        assert _regions.columns(samples) == tuple(expected)
        found = list(regions_of(labels, lambda box: values[box.slices]))
        rows = np.array([region.row for region in found], float)
        np.testing.assert_allclose(
            rows, np.stack([*expected.values()], axis=1), rtol=0, atol=5.1e-5
        )

    def test_perimeters_are_those_of_scikit_image(self):
        for mask in masks():
            expected = perimeter(mask, neighborhood=4)
            assert _regions.perimeter(mask) == pytest.approx(expected, rel=1e-12)

    def test_run_lengths_of_a_box_are_those_of_the_whole_image(self):
        labels = np.random.default_rng(0).integers(0, 5, (9, 13)).astype(np.int32)
        regions = list(regions_of(labels, lambda box: np.zeros((*box.size, 1))))
        assert len(regions) == 4
        for region in regions:
            assert region.runs == encode_mask(labels == region.label)

    def test_a_mask_that_fills_the_image_is_one_run(self):
        mask = np.ones((3, 2), bool)
        assert encode_mask(mask, corner=(0, 0), size=(3, 2)) == encode_mask(mask)


class TestOutlines:
    def test_polygons_are_pieces_of_pixels_that_share_edges(self):
        for mask in masks():
            pieces, number = label(mask, connectivity=1, return_num=True)
            polygons = outline(mask)
            assert len(polygons) == number
            rows, columns = np.indices(mask.shape)
            middles = np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5
            for i, (outer, *holes) in enumerate(polygons, start=1):
                inside = points_in_poly(middles, outer)
                for hole in holes:
                    inside &= ~points_in_poly(middles, hole)
                np.testing.assert_array_equal(inside.reshape(mask.shape), pieces == i)
                rings = [outer, *holes]
                area = sum(map(signed_area, rings))
                assert area == np.sum(pieces == i)

    def test_rings_are_closed_simple_and_wound_as_geojson_wants(self):
        for mask in masks():
            for rings in outline(mask):
                assert [signed_area(ring) > 0 for ring in rings] == [
                    True,
                    *(False for _ in rings[1:]),
                ]
                for ring in rings:
                    assert ring[0] == ring[-1]
                    assert len(set(ring)) == len(ring) - 1 >= 4
                every = [edge for ring in rings for edge in edges(ring)]
                assert len(set(every)) == len(every)

    def test_a_hole_that_meets_the_outside_in_a_corner_is_a_hole(self):
        ((outer, hole),) = outline(RING)
        assert signed_area(outer) == 8
        assert set(hole) == {(1, 1), (1, 2), (2, 1), (2, 2)}

    def test_an_object_in_pieces_is_a_multipolygon(self, tmp_path):
        labels = np.zeros((7, 9), np.int32)
        labels[1:6, 2:7] = np.where(ISLAND, 3, 0)
        labels[0, 0] = 1
        write_outlines(tmp_path / "x.geojson", labels, {1: "cat", 3: "dog"})
        content = json.loads((tmp_path / "x.geojson").read_text())
        assert content["type"] == "FeatureCollection"
        one, several = content["features"]
        assert one == {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]],
            },
            "properties": {
                "objectType": "detection",
                "name": "1",
                "classification": {"name": "cat"},
            },
        }
        assert several["properties"]["classification"] == {"name": "dog"}
        assert several["geometry"]["type"] == "MultiPolygon"
        frame, island = several["geometry"]["coordinates"]
        assert [signed_area(ring) for ring in frame] == [25, -9]
        assert [signed_area(ring) for ring in island] == [1]
        assert min(frame[0]) == [2, 1]

    def test_an_image_without_instances_has_no_features(self, tmp_path):
        write_outlines(tmp_path / "x.geojson", np.zeros((2, 3), np.int32))
        content = json.loads((tmp_path / "x.geojson").read_text())
        assert content == {"type": "FeatureCollection", "features": []}
