"""What COCO's annotations call the images and classes of a prediction."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sphemb._checks import InputError
from sphemb._coco import encode_mask
from sphemb.cli._instance_files import annotation_ids, check_fit
from sphemb.cli._predict_files import DetectionFiles
from sphemb.data import ImageWindows
from sphemb.training import Experiment, Trained
from tests.tiny import tiny_config

NAMES = ("background", "aeroplane", "cat", "heron")
IMAGES = [pathlib.Path("somewhere/12.jpg"), pathlib.Path("ponds/pond.png")]
LABELS = np.zeros((4, 6), np.int32)  # of image 12: a cat and a heron
LABELS[:2, :3] = 1
LABELS[3, 4:] = 2
FOUND = {
    "labels": LABELS,
    "classes": np.array([0, 2, 3])[LABELS],
    "instance_classes": np.array([2, 3]),
    "instance_scores": np.array([0.75, 0.5]),
}


@pytest.fixture
def annotations(tmp_path):
    """Cats and aeroplanes by COCO's names and with gaps between their numbers."""
    content = {
        "images": [
            {"id": 700, "file_name": "12.jpg", "height": 4, "width": 6},
            {"id": 9, "file_name": "ponds/pond.jpg", "height": 4, "width": 6},
        ],
        "categories": [
            {"id": 5, "name": "airplane"},
            {"id": 17, "name": "cat"},
            {"id": 18, "name": "dog"},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 700,
                "category_id": 17,
                "segmentation": encode_mask(LABELS == 1),
                "area": 6,
                "bbox": [0, 0, 3, 2],
                "iscrowd": 0,
            }
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_images_and_classes_are_found_by_name(annotations):
    ids = annotation_ids(annotations, IMAGES, NAMES)
    assert ids.images == {IMAGES[0]: 700, IMAGES[1]: 9}
    # VOC's name of COCO's airplane; no heron, and the background is no category.
    assert ids.classes == {1: 5, 2: 17}


def test_an_image_that_is_not_annotated_is_refused(annotations):
    with pytest.raises(InputError, match=r"other/x\.png must be an image of --annot"):
        annotation_ids(annotations, [pathlib.Path("other/x.png")], NAMES)


def test_a_run_without_names_is_refused(annotations):
    with pytest.raises(InputError, match="needs a run whose classes have names"):
        annotation_ids(annotations, IMAGES, ())


def test_annotations_of_other_classes_are_refused(annotations):
    with pytest.raises(InputError, match="the run's classes must have names of cat"):
        annotation_ids(annotations, IMAGES, ("background", "heron"))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_annotations_of_the_stored_pixels_are_refused_for_turned_images(
    orientation, annotations, tmp_path
):
    """Results are of upright images, and would lie beside what is true."""
    path = tmp_path / "12.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (6, 4)).save(path, exif=exif)
    ids = annotation_ids(annotations, [path], NAMES)
    if orientation == 1:
        check_fit([ImageWindows(path)], ids)
        return
    with pytest.raises(InputError, match=r"12\.jpg must be stored upright for --annot"):
        check_fit([ImageWindows(path)], ids)
    if orientation == 6:
        # The size of the upright image, which its outlines are then drawn on.
        upright = ids._replace(sizes={path: (6, 4)})
        check_fit([ImageWindows(path)], upright)


def test_images_of_another_size_than_annotated_are_refused(annotations, tmp_path):
    """Masks of resized images are of no use beside the annotations."""
    path = tmp_path / "12.jpg"
    Image.new("RGB", (12, 8)).save(path)
    ids = annotation_ids(annotations, [path], NAMES)
    with pytest.raises(InputError, match=r"give it, 4 x 6, got 8 x 12"):
        check_fit([ImageWindows(path)], ids)


class TestResults:
    @pytest.fixture
    def files(self, tmp_path):
        return DetectionFiles(
            Trained(Experiment(tiny_config(tmp_path)), {}, (), 0, class_names=NAMES)
        )

    def written(self, files, folder):
        image = folder / "somewhere" / "12.jpg"
        image.parent.mkdir()
        Image.new("RGB", (6, 4)).save(image)
        targets = [folder / name.format("12", ".png") for name in files.per_image]
        files.write(targets, ImageWindows(image), FOUND)
        files.finish([folder / "results.json"])
        return json.loads((folder / "results.json").read_text())

    def test_outlines_have_the_names_of_their_classes(self, files, tmp_path):
        target = tmp_path / "12_labels.geojson"
        files.write_outlines(target, FOUND)
        features = json.loads(target.read_text())["features"]
        kinds = [feature["properties"]["classification"] for feature in features]
        assert kinds == [{"name": "cat"}, {"name": "heron"}]

    def test_pycocotools_takes_them_beside_the_annotations(
        self, files, annotations, tmp_path
    ):
        images = [tmp_path / "somewhere" / "12.jpg"]
        files.ids = annotation_ids(annotations, images, NAMES)
        (result,) = self.written(files, tmp_path)  # a heron is no category there
        assert (result["image_id"], result["category_id"]) == (700, 17)
        truth = COCO(str(annotations))
        loaded = truth.loadRes(str(tmp_path / "results.json"))
        (found,) = loaded.loadAnns(loaded.getAnnIds(imgIds=700, catIds=17))
        np.testing.assert_array_equal(loaded.annToMask(found), LABELS == 1)
        evaluation = COCOeval(truth, loaded, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)

    def test_without_annotations_they_have_the_runs_own_numbers(self, files, tmp_path):
        results = self.written(files, tmp_path)
        assert [(r["image_id"], r["category_id"]) for r in results] == [
            (12, 2),
            (12, 3),
        ]
