"""Spreading n points over a sphere numerically, where no theorem says how.

The largest of all cosines is replaced by a soft maximum (log-sum-exp at inverse
temperature beta), which is descended with momentum while beta grows. Several runs
start at different beta: cold starts keep the variety of their random positions, warm
ones find the symmetric arrangements. Deterministic, float64, plain NumPy; the result
is a real arrangement of points, so its similarity can be had, though perhaps beaten.
"""

from __future__ import annotations

import functools

import numpy as np

_ROUNDS = 40  # values of beta
_DESCENTS = 60  # steps at each of them
_MOMENTUM = 0.8
_STEP = 0.3  # times 1/beta, the scale on which the soft maximum bends
_LAST_BETA = 1e6
_WORK = 2**14  # similarities held at once; many points get fewer runs


@functools.lru_cache(maxsize=256)
def least_largest_cosine(n: int, dim: int) -> float:
    """Smallest largest cosine found among ``n`` points in ``dim`` dimensions."""
    runs = int(np.clip(_WORK // (n * n), 2, 32))
    rng = np.random.default_rng(0)
    points = _unit(rng.standard_normal((runs, n, dim)))
    first_beta = np.geomspace(1.0, 300.0, runs)[:, None, None]
    for cooled in np.linspace(0.0, 1.0, _ROUNDS):
        beta = first_beta ** (1.0 - cooled) * _LAST_BETA**cooled
        velocity = np.zeros_like(points)
        for _ in range(_DESCENTS):
            velocity = _MOMENTUM * velocity - (_STEP / beta) * _slope(points, beta)
            points = _unit(points + velocity)
    return float(_cosines(points).max(axis=(-2, -1)).min())


def _slope(points: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Direction on the sphere in which each point's soft largest cosine grows."""
    cosines = _cosines(points)
    above = beta * (cosines - cosines.max(axis=(-2, -1), keepdims=True))
    # Clipped because exp is slow where its result is a denormal number.
    weights = np.exp(np.maximum(above, -60.0))
    busiest = weights.sum(axis=-1, keepdims=True).max(axis=-2, keepdims=True)
    pull = (weights @ points) / busiest
    return pull - (pull * points).sum(axis=-1, keepdims=True) * points


def _cosines(points: np.ndarray) -> np.ndarray:
    cosines = points @ points.swapaxes(-1, -2)
    own = np.arange(points.shape[-2])
    cosines[..., own, own] = -2.0
    return cosines


def _unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=-1, keepdims=True)
