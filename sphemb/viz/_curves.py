"""Curves over the steps of training."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError
from sphemb.viz._colors import instance_colors
from sphemb.viz._figures import clean_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = dict[str, list[tuple[float, float]]]
_SPLITS = ("validation", "valid", "val", "test", "eval")


def _panel_of(name: str, curve: list[tuple[float, float]]) -> str:
    parts = name.lower().replace("-", "_").split("/")
    if any("learning_rate" in part or part == "lr" for part in parts):
        return "learning rate"
    if any("loss" in part for part in parts):
        return "losses"
    if parts[0] not in _SPLITS:
        return ""
    if any(part.startswith("num_") for part in parts):
        return ""
    share = all(0.0 <= y <= 1.0 for _, y in curve if math.isfinite(y))
    counted = parts[-1].startswith("count_") and not parts[-1].endswith("exact")
    return "scores" if share and not counted else "counts"


def read_curves(records: Iterable[Mapping[str, Any]]) -> dict[str, Curves]:
    """Sorts the numbers of the records into panels of named curves.

    Losses and learning rates go by their names; of the rest, what begins with the name
    of a held-out split is a score where it stays in [0, 1] and a count elsewhere.
    Times, speeds and the numbers of objects and images (``num_...``) are left out.
    """
    curves: Curves = {}
    for record in records:
        step = record.get("step")
        if not isinstance(step, numbers.Real):
            continue
        for name, value in record.items():
            real = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if name != "step" and real:
                curves.setdefault(name, []).append((float(step), float(value)))
    panels: dict[str, Curves] = {}
    for name, curve in curves.items():
        panels.setdefault(_panel_of(name, curve), {})[name] = sorted(curve)
    order = ("losses", "scores", "learning rate", "counts")
    return {panel: panels[panel] for panel in order if panel in panels}


def _draw_panel(axes: Any, title: str, curves: Curves) -> None:
    colors = instance_colors(len(curves))
    bright = colors @ (0.2126, 0.7152, 0.0722) > 0.7
    colors = np.where(bright[:, None], 0.75 * colors, colors)  # on a white ground
    for (name, curve), color in zip(curves.items(), colors, strict=True):
        steps, values = np.array(curve).T
        few = len(curve) < 30
        axes.plot(
            steps, values, color=color, linewidth=1.4, label=name,
            marker="o" if few else None, markersize=3,
        )  # fmt: skip
    values = np.array([y for curve in curves.values() for _, y in curve])
    values = values[np.isfinite(values)]
    if title == "scores":
        axes.set_ylim(0.0, 1.02)
    elif title == "losses" and values.size and 0 < 20 * values.min() < values.max():
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    clean_axes(axes)
    if title != "learning rate" or len(curves) > 1:
        axes.legend(fontsize=7, frameon=False, ncols=1 + (len(curves) > 6))


def draw_curves(records: Iterable[Mapping[str, Any]]) -> Figure:
    """Draws the losses, the scores and the learning rate of a training run.

    Args:
        records: what ``metrics.jsonl`` holds, one mapping per line: a ``step`` and
            numbers under names such as ``loss/total``, ``learning_rate`` and
            ``validation/mean_best_iou``. Anything else is left out.

    Returns:
        A Matplotlib figure with a panel for the losses, the scores, the learning rate
        and the counts, those of them that there are.

    Raises:
        InputError: no record holds a step and a number to draw.

    >>> figure = draw_curves([{"step": 0, "loss": 2.0}, {"step": 9, "loss": 1.0}])
    >>> [axes.get_title() for axes in figure.axes]
    ['losses']
    """
    panels = read_curves(records)
    if not panels:
        raise InputError(
            "records must hold numbers under 'step' and under the name of a loss, a "
            "learning rate or a validation score, got none"
        )
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = new_figure(4.4 * columns, 2.9 * rows)
    for place, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        _draw_panel(axes, title, curves)
    return figure
