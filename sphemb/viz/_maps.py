"""A row of pictures per image.

Images are uint8 or float in [0, 1], [B, H, W, 3]; label maps int [B, H, W] with void -1
(gray) and background 0 (black); embeddings float [B, H, W, D].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_shape
from sphemb.viz._arrays import check_maps, image_array
from sphemb.viz._colors import embedding_rgb, label_rgb, match_labels, overlay
from sphemb.viz._figures import GRAY, image_rows, new_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sphemb.instances import SelectedDetections

_PROJECTIONS = 3
_MOST_NAMES = 8  # in an image


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
    number = dims["B"]
    if scores is not None and len(scores) != number:
        raise InputError(
            f"scores must have one entry per image ({number}), got {len(scores)}"
        )
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    counts = [
        [len(np.unique(labels[labels > 0])) for labels in maps]
        for maps in (truth, predicted)
    ]
    found = [f"{count} found" for count in counts[1]]
    for i, score in enumerate([] if scores is None else scores):
        if np.isfinite(score):
            found[i] += f", mean best IoU {float(score):.2f}"
    figure, grid = image_rows(
        {
            "image": image_array("images", images),
            "truth": label_rgb(truth),
            "found": [
                label_rgb(match_labels(p, t))
                for p, t in zip(predicted, truth, strict=True)
            ],
            "embedding": embedding_rgb(embeddings),
        },
        {
            "truth": [f"{count} instance{'s' * (count != 1)}" for count in counts[0]],
            "found": found,
        },
    )
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
    figure, _ = image_rows(
        {
            "image": image_array("images", images),
            "clusters": label_rgb(clusters, background=None),
            **{name: label_rgb(labels) for name, labels in classes.items()},
        }
    )
    return figure


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

    Args:
        images: of B rows.
        truth: true classes.
        predicted: predicted classes.
        embeddings: of the images.
        class_names: the background's first; numbers for classes without a name.
        detections: of every image, for one more column.
    """
    dims = check_maps(images, embeddings, truth=truth, predicted=predicted)
    number = dims["B"]
    if detections is not None and len(detections) != number:
        raise InputError(
            f"detections must have one entry per image ({number}), got "
            f"{len(detections)}"
        )
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
    largest = values[np.argsort(-counts, kind="stable")][:3]
    return ", ".join(_name(c, names) for c in largest)


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
