"""Figures without pyplot and its global state, their axes, and files."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sphemb._checks import InputError, check_number
from sphemb._files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRAY = "0.35"
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("png", {"metadata": {"Software": None}}),
    ".jpg": ("jpeg", {"pil_kwargs": {"quality": 88}}),
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, with constrained layout."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def show_image(
    axes: Any, image: np.ndarray, *, title: str = "", note: str = ""
) -> None:
    """Draws one image without interpolation, a title above and a note below."""
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(note, fontsize=8, color=GRAY)


def image_rows(
    columns: Mapping[str, np.ndarray | Sequence[np.ndarray]],
    notes: Mapping[str, Sequence[str]] | None = None,
    *,
    cell: float = 2.0,
) -> tuple[Figure, np.ndarray]:
    """A figure with a row per image, and its axes [rows, columns]."""
    first = next(iter(columns.values()))
    rows, (height, width) = len(first), first[0].shape[:2]
    tall = 0.92 * cell * height / width + (0.3 if notes else 0.1)
    figure = new_figure(cell * len(columns), 0.3 + rows * tall)
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for axes, (title, pictures) in zip(grid.T, columns.items(), strict=True):
        for row, picture in enumerate(pictures):
            note = (notes or {}).get(title, [""] * rows)[row]
            show_image(axes[row], picture, title="" if row else title, note=note)
    return figure, grid


def style_chart(
    axes: Any, *, title: str = "", xlabel: str = "", ylabel: str = "", grid: bool = True
) -> None:
    """Small labels, no box, and pale grid lines behind a chart."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    if grid:
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)


def legend_above(figure: Figure, axes: Any, ncols: int) -> None:
    """One legend for all charts of a figure, from the curves of one of them."""
    place: Any = {"loc": "outside upper center", "ncols": ncols}
    figure.legend(*axes.get_legend_handles_labels(), fontsize=9, frameon=False, **place)


def figure_bytes(figure: Figure, dpi: float, suffix: str = ".png") -> bytes:
    """A figure as a file; the same figure gives the same bytes."""
    name, settings = _FORMATS[suffix]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=name, dpi=dpi, **settings)
    return buffer.getvalue()


def save_figure(
    figure: Figure,
    path: str | os.PathLike[str],
    *,
    dpi: float = 130,
    max_bytes: int = 1_000_000,
) -> pathlib.Path:
    """Writes a figure as PNG or JPEG, at a lower resolution above ``max_bytes``.

    Photographs are smaller as JPEG (``.jpg``), flat colors and lines as PNG. The file
    is written whole or not at all; its folder is created. The same figure gives the
    same bytes. `InputError` if the size cannot be reached.
    """
    check_number("dpi", dpi, above=0)
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(f"path must end in .png or .jpg, got {str(path)!r}")
    while len(content := figure_bytes(figure, dpi, suffix)) > max_bytes:
        dpi *= 0.8
        if dpi < 20:
            raise InputError(
                f"max_bytes must leave room for a legible picture, got {max_bytes}"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(content)
    return path
