"""Classes of pixels as pictures: B images of H by W pixels, D dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sphemb._checks import InputError, check_integer, check_shape
from sphemb.viz._arrays import image_array
from sphemb.viz._colors import instance_colors, label_rgb
from sphemb.viz._embedding import embedding_rgb
from sphemb.viz._figures import clean_axes, new_figure, show_image
from sphemb.viz._outlines import overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sphemb.instances import SelectedDetections
    from sphemb.metrics import TrimapCurve

_PROJECTIONS = 3
_MOST_NAMES = 8  # in an image


def draw_classes(
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    embeddings: np.ndarray,
    *,
    class_names: Sequence[str] = (),
    detections: Sequence[SelectedDetections] | None = None,
) -> Figure:
    """Draws image, true classes, classes found, instances, and three projections.

    Args:
        images: uint8 or float in [0, 1], [B, H, W, 3].
        truth: int [B, H, W]; -1 void (gray), 0 background (black), 1.. classes.
        predicted: int [B, H, W], the classes found.
        embeddings: float [B, H, W, D].
        class_names: the background's first; numbers where there are none.
        detections: of every image, for one column more.

    Returns:
        A Matplotlib figure of B rows. Colors of classes are the same everywhere, and
        named below each map.

    Raises:
        InputError: shapes that do not go together, another number of detections.

    References:
        Kong & Fowlkes, CVPR 2018, Figs. 10 and 11.
    """
    dims = check_shape("images", images, "B H W 3")
    for name, maps in (("truth", truth), ("predicted", predicted)):
        check_integer(name, maps)
        check_shape(name, maps, "B H W", dims=dims, beside="images")
    rows, height, width = dims["B"], dims["H"], dims["W"]
    found = check_shape("embeddings", embeddings, "B H W D")
    check_shape("embeddings", embeddings, "B H W D", dims=dims | found, beside="images")
    if detections is not None and len(detections) != rows:
        raise InputError(
            f"detections must have one entry per image ({rows}), got {len(detections)}"
        )
    images = image_array("images", images)
    number = _PROJECTIONS if found["D"] > 3 else 1
    projections = [embedding_rgb(embeddings, seed=s) for s in range(number)]
    columns = 3 + (detections is not None) + number
    figure = new_figure(1.9 * columns, 0.3 + rows * (1.84 * height / width + 0.3))
    for row, axes in enumerate(figure.subplots(rows, columns, squeeze=False)):
        cells = [(images[row], "image", "")]
        for maps, title in ((truth, "true classes"), (predicted, "classes found")):
            labels = np.asarray(maps)[row]
            cells.append((label_rgb(labels), title, _listed(labels, class_names)))
        if detections is not None:
            mine = detections[row]
            _write_names(axes[len(cells)], mine, class_names)
            cells.append((overlay(images[row], mine.labels), "instances", ""))
        cells += [
            (projection[row], f"embedding, projection {i + 1}", "")
            for i, projection in enumerate(projections)
        ]
        for place, (picture, title, note) in zip(axes, cells, strict=True):
            show_image(place, picture, title=title if row == 0 else "", note=note)
    return figure


def draw_detections(
    image: np.ndarray,
    detections: SelectedDetections,
    *,
    class_names: Sequence[str] = (),
) -> Figure:
    """Draws the instances of one image over it, with class and score of the best.

    Args:
        image: uint8 or float in [0, 1], [H, W, 3].
        detections: found in it.
        class_names: the background's first; numbers where there are none.

    Returns:
        A Matplotlib figure.

    Raises:
        InputError: the image is no [H, W, 3], or of another size.
    """
    dims = check_shape("image", image, "H W 3")
    figure = new_figure(5.0, 5.0 * dims["H"] / dims["W"])
    axes = figure.subplots()
    show_image(axes, overlay(image, detections.labels))
    _write_names(axes, detections, class_names)
    return figure


def _listed(labels: np.ndarray, names: Sequence[str]) -> str:
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    largest = values[np.argsort(-counts, kind="stable")][:3]
    return ", ".join(_name(c, names) for c in largest)


def _name(number: int, names: Sequence[str]) -> str:
    return names[number] if number < len(names) else f"class {number}"


def _write_names(axes, detections: SelectedDetections, names: Sequence[str]) -> None:
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


def draw_trimap_curves(curves: Mapping[str, TrimapCurve]) -> Figure:
    """Draws mean IoU near true boundaries, and away from them, by the band's width.

    Args:
        curves: under each method's name its curve, or several of different seeds as
            one curve of their means.

    Returns:
        A Matplotlib figure of two axes.

    Raises:
        InputError: no curve.

    References:
        Kong & Fowlkes, CVPR 2018, Fig. 9.
    """
    if not curves:
        raise InputError("curves must hold at least one method's curve, got none")
    figure = new_figure(7.4, 3.2)
    inside, outside = figure.subplots(1, 2, sharex=True)
    drawn = 0.8 * instance_colors(len(curves))
    for (name, curve), color in zip(curves.items(), drawn, strict=True):
        for axes, values in ((inside, curve.inside), (outside, curve.outside)):
            axes.plot(curve.width, values, color=color, linewidth=1.4, label=name)
    for axes, title in ((inside, "within"), (outside, "outside of")):
        axes.set_title(f"mean IoU {title} the band", fontsize=10)
        axes.set_xlabel("width of the band around true boundaries, pixels", fontsize=8)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        clean_axes(axes)
    inside.legend(fontsize=8, frameon=False)
    return figure
