"""Precision over recall, a curve for every method, with lines of equal F."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError
from sphemb.metrics import BoundaryScores
from sphemb.viz._colors import instance_colors
from sphemb.viz._figures import GRAY, clean_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = BoundaryScores | Sequence[np.ndarray]

_LEVELS = np.arange(1, 10) / 10.0
_LINE = "0.88"


def draw_precision_curve(
    scores: Curve | Mapping[str, Curve],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draws precision over recall, and marks the largest F on each curve.

    The thin lines join places of equal F = .1, .2, ..., .9. Thresholds at which
    nothing is found, with a recall of 0, are left out.

    Args:
        scores: :class:`sphemb.metrics.BoundaryScores`, or several under the names of
            their methods. A :class:`sphemb.metrics.BoundaryCurve` will do, and so will
            recall and precision [T] alone.
        points: recall and precision of what has no curve, such as one annotator
            against the others.

    Returns:
        A Matplotlib figure of one axes.

    Raises:
        InputError: no method, lengths that differ, or values outside 0 to 1.

    References:
        Martin, Fowlkes and Malik (2004), Fig. 1; Kong and Fowlkes (2018), Fig. 6.

    >>> recall, precision = np.array([0.9, 0.6]), np.array([0.5, 0.8])
    >>> axes = draw_precision_curve({"ours": (recall, precision)}).axes[0]
    >>> axes.get_legend_handles_labels()[1]
    ['ours, F = 0.686']
    """
    named = scores if isinstance(scores, Mapping) else {"": scores}
    if not named:
        raise InputError("scores must hold at least one method's, got none")
    curves = {
        name: one.curve() if isinstance(one, BoundaryScores) else one
        for name, one in named.items()
    }
    marks = dict(points or {})
    rates = {
        **{f"scores[{name!r}]": curve[:2] for name, curve in curves.items()},
        **{f"points[{name!r}]": place for name, place in marks.items()},
    }
    for name, pair in rates.items():
        _check_rates(name, pair)

    figure = new_figure(4.6, 4.4)
    axes = figure.subplots()
    _draw_levels(axes)
    drawn = instance_colors(len(curves) + len(marks))
    bright = drawn @ (0.2126, 0.7152, 0.0722) > 0.7
    drawn = np.where(bright[:, None], 0.75 * drawn, drawn)  # on a white ground
    for (name, curve), color in zip(curves.items(), drawn, strict=False):
        recall, precision = np.asarray(curve[0]), np.asarray(curve[1])
        found = recall > 0
        f = _harmonic_mean(recall, precision)
        best = int(np.argmax(f))
        axes.plot(
            recall[found], precision[found], color=color, linewidth=1.6,
            label=f"{name}, F = {f[best]:.3f}".lstrip(", "),
        )  # fmt: skip
        axes.plot(recall[best], precision[best], color=color, marker="o", markersize=5)
    for (name, place), color in zip(marks.items(), drawn[len(curves) :], strict=True):
        f = _harmonic_mean(np.asarray(place[0]), np.asarray(place[1]))
        axes.plot(
            *place, color=color, linestyle="", marker="D", markersize=5,
            label=f"{name}, F = {f:.3f}",
        )  # fmt: skip
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    axes.set_aspect("equal")
    axes.set_xlabel("recall", fontsize=9)
    axes.set_ylabel("precision", fontsize=9)
    clean_axes(axes)
    axes.legend(loc="lower left", fontsize=8, frameon=False)
    return figure


def _draw_levels(axes: Any) -> None:
    """Lines of equal F, each with its F where it leaves the square."""
    for level in _LEVELS:
        # From P = 1 to R = 1: P = F R / (2 R - F).
        recall = np.geomspace(level / (2.0 - level), 1.0, 200)
        precision = level * recall / (2.0 * recall - level)
        axes.plot(recall, precision, color=_LINE, linewidth=0.7, zorder=0)
        axes.text(
            1.01, precision[-1], f"{level:.1f}", fontsize=7, color=GRAY, va="center"
        )
    axes.text(1.01, 0.985, "F", fontsize=7, color=GRAY, va="center", style="italic")


def _harmonic_mean(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    both = recall + precision
    return 2.0 * recall * precision / np.where(both == 0.0, 1.0, both)


def _check_rates(name: str, pair: Sequence[Any]) -> None:
    if len(pair) != 2 or np.shape(pair[0]) != np.shape(pair[1]):
        raise InputError(
            f"{name} must be recall and precision of one length, got shapes "
            f"{[np.shape(values) for values in pair]}"
        )
    values = np.asarray(pair, np.float64)
    if values.size == 0 or not np.all((values >= 0.0) & (values <= 1.0)):
        raise InputError(f"{name} must lie between 0 and 1, got {values.tolist()}")
