"""``sphemb score`` on folders of label images, and on what mixes them with COCO's."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sphemb._checks import InputError
from sphemb.cli import ScoreClasses, ScoreInstances, main
from sphemb.cli._score import _label_maps
from sphemb.data import inspect_mask

H, W = 24, 32
NAMES = ("background", "cat", "dog")


def save(path, labels):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(labels.astype(np.uint16)).save(path)


def write_csv(path, rows, columns=("label", "class", "score")):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)


def runs(mask):
    found = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def true_map():
    truth = np.zeros((H, W), int)
    truth[2:10, 2:10], truth[12:20, 12:28] = 3, 7  # labels need not be gapless
    truth[:, 30:] = 255
    return truth


def found_map():
    """The first as it is, the second with an IoU of a third, one in the void."""
    truth = true_map()
    found = np.where(truth == 3, 1, 0)
    found[12:20, 20:32] = 2
    found[12:20, 28:30] = 2
    found[12:20, 30:] = 2
    found[0:6, 30:] = 9
    return found


@pytest.fixture
def folders(tmp_path):
    """Image 12 with two objects, image b without any."""
    empty = np.zeros((H, W), int)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    for name, truth, found in (("12", true_map(), found_map()), ("b", empty, empty)):
        save(tmp_path / "truth" / f"{name}.png", truth)
        save(tmp_path / "found" / f"{name}.png", found)
    write_csv(tmp_path / "truth" / "12.csv", [(3, 1), (7, 2)], ("label", "class"))
    write_csv(tmp_path / "found" / "12.csv", [(1, 1, 0.9), (2, "2", 0.8), (9, 1, 0.95)])
    return tmp_path


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        main([str(a) for a in arguments])
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def score(folders, predictions="found", groundtruth="truth", **settings):
    settings = {"void": 255, **settings}
    return ScoreInstances(
        folders / predictions, folders / groundtruth, **settings
    ).run()


class TestInstances:
    def expected(self, scores, names=("1", "2")):
        first, second = names
        assert scores[f"ap_r@0.5/{first}"] == 1.0
        assert scores[f"ap_r@0.5/{second}"] == scores[f"AP/{second}"] == 0.0
        assert scores["ap_r@0.5"] == 0.5
        # pycocotools adds a rounding error to what it divides by.
        assert scores[f"AP/{first}"] == pytest.approx(1.0)
        assert scores["AP"] == pytest.approx(0.5)
        # 8 rows of 8 columns in common, of 18 that either has; void is in neither.
        shares = np.mean(np.arange(1, 10) / 10 < 8 / 18)
        assert scores["ap_r_vol"] == pytest.approx((1 + shares) / 2)
        assert scores["num_images"] == 2

    def test_numbers_will_do_for_classes(self, folders, capsys):
        out = folders / "out"
        arguments = ["score", "instances", "--predictions", folders / "found"]
        arguments += ["--groundtruth", folders / "truth", "--void", 255, "--out", out]
        main([str(a) for a in arguments])
        self.expected(json.loads((out / "scores.json").read_text()))
        assert (out / "levels.png").is_file()
        table = list(csv.DictReader((out / "classes.csv").open()))
        assert [row["class"] for row in table] == ["1", "2"]
        assert [row["objects"] for row in table] == ["1", "1"]
        assert capsys.readouterr().out.splitlines()[-1] == f"on 2 images; see {out}"

    def test_names_may_stand_in_the_tables(self, folders):
        write_csv(
            folders / "truth" / "12.csv", [(3, "cat"), (7, "dog")], ("label", "class")
        )
        rows = [(1, "cat"), (2, "dog"), (9, "cat")]
        found = [
            {"label": label, "class": name, "score": 0.5 + label / 20}
            for label, name in rows
        ]
        (folders / "found" / "12.csv").unlink()
        (folders / "found" / "12.json").write_text(json.dumps(found))
        scores = score(folders, names=folders / "names.txt")
        self.expected(scores, NAMES[1:])

    def test_classes_may_come_from_a_map_as_in_voc(self, folders):
        expected = score(folders, names=folders / "names.txt")
        (folders / "truth" / "12.csv").unlink()
        truth = true_map()
        semantic = np.select([truth == 3, truth == 7, truth == 255], [1, 2, 255])
        semantic[2:4, 2:10] = 0  # most of its pixels decide
        save(folders / "classes" / "12.png", semantic)
        save(folders / "classes" / "b.png", np.zeros((H, W)))
        found = score(
            folders, names=folders / "names.txt", semantic=folders / "classes"
        )
        assert found == pytest.approx(expected, nan_ok=True)

    def test_an_object_without_a_class_counts_nowhere(self, folders):
        truth = true_map()
        save(folders / "classes" / "12.png", np.where(truth == 3, 1, 0))
        save(folders / "classes" / "b.png", np.zeros((H, W)))
        scores = score(
            folders, names=folders / "names.txt", semantic=folders / "classes"
        )
        assert np.isnan(scores["ap_r@0.5/dog"])
        assert np.isnan(scores["AP/dog"])
        assert scores["ap_r@0.5"] == 1.0
        assert scores["AP"] == pytest.approx(1.0)

    def test_results_of_predict_are_scored_against_a_folder(self, folders):
        """Images by their names, those of digits as numbers; classes by number."""
        expected = score(folders)
        found = found_map()
        results = [
            {
                "image_id": 12,
                "category_id": kind,
                "segmentation": runs(found == label),
                "score": sure,
            }
            for label, kind, sure in ((1, 1, 0.9), (2, 2, 0.8), (9, 1, 0.95))
        ]
        (folders / "results.json").write_text(json.dumps(results))
        assert score(folders, "results.json") == pytest.approx(expected, nan_ok=True)

    def test_label_images_are_scored_against_cocos_annotations(self, folders):
        truth = true_map()
        annotation = {"image_id": 5, "iscrowd": 0, "area": 9, "bbox": [0, 0, 1, 1]}
        content = {
            "images": [
                {"id": 5, "file_name": "12.jpg", "height": H, "width": W},
                {"id": 6, "file_name": "b.jpg", "height": H, "width": W},
                {"id": 7, "file_name": "c.jpg", "height": H, "width": W},
            ],
            "categories": [{"id": 31, "name": "cat"}, {"id": 40, "name": "dog"}],
            "annotations": [
                annotation
                | {"id": n, "category_id": kind, "segmentation": runs(truth == label)}
                | {"iscrowd": int(label == 255)}
                for n, (label, kind) in enumerate(((3, 31), (7, 40), (255, 31)))
            ],
        }
        # COCO's crowds are of a class, here the cat's: the dog ends where it begins.
        found = np.where((found_map() == 2) & (truth == 255), 0, found_map())
        save(folders / "found" / "12.png", found)
        write_csv(
            folders / "found" / "12.csv",
            [(1, "cat", 0.9), (2, 40, 0.8), (9, "cat", 0.95)],
        )
        (folders / "truth.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"c\.jpg .* must have a prediction in"):
            score(folders, groundtruth="truth.json")
        scores = score(folders, groundtruth="truth.json", partial=True)
        self.expected(scores, NAMES[1:])
        assert scores["num_unpredicted"] == 1

    def test_detections_share_a_map_until_they_overlap(self):
        masks = np.zeros((5, H, W), bool)
        for n, columns in enumerate(((0, 2), (2, 4), (3, 5), (0, 2), (1, 5))):
            masks[n, :, slice(*columns)] = True
        maps, places = _label_maps(iter(masks), (H, W), len(masks))
        assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
        for mask, (k, label) in zip(masks, places, strict=True):
            np.testing.assert_array_equal(maps[k] == label, mask)
        nothing, places = _label_maps([], (H, W), 0)
        assert nothing.shape == (1, H, W)
        assert (nothing == -1).all()
        assert not places

    def test_more_detections_than_cocos_ap_takes_are_said(self, folders, capsys):
        image = {"id": 1, "file_name": "1.jpg", "height": H, "width": W}
        result = {"image_id": 1, "category_id": 1, "segmentation": runs(true_map() > 0)}
        content = {
            "images": [image],
            "annotations": [{**result, "id": 1, "iscrowd": 0}],  # and no area
            "categories": [{"id": 1, "name": "cat"}],
        }
        (folders / "truth.json").write_text(json.dumps(content))
        for number, line in ((100, ""), (101, "1 images have more")):
            results = [{**result, "score": 0.5}] * number
            (folders / "results.json").write_text(json.dumps(results))
            scores = score(folders, "results.json", "truth.json")
            assert line in capsys.readouterr().err
            assert scores["AP"] == pytest.approx(1.0)

    def test_a_runs_own_classes_are_found_in_cocos_categories_by_name(
        self, folders, capsys
    ):
        """What a run calls class 1, 2, .. has other numbers in COCO's files."""
        truth = true_map()
        annotation = {"image_id": 12, "iscrowd": 0, "area": 9, "bbox": [0, 0, 1, 1]}
        content = {
            "images": [{"id": 12, "file_name": "12.jpg", "height": H, "width": W}],
            # The dog has the cat's number, and the cat another one.
            "categories": [{"id": 1, "name": "dog"}, {"id": 40, "name": "cat"}],
            "annotations": [
                annotation
                | {"id": n, "category_id": c, "segmentation": runs(truth == q)}
                for n, (q, c) in enumerate(((3, 40), (7, 1)))
            ],
        }
        results = [
            {
                "image_id": 12,
                "category_id": kind,
                "segmentation": runs(truth == label),
                "score": 0.5,
            }
            for label, kind in ((3, 1), (7, 2))
        ]
        (folders / "truth.json").write_text(json.dumps(content))
        (folders / "results.json").write_text(json.dumps(results))
        (folders / "classes.json").write_text(json.dumps(NAMES))
        scores = score(
            folders, "results.json", "truth.json", names=folders / "classes.json"
        )
        assert scores["ap_r@0.5"] == 1.0
        assert scores["AP"] == pytest.approx(1.0)
        arguments = ["score", "instances", "--predictions", folders / "results.json"]
        arguments += ["--groundtruth", folders / "truth.json"]
        assert "category_id 2 is not there" in refused(capsys, *arguments)
        (folders / "names.txt").write_text("background\ncow\n")
        line = refused(capsys, *arguments, "--names", folders / "names.txt")
        assert "--names must have names of categories in" in line

    def test_images_that_are_not_predicted_are_named_or_left_out(self, folders, capsys):
        expected = score(folders)
        save(folders / "truth" / "z.png", np.zeros((H, W)))
        with pytest.raises(InputError, match=r"z\.png must have a prediction in"):
            score(folders)
        scores = score(folders, partial=True)
        assert "1 more without a prediction" in capsys.readouterr().out
        assert scores.pop("num_unpredicted") == 1
        assert expected.pop("num_unpredicted") == 0
        assert scores == pytest.approx(expected, nan_ok=True)
        (folders / "list.txt").write_text("12\nb\n")
        listed = score(folders, images=folders / "list.txt")
        assert listed.pop("num_unpredicted") == 0
        assert listed == pytest.approx(expected, nan_ok=True)
        (folders / "list.txt").write_text("12\nz\n")
        line = refused(
            capsys,
            *("score", "instances", "--predictions", folders / "found"),
            *("--groundtruth", folders / "truth", "--images", folders / "list.txt"),
            *("--void", 255),
        )
        assert "z.png must have a prediction" in line

    @pytest.mark.parametrize(
        ("mistake", "words"),
        [
            ("no table", "12.png must have label, class, score of its instances"),
            ("no row", "12.csv must have every label of 12.png, but has not 9"),
            ("void", "but has not 255: if that is void, give --void 255"),
            ("no score", "12.csv must have label, class, score of every instance"),
            ("nan", "with a score that is a number, but label 1 has not"),
            ("twice", "12.csv must have each label once"),
            ("class", "12.csv must have label, class, score of every instance"),
            ("size", "12.png must have the size of its truth, (24, 32), got (3, 3)"),
            ("no truth", "12.png must have a ground truth in"),
            ("no semantic", "--semantic must hold 12.png, got none"),
            ("names", "must have a name for class 2"),
            ("coco", "--images goes with a folder for --groundtruth"),
            ("nothing", "cannot be read as JSON"),
        ],
    )
    def test_a_mistake_is_one_line_and_leaves_nothing(
        self, folders, capsys, mistake, words
    ):
        table = folders / "found" / "12.csv"
        given = {"--predictions": folders / "found", "--void": 255}
        given |= {"--groundtruth": folders / "truth", "--out": folders / "out"}
        if mistake == "no table":
            table.unlink()
        elif mistake == "no row":
            write_csv(table, [(1, 1, 0.9), (2, 2, 0.8)])
        elif mistake == "void":
            given.pop("--void")
        elif mistake == "no score":
            write_csv(table, [(1, 1)], ("label", "class"))
        elif mistake == "nan":
            write_csv(table, [(1, 1, "nan")])
        elif mistake == "twice":
            write_csv(table, [(1, 1, 0.9), (1, 2, 0.8)])
        elif mistake == "class":
            write_csv(table, [(1, "cow", 0.9)])
            given["--names"] = folders / "names.txt"
        elif mistake == "size":
            save(folders / "found" / "12.png", np.ones((3, 3)))
        elif mistake == "no truth":
            (folders / "truth" / "12.png").unlink()
        elif mistake == "no semantic":
            save(folders / "classes" / "b.png", np.zeros((H, W)))
            given["--semantic"] = folders / "classes"
        elif mistake == "names":
            (folders / "truth" / "12.csv").unlink()
            for name in ("12", "b"):
                save(folders / "classes" / f"{name}.png", np.full((H, W), 2))
            (folders / "names.txt").write_text("background\ncat\n")
            given |= {"--semantic": folders / "classes"}
            given |= {"--names": folders / "names.txt"}
            write_csv(table, [(1, 1, 0.9), (2, 1, 0.8), (9, 1, 0.95)])
        elif mistake == "coco":
            given["--groundtruth"] = folders / "names.txt"
            given["--images"] = folders / "names.txt"
        else:
            given["--groundtruth"] = folders / "names.txt"
        flags = [part for pair in given.items() for part in pair]
        assert words in refused(capsys, "score", "instances", *flags)
        assert not (folders / "out").exists()

    @pytest.mark.needs_data
    def test_vocs_own_masks_are_perfect(self, data_dir, tmp_path):
        root = data_dir / "voc_samples" / "labelme"
        if not root.is_dir():
            pytest.skip("no voc_samples in the development data")
        names = (root / "class_names.txt").read_text().split()
        names = names[names.index("_background_") :]
        (tmp_path / "names.txt").write_text("\n".join(names))
        for path in sorted((root / "SegmentationObject").glob("*.png")):
            instances = inspect_mask(path, masks="classes").semantic
            semantic = root / "SegmentationClass" / path.name
            semantic = inspect_mask(semantic, masks="classes").semantic
            rows = [
                (q, np.bincount(semantic[instances == q]).argmax(), 0.5)
                for q in np.unique(instances[instances > 0])
            ]
            save(tmp_path / "found" / path.name, np.maximum(instances, 0))
            write_csv(tmp_path / "found" / f"{path.stem}.csv", rows)
        scores = ScoreInstances(
            tmp_path / "found",
            root / "SegmentationObject",
            semantic=root / "SegmentationClass",
            names=tmp_path / "names.txt",
        ).run()
        assert scores["num_images"] == 3
        assert scores["ap_r_vol"] == scores["AP"] == 1.0


class TestClasses:
    def test_every_image_has_a_row_and_what_is_not_predicted_is_named_or_counted(
        self, folders, capsys
    ):
        truth = np.minimum(true_map(), 2) * (true_map() < 255)
        for name in "ab":
            save(folders / "classes" / f"{name}.png", truth)
        save(folders / "maps" / "a.png", truth * (truth != 2))
        out = folders / "out"
        given = {"trimap": 3, "classes": 3, "out": out}
        with pytest.raises(InputError, match=r"b\.png must have a prediction in"):
            ScoreClasses(folders / "maps", folders / "classes", **given).run()
        assert not out.exists()
        scores = ScoreClasses(
            folders / "maps", folders / "classes", partial=True, **given
        ).run()
        assert scores["num_images"] == scores["num_unpredicted"] == 1
        assert "1 more without a prediction" in capsys.readouterr().out
        rows = list(csv.DictReader((out / "images.csv").open()))
        assert rows[0]["image"] == "a"
        assert float(rows[0]["mean_iou"]) == pytest.approx(scores["mean_iou"], abs=1e-6)
        (folders / "list.txt").write_text("a\nb\n")
        line = refused(
            capsys,
            *("score", "semantic", "--predictions", folders / "maps"),
            *("--groundtruth", folders / "classes", "--images", folders / "list.txt"),
        )
        assert "b.png must have a prediction" in line
