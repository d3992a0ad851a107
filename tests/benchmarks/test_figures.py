"""The figures of the papers, as a person asks for them."""

import json

import ml_collections
import numpy as np
import pytest
from PIL import Image

from benchmarks._figure_parts import draw_pair_loss, pair_loss, read_trimap
from benchmarks.figures import FIGURES, main
from sphemb import InputError
from sphemb.training import train, write_config
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def run(drawings_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("figures") / "run"
    config = tiny_config(drawings_dir)
    config.train.num_steps = 2
    train(config, workdir)
    return workdir


def scored(root, name, weight, inside, number=6):
    """A run's configuration and scores, as `sphemb train` leaves them."""
    folder = root / name
    folder.mkdir()
    config = {"task": {"name": "Semantic", "embedding_weight": weight}}
    write_config(folder, ml_collections.ConfigDict(config))
    scores = {f"iou_inside@{w}": inside * w for w in (1, 2, 10)}
    scores |= {f"iou_outside@{w}": 0.5 + inside for w in (1, 2, 10)}
    (folder / "summary.json").write_text(json.dumps(scores | {"num_images": number}))
    return folder


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


class TestPairLoss:
    @pytest.mark.parametrize("margin", [0.5, 0.25])
    def test_it_is_equation_2_of_two_points(self, margin):
        one, two = pair_loss(margin).values()
        s = np.linspace(0, 1, 201)[1:-1]
        np.testing.assert_allclose(one.similarity, s, atol=1e-6)
        np.testing.assert_allclose(one.loss, 1 - s, atol=1e-6)
        np.testing.assert_allclose(two.loss, np.maximum(s - margin, 0), atol=1e-6)

    def test_its_slope_is_constant_beside_the_kink(self):
        one, two = pair_loss(0.5).values()
        np.testing.assert_allclose(one.slope, -1, atol=1e-4)
        beside = np.abs(two.similarity - 0.5) > 0.01
        expected = (two.similarity > 0.5).astype(float)
        np.testing.assert_allclose(two.slope[beside], expected[beside], atol=1e-4)


class TestReadTrimap:
    def test_several_runs_give_the_mean_of_their_curves(self, tmp_path):
        runs = [scored(tmp_path, str(i), 0.0, 0.01 * i) for i in (1, 3)]
        curve = read_trimap(runs, "test")
        assert curve.width.tolist() == [1, 2, 10]
        np.testing.assert_allclose(curve.inside, [0.02, 0.04, 0.2])
        np.testing.assert_allclose(curve.outside, 0.52)

    def test_runs_on_other_images_do_not_go_together(self, tmp_path):
        runs = [scored(tmp_path, str(i), 0.0, 0.01, number=i) for i in (1, 3)]
        with pytest.raises(InputError, match="scored on as many images"):
            read_trimap(runs, "test")


def test_help_ties_every_name_to_its_figure(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["-h"])
    assert exit_info.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for name, drawing in FIGURES.items():
        assert f"{name} {drawing.source}" in told
        assert "Fig. " in drawing.source


@pytest.mark.nightly
def test_a_run_becomes_spheres_gradients_and_similarities(run, tmp_path, capsys):
    for name in ("sphere", "gradients", "similarities"):
        out = tmp_path / f"{name}.png"
        main([name, "--workdir", str(run), "--images", "2", "--out", str(out)])
        assert capsys.readouterr().out == f"figure: {out}\n"
        with Image.open(out) as picture:
            assert picture.width > 500
        assert out.stat().st_size <= 300_000


def test_scores_of_two_kinds_of_runs_become_curves(tmp_path, capsys):
    runs = [scored(tmp_path, f"a{i}", 0.0, 0.01 * i) for i in (1, 2)]
    other = scored(tmp_path, "b", 1.0, 0.03)
    out = tmp_path / "trimap.png"
    main(
        [
            "trimap",
            "--baseline",
            *map(str, runs),
            "--embedding",
            str(other),
            "--out",
            str(out),
        ]
    )
    with Image.open(out) as picture:
        assert picture.width > 500
    words = refused(capsys, "trimap", "--baseline", other, "--embedding", runs[0])
    assert "--baseline must be runs of configs/voc_semantic.py with" in words
    assert f"{other} has 1.0" in words


def test_each_kind_of_pairs_has_a_line_of_loss_and_one_of_slope():
    pairs = pair_loss(0.25)
    left, right = draw_pair_loss(pairs, margin=0.25).axes
    assert [line.get_label() for line in left.lines[:2]] == list(pairs)
    one, two = pairs.values()
    np.testing.assert_array_equal(left.lines[0].get_ydata(), one.loss)
    np.testing.assert_array_equal(right.lines[1].get_ydata(), two.slope)
    assert list(left.lines[2].get_xdata()) == [0.25, 0.25]


def test_the_loss_of_a_pair_needs_no_run(tmp_path):
    out = tmp_path / "loss.png"
    main(["pair-loss", "--margin=0.3", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.nightly
def test_the_toy_is_drawn_in_all_its_variants(tmp_path):
    out = tmp_path / "toy.png"
    main(["toy-1d", "--points=20", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_mistake_is_one_line(run, tmp_path, capsys):
    for arguments, words in {
        ("fig2",): "invalid choice: 'fig2'",
        ("sphere",): "required: --workdir",
        ("pair-loss", "--out", "loss.jpg"): "--out must end in .png, got 'loss.jpg'",
        ("pair-loss", "--margin", "2"): "margin must",
        ("sphere", "--workdir", tmp_path): "no config.json",
        ("sphere", "--workdir", run, "--images", "0"): "--images must be at least 1",
        ("trimap", "--baseline", run, "--embedding", run): f"{run} has None",
    }.items():
        assert words in refused(capsys, *arguments)
