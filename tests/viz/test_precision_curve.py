"""Precision over recall, as a picture."""

import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.metrics import BoundaryScores
from sphemb.viz import draw_precision_curve, save_figure

COUNTS = np.array([[[9, 10, 9, 18], [6, 10, 6, 8], [0, 10, 0, 0]]])


def scores():
    return BoundaryScores.from_counts(COUNTS, thresholds=3)


def named_lines(figure):
    handles, names = figure.axes[0].get_legend_handles_labels()
    return dict(zip(names, handles, strict=True))


class TestDrawPrecisionCurve:
    def test_a_metric_is_a_curve_without_the_thresholds_that_find_nothing(self):
        lines = named_lines(draw_precision_curve(scores()))
        assert list(lines) == ["F = 0.667"]
        np.testing.assert_allclose(
            lines["F = 0.667"].get_xydata(), [[0.9, 0.5], [0.6, 0.75]]
        )

    def test_several_methods_and_points_have_names(self, tmp_path):
        figure = draw_precision_curve(
            {"ours": scores().curve(), "theirs": ([0.8, 0.5], [0.8, 0.9])},
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
        axes = draw_precision_curve(scores()).axes[0]
        marks = [float(t.get_text()) for t in axes.texts if t.get_text() != "F"]
        assert marks == pytest.approx(np.arange(1, 10) / 10)
        for level, line in zip(marks, axes.lines, strict=False):
            recall, precision = line.get_xydata().T
            f = 2 * recall * precision / (recall + precision)
            np.testing.assert_allclose(f, level)
            assert precision.max() == pytest.approx(1.0)
            assert recall.max() == pytest.approx(1.0)

    def test_a_method_that_finds_nothing_is_drawn_too(self, tmp_path):
        nothing = BoundaryScores.from_counts(COUNTS * [0, 1, 0, 0], thresholds=3)
        figure = draw_precision_curve({"none": nothing})
        assert list(named_lines(figure)) == ["none, F = 0.000"]
        assert save_figure(figure, tmp_path / "curve.png", dpi=40).exists()

    def test_nothing_to_draw_is_said(self):
        with pytest.raises(InputError, match="scores must hold at least one method"):
            draw_precision_curve({})
        with pytest.raises(InputError, match=r"scores\['a'\] must be recall and prec"):
            draw_precision_curve({"a": (np.zeros(3), np.zeros(2))})
        with pytest.raises(InputError, match=r"points\['b'\] must lie between 0 and 1"):
            draw_precision_curve(scores(), points={"b": (0.5, 80.3)})
