"""What is found in one image, on the host, from what a task predicts for it.

Shape letters: H W image size, M instances, D embedding dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sphemb.instances import relabel, select_detections
from sphemb.tasks import (
    REACHED,
    Boundaries,
    Instances,
    Maps,
    Picie,
    Semantic,
    reached_names,
)

Found = dict[str, Any]


def found_in_image(
    task: Any, predictions: Maps, size: tuple[int, int], *, min_size: int = 1
) -> Found:
    """Takes the padding and the batch's axis off a prediction.

    Args:
        task: whose prediction it is.
        predictions: for one image.
        size: (H, W) of the image without padding.
        min_size: pixels that an instance needs, beside what the task asks for.

    Returns:
        What there is of:

        * ``labels`` int32 [H, W], 0 for the background or void and 1, 2, .. for
          instances or clusters;
        * ``classes`` int32 [H, W], `VOID` for void;
        * ``boundary`` float32 [H, W] in [0, 1];
        * ``seen`` and ``detections``, those of the labels, and all that are scored,
          also those that others cover;
        * ``instance_classes`` [M] and ``instance_scores`` [M], of the labels;
        * ``embedding`` float16 [H, W, D];
        * ``reached``, the names of the task's limits that have left something out.
    """
    height, width = size

    def cut(name: str) -> np.ndarray:
        return np.asarray(predictions[name][0])[..., :height, :width]

    if isinstance(task, Boundaries):
        return {"boundary": cut("boundary").astype(np.float32)}
    if isinstance(task, Picie):
        # From 1 on: no cluster is a background, and 0 is where there is none.
        return {"labels": cut("labels") + 1}
    embedding = np.asarray(predictions["embedding"][0, :height, :width], np.float16)
    found: Found = {"embedding": embedding, "reached": _reached(predictions)}
    if isinstance(task, Semantic):
        return found | {"classes": cut("classes")}
    if isinstance(task, Instances):
        maps = cut("proposals")
        scores = np.asarray(predictions["proposal_scores"][0])
        sizes = _sizes(maps, scores.shape[-1])
        settings = {
            "scores": np.where(sizes < min_size, -np.inf, scores),
            "classes": np.asarray(predictions["proposal_classes"][0]),
        }
        seen = select_detections(maps, **settings, min_score=task.min_score)
        return found | {
            "detections": select_detections(maps, **settings, max_overlap=1.0),
            "seen": seen,
            "labels": seen.labels,
            "instance_classes": seen.classes,
            "instance_scores": seen.scores,
            "classes": cut("classes"),
        }
    labels = relabel(predictions["labels"], predictions["background"])[0]
    # An image smaller than any group may be has no group, and so no instance.
    labels = np.maximum(labels, 0)[:height, :width]
    return found | {"labels": _sieved(labels, min_size)}


def _reached(predictions: Maps) -> tuple[str, ...]:
    """The limits that were reached in the image."""
    names = reached_names(predictions)
    return tuple(name for name in names if predictions[REACHED + name][0])


def _sizes(maps: np.ndarray, groups: int) -> np.ndarray:
    """The pixels of every group of the maps [K, H, W], [K, groups]."""
    return np.stack(
        [np.bincount(m[m >= 0].ravel(), minlength=groups)[:groups] for m in maps]
    )


def _sieved(labels: np.ndarray, min_size: int) -> np.ndarray:
    """The instances that are large enough, numbered anew in their order."""
    if min_size <= 1:
        return labels
    kept = np.bincount(labels.ravel()) >= min_size
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
