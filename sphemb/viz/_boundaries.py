"""Boundary maps and branch embeddings: B images of H by W pixels, K branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_shape
from sphemb.viz._arrays import float_array, image_array
from sphemb.viz._colors import embedding_rgb
from sphemb.viz._figures import image_rows, new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_boundaries(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    branches: Mapping[str, np.ndarray],
    *,
    branch_names: Sequence[str] | None = None,
) -> Figure:
    """Draws image, annotated and predicted boundaries, and the embedding per branch.

    Several entries of ``branches``, such as before and after fine-tuning, have a row
    each below their image (Kong & Fowlkes 2018, Fig. 7).

    Args:
        images: uint8 or float in [0, 1], [B, H, W, 3].
        truth: float [B, H, W] in [0, 1], the share of annotators who mark a boundary.
        predicted: float [B, H, W] in [0, 1].
        branches: name -> float [B, K, H, W, D], rows of unit length.
        branch_names: K titles.
    """
    dims = check_shape("images", images, "B H W 3")
    maps = {"truth": truth, "predicted": predicted}
    for name, array in maps.items():
        check_shape(name, array, "B H W", dims=dims, beside="images")
    if not branches:
        raise InputError("branches must have one entry at least, got none")
    for name, array in branches.items():
        given = f"branches[{name!r}]"
        found = check_shape(given, array, "B K H W D", dims=dims, beside="images")
        dims["K"] = found["K"]
    number = dims["K"]
    titles = branch_names or [f"branch {k + 1}" for k in range(number)]
    if len(titles) != number:
        raise InputError(
            f"branch_names must have one entry per branch ({number}), got {len(titles)}"
        )
    columns = {
        "image": image_array("images", images),
        "annotators": _black(float_array("truth", truth, "B H W")),
        "found": _black(float_array("predicted", predicted, "B H W")),
    }
    several = len(branches)
    for name, pictures in columns.items():  # below its first row an image has none
        blank = np.ones((dims["B"], several, *pictures.shape[1:]))
        blank[:, 0] = pictures
        columns[name] = blank.reshape(-1, *pictures.shape[1:])
    colors = np.stack([embedding_rgb(array) for array in branches.values()], axis=1)
    for k, title in enumerate(titles):
        columns[title] = colors[:, :, k].reshape(columns["image"].shape)
    figure, grid = image_rows(columns, cell=1.5)
    for axes, name in zip(grid[:, 3], list(branches) * dims["B"], strict=True):
        axes.set_ylabel(name if several > 1 else "", fontsize=8)
    return figure


def draw_orientations(
    embedding: np.ndarray,
    boundary: np.ndarray,
    *,
    max_distance: float = 8.0,
    sectors: int = 24,
) -> Figure:
    """Draws the mean embedding by direction of, and distance from, the boundary.

    The chart has the boundary's orientation on one axis and the pixel's signed distance
    on the other. A boundary has no front side: half a turn swaps the signs, so that the
    left end of the chart, upside down, is its right end. Joined there the chart is the
    Möbius strip of Kong & Fowlkes (2018), supplement, Fig. 3; an embedding that encodes
    orientation and signed distance has no seam on it.

    Args:
        embedding: float [H, W, D].
        boundary: bool [H, W], of curves one pixel wide.
        max_distance: pixels; of the pixels in the chart.
        sectors: columns of the chart, over half a turn.
    """
    from scipy import ndimage

    dims = check_shape("embedding", embedding, "H W D")
    check_shape("boundary", boundary, "H W", dims=dims, beside="embedding")
    boundary = np.asarray(boundary, bool)
    if not boundary.any():
        raise InputError("boundary must have pixels that are True, got none")
    colors = embedding_rgb(embedding)
    # Its signature hides that without optional outputs it returns both arrays.
    found: Any = ndimage.distance_transform_edt(~boundary, return_indices=True)
    distance, nearest = found
    orientation = _orientations(boundary)[tuple(nearest)]
    offset = np.indices(boundary.shape) - nearest
    # Normals in [0, pi): distances are positive on the side that they point to.
    normal = np.stack([np.sin(orientation), np.cos(orientation)])
    signed = distance * np.sign(np.sum(offset * normal, axis=0))
    near = distance <= max_distance

    levels = 2 * int(max_distance) + 1
    column = np.minimum((orientation / np.pi * sectors).astype(int), sectors - 1)
    row = np.clip(np.rint(signed) + int(max_distance), 0, levels - 1).astype(int)
    sums, total = np.zeros((levels, sectors, 3)), np.zeros((levels, sectors, 1))
    np.add.at(sums, (row[near], column[near]), colors[near])
    np.add.at(total, (row[near], column[near]), 1)
    chart = np.where(total > 0, sums / np.maximum(total, 1), 1.0)

    figure = new_figure(8.0, 3.2)
    axes = figure.subplots(1, 2, width_ratios=(1.2, 1.0))
    show_image(axes[0], colors, title="embedding")
    axes[1].imshow(
        chart,
        extent=(0, 180, -max_distance - 0.5, max_distance + 0.5),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    axes[1].set_xlabel("direction of the boundary's normal, degrees", fontsize=8)
    axes[1].set_ylabel("signed distance, pixels", fontsize=8)
    axes[1].set_xticks([0, 45, 90, 135, 180])
    axes[1].tick_params(labelsize=8)
    axes[1].set_title("mean color near the boundary", fontsize=10)
    return figure


def _orientations(boundary: np.ndarray) -> np.ndarray:
    """Direction of the normal in [0, pi) at every pixel, by the structure tensor."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(boundary.astype(np.float64), 2.0)
    down, along = np.gradient(smooth)
    # Both sides of a curve have gradients along its normal, and their squares add up.
    tensor = [
        ndimage.gaussian_filter(product, 2.0)
        for product in (along * along, along * down, down * down)
    ]
    angle = 0.5 * np.arctan2(2.0 * tensor[1], tensor[0] - tensor[2])
    return np.mod(angle, np.pi)


def _black(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as black on white."""
    return np.repeat(1.0 - np.clip(values, 0.0, 1.0)[..., None], 3, axis=-1)
