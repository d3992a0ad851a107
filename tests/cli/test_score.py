"""``sphemb score boundaries``: scores of files, and what is refused before any work."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sphemb.cli import ScoreBoundaries, main
from sphemb.metrics import suppress_non_maxima

SHAPE = (30, 40)


def write_truth(path, curves):
    truth = np.empty((1, len(curves)), object)
    for a, curve in enumerate(curves):
        truth[0, a] = {
            "Segmentation": np.ones(SHAPE, np.uint16),
            "Boundaries": curve.astype(np.uint8),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": truth})


@pytest.fixture
def folders(tmp_path):
    """Three maps, as 8 bits, 16 bits and floats, of two annotators each."""
    maps, truths = tmp_path / "maps", tmp_path / "truth"
    maps.mkdir()
    for k, name in enumerate("abc"):
        curves = np.zeros((2, *SHAPE), bool)
        curves[0, 10 + k] = curves[1, 20] = True
        rng = np.random.default_rng(k)
        soft = np.clip(curves.mean(0) + 0.3 * rng.random(SHAPE), 0, 1)
        write_truth(truths / f"{name}.mat", curves)
        if name == "a":
            Image.fromarray(np.rint(255 * soft).astype(np.uint8)).save(maps / "a.png")
        elif name == "b":
            values = np.rint(65535 * soft).astype(np.uint16)
            Image.fromarray(values).save(maps / "b.png")
        else:
            np.save(maps / "c.npy", soft.astype(np.float32))
    return maps, truths


def arguments(folders, *more):
    maps, truths = map(str, folders)
    given = ["--maps", maps, "--groundtruth", truths, "--thresholds", "9"]
    return ["score", "boundaries", *given, "--processes", "1", *map(str, more)]


def test_scores_a_table_of_images_and_a_picture_are_written(folders, tmp_path, capsys):
    out = tmp_path / "out"
    main(arguments(folders, "--out", out))
    assert sorted(p.name for p in out.iterdir()) == [
        "images.csv",
        "precision_recall.png",
        "scores.json",
    ]
    scores = json.loads((out / "scores.json").read_text())
    assert scores["num_images"] == 3
    # Noise stays below .3, every curve is at .5 and above.
    assert scores["ods"] == scores["ois"] == 1.0
    assert 0.3 <= scores["ods_threshold"] <= 0.5
    assert 0 < scores["ap"] <= 1.01
    assert {len(values) for values in scores["curve"].values()} == {9}
    assert scores["curve"]["threshold"] == pytest.approx(np.arange(1, 10) / 10)

    rows = list(csv.DictReader((out / "images.csv").open()))
    assert [row["image"] for row in rows] == ["a", "b", "c"]
    assert all(float(row["best_f"]) == float(row["ods_f"]) == 1.0 for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["ODS", "1.0000"]
    assert lines[-1] == f"on 3 images with 9 thresholds; see {out}"


def test_png_and_npy_of_one_map_score_the_same(folders, tmp_path):
    maps, truths = folders
    found = ScoreBoundaries(maps, truths, thresholds=9, processes=1).run()
    for name, most in {"a": 255, "b": 65535}.items():
        values = np.asarray(Image.open(maps / f"{name}.png")) / most
        (maps / f"{name}.png").unlink()
        np.save(maps / f"{name}.npy", values)
    assert ScoreBoundaries(maps, truths, thresholds=9, processes=1).run() == found


def test_several_processes_give_what_one_gives(folders):
    one, two = (
        ScoreBoundaries(*folders, thresholds=9, processes=n).run() for n in (1, 2)
    )
    assert one == two


def test_maxima_alone_are_scored_on_request(folders):
    maps, truths = folders
    found = ScoreBoundaries(maps, truths, nms=True, thresholds=9, processes=1).run()
    for name, most in {"a": 255, "b": 65535}.items():
        values = np.asarray(Image.open(maps / f"{name}.png")) / most
        (maps / f"{name}.png").unlink()
        np.save(maps / f"{name}.npy", suppress_non_maxima(values))
    soft = np.load(maps / "c.npy").astype(float)
    np.save(maps / "c.npy", suppress_non_maxima(soft))
    before = ScoreBoundaries(maps, truths, thresholds=9, processes=1).run()
    assert found.pop("nms") is True
    assert before.pop("nms") is False
    assert found == before


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("no truth", "a.png must have a ground truth"),
        ("no map", "c.mat must have a prediction"),
        ("two maps", "--maps must have one file for each name"),
        ("colour", "b.png must be gray with 8 or 16 bits, got mode RGB"),
        ("wide", "b.tif must have values within 16 bits, got 70000 to 70000"),
        ("size", "b.png must have the size of"),
        ("nan", "c.npy must have values in 0 .. 1, got nan to nan"),
        ("range", "c.npy must have values in 0 .. 1"),
        ("integers", "c.npy must be floating point, got int64"),
        ("three axes", "c.npy must have shape [H, W], got (1, 30, 40)"),
        ("no image", "b.png cannot be read as an image"),
        ("no array", "c.npy cannot be read as an array"),
        ("no matlab", "b.mat"),
        ("empty", "--maps must hold *.png or *.tif or *.tiff or *.npy, got none"),
        ("no folder", "--groundtruth must be a folder"),
        ("there", "scores.json exists already: give --overwrite"),
        ("file", "--out must be a folder for results"),
        ("thresholds", "thresholds must be >= 1"),
        ("tolerance", "tolerance must satisfy"),
        ("processes", "processes must be >= 1"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_scored_or_written(
    folders, tmp_path, capsys, mistake, words
):
    maps, truths = folders
    out = tmp_path / "out"
    soft = np.load(maps / "c.npy")
    more = []
    if mistake == "no truth":
        (truths / "a.mat").unlink()
    elif mistake == "no map":
        (maps / "c.npy").unlink()
    elif mistake == "two maps":
        np.save(maps / "a.npy", soft)
    elif mistake == "colour":
        Image.new("RGB", SHAPE[::-1]).save(maps / "b.png")
    elif mistake == "wide":
        (maps / "b.png").unlink()
        Image.fromarray(np.full(SHAPE, 70_000, np.int32)).save(maps / "b.tif")
    elif mistake == "size":
        Image.new("L", SHAPE).save(maps / "b.png")
    elif mistake == "nan":
        np.save(maps / "c.npy", soft * np.nan)
    elif mistake == "range":
        np.save(maps / "c.npy", soft * 255)
    elif mistake == "integers":
        np.save(maps / "c.npy", np.ones(SHAPE, int))
    elif mistake == "three axes":
        np.save(maps / "c.npy", soft[None])
    elif mistake == "no image":
        (maps / "b.png").write_text("no image")
    elif mistake == "no array":
        (maps / "c.npy").write_text("no array")
    elif mistake == "no matlab":
        (truths / "b.mat").write_text("no matlab")
    elif mistake == "empty":
        for path in maps.iterdir():
            path.unlink()
    elif mistake == "no folder":
        more = ["--groundtruth", tmp_path / "absent"]
    elif mistake == "there":
        out.mkdir()
        (out / "scores.json").write_text("{}")
    elif mistake == "file":
        out.write_text("")
    else:
        more = [f"--{mistake}", -1]
    with pytest.raises(SystemExit) as exit_info:
        main(arguments(folders, "--out", out, *more))
    captured = capsys.readouterr()
    assert exit_info.value.code == 2
    assert len(captured.err.splitlines()) == 1, captured.err
    assert words in captured.err
    assert not captured.out
    if mistake == "there":
        assert (out / "scores.json").read_text() == "{}"
        assert len(list(out.iterdir())) == 1
        main(arguments(folders, "--out", out, "--overwrite"))
        assert "ods" in json.loads((out / "scores.json").read_text())
    else:
        assert not out.is_dir()


@pytest.mark.needs_data
def test_the_benchmarks_own_images_give_its_numbers(data_dir, tmp_path):
    bench = data_dir / "bsds_bench"
    if not bench.is_dir():
        pytest.skip("no bsds_bench in the development data")
    out = tmp_path / "out"
    scores = ScoreBoundaries(
        bench / "png", bench / "groundTruth", thresholds=5, out=out, processes=1
    ).run()
    assert scores["ods"] == pytest.approx(0.704628, abs=5e-4)
    assert scores["ois"] == pytest.approx(0.708698, abs=5e-4)
    assert scores["ap"] == pytest.approx(0.307627, abs=5e-4)
    assert json.loads((out / "scores.json").read_text()) == scores
    rows = list(csv.DictReader((out / "images.csv").open()))
    found = np.array([[float(v) for v in list(row.values())[1:5]] for row in rows])
    expected = np.loadtxt(bench / "test_2" / "eval_bdry_img.txt")[:, 1:]
    np.testing.assert_allclose(found, expected, atol=1.2e-3)
