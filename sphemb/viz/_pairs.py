"""Similarities of pairs of points, and gradients of a loss in the points.

Letters: B images of H by W pixels, T steps, N points, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_integer, check_shape
from sphemb.viz._arrays import (
    balanced_weights,
    float_array,
    image_array,
    principal_directions,
    sample_indices,
)
from sphemb.viz._colors import label_rgb, overlay
from sphemb.viz._figures import GRAY, legend_above, new_figure, show_image, style_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIMILARITY = "calibrated similarity (1 + cos θ) / 2"
_COLUMNS, _BINS, _MOST = 3, 50, 1000  # of the histograms; points of an image
_WITHIN, _BETWEEN = "#0072b2", "#d55e00"
_POINTS, _ARROWS = 1500, 80  # of the gradients


def draw_similarity_histograms(
    trajectory: np.ndarray, labels: np.ndarray, *, margin: float | None = None
) -> Figure:
    r"""Draws the similarities within and between instances, step by step.

    The similarity is the calibrated cosine :math:`s = (1 + \cos\theta) / 2` of Eq. 1. A
    pair has the weight :math:`w_i w_j` of Eq. 2, so that small instances are visible
    beside a large background (Kong & Fowlkes 2018, supplement, Fig. 1). Each histogram
    sums to 1.

    Args:
        trajectory: float [T+1, N, D] unit vectors, the input first; or [B, T+1, N, D],
            whose images share the histograms.
        labels: int [N], or [B, N]; -1 is void.
        margin: alpha, drawn as a line where it is given.
    """
    several = np.ndim(trajectory) == 4
    spec, of_labels = ("B T N D", "B N") if several else ("T N D", "N")
    dims = check_shape("trajectory", trajectory, spec)
    check_integer("labels", labels)
    known = {letter: dims[letter] for letter in of_labels.split()}
    check_shape("labels", labels, of_labels, dims=known, beside="trajectory")
    points = float_array("trajectory", trajectory, spec)
    steps, edges = dims["T"], np.linspace(0.0, 1.0, _BINS + 1)
    counts = np.zeros((steps, 2, _BINS))  # between, within
    for image, own in zip(
        points.reshape(-1, *points.shape[-3:]),
        np.asarray(labels).reshape(-1, dims["N"]),
        strict=True,
    ):
        counts += _histograms(image, own, edges)

    columns = min(steps, _COLUMNS)
    rows = -(-steps // columns)
    figure = new_figure(2.7 * columns + 0.5, 2.0 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[steps:]:
        axes.set_axis_off()
    for step, axes in enumerate(grid.flat[:steps]):
        shares = counts[step] / np.maximum(counts[step].sum(-1, keepdims=True), 1e-30)
        for name, share, color in (
            ("within instances", shares[1], _WITHIN),
            ("between instances", shares[0], _BETWEEN),
        ):
            axes.stairs(share, edges, fill=True, alpha=0.35, color=color)
            axes.stairs(share, edges, color=color, linewidth=1.2, label=name)
        if margin is not None:
            axes.axvline(float(margin), color="0.2", linewidth=0.9, linestyle="--")
        axes.set_xlim(0.0, 1.0)
        style_chart(axes, title=f"t = {step}", grid=False)
    # After the last step one bar has almost all pairs: a root scale shows the others.
    grid[0, 0].set_yscale("function", functions=(np.sqrt, np.square))
    grid[0, 0].set_ylim(0.0, 1.0)
    grid[0, 0].set_yticks([0.01, 0.1, 0.3, 0.6, 1.0])
    figure.supxlabel(_SIMILARITY, fontsize=9)
    figure.supylabel("share of pairs", fontsize=9)
    legend_above(figure, grid[0, 0], ncols=2)
    return figure


def _histograms(
    points: np.ndarray, labels: np.ndarray, edges: np.ndarray
) -> np.ndarray:
    """Weights [T+1, 2, bins] of the pairs of an image between and within instances."""
    kept = np.flatnonzero(labels >= 0)
    if len(kept) < 2:
        raise InputError(f"labels must name at least two points, got {len(kept)}")
    kept = kept[sample_indices(len(kept), _MOST)]
    labels = labels[kept]
    one, other = np.triu_indices(len(kept), 1)
    weights = balanced_weights(labels)
    weights, same = weights[one] * weights[other], labels[one] == labels[other]
    found = []
    for step in points[:, kept]:
        similarity = np.clip(0.5 * (1.0 + step @ step.T)[one, other], 0.0, 1.0)
        found.append(
            [
                np.histogram(similarity[kind], edges, weights=weights[kind])[0]
                for kind in (~same, same)
            ]
        )
    return np.array(found)


def draw_gradients(
    image: np.ndarray,
    labels: np.ndarray,
    embeddings: np.ndarray,
    gradients: Mapping[str, np.ndarray],
) -> Figure:
    """Draws length and direction of gradients in the embedding.

    One row per entry: the image (below it its instances, or both in one picture for a
    single row), the map of the gradient's length, and the embedding projected on its
    two principal directions with arrows along the negative gradient, the direction of
    descent (Kong & Fowlkes 2018, Fig. 5). Arrows are those of the longest gradients and
    of a random sample, scaled row by row.

    Args:
        image: uint8 or float in [0, 1], [H, W, 3].
        labels: int [H, W]; -1 void, 0 background, 1.. instances.
        embeddings: float [H, W, D].
        gradients: title -> gradient [H, W, D] of a loss in the embeddings, such as
            "no mean shift", "one step of mean shift".
    """
    dims = check_shape("image", image, "H W 3")
    check_integer("labels", labels)
    check_shape("labels", labels, "H W", dims=dims, beside="image")
    dims |= check_shape("embeddings", embeddings, "H W D", dims=dims, beside="image")
    if not gradients:
        raise InputError("gradients must hold at least one entry, got none")
    image, labels = image_array("image", image), np.asarray(labels)
    points = float_array("embeddings", embeddings, "H W D").reshape(-1, dims["D"])
    flat = labels.reshape(-1)
    directions = principal_directions(points, balanced_weights(flat), 2)
    kept = flat >= 0
    colors = label_rgb(flat)

    rows = len(gradients)
    figure = new_figure(8.4, 2.5 * rows + 0.1)
    grid = figure.subplots(rows, 3, squeeze=False, width_ratios=(1.0, 1.25, 1.1))
    if rows == 1:
        show_image(grid[0, 0], overlay(image, labels), title="image and instances")
    else:
        show_image(grid[0, 0], image, title="image")
        show_image(grid[1, 0], label_rgb(labels), title="instances")
    for axes in grid[2:, 0]:
        axes.set_axis_off()
    for (name, gradient), axes in zip(gradients.items(), grid, strict=True):
        argument = f"gradients[{name!r}]"
        check_shape(argument, gradient, "H W D", dims=dims, beside="embeddings")
        gradient = float_array(argument, gradient, "H W D")
        _show_magnitude(figure, axes[1], np.linalg.norm(gradient, axis=-1), name)
        pull = -gradient.reshape(-1, dims["D"]) @ directions
        _show_arrows(axes[2], (points @ directions)[kept], pull[kept], colors[kept])
    grid[0, 2].set_title("direction of descent, projected", fontsize=10)
    return figure


def _show_magnitude(
    figure: Figure, axes: Any, magnitude: np.ndarray, title: str
) -> None:
    show_image(axes, np.zeros((*magnitude.shape, 3)), title=title)
    top = float(np.percentile(magnitude, 99.5)) if magnitude.size else 0.0
    drawn = axes.imshow(
        magnitude, cmap="inferno", vmin=0.0, vmax=top or 1.0, interpolation="nearest"
    )
    bar = figure.colorbar(drawn, ax=axes, extend="max", shrink=0.8, pad=0.03)
    bar.ax.tick_params(labelsize=7)
    bar.ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.set_label("length of the gradient", fontsize=8, color=GRAY)
    bar.outline.set_visible(False)


def _show_arrows(
    axes: Any, points: np.ndarray, arrows: np.ndarray, colors: np.ndarray
) -> None:
    around = np.linspace(0.0, 2.0 * np.pi, 200)
    axes.plot(np.cos(around), np.sin(around), color="0.8", linewidth=0.8)
    shown = sample_indices(len(points), _POINTS)
    axes.scatter(*points[shown].T, c=colors[shown], s=7, linewidths=0, alpha=0.6)
    lengths = np.linalg.norm(arrows, axis=1)
    # Half of the arrows are the longest; a random sample would miss most of them.
    longest = np.argsort(-lengths, kind="stable")[:_ARROWS]
    chosen = np.union1d(longest, shown[:_ARROWS])
    top = lengths.max(initial=0.0)
    if top > 0.0:
        axes.quiver(
            *points[chosen].T,
            *(0.5 * arrows[chosen] / top).T,
            angles="xy",
            scale_units="xy",
            scale=1.0,
            width=0.004,
            color="0.1",
            alpha=0.8,
        )
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    axes.set_axis_off()
