"""Overlap, recall and counting scores in plain NumPy, with loops."""

from __future__ import annotations

import numpy as np


def overlap_table(predicted, truth, num_predicted, num_true, mask=None):
    """The table of one pair of labelings [N], with its two remainders."""
    table = np.zeros((num_predicted + 1, num_true + 1), np.int64)
    for i in range(len(truth)):
        if truth[i] < 0 or (mask is not None and not mask[i]):
            continue
        known = 0 <= predicted[i] < num_predicted
        table[predicted[i] if known else -1, min(truth[i], num_true)] += 1
    return table


def best_ious(predicted, truth):
    """J* of every object of one image, from boolean masks."""
    counted = truth >= 0
    found = []
    for q in np.unique(truth[truth > 0]):
        object_mask = truth == q
        best = 0.0
        for p in np.unique(predicted[predicted >= 0]):
            group_mask = (predicted == p) & counted
            both = np.sum(group_mask & object_mask, dtype=np.float64)
            best = max(best, both / np.sum(group_mask | object_mask))
        found.append(best)
    return found


def average_recall(ious):
    """The scores of a list of J*, from the sets of levels as they are published."""
    if not len(ious):
        return dict.fromkeys(
            (
                "mean_best_iou",
                "recall@0.5",
                "average_recall",
                "average_recall_mcg",
                "average_recall_hosang",
            ),
            float("nan"),
        ) | {"num_objects": 0.0}
    ious = np.asarray(ious, np.float64)

    def recall_at(levels):
        # A level is missed only beyond rounding.
        return np.mean([np.mean(ious >= level - 1e-12) for level in levels])

    return {
        "mean_best_iou": np.mean(ious),
        "recall@0.5": recall_at([0.5]),
        "average_recall": recall_at(np.linspace(0.5, 0.95, 10)),
        "average_recall_mcg": recall_at(np.linspace(0.5, 1.0, 11)),
        "average_recall_hosang": 2.0 * np.mean(np.maximum(ious - 0.5, 0.0)),
        "num_objects": float(len(ious)),
    }


def instance_count(found, truth):
    """The counting scores of images with ``found`` instances each."""
    true = np.array([len(np.unique(t[t > 0])) for t in truth], np.float64)
    found = np.asarray(found, np.float64)
    return {
        "count_absolute_error": np.mean(np.abs(found - true)),
        "count_signed_error": np.mean(found - true),
        "count_exact": np.mean(found == true),
        "count_found": np.mean(found),
        "count_true": np.mean(true),
    }
