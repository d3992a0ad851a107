"""Images are found by their paths: the same stem in two folders is two images."""

import json
import pathlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from sphemb._checks import InputError
from sphemb._coco import encode_mask
from sphemb.cli import ScoreBoundaries, ScoreClasses, ScoreInstances, main
from sphemb.cli._instance_files import annotation_ids
from sphemb.cli._names import ImageNames, result_names
from sphemb.cli._predict import check_targets, image_targets
from sphemb.cli._predict_files import DetectionFiles
from sphemb.data import ImageWindows
from sphemb.training import Experiment, Trained
from tests.tiny import tiny_config

SIZE = (20, 24)
NAMES = ("background", "cat")


def cat(top, left):
    """A label map of one object, which is elsewhere in every image."""
    labels = np.zeros(SIZE, np.uint8)
    labels[top : top + 8, left : left + 8] = 1
    return labels


MAPS = {"cam1/000": cat(1, 2), "cam2/000": cat(10, 14)}


def coco(folder, files, maps):
    content = {
        "images": [
            {"id": i, "file_name": f, "height": SIZE[0], "width": SIZE[1]}
            for i, f in enumerate(files, start=1)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "segmentation": encode_mask(labels > 0),
                "area": int(labels.sum()),
                "bbox": [0, 0, 8, 8],
                "iscrowd": 0,
            }
            for i, labels in enumerate(maps, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return path


def save(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, labels)
    else:
        Image.fromarray(labels).save(path, format=path.suffix[1:].upper())


def save_instances(folder, name, labels, *, tail="_labels", ending=".png"):
    save(folder / f"{name}{tail}{ending}", labels)
    (folder / f"{name}{tail}.csv").write_text("label,class,score\n1,cat,0.9\n")


@pytest.fixture
def truth(tmp_path):
    return coco(tmp_path, [f"{n}.png" for n in MAPS], MAPS.values())


class TestNames:
    @pytest.mark.parametrize(
        ("files", "name", "expected"),
        [
            (["cam1/000.png", "cam2/000.png"], "cam2/000", 1),
            (["cam1/000.png", "cam2/000.png"], "/data/cam2/000", 1),
            (["000.png", "cam2/000.png"], "000", 0),
            (["000.png", "cam2/000.png"], "x/cam2/000", 1),
            (["./cam1//000.png"], "cam1/000", 0),
            (["images/a.b.jpg"], "a.b", 0),
            (["cam2/000.png"], "cam1/000", None),
            (["cam1/000.png"], "am1/000", None),
            (["cam1/000.png"], "0", None),
        ],
    )
    def test_the_path_decides(self, files, name, expected):
        assert ImageNames(files, "truth").find(name) == expected

    def test_what_fits_several_images_is_refused(self):
        names = ImageNames(["cam1/000.png", "cam2/000.png"], "truth.json")
        with pytest.raises(InputError, match=r"may be of cam1/000\.png or cam2/000"):
            names.find("000")
        names = ImageNames(["000.jpg", "000.png"], "truth.json")
        with pytest.raises(InputError, match=r"may be of 000\.jpg or 000\.png"):
            names.find("000")
        assert names.find("000", ending=".png") == 1
        found = {f"cam{i}/000": pathlib.Path(f"cam{i}/000.png") for i in (1, 2)}
        with pytest.raises(InputError, match="must be of different images"):
            ImageNames(["000.png"], "truth.json").match(found)

    def test_results_of_one_stem_have_the_folders_of_their_images(self):
        paths = [pathlib.Path(p) for p in ("x/a/0.png", "x/b/0.png", "x/1.png")]
        assert list(result_names(paths).values()) == ["a/0", "b/0", "1"]
        assert list(result_names(paths[1:]).values()) == ["0", "1"]
        with pytest.raises(InputError, match="several are called 0"):
            result_names([pathlib.Path("x/0.png"), pathlib.Path("x/0.jpg")])

    def test_no_two_results_are_one_file(self, tmp_path):
        images = []
        for name in ("x.png", "overlays/x.png"):
            save(tmp_path / name, np.zeros(SIZE, np.uint8))
            images.append(ImageWindows(tmp_path / name))
        called = result_names([image.path for image in images])
        pictures = ("{}.png", "overlays/{}.png")  # of boundaries
        targets = image_targets(images, called, pictures, tmp_path / "out")
        wanted = [path for paths in targets for path in paths]
        with pytest.raises(InputError, match=r"overlays/x\.png would be written for"):
            check_targets(images, wanted, overwrite=True)


class TestInstances:
    def test_predictions_in_the_folders_of_their_images_are_perfect(
        self, truth, tmp_path
    ):
        for name, labels in MAPS.items():
            save_instances(tmp_path / "found", name, labels)
        scores = ScoreInstances(tmp_path / "found", truth).run()
        assert scores["AP"] == pytest.approx(1.0)
        assert scores["ap_r@0.5"] == 1.0
        assert scores["num_images"] == 2

    def test_predictions_without_folders_are_refused(self, truth, tmp_path, capsys):
        save_instances(tmp_path / "found", "000", MAPS["cam1/000"])
        arguments = ["score", "instances", "--predictions", tmp_path / "found"]
        arguments += ["--groundtruth", truth, "--partial", "--out", tmp_path / "out"]
        with pytest.raises(SystemExit) as exit_info:
            main([str(a) for a in arguments])
        assert exit_info.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "may be of cam1/000.png or cam2/000.png" in line
        assert not (tmp_path / "out").exists()

    def test_endings_alone_do_not_tell_images_apart(self, tmp_path):
        truth = coco(tmp_path, ["000.jpg", "000.png"], MAPS.values())
        save_instances(tmp_path / "found", "000", MAPS["cam1/000"])
        with pytest.raises(InputError, match=r"may be of 000\.jpg or 000\.png"):
            ScoreInstances(tmp_path / "found", truth, partial=True).run()

    def test_another_folder_is_another_image(self, tmp_path):
        truth = coco(tmp_path, ["cam2/000.png"], [MAPS["cam2/000"]])
        save_instances(tmp_path / "found", "cam1/000", MAPS["cam1/000"])
        with pytest.raises(InputError, match=r"cam2/000\.png is in another folder"):
            ScoreInstances(tmp_path / "found", truth).run()

    @pytest.mark.parametrize("results", ["folder", "names", "numbers"])
    def test_a_folder_of_true_images_has_sub_folders_too(self, tmp_path, results):
        found = tmp_path / "found"
        for name, labels in MAPS.items():
            save(tmp_path / "truth" / f"{name}.png", labels)
            (tmp_path / "truth" / f"{name}.csv").write_text("label,class\n1,1\n")
            save(found / f"{name}_labels.png", labels)
            (found / f"{name}_labels.csv").write_text("label,class,score\n1,1,1\n")
        if results != "folder":
            called = list(MAPS) if results == "names" else [0, 0]
            listed = [
                {
                    "image_id": name,
                    "category_id": 1,
                    "segmentation": encode_mask(labels > 0),
                    "score": 0.5,
                }
                for name, labels in zip(called, MAPS.values(), strict=True)
            ]
            found = tmp_path / "results.json"
            found.write_text(json.dumps(listed))
        if results == "numbers":
            with pytest.raises(InputError, match="image_id 0 must be one image of"):
                ScoreInstances(found, tmp_path / "truth").run()
            return
        scores = ScoreInstances(found, tmp_path / "truth").run()
        assert scores["AP"] == pytest.approx(1.0)
        assert scores["num_images"] == 2

    @pytest.mark.parametrize("ending", [".PNG", ".tif", ".TIFF", ".bmp"])
    def test_every_ending_that_is_read_counts(self, truth, tmp_path, ending):
        one, other = MAPS.items()
        save_instances(tmp_path / "found", *one)
        save_instances(tmp_path / "found", *other, ending=ending)
        scores = ScoreInstances(tmp_path / "found", truth).run()
        assert scores["num_images"] == 2
        assert scores["AP"] == pytest.approx(1.0)

    def test_a_missing_prediction_is_an_error_unless_it_is_allowed(
        self, truth, tmp_path
    ):
        save_instances(tmp_path / "found", "cam1/000", MAPS["cam1/000"])
        with pytest.raises(
            InputError, match=r"cam2/000\.png of .* none \(1 of 2 true images"
        ):
            ScoreInstances(tmp_path / "found", truth).run()
        scores = ScoreInstances(tmp_path / "found", truth, partial=True).run()
        assert (scores["num_images"], scores["num_unpredicted"]) == (1, 1)


class TestResults:
    """What `sphemb predict` writes of such images can be scored."""

    @pytest.fixture
    def images(self, tmp_path):
        paths = [tmp_path / "in" / f"{name}.png" for name in MAPS]
        for path in paths:
            save(path, np.zeros(SIZE, np.uint8))
        return paths

    def write(self, images, out, **attributes):
        config = tiny_config(out)
        files = DetectionFiles(
            Trained(Experiment(config), {}, (), 0, class_names=NAMES)
        )
        files.called = result_names(images)
        for key, value in attributes.items():
            setattr(files, key, value)
        windows = [ImageWindows(path) for path in images]
        targets = image_targets(windows, files.called, files.per_image, out)
        for image, own, labels in zip(windows, targets, MAPS.values(), strict=True):
            own[0].parent.mkdir(parents=True)
            found = {
                "labels": labels.astype(np.int32),
                "classes": labels.astype(np.int32),
                "instance_classes": np.array([1]),
                "instance_scores": np.array([0.75]),
            }
            files.write(own, image, found)
        files.finish([out / "results.json"])
        return out

    def test_in_folders_and_with_the_ids_of_annotations(self, images, truth, tmp_path):
        ids = annotation_ids(truth, images, NAMES)
        assert ids.images == {images[0]: 1, images[1]: 2}
        out = self.write(images, tmp_path / "out", ids=ids)
        (tmp_path / "names.txt").write_text("background\ncat\n", encoding="utf-8-sig")
        for predictions in (out, out / "results.json"):
            scores = ScoreInstances(
                predictions, truth, names=tmp_path / "names.txt"
            ).run()
            assert scores["AP"] == pytest.approx(1.0)

    def test_without_annotations_they_have_the_paths(self, images, tmp_path):
        out = self.write(images, tmp_path / "out")
        results = json.loads((out / "results.json").read_text())
        assert [r["image_id"] for r in results] == list(MAPS)

    def test_numbers_that_are_other_images_are_refused(self, tmp_path):
        """An image's number in its name need not be its id."""
        truth = coco(tmp_path, ["001.png", "002.png", "003.png"], MAPS.values())
        result = {"image_id": 2, "category_id": 1, "score": 0.5}
        result |= {"segmentation": encode_mask(MAPS["cam1/000"] > 0)}
        path = tmp_path / "results.json"
        path.write_text(json.dumps([result | {"file_name": "003.png"}]))
        with pytest.raises(InputError, match=r"is 003\.png in it, and 002\.png there"):
            ScoreInstances(path, truth).run()
        path.write_text(json.dumps([result | {"file_name": "002.png"}]))
        assert ScoreInstances(path, truth).run()["num_images"] == 3

    def test_a_file_of_annotations_with_one_stem_twice_gives_each_its_id(
        self, tmp_path
    ):
        truth = coco(tmp_path, ["000.jpg", "000.png"], MAPS.values())
        image = pathlib.Path("photos/000.png")
        assert annotation_ids(truth, [image], NAMES).images == {image: 2}
        with pytest.raises(InputError, match=r"may be of 000\.jpg or 000\.png"):
            annotation_ids(truth, [image.with_suffix(".tif")], NAMES)
        truth = coco(tmp_path, [f"{n}.png" for n in MAPS], MAPS.values())
        with pytest.raises(InputError, match=r"cam1/000\.png is in another folder"):
            annotation_ids(truth, [image], NAMES)


class TestClasses:
    def test_sub_folders_and_endings_count(self, tmp_path):
        for name, labels in MAPS.items():
            save(tmp_path / "truth" / f"{name}.PNG", labels)
            save(tmp_path / "found" / f"{name}_classes.tif", labels)
        scores = ScoreClasses(tmp_path / "found", tmp_path / "truth", trimap=0).run()
        assert scores["mean_iou"] == 1.0
        assert scores["num_images"] == 2
        save(tmp_path / "flat" / "000.png", labels)
        with pytest.raises(InputError, match=r"may be of cam1/000\.PNG or cam2/000"):
            ScoreClasses(tmp_path / "flat", tmp_path / "truth", partial=True).run()

    def test_what_cannot_keep_values_is_named(self, tmp_path):
        for folder in ("truth", "found"):
            save(tmp_path / folder / "a.png", MAPS["cam1/000"])
        Image.fromarray(MAPS["cam1/000"]).save(tmp_path / "found" / "a.jpg")
        scores = ScoreClasses(tmp_path / "found", tmp_path / "truth", trimap=0).run()
        assert scores["mean_iou"] == 1.0  # the picture beside it is left out
        (tmp_path / "found" / "a.png").unlink()
        with pytest.raises(InputError, match=r"a\.jpg is encoded as JPEG"):
            ScoreClasses(tmp_path / "found", tmp_path / "truth", trimap=0).run()

    def test_two_files_of_one_image_are_refused(self, tmp_path):
        save(tmp_path / "truth" / "a.png", MAPS["cam1/000"])
        for ending in ("png", "tif"):
            save(tmp_path / "found" / f"a.{ending}", MAPS["cam1/000"])
        with pytest.raises(InputError, match="one file for each name"):
            ScoreClasses(tmp_path / "found", tmp_path / "truth").run()


class TestBoundaries:
    def test_sub_folders_and_tiff_count_and_overlays_do_not(self, tmp_path):
        for name, labels in MAPS.items():
            soft = (65535 * labels.astype(int)).astype(np.uint16)
            ending = {"cam1/000": "TIF", "cam2/000": "png"}[name]
            save(tmp_path / "maps" / f"{name}.{ending}", soft)
            save(tmp_path / "maps" / "overlays" / f"{name}.png", labels)
            truth = np.empty((1, 1), object)
            truth[0, 0] = {"Segmentation": labels + 1, "Boundaries": labels}
            path = tmp_path / "truth" / f"{name}.mat"
            path.parent.mkdir(parents=True)
            savemat(path, {"groundTruth": truth})
        given = (tmp_path / "maps", tmp_path / "truth")
        settings = {"thresholds": 1, "processes": 1}
        assert ScoreBoundaries(*given, **settings).run()["num_images"] == 2
        (tmp_path / "maps" / "cam2" / "000.png").unlink()
        with pytest.raises(InputError, match=r"cam2/000\.mat must have a prediction"):
            ScoreBoundaries(*given, **settings).run()
        scores = ScoreBoundaries(*given, **settings, partial=True).run()
        assert (scores["num_images"], scores["num_unpredicted"]) == (1, 1)
