"""Derivatives of anything, by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def finite_differences(
    function: Callable, x: np.ndarray | float, *, step: float = 1e-6
) -> np.ndarray:
    """Central differences of a scalar function in every entry of an array."""
    x = np.asarray(x, np.float64)
    slope = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        slope[index] = (function(up) - function(down)) / (2.0 * step)
    return slope
