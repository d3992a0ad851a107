"""Segments and nuclei without learning."""

from __future__ import annotations

import functools
import json
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from benchmarks._baselines import (
    canny_edges,
    felzenszwalb_maps,
    merged_maps,
    sobel_edges,
    watershed_nuclei,
)
from benchmarks.baselines import main, score_watershed
from sphemb.configs import folder
from sphemb.instances import pool_proposals
from sphemb.metrics import MatchedPrecision, ProposalRecall
from sphemb.training import Experiment, write_config
from tests.scenes import write_folder
from tests.tiny import proposals_config

H, W = 64, 80
precision_of = jax.jit(
    functools.partial(MatchedPrecision.from_batch, max_predicted=512, max_true=512)
)


def discs():
    """Three discs, two of which touch."""
    rows, columns = np.mgrid[:H, :W]
    truth = np.zeros((H, W), np.int32)
    for q, (r, c) in enumerate([(20, 20), (20, 37), (45, 60)], start=1):
        truth[(rows - r) ** 2 + (columns - c) ** 2 < 81] = q
    return truth


class TestFelzenszwalbMaps:
    def test_plain_patches_are_found_in_the_form_that_proposals_take(self):
        truth = np.kron(np.array([[0, 1], [2, 3]]), np.ones((H // 2, W // 2), int))
        image = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
        maps = felzenszwalb_maps(image[truth], scales=(100.0, 30.0), max_groups=8)
        assert maps.shape == (2, H, W)
        assert maps.dtype == np.int32
        flat = maps.reshape(1, 2, -1)
        pool = pool_proposals(flat, max_groups=8)
        score = functools.partial(ProposalRecall.from_batch, max_true=3, budgets=(4,))
        scores = jax.jit(score)(flat, pool, truth.reshape(1, -1)).compute()
        assert scores["recall@0.5@4"] == 1.0
        assert scores["num_proposals@4"] == 4

    def test_groups_are_numbered_by_falling_size_and_the_rest_is_void(self):
        rng = np.random.default_rng(0)
        image = np.kron(rng.random((8, 10, 3)), np.ones((8, 8, 1)))
        (found,) = felzenszwalb_maps(image, scales=(1.0,), max_groups=5)
        sizes = np.bincount(found[found >= 0])
        assert len(sizes) == 5
        assert (np.diff(sizes) <= 0).all()
        assert (found == -1).any()


class TestMergedMaps:
    def test_regions_of_the_nearest_colors_merge_first(self):
        truth = np.kron(np.array([[0, 1], [2, 3]]), np.ones((H // 2, W // 2), int))
        grays = np.array([0, 40, 200, 255], np.uint8)  # upper two, then the lower two
        image = np.repeat(grays[truth][..., None], 3, axis=2)
        maps = merged_maps(image, limits=(1e8, 1e6), max_groups=8)
        assert maps.dtype == np.int32
        assert not maps[0].any()
        upper, lower = maps[1, : H // 2], maps[1, H // 2 :]
        assert upper.min() == upper.max() != lower.min() == lower.max()

    def test_what_is_left_is_costlier_than_the_limit_by_ward(self):
        rng = np.random.default_rng(0)
        image = rng.integers(0, 255, (8, 10, 3)).astype(np.uint8)
        image = np.kron(image, np.ones((8, 8, 1), np.uint8))
        limits = (3e5, 3e4)
        maps = merged_maps(image, limits=limits, max_groups=200)
        colors = rgb2lab(image)
        for found, limit in zip(maps, limits, strict=True):
            groups = [found == number for number in range(found.max() + 1)]
            sums = [(g.sum(), colors[g].mean(axis=0)) for g in groups]
            pairs = np.concatenate(
                [
                    np.stack([found[:-1].ravel(), found[1:].ravel()], axis=1),
                    np.stack([found[:, :-1].ravel(), found[:, 1:].ravel()], axis=1),
                ]
            )
            costs = [
                sums[a][0]
                * sums[b][0]
                / (sums[a][0] + sums[b][0])
                * ((sums[a][1] - sums[b][1]) ** 2).sum()
                for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
            ]
            assert len(groups) > 2
            assert limit <= min(costs) < 2 * limit
        # Segments of 50 pixels whose colors differ by 2 have a cost of 100.
        (small,) = felzenszwalb_maps(image, scales=(100.0,), max_groups=200)
        (apart,) = merged_maps(image, limits=(100.0,), max_groups=200)
        assert apart.max() == small.max() > 30


class TestWatershedNuclei:
    @pytest.mark.parametrize("bright", [True, False])
    def test_touching_discs_of_either_polarity_are_parted(self, bright):
        truth = discs()
        noise = np.random.default_rng(1).normal(0, 5, (H, W, 1))
        level = np.where((truth > 0) == bright, 200, 50)[..., None]
        image = np.clip(level + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)
        found = watershed_nuclei(image)
        assert found.max() == 3
        scores = precision_of(found[None], truth[None]).compute()
        assert scores["matched_precision@0.75"] == 1.0

    def test_a_plain_image_has_no_nuclei(self):
        assert not watershed_nuclei(np.full((H, W, 3), 7, np.uint8)).any()

    @pytest.mark.needs_data
    def test_real_nuclei_are_mostly_found(self, data_dir):
        folder = data_dir / "dsb2018"
        total = None
        for path in sorted((folder / "images").glob("*.png"))[:12]:
            image = np.asarray(Image.open(path).convert("RGB"))
            truth = np.asarray(Image.open(folder / "labels" / path.name), np.int32)
            part = precision_of(watershed_nuclei(image)[None], truth[None])
            total = part if total is None else total.merge(part)
        assert total.compute()["matched_precision@0.5"] > 0.5


class TestEdges:
    @pytest.mark.parametrize("edges_of", [canny_edges, sobel_edges])
    def test_the_stronger_of_two_steps_has_the_higher_value(self, edges_of):
        image = np.zeros((H, W, 3), np.uint8)
        image[:, 20:] = 100
        image[:, 60:] = 255
        edges = edges_of(image)[H // 2]
        assert 0 < edges[18:22].max() < edges[58:62].max() <= 1
        assert edges[38:42].max() < 1e-6

    def test_canny_is_thin_and_has_the_unit_of_sobel(self):
        image = np.zeros((H, W, 3), np.uint8)
        image[:, 40:] = 200
        thin, smooth = canny_edges(image), sobel_edges(image)
        assert (thin[10:-10] > 0).sum(axis=1).max() <= 2
        assert abs(thin.max() - smooth.max()) <= smooth.max() / 30

    @pytest.mark.parametrize("edges_of", [canny_edges, sobel_edges])
    def test_a_plain_image_has_no_edges(self, edges_of):
        assert edges_of(np.full((H, W, 3), 7, np.uint8)).max() < 1e-6


def score_run(config, workdir, monkeypatch):
    """The program on a run that has nothing but its configuration."""
    workdir.mkdir()
    write_config(workdir, config)
    monkeypatch.setattr(sys, "argv", ["baselines", "--workdir", str(workdir)])
    main()


def test_a_run_may_leave_settings_of_its_task_at_their_defaults(
    tmp_path, monkeypatch, capsys
):
    config = proposals_config()
    config.data.dir = str(write_folder(tmp_path / "own"))
    config.evaluation.num_test = 1
    del config.task.max_iou
    score_run(config, tmp_path / "run", monkeypatch)
    scores = json.loads(capsys.readouterr().out)
    assert scores["images"] == 1
    assert 0 < scores["segments"]["recall@0.5@60"] <= 1


def test_a_run_of_objects_has_the_watershed_beside_it(tmp_path, monkeypatch, capsys):
    config = folder.get_config()
    config.data.dir = str(write_folder(tmp_path / "own"))
    config.evaluation.num_test = 2
    score_run(config, tmp_path / "run", monkeypatch)
    scores = json.loads(capsys.readouterr().out)
    source = Experiment(config).source("test")
    watershed = score_watershed(source, 2, max_true=config.task.max_objects)
    for name in ("recall@0.5", "matched_precision@0.5"):
        assert scores["watershed"][name] == pytest.approx(watershed[name], abs=1e-4)
    assert scores["segments"]["num_proposals@10"] <= 10


def test_a_run_without_objects_or_proposals_has_no_baseline(
    tmp_path, monkeypatch, capsys
):
    config = proposals_config()
    config.data.dir = str(write_folder(tmp_path / "own"))
    config.task.budgets = ()
    with pytest.raises(SystemExit, match="2"):
        score_run(config, tmp_path / "run", monkeypatch)
    line = "--workdir must be a run of Objects, or one with config.task.budgets"
    assert line in capsys.readouterr().err
