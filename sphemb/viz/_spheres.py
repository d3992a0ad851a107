"""Points on the sphere: T steps, N points, D dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_count, check_number, check_shape
from sphemb.viz._arrays import (
    balanced_weights,
    float_array,
    principal_directions,
    sample,
)
from sphemb.viz._colors import label_rgb
from sphemb.viz._figures import GRAY, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3
_ELEVATION, _AZIMUTH = 20.0, -55.0


def point_colors(
    labels_or_colors: np.ndarray, num_points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Colors [N, 3] and balancing weights [N]; points of label -1 weigh nothing."""
    dims = {"N": num_points}
    given = np.asarray(labels_or_colors)
    if given.ndim == 2:
        check_shape("labels", given, "N 3", dims=dims, beside="trajectory")
        colors = np.clip(float_array("labels", given, "N 3"), 0.0, 1.0)
        return colors, np.ones(num_points)
    check_shape("labels", given, "N", dims=dims, beside="trajectory")
    return label_rgb(given), np.where(given < 0, 0.0, balanced_weights(given))


def to_three(trajectory: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, str]:
    """Brings [T+1, N, D] to three dimensions, inside the unit sphere."""
    dim = trajectory.shape[-1]
    if dim <= 3:
        return np.pad(trajectory, ((0, 0), (0, 0), (0, 3 - dim))), ""
    projected = trajectory @ principal_directions(trajectory[-1], weights, 3)
    longest = np.linalg.norm(projected, axis=-1).max(initial=1e-12)
    return projected / longest, f"three principal directions of {dim} dimensions"


def onto_sphere(
    trajectory: np.ndarray, *, labels: np.ndarray | None = None
) -> np.ndarray:
    """Brings the points of every step to the sphere that can be seen.

    More than three dimensions are projected on the three directions along which the
    points of the last step vary most, every label having the same weight, and brought
    back to length one. Distances are not kept then: what lies together may lie apart in
    the directions that are left out.

    Args:
        trajectory: float [T+1, N, D] unit vectors.
        labels: int [N]; -1 weighs nothing. None weighs all points the same.

    Returns:
        float [T+1, N, 3] unit vectors; zero where nothing is left of a point.

    Raises:
        InputError: shapes that do not go together, values that are not finite.

    >>> points = onto_sphere(np.eye(4)[None])
    >>> np.round(np.linalg.norm(points, axis=-1), 6).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """
    dims = check_shape("trajectory", trajectory, "T N D")
    trajectory = float_array("trajectory", trajectory, "T N D")
    weights = np.ones(dims["N"])
    if labels is not None:
        weights = point_colors(labels, dims["N"])[1]
    if not weights.any():
        raise InputError("labels must name at least one point, got none but void")
    projected, _ = to_three(trajectory, weights)
    lengths = np.linalg.norm(projected, axis=-1, keepdims=True)
    return projected / np.where(lengths > 0, lengths, 1.0)


def _wire_sphere(axes: Any) -> None:
    around, down = np.mgrid[0 : 2 * np.pi : 25j, 0 : np.pi : 13j]
    axes.plot_wireframe(
        np.cos(around) * np.sin(down),
        np.sin(around) * np.sin(down),
        np.cos(down),
        color="0.8",
        linewidth=0.4,
        alpha=0.6,
    )


def show_sphere(
    axes: Any, points: np.ndarray, colors: np.ndarray, *, title: str = ""
) -> None:
    """Points [N, 3] in their colors [N, 3] on a sphere of glass."""
    _wire_sphere(axes)
    up, turn = np.radians(_ELEVATION), np.radians(_AZIMUTH)
    to_eye = np.array(
        [np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up)]
    )
    # What lies behind the center is fainter.
    strength = np.where(points @ to_eye > -0.05, 0.9, 0.3)
    axes.scatter(
        *points.T,
        c=np.concatenate([colors, strength[:, None]], axis=1),
        s=12,
        linewidths=0,
        depthshade=False,
    )
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=1.3)
    axes.view_init(elev=_ELEVATION, azim=_AZIMUTH)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, y=1.0)


def draw_sphere(
    trajectory: np.ndarray,
    labels: np.ndarray,
    *,
    concentration: float | None = None,
    max_points: int = 2000,
    seed: int = 0,
) -> Figure:
    """Draws the points on the sphere before mean shift and after every step of it.

    More than three dimensions are projected on the three directions along which the
    points of the last step vary most, every label having the same weight, and scaled so
    that the farthest point lies on the sphere. Points behind the center are fainter.

    Args:
        trajectory: float [T+1, N, D] unit vectors, the input first.
        labels: int [N] (-1 is not drawn), or colors [N, 3] in [0, 1].
        concentration: κ, written above the picture where it is given.
        max_points: as many points are drawn at most, chosen at random.
        seed: of that choice.

    Returns:
        A Matplotlib figure of T+1 three-dimensional axes.

    Raises:
        InputError: shapes that do not go together, values that are not finite.

    References:
        Kong and Fowlkes (2018), Fig. 4.
    """
    dims = check_shape("trajectory", trajectory, "T N D")
    check_count("max_points", max_points, at_least=1)
    if concentration is not None:
        check_number("concentration", concentration, above=0)
    trajectory = float_array("trajectory", trajectory, "T N D")
    colors, weights = point_colors(labels, dims["N"])
    drawn = np.flatnonzero(weights > 0)
    if not len(drawn):
        raise InputError("labels must name at least one point, got none but void")
    points, projection = to_three(trajectory, weights)
    drawn = drawn[sample(len(drawn), max_points, seed)]

    steps = dims["T"]
    columns = min(steps, _COLUMNS)
    rows = -(-steps // columns)
    figure = new_figure(2.7 * columns, 2.65 * rows + 0.3)
    for step in range(steps):
        axes = figure.add_subplot(rows, columns, step + 1, projection="3d")
        show_sphere(axes, points[step, drawn], colors[drawn], title=f"t = {step}")
    said = [] if concentration is None else [f"κ = {float(concentration):g}"]
    said += [projection] if projection else []
    if said:
        figure.suptitle(" · ".join(said), fontsize=10, color=GRAY)
    return figure
