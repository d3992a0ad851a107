"""Boundary maps and what the branches embed: B images of H by W pixels, K branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_shape
from sphemb.viz._arrays import float_array, image_array
from sphemb.viz._embedding import embedding_rgb
from sphemb.viz._figures import new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overlay_boundaries(
    image: np.ndarray,
    boundary: np.ndarray,
    *,
    color: tuple[float, float, float] = (1.0, 0.1, 0.0),
) -> np.ndarray:
    """Draws boundaries over a paled image, the surer the stronger.

    Args:
        image: uint8 or float in [0, 1], [H, W, 3].
        boundary: float [H, W] in [0, 1].
        color: of the boundaries.

    Returns:
        float [H, W, 3] in [0, 1].

    Raises:
        InputError: shapes that do not go together, values that are not finite.

    >>> overlay_boundaries(np.zeros((1, 2, 3)), np.array([[0.0, 1.0]])).tolist()
    [[[0.5, 0.5, 0.5], [1.0, 0.1, 0.0]]]
    """
    dims = check_shape("image", image, "H W 3")
    check_shape("boundary", boundary, "H W", dims=dims, beside="image")
    strength = np.clip(float_array("boundary", boundary, "H W"), 0.0, 1.0)[..., None]
    pale = 0.5 + 0.5 * image_array("image", image)
    return (1.0 - strength) * pale + strength * np.asarray(color)


def draw_boundaries(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    branches: Mapping[str, np.ndarray],
    *,
    branch_names: Sequence[str] | None = None,
) -> Figure:
    """Draws image, what people marked, what was found, and each branch as colors.

    With several entries of ``branches``, such as before and after a fine-tuning, each
    has a row of its own under the image's (the paper's Fig. 7).

    Args:
        images: uint8 or float in [0, 1], [B, H, W, 3].
        truth: float [B, H, W] in [0, 1], the share of the annotators who see a boundary
            there.
        predicted: float [B, H, W] in [0, 1].
        branches: name -> float [B, K, H, W, D], rows of unit length.
        branch_names: K titles.

    Returns:
        A Matplotlib figure of B rows for each entry and 3 + K columns.

    Raises:
        InputError: shapes that do not go together, values that are not finite.
    """
    dims = check_shape("images", images, "B H W 3")
    for name, array in (("truth", truth), ("predicted", predicted)):
        check_shape(name, array, "B H W", dims=dims, beside="images")
    if not branches:
        raise InputError("branches must have one entry at least, got none")
    found = {}
    for name, array in branches.items():
        given = f"branches[{name!r}]"
        found = check_shape(given, array, "B K H W D")
        check_shape(
            given,
            array,
            "B K H W D",
            dims=dims | {"K": found["K"], "D": found["D"]},
            beside="images",
        )
    number, rows = found["K"], dims["B"] * len(branches)
    titles = branch_names or [f"branch {k + 1}" for k in range(number)]
    if len(titles) != number:
        raise InputError(
            f"branch_names must have one entry per branch ({number}), got {len(titles)}"
        )
    images = image_array("images", images)
    truth = float_array("truth", truth, "B H W")
    predicted = float_array("predicted", predicted, "B H W")
    colors = {name: embedding_rgb(array) for name, array in branches.items()}

    columns = 3 + number
    cell = 1.5
    figure = new_figure(
        cell * columns, 0.3 + rows * (cell * dims["H"] / dims["W"] + 0.08)
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, axes in enumerate(grid):
        image, entry = divmod(row, len(branches))
        name = list(branches)[entry]
        if entry == 0:
            shown = (images[image], _ink(truth[image]), _ink(predicted[image]))
            for column, picture in enumerate(shown):
                title = ("image", "annotators", "found")[column] if row == 0 else ""
                show_image(axes[column], picture, title=title)
        else:
            for column in range(3):
                axes[column].axis("off")
        for k in range(number):
            show_image(
                axes[3 + k],
                colors[name][image, k],
                title=titles[k] if row == 0 else "",
            )
        if len(branches) > 1:
            axes[3].set_ylabel(name, fontsize=8)
    return figure


def draw_orientations(
    embedding: np.ndarray,
    boundary: np.ndarray,
    *,
    reach: float = 8.0,
    sectors: int = 24,
) -> Figure:
    r"""Draws what an embedding knows about a boundary's direction and distance.

    Every pixel within ``reach`` of the true boundary is put into a chart of the
    boundary's orientation against the pixel's signed distance from it, in the mean
    color of its embedding. A boundary has no front side: turning it by half a turn
    swaps the signs, so that the chart's left end, turned upside down, is its right end.
    Glued together they are the Möbius strip of the supplement's Fig. 3; an embedding
    that encodes orientation and signed distance colors it without a seam.

    Args:
        embedding: float [H, W, D].
        boundary: bool [H, W], of curves one pixel wide.
        reach: pixels.
        sectors: columns of the chart, over half a turn.

    Returns:
        A Matplotlib figure: the embedding, and the chart.

    Raises:
        InputError: shapes that do not go together, or no boundary.

    References:
        Kong & Fowlkes, CVPR 2018, supplement, section 3.
    """
    from scipy import ndimage

    dims = check_shape("embedding", embedding, "H W D")
    check_shape("boundary", boundary, "H W", dims=dims, beside="embedding")
    boundary = np.asarray(boundary, bool)
    if not boundary.any():
        raise InputError("boundary must have pixels that are True, got none")
    colors = embedding_rgb(embedding)
    # Without its optional outputs it returns both arrays, which its signature hides.
    found: Any = ndimage.distance_transform_edt(~boundary, return_indices=True)
    distance, nearest = found
    orientation = _orientations(boundary)[tuple(nearest)]
    offset = np.indices(boundary.shape) - nearest
    # Normals of [0, pi): the side they point to is where distances are positive.
    normal = np.stack([np.sin(orientation), np.cos(orientation)])
    signed = distance * np.sign(np.sum(offset * normal, axis=0))
    near = distance <= reach

    levels = 2 * int(reach) + 1
    column = np.minimum((orientation / np.pi * sectors).astype(int), sectors - 1)
    row = np.clip(np.rint(signed) + int(reach), 0, levels - 1).astype(int)
    place = (row * sectors + column)[near]
    total = np.bincount(place, minlength=levels * sectors)
    sums = [
        np.bincount(place, weights=colors[..., c][near], minlength=levels * sectors)
        for c in range(3)
    ]
    chart = np.stack(sums, axis=-1) / np.maximum(total, 1)[:, None]
    chart = np.where(total[:, None] > 0, chart, 1.0).reshape(levels, sectors, 3)

    figure = new_figure(8.0, 3.2)
    axes = figure.subplots(1, 2, width_ratios=(1.2, 1.0))
    show_image(axes[0], colors, title="embedding")
    axes[1].imshow(
        chart,
        extent=(0, 180, -reach - 0.5, reach + 0.5),
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


def _ink(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as black on white."""
    return np.repeat(1.0 - np.clip(values, 0.0, 1.0)[..., None], 3, axis=-1)
