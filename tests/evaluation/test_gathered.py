"""Scores of several processes are added up in the width that they were counted in."""

from tests.processes import finish

_CODE = """
import numpy as np
from sphemb._files import gather_objects
from sphemb.evaluation._score import _gathered
from sphemb.metrics import MeanIoU, RegionPrecision

each = 3_000_000_000
every = _gathered(MeanIoU(np.array([[each, 1, 0], [0, 2**53 + 1, 0]]), np.asarray(1)))
assert every.confusion.tolist() == [[2 * each, 2, 0], [0, 2**54 + 2, 0]]
assert every.confusion.dtype == np.int64

# 2^24 + 1 is no float32, and neither is a tenth.
share, low = (np.array([x] * 2) for x in (2.0**24 + 1, 0.1))
sums = gather_objects({"share": share, "low": low, "none": np.zeros((0, 3), np.int64)})
for mine in sums:
    assert mine["share"].tolist() == share.tolist() and mine["low"].dtype == np.float64
    assert mine["low"].tolist() == low.tolist()
    assert mine["none"].shape == (0, 3) and mine["none"].dtype == np.int64

# Different numbers of rows: one of the first process, two of the second.
rows = number + 1
every = _gathered(
    RegionPrecision(
        np.arange(rows) + 0.1,
        np.ones(rows, int),
        np.ones((rows, 9), bool),
        np.array([0, each]),
    )
)
assert every.scores.tolist() == [0.1, 0.1, 1.1], every.scores
assert every.num_objects[1] == 2 * each and every.right.shape == (3, 9)

assert gather_objects("ab" * number) == ["", "ab"]
"""


def test_counts_beyond_int32_and_sums_beyond_float32_survive_two_processes():
    finish(_CODE, timeout=120)
