"""The table of AP^r beside the paper's."""

import numpy as np

from benchmarks.regions import PUBLISHED, region_table
from sphemb.data import VOC_CLASSES


def test_a_published_mean_is_that_of_its_row():
    for name, row in PUBLISHED.items():
        assert len(row) == len(VOC_CLASSES) + 1, name
        if np.isfinite(row[0]):  # of some, the mean alone is known
            assert abs(np.mean(row[:-1]) - row[-1]) < 0.15, name


def test_a_measured_row_stands_below_and_absent_classes_are_dashes():
    summary = {"ap_r@0.5": 0.25, "ap_r@0.5/cat": 0.25, "ap_r@0.5/dog": None}
    summary["ap_r_vol"] = 0.3
    lines = region_table({"ours": summary}).splitlines()
    heads, last = ([c.strip() for c in row.split("|")] for row in (lines[0], lines[-1]))
    found = dict(zip(heads, last, strict=True))
    assert (found["cat"], found["dog"], found["mean"]) == ("25.0", "-", "25.0")
    assert found["AP^r_vol"] == "30.0"
    assert "Kong & Fowlkes, published" in lines[-2]
