"""The measuring itself, on cases that take no time; no time is asserted."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from benchmarks import _agreement, _cases, _report, _run
from benchmarks._measure import median_ratio
from benchmarks._peers import OURS, Peer, peers_of

CASES = [
    _cases.Case(kind, 64, dim, 0 if kind == _cases.LOSS else 2, points)
    for kind in _cases.OUTPUTS
    for dim, points in ((3, _cases.GROUPS), (8, _cases.GROUPS), (8, _cases.SMOOTH))
    if points == _cases.GROUPS or kind == _cases.GROUPING
]
HOME = pathlib.Path(_report.__file__).parent


def measure(case, *, limit=None, crowd=None):
    crowd = crowd or [("jax", peer) for peer in peers_of("jax")]
    return _run.measure_case(case, crowd, budget=0.01, limit=limit)


@pytest.fixture(scope="module")
def results():
    return {
        "machine": {
            "date": "today",
            "cpu": "a processor",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 2**34,
            "device": "cpu",
            "system": "a system",
            "python": "3",
            "versions": {"jax": "1", "torch": None},
            "xla_flags": "",
            "load": 3.0,
            "busy": True,
        },
        "whole": True,
        "measurement": False,
        "budget": 0.01,
        "missing": ["torch"],
        "peers": {peer.name: peer.about for peer in peers_of("jax")},
        "cases": [measure(case) for case in CASES],
        "minutes": 0.1,
    }


def test_every_peer_computes_what_float64_computes(results):
    for record in results["cases"]:
        if record["kind"] == _cases.GROUPING:
            continue
        asked = {OURS, "jnp"}
        if record["kind"] != _cases.FORWARD:
            asked.add("jnp + checkpoint")
        assert set(record["errors"]) == set(record["seconds"]) == asked
        errors = [e for row in record["errors"].values() for e in row.values()]
        assert len(errors) == len(asked) * len(_cases.OUTPUTS[record["kind"]])
        assert max(errors) < 1e-3


def test_every_way_of_grouping_is_compared_with_the_exact_one(results):
    records = [r for r in results["cases"] if r["kind"] == _cases.GROUPING]
    assert len(records) == 3
    for record in records:
        assert set(record["errors"]) == set(record["seconds"])
        assert set(record["errors"]) == {OURS, "exact", "seeds"}
        assert record["errors"]["exact"] == {"labels": 0.0}
        shares = [error["labels"] for error in record["errors"].values()]
        assert all(0.0 <= share < 1.0 for share in shares)


def test_a_label_error_is_the_share_of_points_outside_the_best_matching():
    true = np.array([0, 0, 0, 1, 1, 2])
    assert _agreement._mismatch(np.array([5, 5, 5, 0, 0, 1]), true) == 0.0
    assert _agreement._mismatch(np.array([5, 5, 0, 0, 0, 1]), true) == (
        pytest.approx(1 / 6)
    )
    assert _agreement._mismatch(np.array([0, 0, 0, 0, 0, -1]), true) == (
        pytest.approx(2 / 6)
    )


def test_the_points_of_a_case_are_unit_rows_and_always_the_same():
    first, second = (_cases.draw_inputs(CASES[0]) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_allclose(np.linalg.norm(first.points, axis=1), 1.0, rtol=1e-6)


def test_a_peer_that_does_not_fit_is_left_out_and_the_report_says_so(results):
    case = _cases.Case(_cases.GRADIENT, 64, 8, 2)
    record = measure(case, limit=64 * 64 * 4 * 6)
    assert "jnp" not in record["seconds"]
    assert set(record["seconds"]) == {OURS, "jnp + checkpoint"}
    table = _report.to_markdown(results | {"cases": [record]})
    assert "too large" in table
    assert f"{case.name}: jnp left out, it needs about" in table


def test_a_peer_that_computes_something_else_is_only_timed():
    ours = peers_of("jax")[0]
    other = Peer("other", "", kinds=ours.kinds, only_time=True)
    record = measure(CASES[0], crowd=[("jax", ours), ("jax", other)])
    assert set(record["seconds"]) == {OURS, "other"}
    assert set(record["errors"]) == {OURS}


def test_a_ratio_compares_shots_of_the_same_round():
    assert median_ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0


def test_the_readme_keeps_what_stands_around_the_results():
    text = (HOME / "README.md").read_text()
    once = _report.replace_between_markers(text, "new")
    assert _report.replace_between_markers(once, "new") == once
    assert once.startswith(text.partition("<!--")[0])
    assert once.endswith("<!-- results -->\n\nnew\n\n<!-- /results -->\n")
    with pytest.raises(ValueError, match="must hold <!-- results -->"):
        _report.replace_between_markers("nothing", "new")


def test_only_a_measurement_reaches_the_readme(results, tmp_path):
    out, home = tmp_path / "out", tmp_path / "home"
    home.mkdir()
    frame = "<!-- results -->\n<!-- /results -->"
    (home / "README.md").write_text(frame)
    _report.write(results, out=out, home=home)
    assert (home / "README.md").read_text() == frame
    table = (out / "table.md").read_text()
    assert "Not a measurement: the machine was busy" in table
    assert "torch was not installed" in table

    idle = results | {"measurement": True}
    _report.write(json.loads(json.dumps(idle)), out=out, home=home)
    assert "### Time: gbms gradient" in (home / "README.md").read_text()
    assert 0 < (home / _report.PICTURE).stat().st_size < 300_000
