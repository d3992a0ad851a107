"""How many instances images have, how large they are, and which a coarse map loses.

I images, J instances.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sphemb._checks import InputError, check_integer, check_shape
from sphemb.viz._figures import clean_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COUNTS, _SIZES, _LOST = "#009e73", "#0072b2", "#d55e00"
_BINS = 30


def draw_instance_sizes(
    counts: np.ndarray, areas: np.ndarray, vanishing: Mapping[int, np.ndarray]
) -> Figure:
    """Draws the number of instances per image, their sizes, and what vanishes.

    A size is the side of a square of the same area, on a logarithmic scale; a dashed
    line is the side of a map's cell. The last axes have the share of the instances that
    vanish at each stride.

    Args:
        counts: int [I], instances of every image.
        areas: int [J], pixels of every instance.
        vanishing: stride -> bool [J], see `sphemb.data.vanishing_instances`.

    Returns:
        A Matplotlib figure of three axes.

    Raises:
        InputError: no image or no instance, or shapes that do not go together.

    >>> figure = draw_instance_sizes(
    ...     np.array([2]), np.array([9, 400]), {8: np.array([True, False])}
    ... )
    >>> [axes.get_title() for axes in figure.axes]
    ['instances of an image', 'size of an instance', 'vanish at a stride']
    """
    for name, array in {"counts": counts, "areas": areas}.items():
        check_integer(name, array)
        check_shape(name, array, "N")
        if not array.size:
            raise InputError(f"{name} must not be empty: there is nothing to draw")
    for lost in vanishing.values():
        check_shape("vanishing", lost, "J", dims={"J": len(areas)}, beside="areas")
    figure = new_figure(9.6, 2.7)
    of_images, of_instances, of_strides = figure.subplots(1, 3)

    width = max(1, -(-(int(counts.max()) + 1) // _BINS))  # whole numbers in a bin
    edges = np.arange(0, counts.max() + width + 1, width) - 0.5
    of_images.hist(counts, edges, color=_COUNTS)
    of_images.set_title("instances of an image", fontsize=10)
    of_images.set_xlabel("instances", fontsize=9)
    of_images.set_ylabel("images", fontsize=9)

    sides = np.sqrt(areas)
    low, high = min(1.0, sides.min()), max(2.0, sides.max() * 1.05)
    of_instances.hist(sides, np.geomspace(low, high, _BINS + 1), color=_SIZES)
    of_instances.set_xscale("log", base=2)
    of_instances.xaxis.set_major_formatter("{x:g}")
    for stride in vanishing:
        of_instances.axvline(stride, color="0.2", linewidth=0.9, linestyle="--")
    of_instances.set_title("size of an instance", fontsize=10)
    of_instances.set_xlabel("√area in pixels; dashed: a cell of the map", fontsize=9)
    of_instances.set_ylabel("instances", fontsize=9)

    shares = [100.0 * float(np.mean(lost)) for lost in vanishing.values()]
    bars = of_strides.bar([str(s) for s in vanishing], shares, color=_LOST, width=0.6)
    of_strides.bar_label(bars, [f"{share:.1f}" for share in shares], fontsize=8)
    of_strides.margins(y=0.15)
    of_strides.set_title("vanish at a stride", fontsize=10)
    of_strides.set_xlabel("stride of the map", fontsize=9)
    of_strides.set_ylabel("% of the instances", fontsize=9)
    for axes in figure.axes:
        clean_axes(axes)
    return figure
