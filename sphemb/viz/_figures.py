"""Figures without pyplot, and how they reach the disk."""

from __future__ import annotations

import io
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_number
from sphemb._whole_files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRAY = "0.35"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches whose parts make room for each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def show_image(
    axes: Any, image: np.ndarray, *, title: str = "", note: str = ""
) -> None:
    """One image, pixel by pixel, with a title above and a note below."""
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(note, fontsize=8, color=GRAY)


def clean_axes(axes: Any) -> None:
    """Small ticks and no box around a chart."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def save_figure(
    figure: Figure,
    path: str | os.PathLike[str],
    *,
    dpi: float = 130,
    max_bytes: int = 1_000_000,
) -> pathlib.Path:
    """Writes a figure as PNG, whole or not at all.

    A file of more than ``max_bytes`` is drawn again at a lower resolution until it
    fits. The same figure gives the same bytes.

    Args:
        figure: a Matplotlib figure.
        path: where to write; its folder is made where it is missing.
        dpi: dots per inch to begin with.
        max_bytes: the largest size of the file.

    Returns:
        The path.

    Raises:
        InputError: a path that does not end in .png, or a size that cannot be reached.
    """
    check_number("dpi", dpi, above=0)
    path = pathlib.Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"path must end in .png, got {str(path)!r}")
    while True:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        if buffer.getbuffer().nbytes <= max_bytes:
            break
        dpi *= 0.8
        if dpi < 20:
            raise InputError(
                f"max_bytes must leave room for a legible picture, got {max_bytes}"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(buffer.getvalue())
    return path
