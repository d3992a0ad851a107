"""Figures of the papers, each by one command.

    python -m benchmarks.figures pair-loss
    python -m benchmarks.figures toy-1d
    python -m benchmarks.figures sphere --workdir runs/digits-sphere
    python -m benchmarks.figures gradients --workdir runs/digits
    python -m benchmarks.figures similarities --workdir runs/digits
    python -m benchmarks.figures trimap --baseline RUN --embedding RUN

Which figure each is, what it shows, and where ours differs: docs/figures.md.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from benchmarks._figure_parts import draw_pair_loss, load_grids, pair_loss, read_trimap
from sphemb import InputError
from sphemb.cli import one_line_errors
from sphemb.evaluation import PixelGrid, fullest_first
from sphemb.training import load_config
from sphemb.viz import (
    draw_gradients,
    draw_shifted_images,
    draw_similarity_histograms,
    draw_trimap_curves,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEPS = 10  # of mean shift, as in the papers
_ROWS = 3


class Drawing(NamedTuple):
    """A figure that can be drawn.

    Attributes:
        source: paper and figure, and what it shows.
        draw: from the flags, to a figure or straight to ``--out``.
        flags: beside ``--out``, name -> settings of ``add_argument``.
    """

    source: str
    draw: Callable[[argparse.Namespace], Figure | None]
    flags: Mapping[str, Mapping]


def draw_spheres(flags: argparse.Namespace) -> Figure:
    """Images with most instances, and their pixels before and after mean shift."""
    task, grids = load_grids(flags.workdir, flags.split, flags.images)
    grids = _fullest(grids, _ROWS)
    return draw_shifted_images(
        np.stack([grid.image for grid in grids]),
        np.stack([grid.instances for grid in grids]),
        np.stack([grid.trajectory(**_shift(task)) for grid in grids]),
    )


def draw_run_gradients(flags: argparse.Namespace) -> Figure:
    """The gradients in the embedding of the image with most instances."""
    task, grids = load_grids(flags.workdir, flags.split, flags.images)
    (grid,) = _fullest(grids, 1)
    kappa = task.readoff.concentration
    gradients = grid.gradients(concentration=kappa, margin=task.margin)
    return draw_gradients(*grid, gradients)


def draw_similarities(flags: argparse.Namespace) -> Figure:
    """The similarities of pairs in several images, at every step."""
    task, grids = load_grids(flags.workdir, flags.split, flags.images)
    return draw_similarity_histograms(
        np.stack([grid.trajectory(**_shift(task)) for grid in grids]),
        np.stack([grid.instances.reshape(-1) for grid in grids]),
        margin=task.margin,
    )


def _fullest(grids: Sequence[PixelGrid], number: int) -> list[PixelGrid]:
    order = fullest_first(np.stack([grid.instances for grid in grids]))
    return [grids[index] for index in order[:number]]


def _shift(task: Any) -> dict:
    return {"concentration": task.readoff.concentration, "num_steps": _STEPS}


def draw_trimaps(flags: argparse.Namespace) -> Figure:
    """Mean IoU near boundaries, without and with the embedding loss."""
    methods = {
        "cross-entropy": (flags.baseline, False),
        "with the embedding loss": (flags.embedding, True),
    }
    curves = {}
    for name, (runs, wanted) in methods.items():
        for run in runs:
            weight = load_config(run).task.get("embedding_weight")
            if weight is None or (weight > 0) != wanted:
                flag = "--embedding" if wanted else "--baseline"
                raise InputError(
                    f"{flag} must be runs of configs/voc_semantic.py with "
                    f"config.task.embedding_weight {'above' if wanted else '='} 0, but "
                    f"{run} has {weight}"
                )
        several = f", mean of {len(runs)} runs" if len(runs) > 1 else ""
        curves[name + several] = read_trimap(runs, flags.split)
    return draw_trimap_curves(curves)


def draw_toy(flags: argparse.Namespace) -> None:
    """The toy of the supplement, which draws itself."""
    from examples import toy_1d

    toy_1d.draw_figure(*toy_1d.draw_points(flags.points), str(flags.out))


def _run_flags(images: int) -> dict[str, dict]:
    return {
        "--workdir": {
            "type": pathlib.Path,
            "required": True,
            "help": "the folder of a run that groups by mean shift",
        },
        "--images": {
            "type": int,
            "default": images,
            "help": "of the split that are looked at (%(default)s)",
        },
        "--split": _SPLIT,
    }


_SPLIT = {
    "choices": ("validation", "test"),
    "default": "test",
    "help": "of the run's data (%(default)s)",
}
_RUNS = {"type": pathlib.Path, "nargs": "+", "required": True, "metavar": "RUN"}
FIGURES = {
    "pair-loss": Drawing(
        "Kong & Fowlkes 2018, Fig. 2: the loss of a pair by its similarity",
        lambda flags: draw_pair_loss(pair_loss(flags.margin), margin=flags.margin),
        {"--margin": {"type": float, "default": 0.5, "help": "alpha (%(default)s)"}},
    ),
    "sphere": Drawing(
        "Kong & Fowlkes 2018, Fig. 4: pixels on the sphere, and after mean shift",
        draw_spheres,
        _run_flags(images=5),
    ),
    "gradients": Drawing(
        "Kong & Fowlkes 2018, Fig. 5: gradients without and with mean shift",
        draw_run_gradients,
        _run_flags(images=5),
    ),
    "trimap": Drawing(
        "Kong & Fowlkes 2018, Fig. 9: mean IoU by the distance from boundaries",
        draw_trimaps,
        {
            "--baseline": _RUNS | {"help": "runs by cross-entropy alone"},
            "--embedding": _RUNS | {"help": "runs with the embedding loss"},
            "--split": _SPLIT,
        },
    ),
    "similarities": Drawing(
        "its supplement, Fig. 1: similarities of pairs at every step of mean shift",
        draw_similarities,
        _run_flags(images=8),
    ),
    "toy-1d": Drawing(
        "its supplement, Fig. 2: points on a line that learn through mean shift",
        draw_toy,
        {
            "--points": {
                "type": int,
                "default": 1000,
                "help": "of each Gaussian (%(default)s)",
            }
        },
    ),
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exits with the line and status 2."""
        self.exit(2, f"error: {message}: see {self.prog} -h\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws one figure; a mistake ends with one line and exit status 2."""
    parser = Parser(
        prog="python -m benchmarks.figures",
        description="Draws a figure of the papers by our own code.",
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, drawing in FIGURES.items():
        figure = names.add_parser(name, help=drawing.source)
        for flag, settings in drawing.flags.items():
            figure.add_argument(flag, **settings)
        figure.add_argument(
            "--out",
            type=pathlib.Path,
            default=pathlib.Path(f"{name}.png"),
            help="the picture (%(default)s)",
        )
    flags = parser.parse_args(arguments)
    with one_line_errors():
        if flags.out.suffix.lower() != ".png":
            raise InputError(f"--out must end in .png, got {str(flags.out)!r}")
        figure = FIGURES[flags.name].draw(flags)
        if figure is not None:
            save_figure(figure, flags.out, max_bytes=300_000)
        print(f"figure: {flags.out}")


if __name__ == "__main__":
    main()
