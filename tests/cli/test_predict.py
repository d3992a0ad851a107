"""``sphemb predict``: tiles, flags, and what is left behind."""

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools.mask import decode
from skimage.measure import regionprops_table

from sphemb._checks import InputError
from sphemb.cli import main
from sphemb.cli._names import spelled
from sphemb.cli._predict import with_smaller_tiles
from sphemb.cli._predict_files import save_labels, save_overlay
from sphemb.data import ImageWindows, read_image
from sphemb.training import Experiment, load_run, train
from sphemb.viz import overlay
from tests.names import ODD_NAMES
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def workdir(drawings_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("predict") / "run"
    config = tiny_config(drawings_dir)
    config.train.num_steps = 1
    train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, size in {"a": (32, 32, 3), "b": (30, 32, 3), "wide": (24, 60, 3)}.items():
        pixels = rng.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def predict(workdir, images, out, *flags):
    arguments = ["predict", "--model", workdir, *images, "--out", out, *flags]
    main([str(a) for a in arguments])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        predict(*arguments)
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def out(workdir, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    flags = ("--tile", 32, "--halo", 8, "--embeddings")
    predict(workdir, [folder], out, *flags)
    return out


class TestOutputs:
    def test_every_instance_of_an_image_has_a_row(self, out):
        for stem in ("a", "b", "wide"):
            labels = np.asarray(Image.open(out / f"{stem}_labels.png"))
            with (out / f"{stem}_labels.csv").open() as file:
                rows = list(csv.DictReader(file))
            assert [int(row["label"]) for row in rows] == [
                label for label in np.unique(labels) if label
            ]
            for row in rows:
                where = np.argwhere(labels == int(row["label"]))
                assert int(row["area"]) == len(where)
                box = [int(row[f"bbox-{i}"]) for i in range(4)]
                assert box == [*where.min(axis=0), *(where.max(axis=0) + 1)]
                middle = [float(row[f"centroid-{i}"]) for i in range(2)]
                np.testing.assert_allclose(middle, where.mean(axis=0), atol=5.1e-5)

    def test_coco_annotations_decode_to_the_label_images(self, out):
        content = json.loads((out / "instances.json").read_text())
        assert [image["id"] for image in content["images"]] == [1, 2, 3]
        names = {image["id"]: image["file_name"] for image in content["images"]}
        left = {
            number: np.asarray(Image.open(out / name.replace(".", "_labels."))).copy()
            for number, name in names.items()
        }
        for annotation in content["annotations"]:
            mask = decode(annotation["segmentation"]).astype(bool)
            values = left[annotation["image_id"]][mask]
            assert len(set(values.tolist())) == 1
            assert annotation["area"] == len(values)
            left[annotation["image_id"]][mask] = 0
        assert not any(labels.any() for labels in left.values())

    def test_the_table_and_the_summary_tell_of_every_image(self, out, workdir):
        summary = json.loads((out / "summary.json").read_text())
        assert summary["num_images"] == 3
        assert summary["model"] == str(workdir)
        assert summary["settings"]["tile"] == 32
        with (out / "images.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["tiles"]) for row in rows] == [1, 1, 3]
        assert all(float(row["seconds"]) > 0 for row in rows)
        assert [row["diameter"] for row in rows] == 3 * [""]  # that task resizes none
        assert [row["image"] for row in rows] == [r["image"] for r in summary["images"]]
        assert summary["found"] == sum(int(row["found"]) for row in rows)

    def test_embeddings_are_unit_vectors_of_every_pixel(self, out):
        for stem, size in {"a": (32, 32), "wide": (24, 60)}.items():
            with np.load(out / f"{stem}_embedding.npz") as file:
                embedding = file["embedding"]
            assert embedding.shape == (*size, 4)
            lengths = np.linalg.norm(embedding.astype(float), axis=-1)
            np.testing.assert_allclose(lengths, 1, atol=2e-3)


class TestFlags:
    def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
        self, workdir, folder, tmp_path, capsys
    ):
        out = tmp_path / "out"
        predict(workdir, [folder], out, "--dry-run", "--tile", 32, "--halo", 8)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4
        assert "wide.png, 24 x 60: 3 tiles of 24 x 32 -> " in lines[2]
        assert "wide_labels.png" in lines[2]
        assert lines[3] == "3 images; nothing is written"
        assert not out.exists()

    def test_the_limit_takes_the_first_images(self, workdir, folder, tmp_path):
        predict(workdir, [folder], tmp_path, "--limit", 1)
        assert {path.name for path in tmp_path.glob("*_labels.png")} == {"a_labels.png"}

    def test_small_instances_go_where_a_size_is_asked_for(
        self, workdir, folder, tmp_path
    ):
        predict(workdir, [folder / "a.png"], tmp_path / "all")
        predict(workdir, [folder / "a.png"], tmp_path / "some", "--min-size", 40)
        every, some = (
            np.asarray(Image.open(tmp_path / name / "a_labels.png"))
            for name in ("all", "some")
        )
        sizes = np.bincount(every.ravel())
        kept = [label for label in range(1, len(sizes)) if sizes[label] >= 40]
        assert 0 < len(kept) < len(sizes) - 1
        np.testing.assert_array_equal(
            some, sum(i * (every == label) for i, label in enumerate(kept, start=1))
        )

    def test_a_halo_that_leaves_no_core_is_refused(
        self, workdir, folder, tmp_path, capsys
    ):
        line = refused(capsys, workdir, [folder], tmp_path, "--tile", 32, "--halo", 16)
        assert "--tile must be more than twice --halo, got 32 and 16" in line

    def test_an_image_is_never_written_over(self, workdir, tmp_path, capsys):
        image = tmp_path / "x_labels.png"
        Image.new("RGB", (8, 8)).save(image)
        Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
        line = refused(capsys, workdir, [tmp_path], tmp_path, "--overwrite")
        assert "x_labels.png is an image that is predicted" in line

    def test_results_do_not_go_into_the_run(self, workdir, folder, capsys):
        line = refused(capsys, workdir, [folder], workdir, "--overwrite")
        assert "--out must not be the run's own folder" in line

    def test_annotations_go_with_classes_alone(self, workdir, folder, tmp_path, capsys):
        flags = ("--annotations", tmp_path / "instances.json")
        line = refused(capsys, workdir, [folder], tmp_path / "out", *flags)
        assert "what this run predicts has no instances with classes" in line

    def test_outlines_are_of_instances_alone(self, workdir, folder, tmp_path, capsys):
        classes = shutil.copytree(workdir, tmp_path / "classes")
        config = json.loads((classes / "config.json").read_text())
        config["task"] = {"name": "Semantic", "num_classes": 4}
        (classes / "config.json").write_text(json.dumps(config))
        line = refused(capsys, classes, [folder], tmp_path / "out", "--geojson")
        assert line == "error: --geojson: what this run predicts has no instances"
        assert not (tmp_path / "out").exists()

    def test_embeddings_of_a_huge_image_are_refused(self, workdir, tmp_path, capsys):
        image = tmp_path / "huge.tif"
        tifffile.memmap(image, shape=(20000, 20000), dtype=np.uint8).flush()
        out = tmp_path / "out"
        line = refused(capsys, workdir, [image], out, "--embeddings")
        assert "would take 3.0 GiB, of at most 2" in line


@pytest.fixture(scope="module")
def limited(workdir, tmp_path_factory):
    """The run, with room for a single group of pixels that are all but equal."""
    limited = tmp_path_factory.mktemp("limited") / "run"
    shutil.copytree(workdir, limited)
    config = json.loads((limited / "config.json").read_text())
    config["task"].update(max_groups=1, threshold=0.99999, min_size=1)
    (limited / "config.json").write_text(json.dumps(config))
    return limited


class TestLimits:
    def test_images_that_reached_a_limit_are_named(
        self, workdir, limited, folder, tmp_path, capsys
    ):
        flags = ("--tile", 32, "--halo", 8)
        predict(limited, [folder], tmp_path / "few", *flags)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 4
        for line, stem in zip(lines, ("a", "b", "wide"), strict=False):
            assert f"{stem}.png reached config.task.max_groups: it may hold" in line
        assert "3 of 3 images reached config.task.max_groups 1: they may" in lines[3]
        with (tmp_path / "few" / "images.csv").open() as file:
            assert [row["reached"] for row in csv.DictReader(file)] == 3 * [
                "max_groups"
            ]
        # Of many images, the first have a line, and all of them together.
        for i in range(9):
            shutil.copy(folder / "a.png", tmp_path / f"{i}.png")
        predict(limited, [tmp_path], tmp_path / "many")
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 6
        assert "9 of 9 images" in lines[-1]

        predict(workdir, [folder / "a.png"], tmp_path / "room")
        assert not capsys.readouterr().err
        with (tmp_path / "room" / "images.csv").open() as file:
            assert [row["reached"] for row in csv.DictReader(file)] == [""]

    def test_an_evaluation_counts_them(self, limited, capsys):
        main(["evaluate", "--workdir", str(limited), "--report"])
        summary = json.loads((limited / "summary.json").read_text())
        images = summary["num_images"]
        assert summary["num_reached/max_groups"] == images
        line = f"{images} of {images} images reached config.task.max_groups 1"
        assert line in capsys.readouterr().err
        assert line in (limited / "report.html").read_text()


class TestOtherPrograms:
    """What napari, Fiji, QuPath and pandas read."""

    @pytest.fixture
    def values(self):
        return np.random.default_rng(3).integers(0, 2**16, (32, 32), dtype=np.uint16)

    def test_results_of_a_tiff_have_its_resolution_its_values_and_outlines(
        self, workdir, values, tmp_path
    ):
        tifffile.imwrite(
            tmp_path / "x.tif",
            values,
            imagej=True,
            resolution=(2.5, 4.0),
            metadata={"unit": "micron"},
        )
        out = tmp_path / "out"
        predict(workdir, [tmp_path / "x.tif"], out, "--geojson")
        with tifffile.TiffFile(out / "x_labels.tif") as file:
            labels, page = file.asarray(), file.pages.first
            assert file.imagej_metadata["unit"] == "micron"
            assert not page.is_tiled  # which ImageJ would not open
            tags = [page.tags[name].value for name in ("XResolution", "YResolution")]
            assert [a / b for a, b in tags] == [2.5, 4.0]
        assert labels.dtype == np.uint16
        names = ("label", "area", "centroid", "bbox", "perimeter", "intensity_mean")
        expected = regionprops_table(labels, values, properties=names)
        with (out / "x_labels.csv").open() as file:
            head, *rows = csv.reader(file)
        assert head == list(expected)
        assert len(rows) > 1
        columns = np.stack([*expected.values()], axis=1)
        np.testing.assert_allclose(np.array(rows, float), columns, rtol=0, atol=5.1e-5)
        content = json.loads((out / "x_labels.geojson").read_text())
        features = content["features"]
        assert [f["properties"]["name"] for f in features] == [row[0] for row in rows]
        for feature, area in zip(features, expected["area"], strict=True):
            polygons = feature["geometry"]["coordinates"]
            if feature["geometry"]["type"] == "Polygon":
                polygons = [polygons]
            found = 0.0
            for x, y in (np.array(ring).T for rings in polygons for ring in rings):
                found += np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2
            assert found == area

    def test_a_png_has_its_resolution_in_its_results(self, workdir, values, tmp_path):
        image = Image.fromarray((values >> 8).astype(np.uint8))
        image.save(tmp_path / "x.png", dpi=(101600, 50800))
        predict(workdir, [tmp_path / "x.png"], tmp_path / "out")
        for name in ("x_labels.png", "x_overlay.png"):
            with Image.open(tmp_path / "out" / name) as file:
                assert file.info["dpi"] == pytest.approx((101600, 50800), rel=1e-6)

    def test_outlines_are_not_overwritten_unasked(
        self, workdir, folder, tmp_path, capsys
    ):
        kept = tmp_path / "a_labels.geojson"
        kept.write_text("mine")
        line = refused(capsys, workdir, [folder / "a.png"], tmp_path, "--geojson")
        assert (
            line == f"error: {kept} exists already: give --overwrite or another --out"
        )
        assert kept.read_text() == "mine"

    def test_a_dry_run_names_the_files(self, workdir, values, tmp_path, capsys):
        tifffile.imwrite(tmp_path / "x.tif", values)
        flags = ("--geojson", "--dry-run")
        predict(workdir, [tmp_path / "x.tif"], tmp_path / "out", *flags)
        named = capsys.readouterr().out.splitlines()[0]
        for kind in ("labels.tif", "overlay.png", "labels.csv", "labels.geojson"):
            assert f"x_{kind}" in named


class TestPictures:
    def test_more_labels_than_16_bits_hold_become_a_tiff(self, tmp_path):
        labels = np.arange(300 * 300).reshape(300, 300).astype(np.int32)
        path = save_labels(tmp_path / "x_labels.png", labels)
        assert path == tmp_path / "x_labels.tif"
        np.testing.assert_array_equal(tifffile.imread(path), labels)
        assert [p.name for p in tmp_path.iterdir()] == ["x_labels.tif"]

    @pytest.mark.parametrize("ending", [".png", ".tif"])
    def test_an_overlay_in_strips_is_that_of_the_whole(self, tmp_path, ending):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (600, 40, 3), dtype=np.uint8)
        labels = np.repeat(np.arange(60), 10)[:, None] + np.zeros((1, 40), int)
        Image.fromarray(pixels).save(tmp_path / "image.png")
        target = tmp_path / f"overlay{ending}"
        save_overlay(target, ImageWindows(tmp_path / "image.png"), labels)
        found = ImageWindows(target).whole()
        whole = np.rint(255 * overlay(pixels, labels)).astype(np.uint8)
        np.testing.assert_array_equal(found, whole)


class TestMemory:
    """XLA's own error: no machine has a pebibyte."""

    @staticmethod
    def work(fits):
        def run(tile):
            if tile > fits:
                return jnp.zeros(2**50).block_until_ready()
            return jnp.zeros(tile).size

        return run

    def test_tiles_are_halved_until_the_memory_is_enough(self):
        told = []
        result, tile = with_smaller_tiles(
            self.work(300), 1024, least=64, name="x.png", say=told.append
        )
        assert result == tile == 256
        assert told == [
            "x.png: out of memory in tiles of 1024, again in tiles of 512",
            "x.png: out of memory in tiles of 512, again in tiles of 256",
        ]

    def test_the_smallest_tile_is_the_last_that_is_tried(self):
        told = []
        with pytest.raises(InputError, match="not fit in the device's memory in tiles"):
            with_smaller_tiles(self.work(10), 100, least=60, name="x", say=told.append)
        assert told == ["x: out of memory in tiles of 100, again in tiles of 60"]

    def test_another_error_of_the_device_stays_one(self):
        def broken(tile):
            return jax.ffi.ffi_call("no_such_call", jax.ShapeDtypeStruct((), float))()

        with pytest.raises(jax.errors.JaxRuntimeError):
            with_smaller_tiles(broken, 64, least=8, name="x")


class TestNames:
    def test_every_image_has_its_files_a_row_and_a_line_whatever_it_is_called(
        self, workdir, tmp_path, capsys
    ):
        images, out = tmp_path / "in", tmp_path / "out"
        images.mkdir()
        rng = np.random.default_rng(1)
        for name in ODD_NAMES:
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{name}.png")
        predict(workdir, [images], out)
        told = capsys.readouterr().out
        assert "\x1b" not in told
        assert len(re.findall(r"^\[\d+/\d+\] ", told, re.MULTILINE)) == len(ODD_NAMES)
        for name in ODD_NAMES:
            for kind in ("labels.png", "overlay.png", "labels.csv"):
                assert (out / f"{name}_{kind}").is_file()
        # Strict readers take them: all of it is UTF-8, and nothing half a character.
        table = (out / "images.csv").read_bytes().decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(table, newline="")))
        expected = {spelled(images / f"{name}.png") for name in ODD_NAMES}
        assert {row["image"] for row in rows} == expected
        assert len(rows) == len(ODD_NAMES)
        assert all(row["tiles"] == "1" for row in rows)
        content = json.loads((out / "instances.json").read_bytes().decode("utf-8"))
        listed = {image["file_name"] for image in content["images"]}
        assert listed == {spelled(f"{name}.png") for name in ODD_NAMES}
        assert r"caf\xe9.png" in listed
        summary = json.loads((out / "summary.json").read_bytes().decode("utf-8"))
        assert {row["image"] for row in summary["images"]} == expected
        "".join([*listed, *expected]).encode("utf-8")

    def test_images_of_one_stem_have_their_results_in_sub_folders(
        self, workdir, folder, tmp_path
    ):
        for name, source in {"cam1": "a", "cam2": "b"}.items():
            (tmp_path / "in" / name).mkdir(parents=True)
            shutil.copy(folder / f"{source}.png", tmp_path / "in" / name / "000.png")
        out = tmp_path / "out"
        predict(workdir, [tmp_path / "in" / "*" / "*.png"], out)
        for name, rows in {"cam1": 32, "cam2": 30}.items():
            labels = np.asarray(Image.open(out / name / "000_labels.png"))
            assert labels.shape == (rows, 32)
            assert (out / name / "000_labels.csv").is_file()
        content = json.loads((out / "instances.json").read_text())
        assert [i["file_name"] for i in content["images"]] == [
            "cam1/000.png",
            "cam2/000.png",
        ]

    def test_what_begins_with_a_dash_is_a_path_behind_two_dashes(
        self, workdir, folder, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        shutil.copy(folder / "a.png", "-a.png")
        flags = [f"--model={workdir}", "--out=out", "--dry-run"]
        main(["predict", *flags, "--", "-a.png"])
        assert capsys.readouterr().out.startswith("-a.png, 32 x 32: 1 tile")


class TestLinks:
    def test_images_may_be_links_and_broken_ones_are_named(
        self, workdir, folder, tmp_path, capsys
    ):
        images = tmp_path / "in"
        images.mkdir()
        (images / "a.png").symlink_to(folder / "a.png")
        predict(workdir, [images], tmp_path / "out")
        assert (tmp_path / "out" / "a_labels.png").is_file()
        capsys.readouterr()
        for name, target in {"gone": "nowhere.png", "ring": "ring.png"}.items():
            link = images / f"{name}.png"
            link.symlink_to(target)
            line = refused(capsys, workdir, [images], tmp_path / "other")
            assert line == f"error: no such image file: {link}"
            line = refused(capsys, workdir, [link], tmp_path / "other")
            assert line == f"error: no such file or folder: {link}"
            link.unlink()
        assert not (tmp_path / "other").exists()

    def test_nothing_is_written_through_a_link_among_the_results(
        self, workdir, folder, tmp_path, capsys
    ):
        out, mine = tmp_path / "out", tmp_path / "mine.txt"
        out.mkdir()
        mine.write_text("mine")
        names = ["a_labels.png", "a_overlay.png", "a_labels.csv", "a_embedding.npz"]
        names += ["images.csv", "instances.json", "summary.json"]
        for name in names:
            (out / name).symlink_to(mine)
            (out / f".{name}.{os.getpid()}.part").symlink_to(mine)
        arguments = (workdir, [folder / "a.png"], out)
        assert "exists already" in refused(capsys, *arguments)
        predict(*arguments, "--embeddings", "--overwrite")
        assert mine.read_text() == "mine"
        assert not any((out / name).is_symlink() for name in names)

    def test_results_in_a_ring_of_links_are_one_line(
        self, workdir, folder, tmp_path, capsys
    ):
        ring = tmp_path / "ring"
        ring.symlink_to(ring)
        line = refused(capsys, workdir, [folder / "a.png"], ring)
        assert line.startswith("error: --out must be a folder for results")


# What is opened to write, made, moved, or started, while it is listened to.
_events = []
_listening = []


@sys.addaudithook
def _note(event, arguments):
    if not _listening:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes) and flags & (os.O_WRONLY | os.O_RDWR):
            _events.append((event, os.fsdecode(path)))
    elif event in ("os.mkdir", "os.rename", "os.symlink", "os.truncate"):
        place = arguments[0 if event in ("os.mkdir", "os.truncate") else 1]
        _events.append((event, os.fsdecode(place)))
    elif event in ("subprocess.Popen", "os.system", "os.exec", "pickle.find_class"):
        _events.append((event, str(arguments)))


class TestStrangers:
    """Runs that come from somebody else."""

    @pytest.fixture
    def strange(self, workdir, tmp_path):
        """A run that names folders of ours in all places where it can name any."""
        run = shutil.copytree(workdir, tmp_path / "strange")
        config = json.loads((run / "config.json").read_text())
        ours = tmp_path / "ours"
        ours.mkdir()
        config["data"]["data_dir"] = str(ours)
        config["data"]["mnist_path"] = str(ours / "mnist.npz")
        config["train"]["init_from"] = str(ours)
        config["train"]["weights"] = "../../ours/weights"
        (run / "config.json").write_text(json.dumps(config))
        return run, ours

    def test_a_prediction_writes_and_starts_nothing_but_its_results(
        self, strange, folder, tmp_path
    ):
        run, ours = strange
        before = sorted(run.rglob("*"))
        out = tmp_path / "results"
        _listening.append(True)
        try:
            predict(run, [folder / "a.png"], out)
        finally:
            _listening.clear()
        cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
        allowed = (str(out), cache, "/dev/")
        elsewhere = [e for e in _events if not e[1].startswith(allowed)]
        assert elsewhere == []
        assert any(path.startswith(str(out)) for _, path in _events)
        assert sorted(run.rglob("*")) == before
        assert not any(ours.iterdir())

    def test_an_evaluation_prepares_nothing_where_the_run_says(self, strange, capsys):
        run, ours = strange
        config = json.loads((run / "config.json").read_text())
        config["data"]["mnist_path"] = None
        (run / "config.json").write_text(json.dumps(config))
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "--workdir", str(run)])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(
            f"error: digits must have been prepared in {ours}, where a run"
        )
        assert not any(ours.iterdir())

    @pytest.mark.parametrize("name", ["pictures", "checkpoints", "tensorboard"])
    def test_links_out_of_a_run_are_refused(
        self, workdir, drawings_dir, tmp_path, capsys, name
    ):
        run = shutil.copytree(workdir, tmp_path / "run")
        (run / name).rename(tmp_path / "ours")
        (run / name).symlink_to(tmp_path / "ours")
        words = f"{run / name} must lie in its run, but it is a link"
        if name == "pictures":
            with pytest.raises(SystemExit):
                main(["evaluate", "--workdir", str(run)])
            assert f"error: {words}" in capsys.readouterr().err
        config = tiny_config(drawings_dir)
        config.train.num_steps = 1
        with pytest.raises(InputError, match=re.escape(words)):
            train(config, run)

    def test_a_run_names_classes_of_ours_and_nothing_else(
        self, strange, folder, tmp_path, capsys
    ):
        run, _ = strange
        config = json.loads((run / "config.json").read_text())
        for section, name in {
            "model": "os.system",
            "task": "__import__",
            "augmentation": "subprocess",
        }.items():
            text = json.dumps({**config, section: {"name": name, "command": "true"}})
            (run / "config.json").write_text(text)
            if section == "augmentation":  # which nothing asks for
                predict(run, [folder / "a.png"], tmp_path / "out", "--dry-run")
                continue
            line = refused(capsys, run, [folder / "a.png"], tmp_path / "out")
            assert f"config.{section}.name must be one of" in line

    @pytest.mark.parametrize("section", ["model", "task", "data", "augmentation"])
    @pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "builtins:exec"])
    def test_a_run_calls_nothing_but_a_class_of_its_kind(
        self, workdir, drawings_dir, section, name
    ):
        config = tiny_config(drawings_dir)
        config[section] = {"name": name, "command": "true"}
        words = f"config.{section}.name {name} must be a class with "
        experiment = Experiment(config)
        parts = {
            "model": lambda: experiment.model,
            "task": lambda: experiment.task,
            "data": lambda: experiment.source("train"),
            "augmentation": lambda: experiment._augmentation,
        }
        with pytest.raises(InputError, match=re.escape(words)):
            parts[section]()


@pytest.fixture(scope="module")
def stack():
    pages = np.random.default_rng(0).integers(0, 4096, (3, 32, 32), dtype=np.uint16)
    pages[0] = 0
    return pages


@pytest.fixture(scope="module")
def stack_run(stack, drawings_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp("stacks")
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / "data" / split / kind).mkdir(parents=True)
        for i in range(8 if split == "train" else 1):
            folder = root / "data" / split
            tifffile.imwrite(
                folder / "images" / f"{i}.tif",
                np.maximum(stack, i),
                photometric="minisblack",
            )
            ids = np.zeros((32, 32), np.uint8)
            ids[4:12, 4:20], ids[16:28, 9:25] = 1, 2
            Image.fromarray(ids).save(folder / "masks" / f"{i}.png")
    config = tiny_config(drawings_dir)
    config.data = {
        **{"name": "folder", "dir": str(root / "data")},
        **{"page": "max", "intensity": "range"},
    }
    config.augmentation = {"name": None}
    config.train.num_steps = 1
    train(config, root / "run")
    train(config, root / "run")  # and resumes, with the numbers that it kept
    return root / "run"


class TestReading:
    """Pages and intensities are those of the run."""

    def test_a_run_keeps_the_range_that_was_measured(self, stack_run, stack):
        kept = json.loads((stack_run / "config.json").read_text())["data"]
        high = stack.max()
        low = stack.max(axis=0).min()
        assert kept["intensity"] == f"{low}..{high}/65535"
        assert kept["page"] == "max"

    def test_what_the_run_learned_from_is_what_is_predicted(
        self, stack_run, stack, tmp_path, capsys
    ):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        tifffile.imwrite(tmp_path / "a" / "x.tif", stack, photometric="minisblack")
        reading = load_run(stack_run).experiment.reading
        shown = read_image(tmp_path / "a" / "x.tif", reading)
        Image.fromarray(shown).save(tmp_path / "b" / "x.png")
        plain = tmp_path / "plain"
        shutil.copytree(stack_run, plain)
        config = json.loads((plain / "config.json").read_text())
        config["data"] |= {"page": "0", "intensity": "full"}
        (plain / "config.json").write_text(json.dumps(config))
        predict(stack_run, [tmp_path / "a"], tmp_path / "out_a", "--embeddings")
        assert "x.tif, maximum of 3 pages, 32 x 32: " in capsys.readouterr().out
        predict(plain, [tmp_path / "a"], tmp_path / "out_c", "--dry-run")
        warnings = capsys.readouterr().err
        assert "warning: 1 image (TIFF) of 3 pages, of which page 0 is" in warnings
        predict(plain, [tmp_path / "b"], tmp_path / "out_b", "--embeddings")
        a, b = (
            np.load(tmp_path / out / "x_embedding.npz")["embedding"]
            for out in ("out_a", "out_b")
        )
        np.testing.assert_array_equal(a, b)
        assert len(np.unique(a[..., 0])) > 9
        summary = json.loads((tmp_path / "out_a" / "summary.json").read_text())
        assert summary["reading"] == dataclasses.asdict(reading)

    def test_a_page_can_be_picked(self, stack_run, stack, tmp_path, capsys):
        tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack")
        flags = (tmp_path / "out", "--dry-run", "--page")
        predict(stack_run, [tmp_path / "x.tif"], *flags, "2")
        printed = capsys.readouterr()
        assert "x.tif, page 2 of 3, 32 x 32: " in printed.out
        assert not printed.err
        line = refused(capsys, stack_run, [tmp_path / "x.tif"], *flags, "3")
        assert "has 3 pages, 0 to 2, but page 3 is to be read" in line
        line = refused(capsys, stack_run, [tmp_path / "x.tif"], *flags, "all")
        assert "page must be a number from 0 on, or 'max', got 'all'" in line
