"""Charts: curves of training, scores of methods, sizes of instances."""

import numpy as np
import pytest

from sphemb import InputError
from sphemb.metrics import BoundaryScores, RegionPrecision, TrimapCurve
from sphemb.viz import (
    draw_curves,
    draw_instance_sizes,
    draw_precision_curve,
    draw_recall_curves,
    draw_region_levels,
    draw_trimap_curves,
    save_figure,
)

BOUNDARIES = np.array([[[9, 10, 9, 18], [6, 10, 6, 8], [0, 10, 0, 0]]])


def boundary_scores():
    return BoundaryScores.from_counts(BOUNDARIES, thresholds=3)


def named_lines(figure):
    handles, names = figure.axes[0].get_legend_handles_labels()
    return dict(zip(names, handles, strict=True))


class TestDrawPrecisionCurve:
    def test_a_metric_is_a_curve_without_the_thresholds_that_find_nothing(self):
        lines = named_lines(draw_precision_curve(boundary_scores()))
        assert list(lines) == ["F = 0.667"]
        np.testing.assert_allclose(
            lines["F = 0.667"].get_xydata(), [[0.9, 0.5], [0.6, 0.75]]
        )

    def test_several_methods_and_points_have_names(self, tmp_path):
        figure = draw_precision_curve(
            {"ours": boundary_scores().curve(), "theirs": ([0.8, 0.5], [0.8, 0.9])},
            points={"annotators": (0.7, 0.9)},
        )
        lines = named_lines(figure)
        assert list(lines) == [
            "ours, F = 0.667",
            "theirs, F = 0.800",
            "annotators, F = 0.787",
        ]
        point = lines["annotators, F = 0.787"]
        np.testing.assert_allclose(point.get_xydata(), [[0.7, 0.9]])
        assert save_figure(figure, tmp_path / "curve.png", dpi=40).exists()

    def test_the_thin_lines_have_the_f_that_they_are_marked_with(self):
        axes = draw_precision_curve(boundary_scores()).axes[0]
        marks = [float(t.get_text()) for t in axes.texts if t.get_text() != "F"]
        assert marks == pytest.approx(np.arange(1, 10) / 10)
        for level, line in zip(marks, axes.lines, strict=False):
            recall, precision = line.get_xydata().T
            f = 2 * recall * precision / (recall + precision)
            np.testing.assert_allclose(f, level)
            assert precision.max() == pytest.approx(1.0)
            assert recall.max() == pytest.approx(1.0)

    def test_a_method_that_finds_nothing_is_drawn_too(self, tmp_path):
        nothing = BoundaryScores.from_counts(BOUNDARIES * [0, 1, 0, 0], thresholds=3)
        figure = draw_precision_curve({"none": nothing})
        assert list(named_lines(figure)) == ["none, F = 0.000"]
        assert save_figure(figure, tmp_path / "curve.png", dpi=40).exists()

    def test_nothing_to_draw_is_said(self):
        with pytest.raises(InputError, match="scores must hold at least one method"):
            draw_precision_curve({})
        with pytest.raises(InputError, match=r"scores\['a'\] must be recall and prec"):
            draw_precision_curve({"a": (np.zeros(3), np.zeros(2))})
        with pytest.raises(InputError, match=r"points\['b'\] must lie between 0 and 1"):
            draw_precision_curve(boundary_scores(), points={"b": (0.5, 80.3)})


def recalls(numbers, recalls, prefix=""):
    found = {f"{prefix}num_objects": 9.0}
    for n, number, recall in zip((1, 5, 10, 100), numbers, recalls, strict=True):
        found[f"{prefix}num_proposals@{n}"] = number
        found[f"{prefix}recall@0.5@{n}"] = recall
        found[f"{prefix}recall@0.5@{n}/small"] = 0.0
        found[f"{prefix}average_recall@{n}"] = 0.5 * recall
        found[f"{prefix}average_recall_mcg@{n}"] = 0.0
    return found


class TestDrawRecallCurves:
    def test_every_method_has_a_curve_over_its_mean_numbers_of_proposals(self):
        figure = draw_recall_curves(
            {
                "ours": recalls([1, 4.5, 7, 7], [0.3, 0.5, 0.6, 0.6]),
                "segments": recalls([1, 5, 10, 80], [0.1, 0.2, 0.3, 0.5], "test/"),
            }
        )
        average, half = figure.axes
        assert [line.get_label() for line in half.lines] == ["ours", "segments"]
        np.testing.assert_allclose(
            half.lines[0].get_xydata(), [[1, 0.3], [4.5, 0.5], [7, 0.6]]
        )
        np.testing.assert_allclose(
            average.lines[1].get_ydata(), [0.05, 0.1, 0.15, 0.25]
        )
        assert average.get_xscale() == "log"
        ticks = [t.get_text() for t in average.get_xticklabels()]
        assert ticks == ["1", "2", "5", "10", "20", "50"]
        assert [t.get_text() for t in figure.legends[0].get_texts()] == [
            "ours",
            "segments",
        ]

    def test_scores_that_are_not_numbers_leave_no_point(self, tmp_path):
        nan = float("nan")
        figure = draw_recall_curves({"a": recalls([1, 2, 3, 4], [nan, 0.5, nan, 0.7])})
        np.testing.assert_allclose(figure.axes[1].lines[0].get_xdata(), [2, 4])
        assert save_figure(figure, tmp_path / "curves.png", dpi=40).exists()

    def test_nothing_to_draw_is_said(self):
        with pytest.raises(InputError, match="methods must hold at least one"):
            draw_recall_curves({})
        with pytest.raises(
            InputError, match=r"methods\['a'\] must hold average_recall@n"
        ):
            draw_recall_curves({"a": {"recall@0.5": 1.0}})


def metric(levels):
    """One object of class 1, found up to so many levels; none of class 2."""
    return RegionPrecision(
        np.array([0.5]), np.array([1]), np.arange(9)[None] < levels, np.array([0, 1, 0])
    )


class TestDrawRegionLevels:
    def test_a_thick_line_is_the_mean_of_the_thin_ones(self):
        figure = draw_region_levels({"ours": metric(6), "theirs": metric(3)})
        axes = figure.axes[0]
        assert axes.get_legend_handles_labels()[1] == [
            "ours, AP^r_vol = 0.667",
            "theirs, AP^r_vol = 0.333",
        ]
        assert len(axes.lines) == 4  # the class without an object has none
        thin, thick = axes.lines[:2]
        np.testing.assert_array_equal(thick.get_ydata(), np.arange(9) < 6)
        np.testing.assert_array_equal(thin.get_ydata(), thick.get_ydata())

    def test_nothing_to_draw_is_said(self):
        with pytest.raises(InputError, match="methods must hold at least one"):
            draw_region_levels({})
        empty = RegionPrecision.empty(num_classes=3)
        with pytest.raises(InputError, match=r"methods\['a'\] must have a true object"):
            draw_region_levels({"a": empty})


class TestDrawTrimapCurves:
    def test_each_method_has_a_line_on_both_sides(self):
        width = np.arange(1, 6)
        curves = {
            name: TrimapCurve(width, 0.1 * width, 0.2 * width)
            for name in ("with", "no")
        }
        inside, outside = draw_trimap_curves(curves).axes
        assert [line.get_label() for line in inside.lines] == ["with", "no"]
        np.testing.assert_array_equal(outside.lines[1].get_ydata(), 0.2 * width)

    def test_no_curve_is_refused(self):
        with pytest.raises(InputError, match="at least one method's curve"):
            draw_trimap_curves({})


class TestDrawCurves:
    records = (
        {"step": 0, "loss/total": 4.0, "learning_rate": 0.1, "seconds": 1.5},
        {"step": 10, "loss/total": 2.0, "learning_rate": 0.05, "device": "cpu"},
        {"step": 10, "validation/mean_best_iou": 0.5, "validation/count_found": 0.9},
        {
            "step": 20,
            "validation/mean_best_iou": 0.75,
            "validation/num_objects": 9,
            "validation/num_reached/max_groups": 0,
        },
        {"note": "no step", "loss/total": 99.0},
    )

    def test_curves_are_sorted_into_panels(self):
        figure = draw_curves(self.records)
        panels = {axes.get_title(): axes for axes in figure.axes}
        assert set(panels) == {"losses", "scores", "learning rate", "counts"}
        (loss,) = panels["losses"].lines
        np.testing.assert_array_equal(loss.get_xydata(), [[0, 4], [10, 2]])
        (score,) = panels["scores"].lines
        np.testing.assert_array_equal(score.get_xydata(), [[10, 0.5], [20, 0.75]])
        assert score.get_label() == "validation/mean_best_iou"
        assert [line.get_label() for line in panels["counts"].lines] == [
            "validation/count_found"
        ]

    def test_only_panels_with_something_in_them_are_drawn(self):
        figure = draw_curves(self.records[2:4])
        assert [axes.get_title() for axes in figure.axes] == ["scores", "counts"]

    def test_losses_that_fall_far_have_a_logarithmic_axis(self):
        records = [{"step": s, "loss": 10.0**-s} for s in range(4)]
        assert draw_curves(records).axes[0].get_yscale() == "log"
        assert draw_curves(self.records).axes[0].get_yscale() == "linear"

    def test_a_loss_that_was_not_finite_leaves_a_gap(self, tmp_path):
        records = [
            {"step": s, "loss": float("nan") if s == 1 else 1.0} for s in range(3)
        ]
        figure = draw_curves(records)
        assert np.isnan(figure.axes[0].lines[0].get_ydata()[1])
        assert save_figure(figure, tmp_path / "gap.png").exists()

    def test_nothing_to_draw_is_said(self):
        with pytest.raises(InputError, match="records must hold numbers"):
            draw_curves([{"step": 1, "name": "x"}])


RNG = np.random.default_rng(0)
COUNTS = RNG.integers(0, 90, 50)
AREAS = RNG.integers(1, 9000, 400)
VANISHING = {8: AREAS < 64, 1: AREAS < 1}


def test_every_image_and_instance_is_in_a_bar():
    images, instances, strides = draw_instance_sizes(COUNTS, AREAS, VANISHING).axes
    assert sum(bar.get_height() for bar in images.patches) == len(COUNTS)
    assert sum(bar.get_height() for bar in instances.patches) == len(AREAS)
    heights = [bar.get_height() for bar in strides.patches]
    assert heights == [100 * np.mean(AREAS < 64), 0]


def test_one_image_with_one_pixel_is_drawn():
    figure = draw_instance_sizes(np.array([1]), np.array([1]), {1: np.array([False])})
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 1


@pytest.mark.parametrize(
    ("counts", "areas", "vanishing", "words"),
    [
        (COUNTS[:0], AREAS, VANISHING, "counts must not be empty"),
        (COUNTS, AREAS[:0], {}, "areas must not be empty"),
        (COUNTS, AREAS, {8: VANISHING[8][:-1]}, "vanishing must have shape"),
        (COUNTS, AREAS / 2, VANISHING, "areas must be integers"),
    ],
)
def test_sizes_that_cannot_be_drawn_name_the_argument(counts, areas, vanishing, words):
    with pytest.raises(InputError, match=words):
        draw_instance_sizes(counts, areas, vanishing)
