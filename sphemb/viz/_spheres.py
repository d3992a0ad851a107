"""Points on the sphere: B images, T steps, N points, D dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_number, check_shape
from sphemb.viz._arrays import (
    balanced_weights,
    check_maps,
    float_array,
    image_array,
    principal_directions,
    sample_indices,
)
from sphemb.viz._colors import label_rgb
from sphemb.viz._figures import GRAY, new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS, _POINTS = 3, 2000
_ELEVATION, _AZIMUTH = 20.0, -55.0


def onto_sphere(
    trajectory: np.ndarray, *, labels: np.ndarray | None = None
) -> np.ndarray:
    """Projects float [T+1, N, D] unit vectors on the sphere in three dimensions.

    More than three dimensions are projected on the three directions along which the
    points of the last step vary most, with the same weight for every label (-1: zero),
    and scaled to length one. Distances are not kept: points that are close here may be
    far apart in the other directions. A point whose projection is zero stays zero.

    >>> points = onto_sphere(np.eye(4)[None])
    >>> np.round(np.linalg.norm(points, axis=-1), 6).tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """
    dims = check_shape("trajectory", trajectory, "T N D")
    trajectory = float_array("trajectory", trajectory, "T N D")
    weights = np.ones(dims["N"])
    if labels is not None:
        weights = _point_colors(labels, dims["N"])[1]
    projected, _ = _to_three(trajectory, weights)
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
    points, projection = _to_three(trajectory, weights)
    drawn = np.flatnonzero(weights > 0)
    drawn = drawn[sample_indices(len(drawn), _POINTS)]

    columns = min(dims["T"], _COLUMNS)
    rows = -(-dims["T"] // columns)
    figure = new_figure(2.7 * columns, 2.65 * rows + 0.3)
    for step in range(dims["T"]):
        axes = figure.add_subplot(rows, columns, step + 1, projection="3d")
        _show_sphere(axes, points[step, drawn], colors[drawn], title=f"t = {step}")
    kappa = "" if concentration is None else f"κ = {float(concentration):g}"
    if title := " · ".join(filter(None, (kappa, projection))):
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
    last = (
        check_shape(
            "trajectories", trajectories, "B T N D", dims=known, beside="images"
        )
    )["T"] - 1
    images = image_array("images", images)
    trajectories = float_array("trajectories", trajectories, "B T N D")
    figure = new_figure(10.4, 2.65 * rows + 0.3)
    for row in range(rows):
        labels = np.asarray(instances)[row]
        colors, weights = _point_colors(
            labels.reshape(-1), known["N"], name=f"instances[{row}]"
        )
        places = [figure.add_subplot(rows, 4, 4 * row + i) for i in (1, 2)]
        show_image(places[0], images[row], title="" if row else "image")
        show_image(places[1], label_rgb(labels), title="" if row else "true instances")
        points, projection = _to_three(trajectories[row], weights)
        drawn = np.flatnonzero(weights > 0)
        drawn = drawn[sample_indices(len(drawn), _POINTS)]
        for place, step in ((3, 0), (4, last)):
            axes = figure.add_subplot(rows, 4, 4 * row + place, projection="3d")
            title = "" if row else f"t = {step}"
            _show_sphere(axes, points[step, drawn], colors[drawn], title=title)
        if projection and not row:
            figure.suptitle(projection, fontsize=10, color=GRAY)
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


def _to_three(trajectory: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, str]:
    """Projects [T+1, N, D] to three dimensions, inside the unit sphere."""
    dim = trajectory.shape[-1]
    if dim <= 3:
        return np.pad(trajectory, ((0, 0), (0, 0), (0, 3 - dim))), ""
    projected = trajectory @ principal_directions(trajectory[-1], weights, 3)
    longest = np.linalg.norm(projected, axis=-1).max(initial=1e-12)
    return projected / longest, f"three principal directions of {dim} dimensions"


def _show_sphere(axes: Any, points: np.ndarray, colors: np.ndarray, title: str) -> None:
    """Points [N, 3] in their colors [N, 3] on a transparent sphere."""
    around, down = np.mgrid[0 : 2 * np.pi : 25j, 0 : np.pi : 13j]
    axes.plot_wireframe(
        np.cos(around) * np.sin(down),
        np.sin(around) * np.sin(down),
        np.cos(down),
        color="0.8",
        linewidth=0.4,
        alpha=0.6,
    )
    up, turn = np.radians(_ELEVATION), np.radians(_AZIMUTH)
    to_eye = np.array(
        [np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up)]
    )
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
