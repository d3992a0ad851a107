"""Points on the sphere, similarities of their pairs, and gradients in them.

Letters: B images of H by W pixels, T steps, N points, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_integer, check_number, check_shape
from sphemb.viz._arrays import (
    balanced_weights,
    check_maps,
    float_array,
    image_array,
    label_rgb,
    overlay,
    principal_directions,
    sample_indices,
)
from sphemb.viz._figures import GRAY, legend_above, new_figure, show_image, style_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS, _POINTS = 3, 2000  # of a figure; of a sphere
_ELEVATION, _AZIMUTH = 20.0, -55.0


def onto_sphere(
    trajectory: np.ndarray, *, labels: np.ndarray | None = None
) -> np.ndarray:
    """Projects float [T+1, N, D] unit vectors on the sphere in three dimensions.

    More than three dimensions are projected on the three directions along which the
    points of the last step vary most, with the same weight for every label (-1: zero),
    and scaled to length one. Distances are not kept.

    >>> points = onto_sphere(np.eye(4)[None])
    >>> np.round(np.linalg.norm(points, axis=-1), 6).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """
    dims = check_shape("trajectory", trajectory, "T N D")
    trajectory = float_array("trajectory", trajectory, "T N D")
    weights = np.ones(dims["N"])
    if labels is not None:
        weights = _point_colors(labels, dims["N"])[1]
    projected = _to_three(trajectory, weights)
    lengths = np.linalg.norm(projected, axis=-1, keepdims=True)
    return projected / np.where(lengths > 0, lengths, 1.0)


def draw_sphere(
    trajectory: np.ndarray, labels: np.ndarray, *, concentration: float | None = None
) -> Figure:
    """Draws the points on the sphere before mean shift and after every step.

    More than three dimensions are projected as by `onto_sphere`, but scaled so that the
    farthest point lies on the sphere (Kong & Fowlkes 2018, Fig. 4). Points behind the
    center are fainter.

    Args:
        trajectory: float [T+1, N, D] unit vectors, the input first.
        labels: int [N] (-1 is not drawn), or colors [N, 3] in [0, 1].
        concentration: κ, for the title.
    """
    dims = check_shape("trajectory", trajectory, "T N D")
    if concentration is not None:
        check_number("concentration", concentration, above=0)
    trajectory = float_array("trajectory", trajectory, "T N D")
    colors, weights = _point_colors(labels, dims["N"])
    columns = min(dims["T"], _COLUMNS)
    rows = -(-dims["T"] // columns)
    figure = new_figure(2.7 * columns, 2.65 * rows + 0.3)
    for step, points in enumerate(_to_three(trajectory, weights)):
        axes = figure.add_subplot(rows, columns, step + 1, projection="3d")
        _show_sphere(axes, points, colors, weights, title=f"t = {step}")
    kappa = "" if concentration is None else f"κ = {float(concentration):g}"
    if title := " · ".join(filter(None, (kappa, _projection(dims["D"])))):
        figure.suptitle(title, fontsize=10, color=GRAY)
    return figure


def draw_shifted_images(
    images: np.ndarray, instances: np.ndarray, trajectories: np.ndarray
) -> Figure:
    """Draws images, their instances, and their pixels before and after mean shift.

    Pixels have the color of their instance, and are projected as by `draw_sphere`.

    Args:
        images: uint8 or float in [0, 1], [B, H, W, 3].
        instances: int [B, H, W]; -1 void, 0 background, 1.. instances.
        trajectories: float [B, T+1, H W, D] unit vectors, the pixels row by row.
    """
    dims = check_maps(images, instances=instances)
    rows, known = dims["B"], {"B": dims["B"], "N": dims["H"] * dims["W"]}
    spec = "B T N D"
    dims = check_shape("trajectories", trajectories, spec, dims=known, beside="images")
    images = image_array("images", images)
    trajectories = float_array("trajectories", trajectories, spec)
    figure = new_figure(10.4, 2.65 * rows + 0.3)
    for row in range(rows):
        labels = np.asarray(instances)[row]
        colors, weights = _point_colors(
            labels.reshape(-1), known["N"], name=f"instances[{row}]"
        )
        pictures = {"image": images[row], "true instances": label_rgb(labels)}
        for place, (title, picture) in enumerate(pictures.items(), start=1):
            axes = figure.add_subplot(rows, 4, 4 * row + place)
            show_image(axes, picture, title="" if row else title)
        points = _to_three(trajectories[row], weights)
        for place, step in ((3, 0), (4, dims["T"] - 1)):
            axes = figure.add_subplot(rows, 4, 4 * row + place, projection="3d")
            title = "" if row else f"t = {step}"
            _show_sphere(axes, points[step], colors, weights, title=title)
    if title := _projection(dims["D"]):
        figure.suptitle(title, fontsize=10, color=GRAY)
    return figure


def _point_colors(
    given: np.ndarray, number: int, *, name: str = "labels"
) -> tuple[np.ndarray, np.ndarray]:
    """Colors [N, 3] of labels or colors, and weights [N] with zero for void."""
    dims = {"N": number}
    given = np.asarray(given)
    if given.ndim == 2:
        check_shape(name, given, "N 3", dims=dims, beside="trajectory")
        return np.clip(float_array(name, given, "N 3"), 0.0, 1.0), np.ones(number)
    check_shape(name, given, "N", dims=dims, beside="trajectory")
    if not np.any(given >= 0):
        raise InputError(f"{name} must name at least one point, got only void")
    return label_rgb(given), balanced_weights(given)


def _to_three(trajectory: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Projects [T+1, N, D] to three dimensions, inside the unit sphere."""
    dim = trajectory.shape[-1]
    if dim <= 3:
        return np.pad(trajectory, ((0, 0), (0, 0), (0, 3 - dim)))
    projected = trajectory @ principal_directions(trajectory[-1], weights, 3)
    return projected / np.linalg.norm(projected, axis=-1).max(initial=1e-12)


def _projection(dim: int) -> str:
    return f"three principal directions of {dim} dimensions" if dim > 3 else ""


def _show_sphere(
    axes: Any, points: np.ndarray, colors: np.ndarray, weights: np.ndarray, title: str
) -> None:
    """Points [N, 3] of some weight in their colors [N, 3] on a transparent sphere."""
    drawn = np.flatnonzero(weights > 0)
    drawn = drawn[sample_indices(len(drawn), _POINTS)]
    points, colors = points[drawn], colors[drawn]
    around, down = np.mgrid[0 : 2 * np.pi : 25j, 0 : np.pi : 13j]
    x, y = np.cos(around) * np.sin(down), np.sin(around) * np.sin(down)
    axes.plot_wireframe(x, y, np.cos(down), color="0.8", linewidth=0.4, alpha=0.6)
    up, turn = np.radians(_ELEVATION), np.radians(_AZIMUTH)
    to_eye = (np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up))
    strength = np.where(points @ to_eye > -0.05, 0.9, 0.3)
    rgba = np.concatenate([colors, strength[:, None]], axis=1)
    axes.scatter(*points.T, c=rgba, s=12, linewidths=0, depthshade=False)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=1.3)
    axes.view_init(elev=_ELEVATION, azim=_AZIMUTH)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, y=1.0)


_SIMILARITY = "calibrated similarity (1 + cos θ) / 2"
_BINS, _MOST = 50, 1000  # of the histograms; points of an image
_WITHIN, _BETWEEN = "#0072b2", "#d55e00"
_ARROWS = 80  # of the gradients


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
    images = points.reshape(-1, *points.shape[-3:])
    pairs = zip(images, np.reshape(labels, (-1, dims["N"])), strict=True)
    # [T+1, 2, bins]: between, within
    counts = np.sum([_histograms(*pair, edges) for pair in pairs], axis=0)

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
        values = np.clip(0.5 * (1.0 + step @ step.T)[one, other], 0.0, 1.0)
        for pairs in (~same, same):
            found.append(np.histogram(values[pairs], edges, weights=weights[pairs])[0])
    return np.reshape(found, (-1, 2, _BINS))


def draw_gradients(
    image: np.ndarray,
    labels: np.ndarray,
    embeddings: np.ndarray,
    gradients: Mapping[str, np.ndarray],
) -> Figure:
    """Draws length and direction of gradients in the embedding.

    One row per entry: the image with its instances, the map of the gradient's length,
    and the embedding projected on its two principal directions with arrows along the
    negative gradient (Kong & Fowlkes 2018, Fig. 5). Arrows are those of the longest
    gradients and of a random sample, scaled row by row.

    Args:
        image: uint8 or float in [0, 1], [H, W, 3].
        labels: int [H, W]; -1 void, 0 background, 1.. instances.
        embeddings: float [H, W, D].
        gradients: title -> gradient [H, W, D] of a loss in the embeddings.
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
    style: Any = {"cmap": "inferno", "interpolation": "nearest"}
    drawn = axes.imshow(magnitude, vmin=0.0, vmax=top or 1.0, **style)
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
    shown = sample_indices(len(points), 1500)
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
