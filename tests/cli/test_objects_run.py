"""A run of many objects of one kind: the size of the objects, from data to pictures."""

import csv
import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import objects
from benchmarks.objects_peers import count_separated, touching_pairs
from sphemb import InputError
from sphemb.cli import Predict, main
from sphemb.cli._runs import limit_lines
from sphemb.configs import nuclei
from sphemb.evaluation import SizedPrediction, TiledPrediction
from sphemb.training import Experiment, Trained, load_config, load_run, train
from tests.scenes import write_folder
from tests.tiny import shrink, tiny_config

SIDE = 24  # of an object


def draw_squares(seed, size):
    """Four bright squares, two of which touch."""
    rng = np.random.default_rng(seed)
    instances = np.zeros((80, 96), np.uint8)
    for number, (top, left) in enumerate(((4, 4), (4, 28), (50, 6), (48, 60)), 1):
        instances[top : top + SIDE, left : left + SIDE] = number
    image = (
        rng.integers(0, 40, (*instances.shape, 3)) + 150 * (instances > 0)[..., None]
    )
    return image.astype(np.uint8), instances


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("objects")
    config = shrink(nuclei.get_config())
    config.data.dir = str(write_folder(root / "data", 12, draw_squares))
    del config.task.diameter  # measured all the same
    train(config, root / "run")
    return root


def predict(root, out, *flags):
    images = str(root / "data" / "images")
    command = ["predict", images, "--model", str(root / "run"), "--limit", "2"]
    main([*command, "--out", str(out), *flags])
    return json.loads((out / "summary.json").read_text())


def test_the_run_keeps_the_diameter_that_it_measured(run):
    diameter = load_config(run / "run").task.diameter
    assert diameter == pytest.approx(SIDE * 2 / np.sqrt(np.pi), abs=0.05)
    # The same command resumes: the diameter is not measured again.
    config = shrink(nuclei.get_config())
    config.data.dir = str(run / "data")
    assert train(config, run / "run").experiment.config.task.diameter == diameter


def test_images_of_other_sizes_are_predicted(run, tmp_path):
    trained = load_config(run / "run").task.diameter
    # A network of one step is certain of nothing: every pixel is in an object.
    easy = shutil.copytree(run, tmp_path / "easy")
    config = json.loads((easy / "run" / "config.json").read_text())
    config["task"] |= {"threshold": 0.01, "min_score": 0.0}
    (easy / "run" / "config.json").write_text(json.dumps(config))
    diameters = {"as_trained": 2 * [trained], "small": [13.5, 13.5], "found": []}
    for name, flags in {
        "as_trained": (),
        "small": ("--diameter", "13.5"),
        "found": ("--diameter", "auto"),  # first as trained
    }.items():
        summary = predict(easy, tmp_path / name, *flags)
        assert summary["num_images"] == 2
        with Image.open(tmp_path / name / "0_labels.png") as labels:
            assert labels.size == (96, 80)
        if name == "as_trained":
            for path in sorted((tmp_path / name).glob("*_labels.csv")):
                with path.open() as table:
                    areas = [int(row["area"]) for row in csv.DictReader(table)]
                diameters["found"].append(np.sqrt(4 / np.pi * np.median(areas)))
        with (tmp_path / name / "images.csv").open() as table:
            used = [float(row["diameter"]) for row in csv.DictReader(table)]
        assert used == pytest.approx(diameters[name])


def test_tiles_are_counted_in_pixels_as_the_network_sees_them(run):
    trained = load_run(run / "run")
    assert trained.experiment.task.image_scale == 0.5
    size = (1000, 1000)
    (whole,) = TiledPrediction(trained).tiles(size, tile=512, halo=32)
    assert whole.outer.size >= size
    tiles = TiledPrediction(trained).tiles(size, tile=256, halo=32)
    assert max(tile.outer.size for tile in tiles) == (512, 512)
    assert tiles[0].outer[2] - tiles[0].core[2] == 64


def test_images_that_predict_would_cut_are_told_at_the_same_size(run, monkeypatch):
    # The images of 80 x 96 are seen at half their size: 40 x 48.
    experiment = load_run(run / "run").experiment
    for tile, told in ((44, False), (43, True)):
        monkeypatch.setattr(Predict, "tile", tile)
        assert bool(limit_lines(experiment, "test", {}, 1)) == told


def test_objects_are_seen_at_the_size_of_training(run):
    """Also where training has left images of small objects as they were."""
    trained = load_run(run / "run")
    config = trained.experiment.config.copy_and_resolve_references()
    with config.unlocked():
        config.task.update(diameter=12.0, enlarge=False)
    kept = dataclasses.replace(trained, experiment=Experiment(config))
    for diameter, side in ((None, 256), (24.0, 512), (6.0, 128)):
        first = SizedPrediction(kept, diameter).first
        tiles = first.tiles((1000, 1000), tile=256, halo=32)
        assert max(tile.outer.size for tile in tiles) == (side, side)


def test_a_diameter_may_be_whole(run):
    trained = load_run(run / "run")
    config = trained.experiment.config.copy_and_resolve_references()
    with config.task.ignore_type():
        config.task.diameter = 27
    whole = dataclasses.replace(trained, experiment=Experiment(config))
    assert SizedPrediction(whole, 9.5).first is not SizedPrediction(whole).first


def test_training_images_must_be_resized_too(run):
    config = load_config(run / "run")
    config.augmentation = {"name": "images", "size": (32, 32)}
    with pytest.raises(InputError, match=r"augmentation must have a scale.* by 0\.5"):
        Experiment(config).train_batches()


def test_a_run_is_set_beside_peers(run, tmp_path, monkeypatch):
    commands = {
        "splits": ["--workdir", str(run / "run"), "--out", str(tmp_path / "s.json")],
        "labels": ["--workdir", str(run / "run"), "--out", str(tmp_path / "10")],
        "draw": [str(tmp_path / "10"), "--splits", str(tmp_path / "s.json"),
                 "--images", "1", "--out", str(tmp_path / "all.png")],
    }  # fmt: skip
    for verb, flags in commands.items():
        monkeypatch.setattr("sys.argv", ["objects", verb, *flags])
        objects.main()
    splits = json.loads((tmp_path / "s.json").read_text())
    assert sum(map(len, splits.values())) == 12
    for pair in splits["test"]:
        labels = np.load(tmp_path / "10" / f"{pair['name']}.npy")
        with Image.open(pair["labels"]) as true:
            assert labels.shape == true.size[::-1]
    assert (tmp_path / "all.png").stat().st_size > 1000


def test_objects_that_touch_are_separated_where_each_has_a_partner_of_its_own():
    true = np.array([[1, 1, 2, 2, 0, 3, 3], [1, 1, 2, 2, 0, 4, 4]])
    assert touching_pairs(true).tolist() == [[1, 2], [3, 4]]
    separated = np.array([[5, 5, 6, 6, 0, 7, 7], [5, 5, 5, 6, 0, 7, 7]])
    assert count_separated(true, separated) == (1, 2)
    # An object that is mostly missed is not separated from its neighbor.
    missed = np.array([[5, 5, 0, 0, 0, 7, 7], [5, 5, 0, 6, 0, 8, 8]])
    assert count_separated(true, missed) == (1, 2)
    assert count_separated(np.zeros((2, 2), int), np.ones((2, 2), int)) == (0, 0)


@pytest.mark.parametrize("wrong", ["0", "-3", "nan", "large"])
def test_a_wrong_diameter_is_refused(run, tmp_path, capsys, wrong):
    with pytest.raises(SystemExit) as exit_info:
        predict(run, tmp_path / "out", f"--diameter={wrong}")
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--diameter must be a number of pixels above 0, or auto" in line
    assert not (tmp_path / "out").exists()


def test_a_run_that_does_not_resize_is_refused(tmp_path):
    other = Trained(Experiment(tiny_config(tmp_path)), {}, (), 0)
    with pytest.raises(InputError, match=r"a run of Objects, got one of Proposals"):
        SizedPrediction(other, 20.0)


def test_an_export_gives_what_the_run_predicts(run, tmp_path):
    out = tmp_path / "out"
    flags = ["--size", "64", "96"]  # a task that resizes must know it
    flags += ["--platforms", "cpu", "--out", str(out)]
    main(["export", "--workdir", str(run / "run"), *flags])
    exported = jax.export.deserialize((out / "predict.jaxexport").read_bytes())
    trained = load_run(run / "run")
    image = np.random.default_rng(0).random((2, 64, 96, 3), np.float32)
    mask = np.ones(image.shape[:3], bool)
    mask[:, -3:] = False
    predict = functools.partial(trained.experiment.task.predict, trained.apply, ())
    expected = jax.jit(predict)({"image": image, "mask": mask})
    found = exported.call(image, mask)["labels"]
    np.testing.assert_array_equal(found, expected.labels)
