"""AP^r over IoU, as a picture."""

import numpy as np
import pytest

from sphemb import InputError
from sphemb.metrics import RegionPrecision
from sphemb.viz import draw_region_levels


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
