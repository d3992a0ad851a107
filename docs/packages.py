"""Draws the packages and their imports: ``python docs/packages.py``.

Writes ``docs/images/packages.png`` from the import graph of the code. An arrow that
follows from two others is left out. Needs the extra ``test`` (import-linter brings
``grimp``).
"""

from __future__ import annotations

import pathlib

import grimp
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = {  # position, and what the package does
    "cli": (2.6, 7, "train, evaluate, predict, score ..."),
    "configs": (5.2, 7, "one file per experiment"),
    "evaluation": (2.6, 6, "scores and predictions of a run"),
    "viz": (0.6, 5.4, "arrays to pictures, report"),
    "training": (3.6, 5, "loop, step, checkpoints"),
    "tasks": (2.2, 4, "loss, prediction, metrics"),
    "models": (4.2, 4, "images to named maps"),
    "data": (5.8, 4, "files to batches"),
    "metrics": (1.2, 3.2, "sums and scores"),
    "instances": (3.1, 2.6, "label maps, components"),
    "losses": (2.3, 1.5, "margin, spectral"),
    "grouping": (1.0, 1.5, "mean shift, rounding"),
    "sphere": (3.4, 0.7, "unit vectors, margins"),
    "warps": (5.2, 1.5, "flips, crops, colors"),
}


def draw() -> plt.Figure:
    """Draws a box per package with its size, and an arrow per import."""
    graph = grimp.build_graph("sphemb")
    imports = {
        name: {
            other for other in PACKAGES if other != name and _has(graph, name, other)
        }
        for name in PACKAGES
    }
    figure, axes = plt.subplots(figsize=(10, 9))
    boxes = {}
    for name, (x, y, purpose) in PACKAGES.items():
        files = list((ROOT / "sphemb" / name).rglob("*.py"))
        lines = sum(len(file.read_text().splitlines()) for file in files)
        boxes[name] = axes.text(
            *(x, y, f"{name}\n{purpose}\n{lines:,} lines, {len(files)} files"),
            **{"ha": "center", "va": "center", "size": 9, "zorder": 3},
            bbox={"boxstyle": "round,pad=0.4", "fc": "#e8eef7", "ec": "#41597a"},
        )
    axes.set(xlim=(-0.1, 6.5), ylim=(0.3, 7.4))
    axes.axis("off")
    figure.tight_layout()
    figure.canvas.draw()  # places the boxes, which the arrows end at
    for name, others in imports.items():
        for other in others - set().union(*(imports[between] for between in others)):
            ends = {
                f"patch{end}": boxes[box].get_bbox_patch()
                for end, box in (("A", name), ("B", other))
            }
            arrow = {"arrowstyle": "->", "color": "0.5", "shrinkA": 0, "shrinkB": 2}
            places = PACKAGES[other][:2], PACKAGES[name][:2]
            axes.annotate("", *places, arrowprops=arrow | ends, zorder=1)
    return figure


def _has(graph: grimp.ImportGraph, package: str, other: str) -> bool:
    """Whether a module of the package imports a module of the other directly."""
    modules, wanted = (
        {f"sphemb.{name}", *graph.find_descendants(f"sphemb.{name}")}
        for name in (package, other)
    )
    return any(graph.find_modules_directly_imported_by(m) & wanted for m in modules)


if __name__ == "__main__":
    draw().savefig(ROOT / "docs" / "images" / "packages.png", dpi=100)
