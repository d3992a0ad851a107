"""Deep spectral clustering in plain NumPy, float64, pair by pair."""

from __future__ import annotations

import numpy as np

VOID = -1


def affinity(labels: np.ndarray) -> np.ndarray:
    """[N, N] ones where both points are of one group; zero for void ones."""
    labels = np.asarray(labels)
    return np.array([[float(a == b != VOID) for b in labels] for a in labels])


def spectral_loss(
    x: np.ndarray,
    labels: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    normalize: str = "pairs",
) -> float:
    """Squared Frobenius distance of x xᵀ from the affinity of one image."""
    counts = np.asarray(labels) != VOID
    if mask is not None:
        counts = counts & mask
    x = np.asarray(x, np.float64)[counts]
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)[counts]
    pairs = np.outer(w, w)
    errors = (x @ x.T - affinity(np.asarray(labels)[counts])) ** 2
    if normalize == "total":
        return float((pairs * errors).sum())
    different = ~np.eye(len(x), dtype=bool)
    return float((pairs * errors)[different].sum() / pairs[different].sum())


def kwik_cluster(x, order, *, threshold=0.5, max_groups=None, mask=None):
    """Goes through the points in a given order; labels in the order of finding."""
    x = np.asarray(x, np.float64)
    free = np.ones(len(x), bool) if mask is None else np.array(mask)
    labels, pivots = np.full(len(x), VOID), []
    for pivot in order:
        if not free[pivot] or len(pivots) == max_groups:
            continue
        for i in range(len(x)):
            if free[i] and (i == pivot or x[i] @ x[pivot] > threshold):
                labels[i], free[i] = len(pivots), False
        pivots.append(int(pivot))
    return labels, pivots


def by_size(labels: np.ndarray) -> np.ndarray:
    """Renumbers labels 0, 1, ... by falling size; among equals the lower first."""
    labels = np.asarray(labels)
    sizes = np.bincount(labels[labels >= 0])
    rank = np.empty(len(sizes), int)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(labels >= 0, rank[labels], VOID)


def mismatches(a: np.ndarray, b: np.ndarray) -> int:
    """Entries in which two affinities differ."""
    return int((np.asarray(a) != np.asarray(b)).sum())
