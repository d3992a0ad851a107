"""One row per image: B images of H by W pixels with D-dimensional embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sphemb._checks import InputError, check_integer, check_shape
from sphemb.viz._arrays import image_array
from sphemb.viz._colors import label_rgb, match_labels
from sphemb.viz._embedding import embedding_rgb
from sphemb.viz._figures import GRAY, new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_grouping(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    embeddings: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
) -> Figure:
    """Draws image, truth, instances found and embedding side by side.

    An instance that is found takes the color of the true one it overlaps most.

    Args:
        images: uint8 or float in [0, 1], [B, H, W, 3].
        truth: int [B, H, W]; -1 void (gray), 0 background (black), 1.. instances.
        predicted: int [B, H, W]; 0 background, 1.. instances found.
        embeddings: float [B, H, W, D].
        names: B names, written at the left of the rows.
        scores: B mean best IoUs, written below the instances found.

    Returns:
        A Matplotlib figure of B rows and four columns.

    Raises:
        InputError: shapes that do not go together, or another number of names or
            scores.
    """
    dims = check_shape("images", images, "B H W 3")
    check_integer("truth", truth)
    check_integer("predicted", predicted)
    check_shape("truth", truth, "B H W", dims=dims, beside="images")
    check_shape("predicted", predicted, "B H W", dims=dims, beside="images")
    found = check_shape("embeddings", embeddings, "B H W D")
    rows, height, width = dims["B"], dims["H"], dims["W"]
    check_shape(
        "embeddings",
        embeddings,
        "B H W D",
        dims=dims | {"D": found["D"]},
        beside="images",
    )
    for name, given in (("names", names), ("scores", scores)):
        if given is not None and len(given) != rows:
            raise InputError(
                f"{name} must have one entry per image ({rows}), got {len(given)}"
            )
    images, truth = image_array("images", images), np.asarray(truth)
    predicted = np.asarray(predicted)
    colors = embedding_rgb(embeddings)

    figure = new_figure(8.0, 0.3 + rows * (1.84 * height / width + 0.27))
    grid = figure.subplots(rows, 4, squeeze=False)
    for row, axes in enumerate(grid):
        first = row == 0
        show_image(axes[0], images[row], title="image" if first else "")
        true_number = len(np.unique(truth[row][truth[row] > 0]))
        found_number = len(np.unique(predicted[row][predicted[row] > 0]))
        note = f"{found_number} found"
        if scores is not None and np.isfinite(scores[row]):
            note += f", mean best IoU {float(scores[row]):.2f}"
        show_image(
            axes[1],
            label_rgb(truth[row]),
            title="truth" if first else "",
            note=f"{true_number} instance{'s' * (true_number != 1)}",
        )
        show_image(
            axes[2],
            label_rgb(match_labels(predicted[row], truth[row])),
            title="found" if first else "",
            note=note,
        )
        show_image(axes[3], colors[row], title="embedding" if first else "")
        if names is not None:
            axes[0].set_ylabel(names[row], fontsize=8)
    if found["D"] > 3:
        note = f"random projection of {found['D']} dimensions"
        grid[-1, 3].set_xlabel(note, fontsize=8, color=GRAY)
    return figure
