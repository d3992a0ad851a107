"""Recall against the number of proposals, as a picture."""

import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.viz import draw_recall_curves, save_figure


def scores(numbers, recalls, prefix=""):
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
                "ours": scores([1, 4.5, 7, 7], [0.3, 0.5, 0.6, 0.6]),
                "segments": scores([1, 5, 10, 80], [0.1, 0.2, 0.3, 0.5], "test/"),
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
        figure = draw_recall_curves({"a": scores([1, 2, 3, 4], [nan, 0.5, nan, 0.7])})
        np.testing.assert_allclose(figure.axes[1].lines[0].get_xdata(), [2, 4])
        assert save_figure(figure, tmp_path / "curves.png", dpi=40).exists()

    def test_nothing_to_draw_is_said(self):
        with pytest.raises(InputError, match="methods must hold at least one"):
            draw_recall_curves({})
        with pytest.raises(
            InputError, match=r"methods\['a'\] must hold average_recall@n"
        ):
            draw_recall_curves({"a": {"recall@0.5": 1.0}})
