"""The detections of an image, out of scored proposals: K maps of G groups."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sphemb._checks import (
    check_floating,
    check_integer,
    check_number,
    check_shape,
)


class SelectedDetections(NamedTuple):
    """What is found in one image.

    Attributes:
        labels: int32 [H, W], 0 where nothing is, 1.. the detections, the best first;
            where two overlap, the better one is on top.
        classes: int [M], the class of detection 1, 2, ..
        scores: float [M].
        masks: bool [M, H, W], each as it is, with what others cover.
    """

    labels: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray


def select_detections(
    label_maps: np.ndarray,
    *,
    scores: np.ndarray,
    classes: np.ndarray,
    min_score: float = -np.inf,
    max_overlap: float = 0.5,
) -> SelectedDetections:
    """Takes proposals by falling score, and leaves out what is mostly covered.

    Args:
        label_maps: int [H, W] or [K, H, W], groups 0..G-1.
        scores: float [G] or [K, G]; -inf for what is none.
        classes: int [G] or [K, G].
        min_score: what a detection needs.
        max_overlap: the share of a proposal that better ones may cover.

    Returns:
        The `SelectedDetections`.

    Raises:
        InputError: shapes that do not go together, a setting out of range.

    >>> found = select_detections(np.array([[[0, 0, 1, 1]], [[0, 0, 0, 1]]]),
    ...                           scores=np.array([[0.9, 0.2], [0.3, 0.8]]),
    ...                           classes=np.array([[5, 6], [7, 8]]))
    >>> found.labels.tolist(), found.classes.tolist(), found.scores.tolist()
    ([[1, 1, 3, 2]], [5, 8, 6], [0.9, 0.8, 0.2])
    """
    check_integer("label_maps", label_maps)
    check_floating("scores", scores)
    check_integer("classes", classes)
    label_maps = np.asarray(label_maps)
    scores, classes = np.asarray(scores, np.float64), np.asarray(classes)
    label_maps = label_maps[None] if label_maps.ndim == 2 else label_maps
    scores = scores[None] if scores.ndim == 1 else scores
    classes = classes[None] if classes.ndim == 1 else classes
    dims = check_shape("label_maps", label_maps, "K H W")
    dims |= check_shape(
        "scores", scores, "K G", dims={"K": dims["K"]}, beside="label_maps"
    )
    wanted = {letter: dims[letter] for letter in "KG"}
    check_shape("classes", classes, "K G", dims=wanted, beside="scores")
    check_number("max_overlap", max_overlap, at_least=0, at_most=1)
    labels = np.zeros(label_maps.shape[1:], np.int32)
    chosen, masks = [], []
    order = np.argsort(-scores, axis=None, kind="stable")
    for k, g in zip(*np.unravel_index(order, scores.shape), strict=True):
        if not np.isfinite(scores[k, g]) or scores[k, g] < min_score:
            break
        mask = label_maps[k] == g
        size = int(mask.sum())
        if not size or np.sum(mask & (labels > 0)) > max_overlap * size:
            continue
        chosen.append((k, g))
        masks.append(mask)
        labels[mask & (labels == 0)] = len(chosen)
    place = tuple(np.array(chosen, int).reshape(-1, 2).T)
    return SelectedDetections(
        labels,
        classes[place],
        scores[place],
        np.array(masks, bool).reshape(-1, *labels.shape),
    )
