"""``sphemb score semantic`` and ``sphemb score instances`` on files of anybody."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sphemb.cli import ScoreClasses, ScoreInstances, main

H, W = 24, 32


def save(path, labels, palette=False):
    image = Image.fromarray(labels.astype(np.uint8), "P" if palette else None)
    if palette:
        image.putpalette(list(range(256)) * 3)
    path.parent.mkdir(exist_ok=True)
    image.save(path)


@pytest.fixture
def maps(tmp_path):
    """Two images: one found as it is, one with a class in the place of another."""
    truth = np.zeros((H, W), np.uint8)
    truth[4:12, 4:16] = 1
    truth[14:22, 8:30] = 3
    truth[0] = 255
    save(tmp_path / "truth" / "a.png", truth, palette=True)
    save(tmp_path / "truth" / "b.png", truth, palette=True)
    found = np.where(truth == 255, 2, truth)
    save(tmp_path / "found" / "a_classes.png", found)
    save(tmp_path / "found" / "b_classes.png", np.where(found == 3, 1, found))
    save(tmp_path / "found" / "a_overlay.png", found)
    return tmp_path


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit:
        main([str(a) for a in arguments])
    assert exit.value.code == 2
    return capsys.readouterr().err


class TestSemantic:
    def test_scores_a_table_and_a_curve_are_written(self, maps, capsys):
        (maps / "names.txt").write_text("background\nbird\nboat\nbottle\n")
        out = maps / "out"
        arguments = ["score", "semantic", "--predictions", maps / "found"]
        arguments += ["--groundtruth", maps / "truth", "--out", out]
        arguments += ["--names", maps / "names.txt", "--trimap", 10]
        main([str(a) for a in arguments])
        scores = json.loads((out / "scores.json").read_text())
        bird, bottle = 2 * 96 / (2 * 96 + 176), 0.5
        assert scores["iou/bird"] == pytest.approx(bird)
        assert scores["iou/bottle"] == pytest.approx(bottle)
        assert scores["iou/boat"] is None  # nowhere in the truth
        assert scores["mean_iou"] == pytest.approx((1 + bird + bottle) / 3)
        assert len(scores["trimap"]["inside"]) == 10
        table = (out / "classes.csv").read_text().splitlines()
        assert table[0] == "class,iou,pixels"
        assert table[4].endswith(",352")
        assert (out / "trimap.png").is_file()
        printed = capsys.readouterr().out
        assert "boat           -" in printed
        assert "on 2 images; see" in printed

    def test_what_does_not_go_together_is_named(self, maps, capsys):
        arguments = ["score", "semantic", "--predictions", maps / "found"]
        arguments += ["--groundtruth", maps / "truth"]
        line = refused(capsys, *arguments, "--classes", 3)
        assert "must have classes below 3, got 3" in line
        save(maps / "found" / "b_classes.png", np.zeros((3, 3)))
        assert "b_classes.png must have the size of" in refused(capsys, *arguments)
        (maps / "truth" / "b.png").unlink()
        line = refused(capsys, *arguments)
        assert "b_classes.png must have a ground truth in" in line
        line = refused(capsys, *arguments[:4], "--groundtruth", maps / "nowhere")
        assert "--groundtruth must be a folder" in line

    @pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 255), (np.uint16, 3000)])
    def test_values_that_are_rarely_classes_are_asked_about(
        self, maps, capsys, dtype, value
    ):
        """A gray 255 is mostly void; counted as a class it lowered the mean IoU."""
        truth = np.zeros((H, W), dtype)
        truth[:4], truth[4:8] = 1, value
        for name in "ab":
            Image.fromarray(truth).save(maps / "truth" / f"{name}.png")
        arguments = ["score", "semantic", "--predictions", maps / "found"]
        arguments += ["--groundtruth", maps / "truth"]
        line = refused(capsys, *arguments)
        assert f"--void {value}, and else --classes {value + 1}" in line
        main([str(a) for a in (*arguments, "--void", value)])

    @pytest.mark.parametrize("among", ["truth", "predictions"])
    def test_palettes_must_agree(self, maps, capsys, among):
        """By colours the same, by indices swapped: scored as it is, all is wrong."""
        folder = maps / ("truth" if among == "truth" else "found")
        for path in folder.glob("*_overlay.png"):
            path.unlink()
        path = next(folder.glob("b*.png"))
        image = Image.open(path).convert("L").convert("P")
        image.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7, *range(200)])
        image.putdata(np.asarray(Image.open(path)).ravel())
        image.save(path)
        arguments = ["score", "semantic", "--predictions", maps / "found"]
        arguments += ["--groundtruth", maps / "truth", "--out", maps / "out"]
        line = refused(capsys, *arguments)
        assert f"{path} must have the palette of the others" in line
        assert not (maps / "out").exists()

    def test_results_are_not_overwritten_unasked(self, maps, capsys):
        out = maps / "out"
        out.mkdir()
        (out / "scores.json").write_text("mine")
        arguments = ["score", "semantic", "--predictions", maps / "found"]
        arguments += ["--groundtruth", maps / "truth", "--out", out]
        assert "exists already: give --overwrite" in refused(capsys, *arguments)
        assert (out / "scores.json").read_text() == "mine"

    def test_the_number_of_classes_is_taken_from_the_truth(self, maps):
        scores = ScoreClasses(maps / "found", maps / "truth", trimap=0).run()
        assert "iou/3" in scores
        assert "trimap" not in scores


def runs(mask):
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


@pytest.fixture
def coco(tmp_path):
    """Two objects of two categories, and a crowd; all found, one badly."""
    first, second, crowd = np.zeros((3, H, W), bool)
    first[2:10, 2:10] = second[12:20, 12:28] = crowd[0:8, 20:30] = True
    rough = np.roll(second, 8, axis=1)
    annotation = {"image_id": 7, "area": 64, "bbox": [0, 0, 1, 1], "iscrowd": 0}
    truth = {
        "images": [
            {"id": 7, "height": H, "width": W},
            {"id": 9, "height": H, "width": W},
        ],
        "categories": [{"id": 5, "name": "cup"}, {"id": 11, "name": "cat"}],
        "annotations": [
            annotation | {"id": 1, "category_id": 5, "segmentation": runs(first)},
            annotation | {"id": 2, "category_id": 11, "segmentation": runs(second)},
            annotation
            | {"id": 3, "category_id": 5, "segmentation": runs(crowd), "iscrowd": 1},
        ],
    }
    result = {"image_id": 7}
    found = [
        result | {"category_id": 5, "segmentation": runs(crowd), "score": 0.95},
        result | {"category_id": 5, "segmentation": runs(first), "score": 0.9},
        result | {"category_id": 11, "segmentation": runs(rough), "score": 0.8},
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path


class TestInstances:
    def test_both_benchmarks_are_computed(self, coco, capsys):
        out = coco / "out"
        arguments = ["score", "instances", "--results", coco / "found.json"]
        arguments += ["--groundtruth", coco / "truth.json", "--out", out]
        main([str(a) for a in arguments])
        scores = json.loads((out / "scores.json").read_text())
        # What is found in the crowd is not held against anybody.
        assert scores["ap_r@0.5/cup"] == 1.0
        assert scores["ap_r@0.5/cat"] == 0.0
        assert scores["ap_r@0.5"] == 0.5
        assert scores["AP50"] == pytest.approx(0.5)
        # The rough one has an IoU of a third: above the levels .1, .2 and .3.
        assert scores["ap_r_vol"] == pytest.approx((1 + 1 / 3) / 2)
        table = (out / "classes.csv").read_text().splitlines()
        assert table[1:] == [
            "cup,1.000000,1.000000,1.000000,1",
            "cat,0.000000,0.333333,0.000000,1",
        ]
        assert "AP50      0.5000" in capsys.readouterr().out

    def test_no_results_score_nothing(self, coco):
        (coco / "found.json").write_text("[]")
        scores = ScoreInstances(coco / "found.json", coco / "truth.json").run()
        assert scores["ap_r@0.5"] == scores["AP"] == 0.0

    def test_what_does_not_go_together_is_named(self, coco, capsys):
        arguments = ["score", "instances", "--results", coco / "found.json"]
        arguments += ["--groundtruth", coco / "truth.json"]
        found = json.loads((coco / "found.json").read_text())
        (coco / "found.json").write_text(json.dumps([found[0] | {"image_id": 8}]))
        assert "image_id 8 is not there" in refused(capsys, *arguments)
        (coco / "found.json").write_text(json.dumps([found[0] | {"category_id": 1}]))
        assert "category_id 1 is not there" in refused(capsys, *arguments)
        (coco / "found.json").write_text(json.dumps([{"image_id": 7}]))
        assert "lacks 'category_id'" in refused(capsys, *arguments)
        (coco / "found.json").write_text("no JSON")
        assert "must be a JSON file" in refused(capsys, *arguments)
