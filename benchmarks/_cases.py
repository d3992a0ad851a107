"""What is measured: the cases, and the points they are measured on.

Letters: N points, D dimensions, T steps.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np

FORWARD = "gbms forward"
GRADIENT = "gbms gradient"
LOSS = "margin loss gradient"
GROUPING = "grouping"
GROUPS, SMOOTH, EVEN = "groups", "smooth map", "even"  # the kinds of points

# What the outputs of a case are called, in the order in which every peer returns them.
OUTPUTS = {
    FORWARD: ("points",),
    GRADIENT: ("gradient in x", "in kappa", "in eta"),
    LOSS: ("loss", "gradient in x"),
    GROUPING: ("labels",),
}

_SIZES = (1024, 4096, 16384)
_LARGEST = 65536
_DIMS = (3, 64)
_STEPS = (1, 10)
_GROUPS = 10
_SPREAD = 0.3  # radians, about
_SIDES = (128, 512)  # of the maps that are grouped


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        kind: a key of :data:`OUTPUTS`.
        num_points: N.
        dim: D.
        num_steps: T; 0 where there are no steps.
        points: their kind: groups, a smooth map, or even over the sphere.
        resident: whether the growth of the resident set is read too, in a process of
            its own for every peer.
    """

    kind: str
    num_points: int
    dim: int
    num_steps: int = 0
    points: str = GROUPS
    resident: bool = False

    @property
    def name(self) -> str:
        """The case in words."""
        steps = f", T = {self.num_steps}" if self.num_steps else ""
        return (
            f"{self.kind}, {self.points}, D = {self.dim}{steps}, N = {self.num_points}"
        )


class Inputs(NamedTuple):
    """What every peer is given.

    Attributes:
        points: [N, D] float32 unit rows, of the case's kind.
        labels: [N] int32 groups.
        weights: [N] float32, one over the size of the point's group.
        cotangent: [N, D] float32, what the result is contracted with to get a scalar.
        concentration: kappa.
        step_size: eta.
        margin: alpha.
    """

    points: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    cotangent: np.ndarray
    concentration: float = 36.0
    step_size: float = 1.0
    margin: float = 0.5


def _distant_directions(rng: np.random.Generator, dim: int) -> np.ndarray:
    """Picks unit rows far from each other: groups that melt have no stable gradient."""
    candidates = rng.normal(size=(512, dim))
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    chosen = [0]
    for _ in range(_GROUPS - 1):
        nearest = np.max(candidates @ candidates[chosen].T, axis=1)
        chosen.append(int(np.argmin(nearest)))
    return candidates[chosen]


def _smooth_map(
    rng: np.random.Generator, side: int, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws discs on a background, their embeddings blurred over their borders."""
    from scipy.ndimage import gaussian_filter

    rows, columns = np.mgrid[:side, :side] / side
    labels = np.zeros((side, side), int)
    for group in range(1, _GROUPS):
        row, column = rng.uniform(size=2)
        radius = rng.uniform(0.05, 0.2)
        labels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = group
    exact = _distant_directions(rng, dim)[labels]
    waves = rng.normal(size=exact.shape)
    border, wave = 1.5, 4.0  # pixels
    blurred = gaussian_filter(exact, (border, border, 0.0))
    waves = gaussian_filter(waves, (wave, wave, 0.0))
    points = blurred + _SPREAD / np.sqrt(dim) * waves / waves.std()
    return points.reshape(-1, dim), labels.ravel()


def draw_inputs(case: Case) -> Inputs:
    """Draws the points of a case, the same at every call."""
    rng = np.random.default_rng(0)
    shape = (case.num_points, case.dim)
    if case.points == SMOOTH:
        points, labels = _smooth_map(rng, math.isqrt(case.num_points), case.dim)
    else:
        labels = rng.integers(_GROUPS, size=case.num_points)
        points = rng.normal(size=shape)
        if case.points == GROUPS:
            noise = _SPREAD / np.sqrt(case.dim) * points
            points = _distant_directions(rng, case.dim)[labels] + noise
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    weights = 1.0 / np.bincount(labels, minlength=_GROUPS)[labels]
    return Inputs(
        points=points.astype(np.float32),
        labels=labels.astype(np.int32),
        weights=weights.astype(np.float32),
        cotangent=rng.normal(size=shape).astype(np.float32),
    )


def full_cases() -> list[Case]:
    """The table of the README; memory is read at D = 64, where most is at stake."""
    few, many = _DIMS
    cases = [
        Case(kind, n, dim, steps, resident=(dim, steps) == (many, _STEPS[-1]))
        for kind, dim, steps, n in itertools.product(
            (FORWARD, GRADIENT), _DIMS, _STEPS, _SIZES
        )
    ]
    cases += [
        Case(kind, n, many, steps, points)
        for points, kind, steps, n in itertools.product(
            (SMOOTH, EVEN), (FORWARD, GRADIENT), _STEPS, _SIZES[1:]
        )
    ]
    cases += [Case(FORWARD, _LARGEST, many, _STEPS[-1], p) for p in (GROUPS, SMOOTH)]
    cases += [Case(LOSS, n, few) for n in _SIZES]
    cases += [Case(LOSS, n, many, resident=True) for n in _SIZES]
    cases += [Case(LOSS, n, many, points=SMOOTH) for n in _SIZES[1:]]
    maps = itertools.product((GROUPS, SMOOTH), _SIDES)
    return cases + [
        Case(GROUPING, side**2, many, 10, points, resident=True)
        for points, side in maps
    ]


def quick_cases() -> list[Case]:
    """A few seconds of each kind."""
    return [
        Case(FORWARD, 256, 3, 2),
        Case(FORWARD, 512, 3, 2),
        Case(GRADIENT, 256, 64, 2),
        Case(GRADIENT, 1024, 64, 2, resident=True),
        Case(LOSS, 512, 3),
        Case(GROUPING, 128**2, 8, 10),
    ]
