"""Names and links of all kinds, in folders that a user chose and in annotations."""

import json
import os

import pytest
from PIL import Image

from sphemb import InputError
from sphemb.cli import main, run_training
from sphemb.data import FileError, ImageDataset, check_data, find_images, open_folder
from tests.data.test_folder import IDS, box, draw, mark, write_coco
from tests.names import ODD_NAMES
from tests.scenes import draw_scene
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and masks with odd names; every second pair are links to elsewhere."""
    root = tmp_path_factory.mktemp("names") / "line\nbreak"
    elsewhere = root.parent / "elsewhere"
    for i, name in enumerate(ODD_NAMES):
        for kind, write in (("images", draw), ("masks", mark)):
            path = root / kind / f"{name}.png"
            if i % 2:
                write(elsewhere / kind / path.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(elsewhere / kind / path.name)
            else:
                write(path)
    return root


class TestNames:
    def test_every_pair_is_read_under_its_own_name(self, folder):
        dataset = open_folder(folder, masks="instances")
        found = [
            source[i]["name"]
            for source in map(dataset.source, ("train", "validation", "test"))
            for i in range(len(source))
        ]
        assert sorted(found) == sorted(ODD_NAMES)
        images = ImageDataset(folder / "images")
        assert sum(len(images.source(s)) for s in ("train", "validation", "test")) == (
            len(ODD_NAMES)
        )

    def test_the_check_writes_a_line_for_each_finding_and_strict_json(
        self, folder, tmp_path, capsys
    ):
        # One value beside the background in each: a warning for each mask.
        single = tmp_path / "single"
        for name in ODD_NAMES:
            draw(single / "images" / f"{name}.png")
            mark(single / "masks" / f"{name}.png", (IDS > 0).astype("uint8"))
        out = tmp_path / "report.json"
        with pytest.raises(SystemExit) as stop:
            main(["check-data", str(single), "--out", str(out), "--limit", "0"])
        assert stop.value.code == 1  # they look binary
        told = capsys.readouterr().out
        assert "\x1b" not in told
        assert sum(line.startswith("  mask ") for line in told.split("\n")) == len(
            ODD_NAMES
        )
        report = json.loads(out.read_bytes().decode("utf-8"))
        names = [file["name"] for file in report["files"]]
        assert len(set(names)) == len(ODD_NAMES)
        "".join(names).encode("utf-8")  # nothing that is half a character

    def test_a_complaint_is_one_line_whatever_the_name(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as stop:
            main(["check-data", str(tmp_path / "no\nsuch\x1b[2J\udce9")])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: dir must be a folder of images and masks")
        assert r"\x1b[2J\udce9" in line


class TestLinks:
    def test_one_that_leads_to_nothing_or_to_itself_is_named_by_whoever_reads_it(
        self, tmp_path
    ):
        for i in range(4):
            draw(tmp_path / "images" / f"{i}.png")
            mark(tmp_path / "masks" / f"{i}.png")
        for name, target in {"gone": "nowhere.png", "ring": "ring.png"}.items():
            mark(tmp_path / "masks" / f"{name}.png")
            (tmp_path / "images" / f"{name}.png").symlink_to(target)
        report = check_data(tmp_path)
        lines = sorted(finding.message for finding in report.errors)
        assert [line.split("/")[-1] for line in lines] == ["gone.png", "ring.png"]
        assert all(line.startswith("no such image file: ") for line in lines)
        dataset = ImageDataset(tmp_path, validation_fraction=0, test_fraction=0)
        source = dataset.source("train")
        broken = [i for i, f in enumerate(source.pairs) if f.name == "images/gone"]
        with pytest.raises(InputError, match=r"no such image file: .*gone\.png"):
            source[broken[0]]

    def test_two_names_of_a_mask_are_two_masks(self, tmp_path):
        for name in "ab":
            draw(tmp_path / "images" / f"{name}.png")
        mark(tmp_path / "masks" / "a.png")
        (tmp_path / "masks" / "b.png").symlink_to("a.png")
        dataset = open_folder(tmp_path, validation_fraction=0, test_fraction=0)
        assert len(dataset.source("train")) == 2

    def test_rings_of_folders_are_gone_through_once(self, tmp_path):
        for name in "abc":
            draw(tmp_path / "deep" / "er" / f"{name}.png")
        for name in ("one", "two", "three"):  # 3^40 paths, if all were followed
            (tmp_path / "deep" / name).symlink_to(tmp_path)
        dataset = ImageDataset(tmp_path, validation_fraction=0, test_fraction=0)
        source = dataset.source("train")
        assert [pair.name for pair in source.pairs] == [
            f"deep/er/{name}" for name in "abc"
        ]

    def test_a_folder_of_images_may_lie_elsewhere(self, folder, tmp_path):
        for kind in ("images", "masks"):
            (tmp_path / kind).symlink_to(folder / kind)
        assert not check_data(tmp_path).errors

    def test_a_path_that_no_disk_has_is_one_line(self):
        for path in ("x" * 5000, "nul\0byte", "lone\ud800"):
            with pytest.raises(InputError, match="no such file or folder"):
                find_images(path)


class TestAnnotations:
    @pytest.mark.parametrize(
        "name", ["../a.png", "/etc/passwd", "images/../../a.png", "x/../../a.png", ".."]
    )
    def test_a_name_that_leads_out_is_refused(self, tmp_path, name):
        draw(tmp_path / "a.png")
        root = tmp_path / "coco"
        draw(root / "b.png")
        write_coco(root / "instances.json", ["b.png", name], [box(0, 1, 1, 4, 4)])
        with pytest.raises(InputError, match="must name images inside its folder"):
            open_folder(root)

    @pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte.png", "lone\ud800.png"])
    def test_a_name_that_no_file_has_is_missing(self, tmp_path, name):
        draw(tmp_path / "b.png")
        write_coco(tmp_path / "instances.json", ["b.png", name], [box(0, 1, 1, 4, 4)])
        with pytest.raises(FileError, match=r"every image that .* lists must be there"):
            open_folder(tmp_path)

    def test_odd_names_are_read(self, tmp_path):
        names = [f"{name}.png" for name in ODD_NAMES if name.isascii()]
        for name in names:
            draw(tmp_path / name)
        items = [box(i, 1, 1, 4, 4) for i in range(len(names))]
        write_coco(tmp_path / "instances.json", names, items)
        assert not check_data(tmp_path).errors


@pytest.mark.nightly
def test_training_scores_and_a_report_take_any_name(drawings_dir, tmp_path, capsys):
    root = tmp_path / os.fsdecode(b"caf\xe9\n")
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i, name in enumerate(ODD_NAMES):
        image, instances = draw_scene(i, (32, 32))
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        Image.fromarray(instances).save(root / "masks" / f"{name}.png")
    config = tiny_config(drawings_dir)
    config.data = {"name": "folder", "dir": str(root), "masks": "instances"}
    config.augmentation.name = None
    config.train.num_steps = 1
    run = tmp_path / "run"
    run_training(config, run)
    main(["evaluate", "--workdir", str(run), "--report"])
    page = (run / "report.html").read_bytes().decode("utf-8")
    assert "<script>alert" not in page
    assert json.loads((run / "summary.json").read_text())["step"] == 1
    # The name of the folder is in the run, and takes it on from there.
    assert run_training(config, run)["step"] == 1
    capsys.readouterr()
