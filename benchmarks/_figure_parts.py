"""What the figures of the papers show, from our functions and from runs."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from sphemb import InputError, margin_loss
from sphemb.evaluation import PixelGrid, evaluate
from sphemb.metrics import TrimapCurve
from sphemb.training import Experiment, load_run, read_json

_COLORS = ("#4591ba", "#b87f00")  # of the two kinds of pairs
_POINTS = 199  # of a curve; at its ends the slope in the angle is infinite


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
    """
    figure = Figure(figsize=(7.4, 3.0), layout="constrained")
    grid = figure.subplots(1, 2, sharex=True)
    parts = {"loss of a pair": "loss", "its slope": "slope"}
    for axes, (title, part) in zip(grid, parts.items(), strict=True):
        for (name, pair), color in zip(pairs.items(), _COLORS, strict=True):
            values = getattr(pair, part)
            axes.plot(pair.similarity, values, color=color, linewidth=1.6, label=name)
        axes.axvline(margin, color="0.2", linewidth=0.9, linestyle="--")
        axes.set(title=title, xlim=(0.0, 1.0))
        axes.grid(color="0.92", linewidth=0.6)
    grid[0].legend(fontsize=8, frameon=False)
    figure.supxlabel("calibrated similarity (1 + cos θ) / 2", fontsize=9)
    return figure


def pair_loss(margin: float) -> dict[str, PairLoss]:
    """The margin loss of two points, by `sphemb.margin_loss` and its gradient.

    Args:
        margin: alpha.

    Returns:
        Of one instance, and of two: the loss of the pair, counted once.
    """

    def loss(similarity: jax.Array, labels: jax.Array) -> jax.Array:
        cosine = 2.0 * similarity - 1.0
        sine = jnp.sqrt(1.0 - jnp.square(cosine))
        points = (
            jnp.array([[1.0, 0.0], [0.0, 0.0]]).at[1].set(jnp.stack([cosine, sine]))
        )
        # Both orders of the pair count in the sum, which is divided by two points.
        return margin_loss(points, labels, margin=margin, weights=jnp.ones(2))

    similarity = jnp.linspace(0.0, 1.0, _POINTS + 2)[1:-1]
    found = {}
    for name, labels in {"one instance": (1, 1), "two instances": (1, 2)}.items():
        value = jax.vmap(jax.value_and_grad(loss), (0, None))
        values, slopes = value(similarity, jnp.array(labels))
        arrays = (np.asarray(array) for array in (similarity, values, slopes))
        found[name] = PairLoss(*arrays)
    return found


def load_grids(
    workdir: pathlib.Path, split: str, number: int
) -> tuple[Any, list[PixelGrid]]:
    """The task of a run, and what its network says of the first images of a split.

    Raises:
        InputError: no run, or one that does not group by mean shift; no such number.
    """
    trained = load_run(workdir)
    task = trained.experiment.task
    if task.readoff is None or not hasattr(task, "margin"):
        raise InputError(
            "--workdir must be a run that groups by mean shift (Proposals, such as "
            f"configs/digits.py), got one of {type(task).__name__}"
        )
    if number < 1:
        raise InputError(f"--images must be at least 1, got {number}")
    config = trained.experiment.config.copy_and_resolve_references().unlock()
    config.evaluation[f"num_{split}"] = number
    fewer = dataclasses.replace(trained, experiment=Experiment(config))
    found = evaluate(fewer, split, num_samples=number)
    there = range(len(found.samples["instances"]))
    return task, [PixelGrid.of_sample(found, index) for index in there]


def read_trimap(runs: Sequence[pathlib.Path], split: str) -> TrimapCurve:
    """The mean over runs of the scores near and away from boundaries.

    Args:
        runs: workdirs of `sphemb.tasks.Semantic`, scored on the same images.
        split: that they were scored on.

    Raises:
        InputError: a run without such scores, or runs that do not go together.
    """
    name = "summary.json" if split == "test" else f"summary_{split}.json"
    curves, scored, widths = [], set(), []
    for run in runs:
        scores = read_json(run / name)
        widths = sorted(
            int(found[1])
            for key in scores
            if (found := re.fullmatch(r"iou_inside@(\d+)", key))
        )
        if not widths:
            raise InputError(
                f"{run / name} must have scores iou_inside@w, as runs of "
                "configs/voc_semantic.py have them, got none"
            )
        sides = ("inside", "outside")
        curves.append([[scores[f"iou_{s}@{w}"] for w in widths] for s in sides])
        scored.add((scores["num_images"], *widths))
    if len(scored) > 1:
        raise InputError(
            "runs must be scored on as many images and by the same widths, got images "
            f"and widths {', '.join(map(str, sorted(scored)))}"
        )
    inside, outside = np.mean(np.array(curves, float), axis=0)
    return TrimapCurve(np.array(widths), inside, outside)
