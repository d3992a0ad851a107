"""The loss of a pair of points against how similar they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sphemb._checks import InputError, check_number, check_shape
from sphemb.viz._colors import instance_colors
from sphemb.viz._figures import clean_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PairLoss(NamedTuple):
    """A loss of pairs.

    Attributes:
        similarity: [N], rising, in [0, 1].
        loss: [N] of pairs with that similarity.
        slope: [N], its derivative in the similarity.
    """

    similarity: np.ndarray
    loss: np.ndarray
    slope: np.ndarray


def draw_pair_loss(pairs: Mapping[str, PairLoss], *, margin: float) -> Figure:
    """Draws a loss of pairs, and its slope, against the calibrated similarity.

    Args:
        pairs: kinds of pairs, such as "one instance", with their loss.
        margin: alpha, drawn as a line.

    Returns:
        A Matplotlib figure of two axes.

    Raises:
        InputError: no kind, or arrays that do not go together.

    References:
        Kong and Fowlkes (2018), Fig. 2.

    >>> s = np.linspace(0.0, 1.0, 5)
    >>> figure = draw_pair_loss({"same": PairLoss(s, 1 - s, -np.ones(5))}, margin=0.5)
    >>> [axes.get_title() for axes in figure.axes]
    ['loss of a pair', 'its slope']
    """
    if not pairs:
        raise InputError("pairs must hold at least one kind of pairs, got none")
    check_number("margin", margin, at_least=0, at_most=1)
    figure = new_figure(7.4, 3.0)
    left, right = figure.subplots(1, 2, sharex=True)
    colors = 0.8 * instance_colors(len(pairs))
    for (name, pair), color in zip(pairs.items(), colors, strict=True):
        dims = check_shape(f"pairs[{name!r}].similarity", pair.similarity, "N")
        for axes, part in ((left, "loss"), (right, "slope")):
            values = getattr(pair, part)
            argument = f"pairs[{name!r}].{part}"
            check_shape(argument, values, "N", dims=dims, beside="similarity")
            axes.plot(pair.similarity, values, color=color, linewidth=1.6, label=name)
    for axes, title in ((left, "loss of a pair"), (right, "its slope")):
        axes.axvline(margin, color="0.2", linewidth=0.9, linestyle="--")
        axes.set_title(title, fontsize=10)
        axes.set_xlim(0.0, 1.0)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        clean_axes(axes)
    left.legend(fontsize=8, frameon=False)
    figure.supxlabel("calibrated similarity (1 + cos θ) / 2", fontsize=9)
    return figure
