"""Recall against the number of proposals, a curve for every method."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sphemb._checks import InputError
from sphemb.viz._colors import instance_colors
from sphemb.viz._figures import clean_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {
    "average_recall": "average recall, IoU .5 to .95",
    "recall@0.5": "recall at IoU .5",
}


def read_recall_curve(scores: Mapping[str, float], name: str) -> np.ndarray:
    """The mean numbers of proposals and the scores there, [2, M].

    Budgets beyond what the images have to offer add no proposals, hence no points.
    """
    points: dict[float, float] = {}
    for key, value in scores.items():
        found = re.fullmatch(rf"(?:.*/)?{re.escape(name)}@(\d+)", key)
        if found is None:
            continue
        number = scores.get(key.replace(f"{name}@", "num_proposals@"), math.nan)
        if number > 0 and math.isfinite(value):
            points[float(number)] = float(value)
    return np.array(sorted(points.items())).reshape(-1, 2).T


def draw_recall_curves(methods: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws average recall and recall at IoU .5 against the number of proposals.

    Args:
        methods: under every method's name what :meth:`sphemb.metrics.ProposalRecall`
            computes, or a record that holds it under longer names such as
            ``test/average_recall@10``; what else is in it is left out.

    Returns:
        A Matplotlib figure of two axes, with the mean number of proposals per image on
        a logarithmic scale.

    Raises:
        InputError: no method, or one without a score to draw.

    References:
        Kong and Fowlkes (2018), Fig. 8.

    >>> scores = {"num_proposals@1": 1, "num_proposals@5": 4.5}
    >>> scores |= {"average_recall@1": 0.1, "average_recall@5": 0.3}
    >>> [axes.get_title() for axes in draw_recall_curves({"ours": scores}).axes]
    ['average recall, IoU .5 to .95', 'recall at IoU .5']
    """
    if not methods:
        raise InputError("methods must hold at least one method's scores, got none")
    figure = new_figure(7.4, 3.4)
    grid = figure.subplots(1, 2, sharex=True, sharey=True)
    drawn = instance_colors(len(methods))
    bright = drawn @ (0.2126, 0.7152, 0.0722) > 0.7
    drawn = np.where(bright[:, None], 0.75 * drawn, drawn)  # on a white ground
    most = 2.0
    for (method, scores), color in zip(methods.items(), drawn, strict=True):
        curves = {name: read_recall_curve(scores, name) for name in _PANELS}
        if not any(curve.size for curve in curves.values()):
            raise InputError(
                f"methods[{method!r}] must hold average_recall@n or recall@0.5@n and "
                f"num_proposals@n for some n, got {sorted(scores)[:4]}"
            )
        for axes, (numbers, values) in zip(grid, curves.values(), strict=True):
            axes.plot(
                numbers, values, color=color, linewidth=1.4, label=method,
                marker="o", markersize=3,
            )  # fmt: skip
            most = max(most, float(numbers.max(initial=0.0)))
    for axes, title in zip(grid, _PANELS.values(), strict=True):
        axes.set_xscale("log")
        axes.set_xlim(0.9, 1.15 * most)
        axes.set_ylim(0.0, 1.02)
        # By itself a range of less than a decade has its labels as powers of ten.
        axes.set_xticks(
            [n * 10**k for k in range(6) for n in (1, 2, 5) if n * 10**k <= most],
        )
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(title, fontsize=10)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        clean_axes(axes)
    figure.supxlabel("mean number of proposals per image", fontsize=8)
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper center", ncols=min(len(names), 4),
        fontsize=8, frameon=False,
    )  # fmt: skip
    return figure
