"""Images beside their pixels on the sphere: B images, H by W, D dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sphemb._checks import InputError, check_count, check_integer, check_shape
from sphemb.viz._arrays import balanced_weights, float_array, image_array, sample
from sphemb.viz._colors import label_rgb
from sphemb.viz._figures import GRAY, new_figure, show_image
from sphemb.viz._spheres import show_sphere, to_three

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_shifted_images(
    images: np.ndarray,
    instances: np.ndarray,
    trajectories: np.ndarray,
    *,
    max_points: int = 2000,
    seed: int = 0,
) -> Figure:
    """Draws images, their instances, and their pixels before and after mean shift.

    Pixels have the color of their instance. More than three dimensions are projected,
    image by image, as `draw_sphere` does it.

    Args:
        images: uint8 or float in [0, 1], [B, H, W, 3].
        instances: int [B, H, W]; -1 void, 0 background, 1.. instances.
        trajectories: float [B, T+1, H W, D] unit vectors, the pixels row by row; the
            first and the last step are drawn.
        max_points: of an image at most; chosen at random.
        seed: of that choice.

    Returns:
        A Matplotlib figure of B rows.

    Raises:
        InputError: shapes that do not go together, values that are not finite, an image
            without a labelled pixel.

    References:
        Kong and Fowlkes (2018), Fig. 4.
    """
    dims = check_shape("images", images, "B H W 3")
    check_integer("instances", instances)
    check_shape("instances", instances, "B H W", dims=dims, beside="images")
    known = {"B": dims["B"], "N": dims["H"] * dims["W"]}
    found = check_shape(
        "trajectories", trajectories, "B T N D", dims=known, beside="images"
    )
    check_count("max_points", max_points, at_least=1)
    images = image_array("images", images)
    trajectories = float_array("trajectories", trajectories, "B T N D")
    last = found["T"] - 1
    figure = new_figure(10.4, 2.65 * dims["B"] + 0.3)
    for row in range(dims["B"]):
        labels = np.asarray(instances)[row]
        flat = labels.reshape(-1)
        drawn = np.flatnonzero(flat >= 0)
        if not len(drawn):
            raise InputError(f"instances[{row}] must label a pixel, got none but void")
        places = [figure.add_subplot(dims["B"], 4, 4 * row + i) for i in (1, 2)]
        show_image(places[0], images[row], title="" if row else "image")
        show_image(places[1], label_rgb(labels), title="" if row else "true instances")
        weights = np.where(flat < 0, 0.0, balanced_weights(flat))
        points, projection = to_three(trajectories[row], weights)
        drawn = drawn[sample(len(drawn), max_points, seed)]
        for place, step in ((3, 0), (4, last)):
            axes = figure.add_subplot(dims["B"], 4, 4 * row + place, projection="3d")
            title = "" if row else f"t = {step}"
            show_sphere(axes, points[step, drawn], label_rgb(flat)[drawn], title=title)
        if projection and not row:
            figure.suptitle(projection, fontsize=10, color=GRAY)
    return figure
