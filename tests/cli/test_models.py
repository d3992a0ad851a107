"""The networks that come with the package, from the command line and in Python."""

import json

import numpy as np
import pytest
from PIL import Image

import sphemb
from sphemb.cli import main
from sphemb.training import load_card, load_model, model_names, model_path

NAMES = model_names()


def draw_discs():
    """Three discs like nuclei, of which two touch, on noise."""
    rows, columns = np.mgrid[:96, :96]
    image = np.random.default_rng(0).normal(20, 3, (96, 96))
    for row, column in ((30, 30), (30, 46), (70, 60)):
        image[(rows - row) ** 2 + (columns - column) ** 2 < 64] += 90
    return image.astype(np.uint8)


def test_they_are_small_and_described(capsys):
    assert {"digits", "nuclei"} <= set(NAMES)
    sizes = [model_path(name).stat().st_size for name in NAMES]
    assert max(sizes) < 3e6
    assert sum(sizes) < 8e6
    main(["models"])
    printed = capsys.readouterr().out
    for name in NAMES:
        card = load_card(name)
        facts = (card.summary, card.data, card.license, card.made_by, card.limits)
        assert all(fact and fact in printed for fact in facts)
        assert card.scores["test images"] > 0
        assert f"{name}: {card.summary}" in printed
        assert "/" not in json.dumps(load_model(name).experiment.config.data.to_dict())


def test_a_name_predicts_without_a_run(tmp_path):
    """Discs of their size are nuclei, and those that touch are two."""
    image = draw_discs()
    Image.fromarray(image).save(tmp_path / "a.png")
    out = tmp_path / "out"
    main(["predict", "--model", "nuclei", str(tmp_path / "a.png"), "--out", str(out)])
    labels = np.asarray(Image.open(out / "a_labels.png"))
    assert len(np.unique(labels)) == 4
    assert json.loads((out / "summary.json").read_text())["model"] == "nuclei"
    np.testing.assert_array_equal(sphemb.segment(image, model="nuclei"), labels)


def test_an_unknown_name_is_one_line(tmp_path, capsys):
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    given = ["predict", "--model", "cells", str(tmp_path / "a.png")]
    with pytest.raises(SystemExit):
        main([*given, "--out", str(tmp_path / "out")])
    (line,) = capsys.readouterr().err.splitlines()
    assert "model must be the folder of a run, a file that sphemb export wrote" in line
    assert "one of digits, nuclei, got 'cells'" in line
    assert not (tmp_path / "out").exists()
