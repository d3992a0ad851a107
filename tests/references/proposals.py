"""Pooling, recall by budget and matched precision from explicit masks."""

from __future__ import annotations

import numpy as np

from tests.references import metrics


def iou(one, other):
    return np.sum(one & other, dtype=np.float64) / max(np.sum(one | other), 1)


def pool(label_maps, max_groups, max_iou, min_size):
    """The kept candidates of one image [K, N] in order, as (map, group)."""
    kept = []
    for k, labels in enumerate(label_maps):
        sizes = [int(np.sum(labels == g)) for g in range(max_groups)]
        for g in sorted(range(max_groups), key=lambda g: (-sizes[g], g)):
            if sizes[g] < min_size:
                continue
            mask = labels == g
            if all(iou(mask, label_maps[j] == p) <= max_iou for j, p in kept):
                kept.append((k, g))
    return kept


def best_ious(label_maps, chosen, truth):
    """J* and the size of every object of one image, over the chosen proposals."""
    counted = truth >= 0
    found = []
    for q in np.unique(truth[truth > 0]):
        masks = [(label_maps[k] == g) & counted for k, g in chosen]
        best = max([iou(mask, truth == q) for mask in masks], default=0.0)
        found.append((best, int(np.sum(truth == q))))
    return found


def proposal_recall(images, truths, pools, budgets, areas):
    """All scores; images are [K, N], pools the lists that ``pool`` gives."""
    low, high = areas
    ranges = {"small": (0, low), "medium": (low, high), "large": (high, np.inf)}
    scores = {}
    for n in budgets:
        found = [
            pair
            for maps, truth, kept in zip(images, truths, pools, strict=True)
            for pair in best_ious(maps, kept[:n], truth)
        ]
        every = metrics.average_recall([best for best, _ in found])
        scores["num_objects"] = every.pop("num_objects")
        scores |= {f"{name}@{n}": value for name, value in every.items()}
        for name, (least, below) in ranges.items():
            part = [best for best, size in found if least <= size < below]
            part = metrics.average_recall(part)
            scores[f"num_objects/{name}"] = part["num_objects"]
            for score in ("recall@0.5", "average_recall"):
                scores[f"{score}@{n}/{name}"] = part[score]
        scores[f"num_proposals@{n}"] = np.mean([min(len(k), n) for k in pools])
    return scores


def matched_precision(predicted, truth, level):
    """TP / (TP + FP + FN) of one image, matched by the Hungarian method."""
    from scipy.optimize import linear_sum_assignment

    counted = truth >= 0
    found = np.unique(predicted[(predicted > 0) & counted])
    true = np.unique(truth[truth > 0])
    if not len(found) and not len(true):
        return 1.0
    above = np.array(
        [
            [iou((predicted == p) & counted, truth == q) > level for q in true]
            for p in found
        ]
    ).reshape(len(found), len(true))
    rows, columns = linear_sum_assignment(above, maximize=True)
    pairs = int(above[rows, columns].sum())
    return pairs / (len(found) + len(true) - pairs)
