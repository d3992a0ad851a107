"""COCO's outlines and run lengths beside those of pycocotools, and damaged ones."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sphemb import VOID, InputError
from sphemb._coco import encode_mask, outline_runs, paint_annotations
from sphemb.metrics import coco_file_scores


def box(left, top, width, height, **more):
    right, bottom = left + width, top + height
    corners = [left, top, right, top, right, bottom, left, bottom]
    return {"id": 7, "segmentation": [corners], "category_id": 1, **more}


class TestRunLengths:
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.9, 1.0])
    def test_they_are_those_of_pycocotools(self, share):
        mask = np.random.default_rng(0).uniform(size=(60, 70)) < share
        packed = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        runs = encode_mask(mask)
        assert runs == {"size": [60, 70], "counts": packed["counts"].decode()}
        assert encode_mask(mask, size=(60, 70)) == runs
        painted = paint_annotations([{"segmentation": runs}], (60, 70), where="a")
        np.testing.assert_array_equal(painted.instances, mask)
        again = outline_runs({"segmentation": packed}, (60, 70), where="annotations")
        assert again == runs

    def test_a_window_is_encoded_where_it_lies(self):
        window = np.random.default_rng(1).uniform(size=(4, 3)) < 0.5
        whole = np.zeros((9, 11), bool)
        whole[5:, 2:5] = window
        runs = encode_mask(window, corner=(5, 2), size=whole.shape)
        assert runs == encode_mask(whole)

    @pytest.mark.parametrize(
        ("outline", "message"),
        [
            (None, "annotation 1 has no segmentation"),
            ([[1, 2, 3, 4]], "no list of three or more"),
            ([[1, 2, 3, 4, 5, "6"]], "the coordinate '6'"),
            ([[1, 2, 3, 4, 5, 10**400]], "annotation 1 has"),
            ([[1, 2, 3, 4, 5, 1e9]], "far outside of the image"),
            ({"size": [12, 17], "counts": [204]}, r"size \[12, 17\], not \[12, 16\]"),
            ({"size": [12, 16], "counts": [193]}, "193 pixels, not 192"),
            ({"size": [12, 16], "counts": [2**62] * 4}, "pixels, not 192"),
            ({"size": [12, 16], "counts": [200, -8]}, "no list of counts"),
            ({"size": [12, 16], "counts": "~~"}, "the character '~'"),
            ({"size": [12, 16], "counts": "PP"}, "cut short"),
            ({"size": [12, 16], "counts": "P" * 9}, "that no image has"),
            ({"size": [12, 16]}, "no list of counts"),
            ({"counts": [192]}, r"size None, not \[12, 16\]"),
        ],
    )
    def test_damaged_outlines_are_one_line(self, outline, message):
        item = {"id": 1, "image_id": 3, "category_id": 2, "segmentation": outline}
        with pytest.raises(InputError, match=message) as error:
            outline_runs(item, (12, 16), where="annotations of a.png")
        assert str(error.value).startswith("annotations of a.png")
        content = {
            "images": [{"id": 3, "height": 12, "width": 16}],
            "annotations": [],
            "categories": [{"id": 2, "name": "cat"}],
        }
        with pytest.raises(InputError, match=r"results of image 3 .*" + message):
            coco_file_scores(content, [{**item, "score": 0.5}])

    def test_an_image_that_is_not_listed_is_named(self):
        content = {"images": [], "annotations": [], "categories": []}
        with pytest.raises(InputError, match="must be of listed images, got 4"):
            coco_file_scores(content, [{"image_id": 4}])


class TestPaintAnnotations:
    def test_the_smaller_lies_on_top_and_crowds_below_all(self):
        items = [
            box(0, 1, 2, 2, category_id=3),
            box(0, 0, 4, 4, category_id=5, iscrowd=1),
            box(0, 0, 3, 3, category_id=4),
            box(1, 1, 1, 1, category_id=6),
        ]
        instances, classes, shown = paint_annotations(items, (5, 5), where="a")
        expected = np.zeros((5, 5), int)
        expected[:4, :4] = VOID
        expected[:3, :3] = 2
        expected[1:3, :2] = 1
        expected[1, 1] = 3
        np.testing.assert_array_equal(instances, expected)
        np.testing.assert_array_equal(classes, expected != 0)
        assert shown == [0, 2, 3]
        numbers = {3: 0, 4: 7, 5: 8, 6: 9}
        chosen = paint_annotations(items, (5, 5), where="a", classes=numbers)
        hidden = np.select([expected == 1, expected > 1], [0, expected - 1], expected)
        np.testing.assert_array_equal(chosen.instances, hidden)
        assert chosen.shown == [2, 3]
        of_labels = np.select([expected == v for v in (-1, 2, 3)], [8, 7, 9], 0)
        np.testing.assert_array_equal(chosen.classes, of_labels)

    def test_what_lies_below_others_is_not_numbered(self):
        items = [box(0, 0, 2, 2), box(0, 0, 2, 2), box(3, 3, 1, 1)]
        painted = paint_annotations(items, (5, 5), where="a")
        assert painted.shown == [1, 2]
        assert sorted(np.unique(painted.instances)) == [0, 1, 2]
        nothing = paint_annotations([], (2, 3), where="a")
        assert nothing.shown == []
        assert nothing.instances.shape == (2, 3)
