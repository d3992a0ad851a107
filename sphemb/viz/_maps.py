"""A row of pictures per image.

Images are uint8 or float in [0, 1], [B, H, W, 3]; label maps int [B, H, W] with void -1
(gray) and background 0 (black); embeddings float [B, H, W, D].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_shape
from sphemb.viz._arrays import (
    check_maps,
    embedding_rgb,
    float_array,
    image_array,
    label_rgb,
    match_labels,
    overlay,
)
from sphemb.viz._figures import GRAY, image_rows, new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sphemb.instances import SelectedDetections

_PROJECTIONS = 3
_MOST_NAMES = 8  # in an image


def _check_entries(name: str, given: Any, of: str, number: int) -> None:
    if given is not None and len(given) != number:
        raise InputError(
            f"{name} must have one entry per {of} ({number}), got {len(given)}"
        )


def draw_grouping(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    embeddings: np.ndarray,
    *,
    scores: Sequence[float] | None = None,
) -> Figure:
    """Draws image, true instances, predicted instances and embedding, a row per image.

    A predicted instance has the color of the true one that it overlaps most. B mean
    best IoUs, the ``scores``, are written below the predicted instances.
    """
    dims = check_maps(images, embeddings, truth=truth, predicted=predicted)
    _check_entries("scores", scores, "image", dims["B"])
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    true, found = (
        [len(np.unique(labels[labels > 0])) for labels in maps]
        for maps in (truth, predicted)
    )
    notes = {
        "truth": [f"{count} instance{'s' * (count != 1)}" for count in true],
        "found": [f"{count} found" for count in found],
    }
    for i, score in enumerate([] if scores is None else scores):
        if np.isfinite(score):
            notes["found"][i] += f", mean best IoU {float(score):.2f}"
    columns = {
        "image": image_array("images", images),
        "truth": label_rgb(truth),
        "found": [label_rgb(one) for one in map(match_labels, predicted, truth)],
        "embedding": embedding_rgb(embeddings),
    }
    figure, grid = image_rows(columns, notes)
    if dims["D"] > 3:
        note = f"random projection of {dims['D']} dimensions"
        grid[-1, 3].set_xlabel(note, fontsize=8, color=GRAY)
    return figure


def draw_clusters(
    images: np.ndarray, clusters: np.ndarray, *, truth: np.ndarray | None = None
) -> Figure:
    """Draws image, clusters and, where they are known, true classes, a row per image.

    A cluster has one color in all images, and so has a class; the colors of clusters
    and of classes are not related.
    """
    classes = {} if truth is None else {"classes": truth}
    check_maps(images, clusters=clusters, **classes)
    columns = {"image": image_array("images", images)}
    columns["clusters"] = label_rgb(clusters, background=None)
    return image_rows(columns | {n: label_rgb(m) for n, m in classes.items()})[0]


def draw_classes(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    embeddings: np.ndarray,
    *,
    class_names: Sequence[str] = (),
    detections: Sequence[SelectedDetections] | None = None,
) -> Figure:
    """Draws image, true and predicted classes, instances and three projections.

    A class has one color in all maps; the largest ones are named below each map, as in
    Kong & Fowlkes (2018), Figs. 10 and 11.

    ``class_names`` begin with the background; classes without a name are numbered.
    ``detections`` of every image are drawn in one more column.
    """
    dims = check_maps(images, embeddings, truth=truth, predicted=predicted)
    _check_entries("detections", detections, "image", dims["B"])
    images = image_array("images", images)
    maps = {"true classes": np.asarray(truth), "classes found": np.asarray(predicted)}
    columns: dict[str, np.ndarray | Sequence[np.ndarray]] = {"image": images}
    columns |= {name: label_rgb(m) for name, m in maps.items()}
    if detections is not None:
        columns["instances"] = [
            overlay(image, found.labels)
            for image, found in zip(images, detections, strict=True)
        ]
    for seed in range(_PROJECTIONS if dims["D"] > 3 else 1):
        name = f"embedding, projection {seed + 1}"
        columns[name] = embedding_rgb(embeddings, seed=seed)
    notes = {
        name: [_largest(labels, class_names) for labels in m]
        for name, m in maps.items()
    }
    figure, grid = image_rows(columns, notes)
    for axes, found in zip(grid[:, 3], detections or (), strict=False):
        _write_names(axes, found, class_names)
    return figure


def draw_detections(
    image: np.ndarray,
    detections: SelectedDetections,
    *,
    class_names: Sequence[str] = (),
) -> Figure:
    """Draws instances over their image [H, W, 3], with class and score of the best.

    Classes without a name, the background's being the first, are numbered.
    """
    dims = check_shape("image", image, "H W 3")
    figure = new_figure(5.0, 5.0 * dims["H"] / dims["W"])
    axes = figure.subplots()
    show_image(axes, overlay(image, detections.labels))
    _write_names(axes, detections, class_names)
    return figure


def _largest(labels: np.ndarray, names: Sequence[str]) -> str:
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    largest = values[np.argsort(-counts, kind="stable")]
    return ", ".join(_name(c, names) for c in largest[:3])


def _name(number: int, names: Sequence[str]) -> str:
    return names[number] if number < len(names) else f"class {number}"


def _write_names(
    axes: Any, detections: SelectedDetections, names: Sequence[str]
) -> None:
    for i in range(min(len(detections.classes), _MOST_NAMES)):
        rows, columns = np.nonzero(detections.labels == i + 1)
        if not rows.size:
            continue
        axes.text(
            columns.mean(),
            rows.mean(),
            f"{_name(int(detections.classes[i]), names)} {detections.scores[i]:.2f}",
            color="white",
            fontsize=5,
            ha="center",
            va="center",
            bbox={"facecolor": "black", "alpha": 0.5, "pad": 0.8, "linewidth": 0},
        )


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
    titles = branch_names or [f"branch {k + 1}" for k in range(dims["K"])]
    _check_entries("branch_names", titles, "branch", dims["K"])
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

    A boundary has no front side: half a turn swaps the signs of the distances, so that
    the left end of the chart, upside down, is its right end. Joined there the chart is
    the Möbius strip of Kong & Fowlkes (2018), supplement, Fig. 3; an embedding that
    encodes orientation and signed distance has no seam on it.

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

    down, along = np.gradient(ndimage.gaussian_filter(boundary.astype(float), 2.0))
    # Both sides of a curve have gradients along its normal, and their squares add up.
    products = (along * along, along * down, down * down)
    a, b, c = (ndimage.gaussian_filter(product, 2.0) for product in products)
    return np.mod(0.5 * np.arctan2(2.0 * b, a - c), np.pi)


def _black(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as black on white."""
    return np.repeat(1.0 - np.clip(values, 0.0, 1.0)[..., None], 3, axis=-1)
