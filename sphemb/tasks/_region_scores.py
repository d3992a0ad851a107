"""AP^r of proposals with a class and a score, and of each stage if it were perfect.

Shape letters: B images, H rows, W columns, K label maps, G groups, C classes, Q
objects.
"""

from __future__ import annotations

import numpy as np

from sphemb.instances import overlap_pairs
from sphemb.metrics import RegionPrecision
from sphemb.tasks._predictions import Detections
from sphemb.tasks._semantic import true_classes
from sphemb.tasks._task import Batch

_NAMES = ("ap_r", "ap_r_true_classes", "ap_r_true_scores", "ap_r_true_masks")


def region_scores(
    predictions: Detections, batch: Batch, *, num_groups: int, num_classes: int
) -> dict[str, RegionPrecision]:
    """AP^r of a batch and its parts; see `Instances.metrics` for what they are.

    Args:
        predictions: the detections.
        batch: ``instances`` and ``semantic`` [B, H, W], ``valid`` [B].
        num_groups: G.
        num_classes: C, that of the background among them.
    """
    totals = {
        name: RegionPrecision.empty(num_classes=num_classes, name=name)
        for name in _NAMES
    }
    for i in np.flatnonzero(np.asarray(batch["valid"])):
        image = _of_image(predictions, batch, int(i), num_groups, num_classes)
        totals = {name: totals[name].merge(image[name]) for name in _NAMES}
    return totals


def _of_image(
    predictions: Detections, batch: Batch, i: int, num_groups: int, num_classes: int
) -> dict[str, RegionPrecision]:
    truth = np.asarray(batch["instances"][i])
    semantic = np.asarray(true_classes(batch)[i])
    objects = majority(truth, semantic, num_classes)[0]
    maps = np.asarray(predictions.groups.proposals)[i]
    best_iou, best = best_objects(maps, truth, num_groups)
    classes = np.asarray(predictions.proposal_classes[i])
    scores = np.asarray(predictions.proposal_scores[i])
    perfect = np.where(np.isfinite(scores), best_iou, -np.inf)
    found = np.asarray(predictions.classes[i])
    voted, share = majority(truth, found, num_classes)
    given = {
        "ap_r": (maps, scores, classes),
        "ap_r_true_classes": (maps, scores, objects[best]),
        "ap_r_true_scores": (maps, perfect, classes),
        "ap_r_true_masks": (truth, share, voted),
    }
    return {
        name: RegionPrecision.from_image(
            labels,
            truth,
            scores=score,
            classes=which,
            true_classes=objects,
            num_classes=num_classes,
            name=name,
        )
        for name, (labels, score, which) in given.items()
    }


def majority(
    labels: np.ndarray, classes: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The commonest class but the background of every label, and its share.

    Args:
        labels: int [H, W]; 0, 1, .., Q.
        classes: int [H, W].
        num_classes: C.

    Returns:
        int [Q + 1], 0 where no pixel has another class than the background; float
        [Q + 1], -inf there and for label 0.
    """
    number = int(labels.max(initial=0)) + 1
    sizes = {"num_predicted": number, "num_true": num_classes}
    table = overlap_pairs(labels, classes, **sizes).table[:-1, :-1]
    best = 1 + table[:, 1:].argmax(axis=1)
    votes = table[np.arange(number), best]
    there = (votes > 0) & (np.arange(number) > 0)
    share = votes / np.maximum(table.sum(axis=1), 1)
    return np.where(there, best, 0), np.where(there, share, -np.inf)


def best_objects(
    maps: np.ndarray, truth: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """The IoU of every group of the maps [K, H, W] with the object it overlaps most.

    Args:
        maps: int [K, H, W], groups 0..G-1.
        truth: int [H, W]; -1 void, 0 background, 1, 2, .. objects.
        groups: G.

    Returns:
        float [K, G], and int [K, G], the object: of equal ones the first; 1 for what
        overlaps none, and 0 where there are none.
    """
    number = int(truth.max(initial=0))
    iou = np.zeros((len(maps), groups))
    objects = np.full(iou.shape, min(number, 1))
    for k, labels in enumerate(maps):
        pairs = overlap_pairs(
            labels, truth, num_predicted=groups, num_true=number + 1
        ).within(slice(groups), slice(1, number + 1))
        found = pairs.counts / pairs.unions
        np.maximum.at(iou[k], pairs.rows, found)
        best = np.flatnonzero(found == iou[k][pairs.rows])[::-1]  # the first comes last
        objects[k][pairs.rows[best]] = pairs.columns[best]
    return iou, objects
