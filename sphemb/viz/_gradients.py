"""Gradients in the embedding of an H by W image, without and with mean shift."""

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
    sample,
)
from sphemb.viz._colors import label_rgb
from sphemb.viz._figures import GRAY, new_figure, show_image
from sphemb.viz._outlines import overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 1500
_ARROWS = 80


def _draw_magnitude(
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


def _draw_arrows(
    axes: Any, points: np.ndarray, arrows: np.ndarray, colors: np.ndarray, seed: int
) -> None:
    around = np.linspace(0.0, 2.0 * np.pi, 200)
    axes.plot(np.cos(around), np.sin(around), color="0.8", linewidth=0.8)
    shown = sample(len(points), _POINTS, seed)
    axes.scatter(*points[shown].T, c=colors[shown], s=7, linewidths=0, alpha=0.6)
    lengths = np.linalg.norm(arrows, axis=1)
    # Half of the arrows are the longest ones, which a random sample hardly meets.
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


def draw_gradients(
    image: np.ndarray,
    labels: np.ndarray,
    embeddings: np.ndarray,
    gradients: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
) -> Figure:
    """Draws where the gradients of the embedding are large and which way they pull.

    One row per entry: the image (below it its instances, or over it where there is but
    one row), the map of the gradient's length, and the embedding projected on its two
    principal directions with arrows along the negative gradient, the way a step of
    descent moves the points. Arrows are those of the longest gradients and of a random
    sample, scaled row by row.

    Args:
        image: uint8 or float in [0, 1], [H, W, 3].
        labels: int [H, W]; -1 void, 0 background, 1.. instances.
        embeddings: float [H, W, D].
        gradients: gradients [H, W, D] of a loss in the embeddings under the names that
            are written above them, such as "no mean shift", "one step of mean shift".
        seed: of the choice of points.

    Returns:
        A Matplotlib figure with a row per gradient.

    Raises:
        InputError: shapes that do not go together, no gradients, values that are not
            finite.

    References:
        Kong and Fowlkes (2018), Fig. 5.
    """
    dims = check_shape("image", image, "H W 3")
    check_integer("labels", labels)
    check_shape("labels", labels, "H W", dims=dims, beside="image")
    dims |= check_shape("embeddings", embeddings, "H W D", dims=dims, beside="image")
    if not gradients:
        raise InputError("gradients must hold at least one entry, got none")
    image, labels = image_array("image", image), np.asarray(labels)
    dim = dims["D"]
    points = float_array("embeddings", embeddings, "H W D").reshape(-1, dim)
    flat = labels.reshape(-1)
    weights = np.where(flat < 0, 0.0, balanced_weights(flat))
    directions = principal_directions(points, weights, 2)
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
        _draw_magnitude(figure, axes[1], np.linalg.norm(gradient, axis=-1), name)
        pull = -gradient.reshape(-1, dim) @ directions
        _draw_arrows(
            axes[2], (points @ directions)[kept], pull[kept], colors[kept], seed
        )
    grid[0, 2].set_title("way of descent, projected", fontsize=10)
    return figure
