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


def _shown(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The records of every kind with its largest D and T, by growing N."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for record in results["cases"]:
        kinds.setdefault(record["kind"], []).append(record)
    shown = {}
    for kind, records in kinds.items():
        largest = max((r["dim"], r["num_steps"]) for r in records)
        chosen = [r for r in records if (r["dim"], r["num_steps"]) == largest]
        shown[kind] = sorted(chosen, key=lambda record: record["num_points"])
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
    """Draws a column for every kind, time above and memory below, and writes a PNG.

    Args:
        results: what :func:`benchmarks._run.run` returns.
        path: where to write.
    """
    from matplotlib.figure import Figure

    shown = _shown(results)
    figure = Figure(figsize=(4.2 * len(shown), 6.8), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False, sharex="col", sharey="row")
    for column, (kind, records) in enumerate(shown.items()):
        above, below = axes[:, column]
        sizes = [record["num_points"] for record in records]
        dim, steps = records[0]["dim"], records[0]["num_steps"]
        _draw_lines(above, _times(records), sizes)
        _draw_lines(below, _memories(records), sizes)
        above.set_title(f"{kind}, D = {dim}" + (f", T = {steps}" if steps else ""))
        below.set_xlabel("number of points N")
        above.tick_params(labelleft=True)
        below.tick_params(labelleft=True)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("growth of the resident set, MiB")
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
