"""Clusters beside their images: B images of H by W pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sphemb._checks import check_integer, check_shape
from sphemb.viz._arrays import image_array
from sphemb.viz._colors import label_rgb
from sphemb.viz._figures import new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_clusters(
    images: np.ndarray, clusters: np.ndarray, *, truth: np.ndarray | None = None
) -> Figure:
    """Draws image, clusters and, where they are known, true classes side by side.

    A cluster has one color in all images, and so has a class; the colors of the two
    have nothing to do with each other.

    Args:
        images: uint8 or float in [0, 1], [B, H, W, 3].
        clusters: int [B, H, W]; 0.. clusters, negative: none (gray).
        truth: int [B, H, W]; 1.. classes, 0 none of them (black), -1 void (gray).

    Returns:
        A Matplotlib figure of B rows.

    Raises:
        InputError: shapes that do not go together, labels that are no integers.

    >>> figure = draw_clusters(np.zeros((2, 4, 6, 3)), np.zeros((2, 4, 6), int))
    >>> len(figure.axes)
    4
    """
    dims = check_shape("images", images, "B H W 3")
    maps = {"clusters": clusters} | ({} if truth is None else {"classes": truth})
    for name, labels in maps.items():
        check_integer(name, labels)
        check_shape(name, labels, "B H W", dims=dims, beside="images")
    images = image_array("images", images)
    colors = {"clusters": label_rgb(np.asarray(clusters), background=None)}
    if truth is not None:
        colors["classes"] = label_rgb(np.asarray(truth))
    rows, columns = dims["B"], 1 + len(colors)
    height = 0.3 + rows * (2.4 * dims["H"] / dims["W"] + 0.1)
    figure = new_figure(2.5 * columns, height)
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, axes in enumerate(grid):
        first = row == 0
        show_image(axes[0], images[row], title="image" if first else "")
        for place, (name, rgb) in zip(axes[1:], colors.items(), strict=True):
            show_image(place, rgb[row], title=name if first else "")
    return figure
