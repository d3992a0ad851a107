"""The results as Markdown, and their way into the README."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks._agreement import MOST_POINTS
from benchmarks._figure import draw
from benchmarks._measure import median_ratio
from benchmarks._peers import OURS

PICTURE = "time_and_memory.png"
_BEGIN, _END = "<!-- results -->", "<!-- /results -->"
_MIB = 2**20
_NOTHING = ""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---:"] * len(head)
    return [_row(head), _row(rule), *(_row(row) for row in rows), ""]


_SHAPE = ("points", "D", "T", "N")


def _shape(record: dict[str, Any]) -> list[str]:
    steps = str(record["num_steps"] or _NOTHING)
    points = record["points"]
    return [points, str(record["dim"]), steps, f"{record['num_points']:,}"]


def _time(record: dict[str, Any], peer: str) -> str:
    if peer in record["skipped"]:
        return "too large"
    if peer not in record["seconds"]:
        return _NOTHING
    seconds, ours = record["seconds"][peer], record["seconds"][OURS]
    milliseconds = 1e3 * float(np.median(seconds))
    shown = f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:,.0f}"
    if peer == OURS:
        return shown if record["warm"] else f"{shown} ¹"
    return f"{shown} ({median_ratio(seconds, ours):.2f}x)"


def _mebibytes(readings: dict[str, int | None], peer: str) -> str:
    value = readings.get(peer)
    return _NOTHING if value is None else f"{value / _MIB:,.1f}"


def _kinds(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for record in results["cases"]:
        kinds.setdefault(record["kind"], []).append(record)
    return kinds


def _times(results: dict[str, Any]) -> list[str]:
    lines = []
    for kind, records in _kinds(results).items():
        peers = [
            name
            for name in results["peers"]
            if any(name in r["seconds"] or name in r["skipped"] for r in records)
        ]
        rows = [_shape(r) + [_time(r, peer) for peer in peers] for r in records]
        lines += [f"### Time: {kind}", ""]
        lines += ["Milliseconds of a call; in brackets how many times ours.", ""]
        lines += _table([*_SHAPE, *peers], rows)
    if not all(record["warm"] for record in results["cases"]):
        lines += ["¹ One round, without a warm-up: it took longer than the budget.", ""]
    return lines


def _memory(results: dict[str, Any], field: str, title: str, about: str) -> list[str]:
    records = [record for record in results["cases"] if record[field]]
    if not records:
        return []
    peers = [p for p in results["peers"] if any(p in r[field] for r in records)]
    rows = [
        [record["kind"], *_shape(record)]
        + [_mebibytes(record[field], peer) for peer in peers]
        for record in records
    ]
    head = ["case", *_SHAPE, *peers]
    return [f"### {title}", "", about, "", *_table(head, rows)]


def _errors(results: dict[str, Any]) -> list[str]:
    """The worst error of every output over the cases of a kind and a D."""
    worst: dict[tuple[str, ...], dict[str, float]] = {}
    for record in results["cases"]:
        for peer, errors in record["errors"].items():
            for label, error in errors.items():
                place = record["kind"], record["points"], str(record["dim"]), label
                row = worst.setdefault(place, {})
                row[peer] = max(error, row.get(peer, 0.0))
    if not worst:
        return []
    peers = [p for p in results["peers"] if any(p in row for row in worst.values())]
    rows = [
        [*key, *(f"{row[peer]:.1e}" if peer in row else _NOTHING for peer in peers)]
        for key, row in worst.items()
    ]
    about = (
        "Norm of the difference from float64 over the norm, the worst of the cases "
        f"with N ≤ {MOST_POINTS:,}. Of labels: the share of points that get another "
        "label than by the exact mean shift of 16,384 points, or than their cluster of "
        "262,144, the larger of the two."
    )
    head = ["case", "points", "D", "output", *peers]
    return ["### Error", "", about, "", *_table(head, rows)]


def _skipped(results: dict[str, Any]) -> list[str]:
    lines = [
        f"* {record['name']}: {peer} left out, it {reason}."
        for record in results["cases"]
        for peer, reason in record["skipped"].items()
    ]
    lines += [
        f"* {library} was not installed, and its peers are missing."
        for library in results["missing"]
    ]
    return ["### Left out", "", *lines, ""] if lines else []


def _machine(results: dict[str, Any]) -> list[str]:
    machine = results["machine"]
    versions = [f"{k} {v}" for k, v in machine["versions"].items() if v]
    memory = machine["memory_bytes"]
    memory = f", {memory / 2**30:.0f} GiB" if memory else ""
    flags = f" `XLA_FLAGS={machine['xla_flags']}`." if machine["xla_flags"] else ""
    load = "unknown" if machine["load"] is None else f"{machine['load']:.2f}"
    lines = [
        f"{machine['date']}. {machine['cpu']}, {machine['cores']} cores{memory}, "
        f"{machine['system']}; {machine['threads']} threads for every library; JAX on "
        f"{machine['device']}.{flags} Python {machine['python']}, "
        f"{', '.join(versions)}. Load average at the start {load}; "
        f"{results['minutes']:.1f} minutes with {results['budget']:g} s a case.",
        "",
    ]
    if not results["measurement"]:
        why = "the machine was busy" if machine["busy"] else "not all cases were run"
        lines = [f"**Not a measurement: {why}.**", "", *lines]
    return lines


def to_markdown(results: dict[str, Any]) -> str:
    """Writes everything that the results hold, the picture first."""
    lines = [f"![Time and memory against the number of points]({PICTURE})", ""]
    lines += _machine(results)
    lines += [f"* **{name}**: {about}" for name, about in results["peers"].items()]
    lines += ["", *_times(results)]
    lines += _memory(
        results,
        "temp_bytes",
        "Memory: what the compiler sets aside",
        "MiB of `memory_analysis().temp_size_in_bytes`. It does not know what the "
        "runtime allocates beside it; the next table does.",
    )
    lines += _memory(
        results,
        "resident_bytes",
        "Memory: growth of the resident set",
        "MiB by which one call raised the resident set of a process of its own.",
    )
    lines += _errors(results) + _skipped(results)
    return "\n".join(lines)


def replace_between_markers(text: str, new: str) -> str:
    """Replaces what stands between the markers of the README.

    Raises:
        ValueError: the text lacks a marker.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"the README must hold {_BEGIN} and {_END}")
    return f"{before}{begin}\n\n{new.strip()}\n\n{end}{after}"


def write(results: dict[str, Any], *, out: pathlib.Path, home: pathlib.Path) -> None:
    """Writes table and picture into a folder, and a measurement into the README too.

    Args:
        results: what :func:`benchmarks._run.run` returns.
        out: the folder for this run.
        home: the folder of the README.
    """
    table = to_markdown(results)
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(table)
    draw(results, out / PICTURE)
    print(f"written: {out / 'table.md'}, {out / PICTURE}")
    if not results["measurement"]:
        return
    readme = home / "README.md"
    readme.write_text(replace_between_markers(readme.read_text(), table))
    (home / PICTURE).write_bytes((out / PICTURE).read_bytes())
    print(f"written: {readme}, {home / PICTURE}")
