"""The margin loss as Eq. 2 is printed, in plain NumPy, float64, pair by pair."""

from __future__ import annotations

import numpy as np

VOID = -1


def instance_weights(labels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """One over the size of a pixel's instance; [N]."""
    counts = np.asarray(labels) != VOID
    if mask is not None:
        counts = counts & mask
    sizes = [sum(counts & (labels == label)) for label in labels]
    return np.where(counts, 1.0 / np.maximum(sizes, 1), 0.0)


def margin_loss_terms(
    x: np.ndarray,
    labels: np.ndarray,
    *,
    margin: float,
    weights: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    normalize: str = "pixels",
    power: int = 1,
) -> tuple[float, float]:
    """Positive and negative half of Eq. 2 for one image, [N, D] and [N]."""
    x = np.asarray(x, np.float64)
    counts = np.asarray(labels) != VOID
    if mask is not None:
        counts = counts & mask
    if weights is None:
        weights = instance_weights(labels, mask)
    weights = np.where(counts, weights, 0.0)
    positive = negative = 0.0
    for i in np.flatnonzero(counts):
        for j in np.flatnonzero(counts):
            pair = weights[i] * weights[j]
            s = 0.5 * (1.0 + x[i] @ x[j])
            if labels[i] == labels[j]:
                positive += pair * (1.0 - s**power)
            else:
                negative += pair * max(s - margin, 0.0) ** power
    if normalize == "terms":
        pairs = np.outer(weights, weights)
        same = np.asarray(labels)[:, None] == labels
        return positive / pairs[same].sum(), negative / pairs[~same].sum()
    total = counts.sum() if normalize == "pixels" else weights.sum() ** 2
    return positive / total, negative / total
