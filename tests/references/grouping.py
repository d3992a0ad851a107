"""Float64 NumPy oracles of the grouping room, one point at a time, from the papers."""

from __future__ import annotations

import numpy as np


def sphere_points(
    rng: np.random.Generator,
    num_points: int,
    dim: int,
    *,
    num_groups: int = 4,
    spread: float = 0.3,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws unit rows [N, D] around random directions, and their labels [N]."""
    centers = rng.normal(size=(num_groups, dim))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    labels = rng.integers(num_groups, size=num_points)
    x = centers[labels] + spread * rng.normal(size=(num_points, dim))
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def shifted(query, points, masses, kappa, eta):
    """Moves one query by one step of mean shift on weighted points (001, section 4)."""
    logits = kappa * (points @ query)
    kernel = masses * np.exp(logits - logits[masses > 0].max())
    moved = (1 - eta) * query + eta * (kernel @ points) / kernel.sum()
    return moved / np.linalg.norm(moved)


def gbms(x, *, concentration, num_steps, step_size=1.0, mask=None):
    """Returns the points at every step, [T + 1, N, D]: Eq. 5 of 000, row by row."""
    x = np.asarray(x, np.float64)
    counts = np.ones(len(x), bool) if mask is None else np.asarray(mask)
    steps = [x]
    for _ in range(num_steps):
        last, x = x, x.copy()
        for i in np.flatnonzero(counts):
            x[i] = shifted(last[i], last, counts * 1.0, concentration, step_size)
        steps.append(x)
    return np.stack(steps)


def mean_shift(seeds, points, *, concentration, num_steps, step_size=1.0, mask=None):
    """Moves each seed on the density of points that stay."""
    points = np.asarray(points, np.float64)
    counts = np.ones(len(points)) if mask is None else np.asarray(mask) * 1.0
    seeds = np.array(seeds, np.float64)
    for _ in range(num_steps):
        for i, seed in enumerate(seeds):
            seeds[i] = shifted(seed, points, counts, concentration, step_size)
    return seeds


def label_modes(
    x, *, threshold, max_groups, min_size=1, unassigned="nearest", mask=None
):
    """Leader pass in plain words; returns labels [N] and the list of modes."""
    x = np.asarray(x, np.float64)
    counts = np.ones(len(x), bool) if mask is None else np.asarray(mask)
    free, groups = counts.copy(), []
    while free.any() and len(groups) < max_groups:
        leader = int(np.flatnonzero(free)[0])
        near = [j for j in np.flatnonzero(free) if x[j] @ x[leader] > threshold]
        mode = x[near].sum(axis=0)
        mode /= np.linalg.norm(mode)
        taken = [j for j in np.flatnonzero(free) if x[j] @ mode > threshold]
        taken = sorted({leader, *taken})
        free[taken] = False
        groups.append((mode, taken))
    groups = [group for group in groups if len(group[1]) >= min_size]
    members = [list(taken) for _, taken in groups]
    grouped = {j for taken in members for j in taken}
    if unassigned == "nearest" and groups:
        for j in np.flatnonzero(counts):
            if j not in grouped:
                members[int(np.argmax([x[j] @ mode for mode, _ in groups]))].append(j)
    order = sorted(range(len(groups)), key=lambda k: -len(members[k]))
    labels = np.full(len(x), -1)
    for rank, k in enumerate(order):
        labels[members[k]] = rank
    return labels, [groups[k][0] for k in order]


def columns_and_kernel(x, kappa, eta):
    """Returns X (columns), K, q and P of Eq. 5, as the supplement writes them."""
    columns = x.T
    kernel = np.exp(kappa * (columns.T @ columns))
    q = 1.0 / (kernel.T @ np.ones(len(x)))
    return columns, kernel, q, (1 - eta) * np.eye(len(x)) + eta * kernel * q


def step_gradient(
    x, cotangent, *, concentration, step_size, symmetric=True, direct=True
):
    """Pulls the cotangent of Y = XP (rows [N, D], not normalised) back to X.

    Eq. 6 of the supplement with its products put right and both paths into K added.
    ``symmetric`` takes X (dS + dS^T) where Eq. 6 prints 2 X dS; ``direct`` adds the
    path that Eq. 6 leaves out, through the X that P multiplies.
    """
    kappa, eta = concentration, step_size
    columns, kernel, q, p = columns_and_kernel(x, kappa, eta)
    d_p = columns.T @ cotangent.T
    d_q = eta * (kernel * d_p).sum(axis=0)
    d_d = -d_q * q**2
    d_k = d_d[None, :] + eta * d_p * q[None, :]
    d_s = kappa * kernel * d_k
    d_x = columns @ (d_s + d_s.T) if symmetric else 2 * columns @ d_s
    if direct:
        d_x = d_x + cotangent.T @ p.T
    return d_x.T
