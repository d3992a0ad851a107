"""A fault in a file of COCO's annotations is one line by whatever reads it."""

import copy
import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sphemb._checks import InputError
from sphemb.cli import ScoreBoundaries, ScoreClasses, ScoreInstances, main
from sphemb.cli._instance_files import annotation_ids
from sphemb.data import load_annotations, open_folder, prepare_coco, prepare_voc

SIZE = (16, 24)


def outline(x, y):
    return [[x, y, x + 6, y, x + 6, y + 6, x, y + 6]]


GOOD = {
    "images": [
        {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]}
        for i in (1, 2)
    ],
    "annotations": [
        {
            "id": i,
            "image_id": i,
            "category_id": 3,
            "segmentation": outline(2 * i, i),
            "area": 36,
            "bbox": [2 * i, i, 6, 6],
            "iscrowd": 0,
        }
        for i in (1, 2)
    ],
    "categories": [{"id": 3, "name": "cat"}],
}


def changed(key, name, value):
    def change(content):
        for entry in content[key]:
            entry[name] = value(entry[name]) if callable(value) else value

    return change


FAULTS = {
    "text image_id": (changed("annotations", "image_id", str), "lacks image '1'"),
    "text ids of images": (changed("images", "id", str), "got '1'"),
    "text category_id": (changed("annotations", "category_id", str), "category '3'"),
    "text ids of categories": (changed("categories", "id", str), "got '3'"),
    "fractional image_id": (changed("annotations", "image_id", float), "image 1.0"),
    "no image_id": (changed("annotations", "image_id", None), "lacks image None"),
    "a list as image_id": (changed("annotations", "image_id", [1]), "image [1]"),
    "images that are not listed": (
        changed("annotations", "image_id", lambda i: i + 90),
        "lacks image 91 of annotation 1",
    ),
    "categories that are not listed": (
        changed("annotations", "category_id", 4),
        "lacks category 4 of annotation 1",
    ),
    "one image twice": (changed("images", "file_name", "1.png"), "lists 1.png twice"),
    "one id twice": (changed("images", "id", 1), "an id of its own"),
    "text iscrowd": (changed("annotations", "iscrowd", "0"), "annotation 1 has '0'"),
    "iscrowd of 2": (changed("annotations", "iscrowd", 2), "annotation 1 has 2"),
    "iscrowd of null": (changed("annotations", "iscrowd", None), "1 has None"),
    "crowds alone": (changed("annotations", "iscrowd", 1), "annotations are crowds"),
    "text height": (changed("images", "height", "16"), "height and width of 1.png"),
    "images that are text": (
        lambda content: content.update(images=["1.png"]),
        "images is not a list of entries",
    ),
    "no annotations": (
        lambda content: content.pop("annotations"),
        "annotations is not a list of entries",
    ),
}


@pytest.fixture
def tree(tmp_path):
    """COCO's own layout, which all readers take."""
    for split in ("train2017", "val2017"):
        (tmp_path / split).mkdir()
        for i, image in enumerate(GOOD["images"]):
            pixels = np.full((*SIZE, 3), 40 * i + len(split), np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / image["file_name"])
    return tmp_path


def write(tree, content, **settings):
    (tree / "annotations").mkdir(exist_ok=True)
    for split in ("train2017", "val2017"):
        path = tree / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content), **settings)
    return path


def results(tree):
    found = [{**annotation, "score": 0.5} for annotation in GOOD["annotations"]]
    path = tree / "results.json"
    path.write_text(json.dumps(found))
    return path


READERS = {
    "prepared": lambda tree, path: prepare_coco(coco_dir=tree, data_dir=tree / "tfds"),
    "folder": lambda tree, path: open_folder(tree),
    "score": lambda tree, path: ScoreInstances(
        results(tree), path, out=tree / "out", overwrite=True
    ).run(),
    "predict": lambda tree, path: annotation_ids(
        path, [tree / "val2017" / "1.png"], ("background", "cat")
    ),
}


class TestFaults:
    @pytest.mark.parametrize("reader", READERS)
    def test_a_file_without_fault_is_read(self, tree, reader):
        for encoding in ("utf-8", "utf-8-sig"):
            path = write(tree, GOOD, encoding=encoding)
            read = READERS[reader](tree, path)
        if reader == "score":
            assert read["AP"] == pytest.approx(1.0)

    @pytest.mark.parametrize("fault", FAULTS)
    @pytest.mark.parametrize("reader", READERS)
    def test_a_fault_is_one_line_that_names_the_file(self, tree, reader, fault):
        content = copy.deepcopy(GOOD)
        change, words = FAULTS[fault]
        change(content)
        path = write(tree, content)
        with pytest.raises(InputError) as raised:
            READERS[reader](tree, path)
        line = str(raised.value)
        assert words in line
        assert "instances_" in line
        assert "\n" not in line
        assert not (tree / "out").exists()

    @pytest.mark.parametrize("fault", ["text image_id", "crowds alone"])
    def test_commands_end_with_a_status(self, tree, capsys, fault):
        content = copy.deepcopy(GOOD)
        FAULTS[fault][0](content)
        path = write(tree, content)
        files = ["--predictions", results(tree), "--groundtruth", path]
        for arguments in (["check-data", tree], ["score", "instances", *files]):
            with pytest.raises(SystemExit) as exit_info:
                main([str(a) for a in arguments])
            assert exit_info.value.code == 2
            captured = capsys.readouterr()
            assert len(captured.err.splitlines()) == 1
            assert not captured.out

    @pytest.mark.parametrize("reader", ["prepared", "score", "predict"])
    def test_two_categories_of_one_name_are_not_told_apart(self, tree, reader):
        content = copy.deepcopy(GOOD)
        content["categories"].append({"id": 4, "name": "cat"})
        path = write(tree, content)
        with pytest.raises(InputError, match="a name of its own for every category"):
            READERS[reader](tree, path)
        open_folder(tree)  # which reads instances alone

    def test_both_splits_must_number_classes_alike(self, tree):
        """Numbered by themselves, the cats of one were the dogs of the other."""
        content = copy.deepcopy(GOOD)
        path = write(tree, content)
        content["categories"].insert(0, {"id": 1, "name": "dog"})
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match="differ in dog"):
            READERS["prepared"](tree, path)

    def test_panoptic_segments_are_checked_too(self, tmp_path):
        content = copy.deepcopy(GOOD)
        segment = {"id": 7, "category_id": 3, "iscrowd": 0}
        content["annotations"] = [
            {"image_id": 1, "file_name": "1.png", "segments_info": [segment]}
        ]
        path = tmp_path / "panoptic_val2017.json"
        for key, value, words in (
            ("category_id", "3", "category '3'"),
            ("id", "7", "got '7'"),
            ("iscrowd", "0", "has '0'"),
            ("iscrowd", 1, "are crowds"),
            ("iscrowd", 0, ""),
        ):
            content["annotations"][0]["segments_info"] = [{**segment, key: value}]
            path.write_text(json.dumps(content))
            if not words:
                assert load_annotations(path) == content
                continue
            with pytest.raises(InputError, match=words):
                load_annotations(path)


class TestNothingToScore:
    """No score is not a number: nothing is written, and the status is not 0."""

    def test_no_true_object(self, tree):
        content = {**copy.deepcopy(GOOD), "annotations": []}
        path = write(tree, content)
        with pytest.raises(InputError, match="must have true objects"):
            ScoreInstances(results(tree), path, out=tree / "out").run()
        assert not (tree / "out").exists()

    def test_no_true_pixel(self, tmp_path):
        for name, value in {"true": 255, "found": 0}.items():
            (tmp_path / name).mkdir()
            labels = np.full(SIZE, value, np.uint8)
            Image.fromarray(labels).save(tmp_path / name / "a.png")
        given = (tmp_path / "found", tmp_path / "true")
        with pytest.raises(InputError, match="all of them are void"):
            ScoreClasses(*given, void=255, out=tmp_path / "out").run()
        assert not (tmp_path / "out").exists()

    def test_no_true_curve(self, tmp_path):
        empty = np.zeros(SIZE, np.uint8)
        truth = np.empty((1, 1), object)
        truth[0, 0] = {"Segmentation": empty + 1, "Boundaries": empty}
        for name in ("maps", "true"):
            (tmp_path / name).mkdir()
        savemat(tmp_path / "true" / "a.mat", {"groundTruth": truth})
        Image.fromarray(empty + 9).save(tmp_path / "maps" / "a.png")
        with pytest.raises(InputError, match="must have boundary pixels"):
            ScoreBoundaries(tmp_path / "maps", tmp_path / "true", processes=1).run()


class TestByteOrderMark:
    def test_lists_names_and_tables_may_begin_with_one(self, tmp_path):
        labels = np.zeros(SIZE, np.uint8)
        labels[2:9, 3:12] = 1
        for name in ("true", "found"):
            (tmp_path / name).mkdir()
            Image.fromarray(labels).save(tmp_path / name / "a.png")
            for kind, text in {
                f"{name}/a.csv": "label,class,score\n1,cat,0.5\n",
                "list.txt": "a\n",
                "names.txt": "background\ncat\n",
                "names.json": '["background", "cat"]',
            }.items():
                (tmp_path / kind).write_text(text, encoding="utf-8-sig")
        given = (tmp_path / "found", tmp_path / "true")
        for names in ("names.txt", "names.json"):
            settings = {"names": tmp_path / names, "images": tmp_path / "list.txt"}
            assert ScoreInstances(*given, **settings).run()["ap_r@0.5/cat"] == 1.0
            assert ScoreClasses(*given, **settings).run()["iou/background"] == 1.0

    def test_so_may_the_lists_of_voc(self, tmp_path):
        for folder, suffix in {
            "JPEGImages": "jpg",
            "SegmentationClass": "png",
            "SegmentationObject": "png",
        }.items():
            (tmp_path / folder).mkdir()
            for name in ("a", "b"):
                image = Image.new("RGB" if suffix == "jpg" else "L", (8, 8), 1)
                image.save(tmp_path / folder / f"{name}.{suffix}")
        lists = tmp_path / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        for split, name in {"train": "a", "val": "b"}.items():
            (lists / f"{split}.txt").write_text(f"{name}\n", encoding="utf-8-sig")
        builder = prepare_voc(voc_dir=tmp_path, data_dir=tmp_path / "tfds")
        assert builder.info.splits["train"].num_examples == 1
