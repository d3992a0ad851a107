"""Histograms of pair similarities: B images, T steps, N points, D dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from sphemb._checks import InputError, check_count, check_integer, check_shape
from sphemb.viz._arrays import balanced_weights, float_array, sample
from sphemb.viz._figures import clean_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3
_BINS = 50
_WITHIN, _BETWEEN = "#0072b2", "#d55e00"


class _Pairs(NamedTuple):
    """All pairs of the points of one image that are looked at."""

    points: np.ndarray  # [T+1, N, D]
    one: np.ndarray  # [P], and the other point of each pair
    other: np.ndarray
    weights: np.ndarray  # [P]
    same: np.ndarray  # [P], of one instance

    @classmethod
    def of(
        cls, trajectory: np.ndarray, labels: np.ndarray, max_points: int, seed: int
    ) -> Self:
        kept = np.flatnonzero(labels >= 0)
        if len(kept) < 2:
            raise InputError(f"labels must name at least two points, got {len(kept)}")
        kept = kept[sample(len(kept), max_points, seed)]
        labels = labels[kept]
        one, other = np.triu_indices(len(kept), 1)
        weights = balanced_weights(labels)
        return cls(
            trajectory[:, kept],
            one,
            other,
            weights[one] * weights[other],
            labels[one] == labels[other],
        )

    def histogram(self, step: int, edges: np.ndarray, of_one: bool) -> np.ndarray:
        points = self.points[step]
        similarity = 0.5 * (1.0 + points @ points.T)[self.one, self.other]
        kind = self.same == of_one
        return np.histogram(
            np.clip(similarity[kind], 0.0, 1.0), edges, weights=self.weights[kind]
        )[0]


def draw_similarity_histograms(
    trajectory: np.ndarray,
    labels: np.ndarray,
    *,
    margin: float | None = None,
    max_points: int = 1000,
    seed: int = 0,
) -> Figure:
    r"""Draws how similar pairs are within and between instances, step by step.

    The similarity is the calibrated cosine :math:`s = (1 + \cos\theta) / 2` of Eq. 1,
    and every pair weighs :math:`w_i w_j` as in Eq. 2, so that a large background does
    not drown the small instances. Both histograms sum to 1.

    Args:
        trajectory: float [T+1, N, D] unit vectors, the input first; or those of several
            images, [B, T+1, N, D], whose pairs are counted together.
        labels: int [N], or [B, N]; -1 is void.
        margin: alpha, drawn as a line where it is given.
        max_points: all pairs of at most as many points of an image are counted.
        seed: of the choice of points.

    Returns:
        A Matplotlib figure of T+1 axes.

    Raises:
        InputError: shapes that do not go together, fewer than two points that count.

    References:
        Kong and Fowlkes (2018), supplement, Fig. 1.
    """
    several = np.ndim(trajectory) == 4
    spec, of_labels = ("B T N D", "B N") if several else ("T N D", "N")
    dims = check_shape("trajectory", trajectory, spec)
    check_integer("labels", labels)
    known = {letter: dims[letter] for letter in of_labels.split()}
    check_shape("labels", labels, of_labels, dims=known, beside="trajectory")
    check_count("max_points", max_points, at_least=2)
    images = float_array("trajectory", trajectory, spec).reshape(
        -1, *trajectory.shape[-3:]
    )
    pairs = [
        _Pairs.of(points, own, max_points, seed)
        for points, own in zip(
            images, np.asarray(labels).reshape(len(images), -1), strict=True
        )
    ]

    steps = dims["T"]
    columns = min(steps, _COLUMNS)
    rows = -(-steps // columns)
    figure = new_figure(2.7 * columns + 0.5, 2.0 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    for step, axes in enumerate(grid.flat):
        if step >= steps:
            axes.set_axis_off()
            continue
        for name, of_one, color in (
            ("within instances", True, _WITHIN),
            ("between instances", False, _BETWEEN),
        ):
            counts = [image.histogram(step, edges, of_one) for image in pairs]
            shares = np.sum(counts, axis=0) / max(np.sum(counts), 1e-30)
            axes.stairs(shares, edges, fill=True, alpha=0.35, color=color)
            axes.stairs(shares, edges, color=color, linewidth=1.2, label=name)
        if margin is not None:
            axes.axvline(float(margin), color="0.2", linewidth=0.9, linestyle="--")
        axes.set_title(f"t = {step}", fontsize=10)
        axes.set_xlim(0.0, 1.0)
        clean_axes(axes)
    # Once the groups have shrunk to points one bar holds everything: a root scale keeps
    # the small ones visible.
    grid[0, 0].set_yscale("function", functions=(np.sqrt, np.square))
    grid[0, 0].set_ylim(0.0, 1.0)
    grid[0, 0].set_yticks([0.01, 0.1, 0.3, 0.6, 1.0])
    figure.supxlabel("calibrated similarity (1 + cos θ) / 2", fontsize=9)
    figure.supylabel("share of pairs", fontsize=9)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper center", ncols=2, fontsize=9, frameon=False
    )
    return figure
