"""Time and memory against the number of points, on double logarithmic axes."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from benchmarks._peers import OURS

_MIB = 2**20
_MOST_BYTES = 300_000
# Okabe and Ito's colours, which colour-blind readers tell apart.
_STYLES = {
    OURS: ("#d55e00", "o"),
    "jnp": ("#0072b2", "s"),
    "jnp + checkpoint": ("#56b4e9", "D"),
    "torch": ("#000000", "^"),
    "torch SDPA": ("#009e73", "v"),
    "scikit-learn": ("#cc79a7", "P"),
    "exact": ("#f0e442", "X"),
    "seeds": ("#882255", "*"),
}

Line = list[tuple[int, float]]


Shown = dict[str, list[dict[str, Any]]]  # by kind of points


def _shown(results: dict[str, Any]) -> dict[str, Shown]:
    """The records of every kind with its largest D and T, by points and growing N."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for record in results["cases"]:
        kinds.setdefault(record["kind"], []).append(record)
    shown: dict[str, Shown] = {}
    for kind, records in kinds.items():
        largest = max((r["dim"], r["num_steps"]) for r in records)
        shown[kind] = {}
        for record in sorted(records, key=lambda record: record["num_points"]):
            if (record["dim"], record["num_steps"]) == largest:
                shown[kind].setdefault(record["points"], []).append(record)
    return shown


def _times(records: list[dict[str, Any]]) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for record in records:
        for peer, seconds in record["seconds"].items():
            point = (record["num_points"], float(np.median(seconds)))
            lines.setdefault(peer, []).append(point)
    return lines


def _memories(records: list[dict[str, Any]]) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for record in records:
        for peer, value in record["resident_bytes"].items():
            if value is not None:
                # A call that grows nothing at all still has its place on the axis.
                point = (record["num_points"], max(value / _MIB, 0.1))
                lines.setdefault(peer, []).append(point)
    return lines


def _draw_lines(axes: Any, lines: dict[str, Line], sizes: list[int]) -> None:
    for peer, line in lines.items():
        colour, marker = _STYLES.get(peer, ("0.5", "x"))
        ours = peer == OURS
        axes.plot(
            *zip(*line, strict=True),
            color=colour,
            marker=marker,
            markersize=7,
            markerfacecolor=colour if ours else "none",
            linewidth=4 if ours else 1.4,
            # Below the others, which would vanish where they are as fast.
            zorder=2 if ours else 3,
            label=peer,
        )
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.grid(color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw(results: dict[str, Any], path: pathlib.Path) -> None:
    """Draws a column for every kind, a row for the time of each kind of points.

    The last row is the memory of the first kind.

    Args:
        results: what :func:`benchmarks._run.run` returns.
        path: where to write a PNG.
    """
    from matplotlib.figure import Figure

    shown = _shown(results)
    points = list(dict.fromkeys(name for kind in shown.values() for name in kind))
    rows = len(points) + 1
    figure = Figure(figsize=(3.8 * len(shown), 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, len(shown), squeeze=False, sharex="col")
    for column, (kind, by_points) in enumerate(shown.items()):
        records = [record for part in by_points.values() for record in part]
        sizes = sorted({record["num_points"] for record in records})
        memory = by_points.get(points[0], [])
        for one, name in zip(axes[:-1, column], points, strict=True):
            if name in by_points:
                one.sharey(axes[0, column])
                _draw_lines(one, _times(by_points[name]), sizes)
                one.set_title(name, fontsize=9, loc="right")
            else:
                one.set_axis_off()
        _draw_lines(axes[-1, column], _memories(memory), sizes)
        dim, steps = records[0]["dim"], records[0]["num_steps"]
        axes[0, column].set_title(
            f"{kind}, D = {dim}" + (f", T = {steps}" if steps else ""), loc="left"
        )
        axes[-1, column].set_xlabel("number of points N")
    for one in axes[:-1, 0]:
        one.set_ylabel("seconds")
    axes[-1, 0].set_ylabel(f"growth of the resident set,\nMiB ({points[0]})")
    labels = {
        label: handle
        for one in axes.flat
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True)
    }
    peers = [peer for peer in results["peers"] if peer in labels]
    handles = [labels[peer] for peer in peers]
    figure.legend(
        handles, peers, loc="outside lower center", ncols=len(peers), frameon=False
    )
    machine = results["machine"]
    frame = f"{machine['cpu']}, {machine['threads']} threads, {machine['date']}"
    if not results["measurement"]:
        frame += " (a trial, not a measurement)"
    figure.suptitle(frame, fontsize=9, color="0.35")
    dpi = 130.0
    figure.savefig(path, dpi=dpi)
    while path.stat().st_size > _MOST_BYTES:
        dpi *= 0.8
        figure.savefig(path, dpi=dpi)
