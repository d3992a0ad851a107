"""AP^r against the overlap that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sphemb._checks import InputError
from sphemb.metrics import REGION_LEVELS, RegionPrecision
from sphemb.viz._colors import instance_colors
from sphemb.viz._figures import clean_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_region_levels(methods: Mapping[str, RegionPrecision]) -> Figure:
    """Draws AP^r over the IoU that a detection needs.

    The thick line is the mean over classes, AP^r at .5 being one of its points and
    AP^r_vol the mean of all; the thin ones are the classes.

    Args:
        methods: under every method's name what was measured.

    Returns:
        A Matplotlib figure of one axes.

    Raises:
        InputError: no method, or one without a true object.

    >>> empty = RegionPrecision.empty(num_classes=2)
    >>> one = RegionPrecision(
    ...     np.array([0.9]), np.array([1]), np.ones((1, 9), bool), np.array([0, 1])
    ... )
    >>> axes = draw_region_levels({"ours": empty.merge(one)}).axes[0]
    >>> axes.get_legend_handles_labels()[1]
    ['ours, AP^r_vol = 1.000']
    """
    if not methods:
        raise InputError("methods must hold at least one method's scores, got none")
    figure = new_figure(4.8, 3.4)
    axes = figure.subplots()
    drawn = 0.8 * instance_colors(len(methods))
    for (name, metric), color in zip(methods.items(), drawn, strict=True):
        classes = metric.class_precisions()
        classes = classes[np.isfinite(classes[:, 0])]
        if not len(classes):
            raise InputError(f"methods[{name!r}] must have a true object, got none")
        for precisions in classes:
            axes.plot(REGION_LEVELS, precisions, color=color, linewidth=0.5, alpha=0.4)
        mean = classes.mean(axis=0)
        axes.plot(
            REGION_LEVELS, mean, color=color, linewidth=2.0, marker="o", markersize=3,
            label=f"{name}, AP^r_vol = {mean.mean():.3f}".lstrip(", "),
        )  # fmt: skip
    axes.set_xlim(0.05, 0.95)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("IoU that a detection must exceed", fontsize=8)
    axes.set_title("AP^r, mean over classes", fontsize=10)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    clean_axes(axes)
    axes.legend(fontsize=8, frameon=False)
    return figure
