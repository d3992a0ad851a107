"""The sphere's formulas in plain NumPy, float64."""

from __future__ import annotations

import numpy as np


def unit_rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random unit vectors along the last axis."""
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[N, M] cosines, one pair at a time."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.array(
        [[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in y] for a in x]
    )


def total_similarity(x: np.ndarray) -> float:
    """Sum of inner products over ordered pairs of different points."""
    n = len(x)
    return sum(float(x[i] @ x[j]) for i in range(n) for j in range(n) if i != j)


def simplex(n: int) -> np.ndarray:
    """[n, n] unit vectors of the regular simplex, in one dimension too many."""
    centred = np.eye(n) - 1.0 / n
    return centred / np.linalg.norm(centred, axis=-1, keepdims=True)
