"""Charts of losses, scores and counts: lines, one per method, and bars."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_integer, check_shape
from sphemb.metrics import REGION_LEVELS, BoundaryScores, RegionPrecision
from sphemb.viz._arrays import line_colors
from sphemb.viz._figures import GRAY, legend_above, new_figure, style_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sphemb.metrics import TrimapCurve

Curves = dict[str, list[tuple[float, float]]]
PrecisionCurve = BoundaryScores | Sequence[np.ndarray]

_SPLITS = ("validation", "valid", "val", "test", "eval")
_RECALLS = {
    "average_recall": "average recall, IoU .5 to .95",
    "recall@0.5": "recall at IoU .5",
}
_COUNTS, _SIZES, _LOST = "#009e73", "#0072b2", "#d55e00"
_BINS = 30


def draw_curves(records: Iterable[Mapping[str, Any]]) -> Figure:
    """Draws the losses, the scores, the learning rate and the counts of a run.

    ``records`` are the lines of ``metrics.jsonl``: a ``step``, and numbers under names
    such as ``loss/total``, ``learning_rate``, ``validation/mean_best_iou``.
    """
    panels = _read_curves(records)
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
        colors = line_colors(len(curves))
        for (name, curve), color in zip(curves.items(), colors, strict=True):
            marker = "o" if len(curve) < 30 else None
            _plot(axes, np.array(curve).T, color, name, marker=marker)
        values = np.array([y for curve in curves.values() for _, y in curve])
        values = values[np.isfinite(values)]
        if title == "scores":
            axes.set_ylim(0.0, 1.02)
        elif title == "losses" and values.size and 0 < 20 * values.min() < values.max():
            axes.set_yscale("log")
        style_chart(axes, title=title, xlabel="step")
        if title != "learning rate" or len(curves) > 1:
            axes.legend(fontsize=7, frameon=False, ncols=1 + (len(curves) > 6))
    return figure


def _read_curves(records: Iterable[Mapping[str, Any]]) -> dict[str, Curves]:
    """Panel -> name -> the sorted points of a curve."""
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


def _panel_of(name: str, curve: list[tuple[float, float]]) -> str:
    """The panel of a curve; "" for times, speeds and the numbers ``num_...``."""
    parts = name.lower().replace("-", "_").split("/")
    if any("learning_rate" in part or part == "lr" for part in parts):
        return "learning rate"
    if any("loss" in part for part in parts):
        return "losses"
    if parts[0] not in _SPLITS or any(part.startswith("num_") for part in parts):
        return ""
    share = all(0.0 <= y <= 1.0 for _, y in curve if math.isfinite(y))
    counted = parts[-1].startswith("count_") and not parts[-1].endswith("exact")
    return "scores" if share and not counted else "counts"


def _plot(axes: Any, curve: Any, color: np.ndarray, label: str, **style: Any) -> None:
    given = {"linewidth": 1.4, "marker": "o", "markersize": 3} | style
    axes.plot(*curve, color=color, label=label, **given)


def _check_methods(name: str, methods: Mapping[str, Any], of: str = "scores") -> None:
    if not methods:
        raise InputError(f"{name} must hold at least one method's {of}, got none")


def draw_precision_curve(
    scores: PrecisionCurve | Mapping[str, PrecisionCurve],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draws precision over recall, and marks the largest F on each curve.

    The thin lines connect points of equal F = .1, .2, ..., .9, as in Fig. 1 of Martin,
    Fowlkes and Malik (2004). Thresholds without a detection (recall 0) are left out.

    Args:
        scores: `BoundaryScores`, `BoundaryCurve`, or recall and precision [T]; or
            several of them by the names of their methods.
        points: recall and precision of methods without a curve.
    """
    named = scores if isinstance(scores, Mapping) else {"": scores}
    _check_methods("scores", named)
    curves = {
        name: one.curve() if isinstance(one, BoundaryScores) else one
        for name, one in named.items()
    }
    marks = dict(points or {})
    for name, curve in curves.items():
        _check_rates(f"scores[{name!r}]", curve[:2])
    for name, mark in marks.items():
        _check_rates(f"points[{name!r}]", mark)

    figure = new_figure(4.6, 4.4)
    axes = figure.subplots()
    _draw_levels(axes)
    colors = line_colors(len(curves) + len(marks))
    for (name, curve), color in zip(curves.items(), colors, strict=False):
        recall, precision = map(np.asarray, curve[:2])
        f = _harmonic_mean(recall, precision)
        best = int(np.argmax(f))
        label = f"{name}, F = {f[best]:.3f}".lstrip(", ")
        shown = (recall[recall > 0], precision[recall > 0])
        _plot(axes, shown, color, label, linewidth=1.6, marker=None)
        axes.plot(recall[best], precision[best], color=color, marker="o", markersize=5)
    for (name, mark), color in zip(marks.items(), colors[len(curves) :], strict=True):
        f = _harmonic_mean(np.asarray(mark[0]), np.asarray(mark[1]))
        label = f"{name}, F = {f:.3f}"
        axes.plot(*mark, color=color, linestyle="", marker="D", ms=5, label=label)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    axes.set_aspect("equal")
    style_chart(axes, xlabel="recall", ylabel="precision", grid=False)
    axes.legend(loc="lower left", fontsize=8, frameon=False)
    return figure


def _draw_levels(axes: Any) -> None:
    """Lines of equal F, labelled at the right edge."""
    text = {"fontsize": 7, "color": GRAY, "va": "center"}
    for level in np.arange(1, 10) / 10.0:
        # From P = 1 to R = 1: P = F R / (2 R - F).
        recall = np.geomspace(level / (2.0 - level), 1.0, 200)
        precision = level * recall / (2.0 * recall - level)
        axes.plot(recall, precision, color="0.88", linewidth=0.7, zorder=0)
        axes.text(1.01, precision[-1], f"{level:.1f}", **text)
    axes.text(1.01, 0.985, "F", style="italic", **text)


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


def draw_recall_curves(methods: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws average recall and recall at IoU .5 over the mean number of proposals.

    After Fig. 8 of Kong & Fowlkes (2018). ``methods`` has the scores of
    `sphemb.metrics.ProposalRecall` by method, also under longer names such as
    ``test/average_recall@10``. Other entries are ignored.
    """
    _check_methods("methods", methods)
    figure = new_figure(7.4, 3.4)
    grid = figure.subplots(1, 2, sharex=True, sharey=True)
    most = 2.0
    colors = line_colors(len(methods))
    for (method, scores), color in zip(methods.items(), colors, strict=True):
        curves = [_read_recall_curve(scores, name) for name in _RECALLS]
        if not any(curve.size for curve in curves):
            raise InputError(
                f"methods[{method!r}] must hold average_recall@n or recall@0.5@n and "
                f"num_proposals@n for some n, got {sorted(scores)[:4]}"
            )
        for axes, curve in zip(grid, curves, strict=True):
            _plot(axes, curve, color, method)
            most = max(most, float(curve[0].max(initial=0.0)))
    for axes, title in zip(grid, _RECALLS.values(), strict=True):
        axes.set_xscale("log")
        axes.set_xlim(0.9, 1.15 * most)
        axes.set_ylim(0.0, 1.02)
        # The default labels of less than a decade are powers of ten.
        axes.set_xticks(
            [n * 10**k for k in range(6) for n in (1, 2, 5) if n * 10**k <= most]
        )
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        style_chart(axes, title=title)
    figure.supxlabel("mean number of proposals per image", fontsize=9)
    legend_above(figure, grid[0], ncols=min(len(methods), 4))
    return figure


def _read_recall_curve(scores: Mapping[str, float], name: str) -> np.ndarray:
    """Mean numbers of proposals and the scores there, [2, M]."""
    points: dict[float, float] = {}
    for key, value in scores.items():
        if re.fullmatch(rf"(?:.*/)?{re.escape(name)}@(\d+)", key) is None:
            continue
        number = scores.get(key.replace(f"{name}@", "num_proposals@"), math.nan)
        if number > 0 and math.isfinite(value):
            points[float(number)] = float(value)
    return np.array(sorted(points.items())).reshape(-1, 2).T


def draw_region_levels(methods: Mapping[str, RegionPrecision]) -> Figure:
    """Draws AP^r of methods over the IoU that a detection needs.

    Thin lines are classes; the thick one is their mean, whose mean is AP^r_vol.
    """
    _check_methods("methods", methods)
    figure = new_figure(4.8, 3.4)
    axes = figure.subplots()
    colors = line_colors(len(methods))
    for (name, metric), color in zip(methods.items(), colors, strict=True):
        classes = metric.class_precisions()
        classes = classes[np.isfinite(classes[:, 0])]
        if not len(classes):
            raise InputError(f"methods[{name!r}] must have a true object, got none")
        for precisions in classes:
            axes.plot(REGION_LEVELS, precisions, color=color, linewidth=0.5, alpha=0.4)
        mean = classes.mean(axis=0)
        label = f"{name}, AP^r_vol = {mean.mean():.3f}".lstrip(", ")
        _plot(axes, (REGION_LEVELS, mean), color, label, linewidth=2.0)
    axes.set_xlim(0.05, 0.95)
    axes.set_ylim(0.0, 1.02)
    xlabel = "IoU that a detection must exceed"
    style_chart(axes, title="AP^r, mean over classes", xlabel=xlabel)
    axes.legend(fontsize=8, frameon=False)
    return figure


def draw_trimap_curves(curves: Mapping[str, TrimapCurve]) -> Figure:
    """Draws mean IoU within and outside of a band around true boundaries, by its width.

    After Fig. 9 of Kong & Fowlkes (2018); a curve for each method.
    """
    _check_methods("curves", curves, "curve")
    figure = new_figure(7.4, 3.2)
    inside, outside = figure.subplots(1, 2, sharex=True)
    colors = line_colors(len(curves))
    for (name, curve), color in zip(curves.items(), colors, strict=True):
        for axes, values in ((inside, curve.inside), (outside, curve.outside)):
            _plot(axes, (curve.width, values), color, name, marker=None)
    xlabel = "width of the band around true boundaries, pixels"
    for axes, title in ((inside, "within"), (outside, "outside of")):
        style_chart(axes, title=f"mean IoU {title} the band", xlabel=xlabel)
    inside.legend(fontsize=8, frameon=False)
    return figure


def draw_instance_sizes(
    counts: np.ndarray, areas: np.ndarray, vanishing: Mapping[int, np.ndarray]
) -> Figure:
    """Draws the number of instances per image, their sizes, and how many vanish.

    A size is the side of a square of the same area, on a logarithmic scale.

    Args:
        counts: int [I], instances of each of I images.
        areas: int [J], pixels of each of J instances.
        vanishing: stride -> bool [J], see `sphemb.data.vanishing_instances`.
    """
    for name, array in {"counts": counts, "areas": areas}.items():
        check_integer(name, array)
        check_shape(name, array, "N")
        if not array.size:
            raise InputError(f"{name} must not be empty")
    for lost in vanishing.values():
        check_shape("vanishing", lost, "J", dims={"J": len(areas)}, beside="areas")
    figure = new_figure(9.6, 2.7)
    of_images, of_instances, of_strides = figure.subplots(1, 3)

    width = max(1, -(-(int(counts.max()) + 1) // _BINS))  # whole numbers in a bin
    edges = np.arange(0, counts.max() + width + 1, width) - 0.5
    of_images.hist(counts, edges, color=_COUNTS)

    sides = np.sqrt(areas)
    low, high = min(1.0, sides.min()), max(2.0, sides.max() * 1.05)
    of_instances.hist(sides, np.geomspace(low, high, _BINS + 1), color=_SIZES)
    of_instances.set_xscale("log", base=2)
    of_instances.xaxis.set_major_formatter("{x:g}")
    for stride in vanishing:
        of_instances.axvline(stride, color="0.2", linewidth=0.9, linestyle="--")

    shares = [100.0 * float(np.mean(lost)) for lost in vanishing.values()]
    bars = of_strides.bar([str(s) for s in vanishing], shares, color=_LOST, width=0.6)
    of_strides.bar_label(bars, [f"{share:.1f}" for share in shares], fontsize=8)
    of_strides.margins(y=0.15)
    sizes = "√area in pixels; dashed: strides"
    for axes, title, xlabel, ylabel in (
        (of_images, "instances of an image", "instances", "images"),
        (of_instances, "size of an instance", sizes, "instances"),
        (of_strides, "vanish at a stride", "stride of the map", "% of the instances"),
    ):
        style_chart(axes, title=title, xlabel=xlabel, ylabel=ylabel, grid=False)
    return figure
