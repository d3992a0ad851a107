"""What is printed where a limit of a task has left something out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sphemb.cli._prediction_settings import PredictionSettings
from sphemb.training import Experiment


def limit_line(task: Any, name: str, number: int, images: int) -> str:
    """Says how many images reached a limit, and which setting raises it.

    Args:
        task: whose setting it is.
        name: of the setting.
        number: of the images that reached it.
        images: of all.
    """
    return (
        f"{number} of {images} images reached config.task.{name} "
        f"{getattr(task, name)}: they may hold more than was found; raise the limit "
        "(sphemb advise counts what images hold)"
    )


def score_lines(task: Any, scores: Mapping[str, float], images: int) -> list[str]:
    """The same of the scores of an evaluation; nothing where no limit was reached."""
    prefix = "num_reached/"
    return [
        limit_line(task, key.removeprefix(prefix), int(number), images)
        for key, number in scores.items()
        if key.startswith(prefix) and number
    ]


def whole_lines(experiment: Experiment, split: str) -> list[str]:
    """Says how many scored images `sphemb predict` takes in tiles, if it does so.

    Args:
        experiment: of the evaluation.
        split: that was evaluated.
    """
    source, tile = experiment.source(split), PredictionSettings().tile
    indices = experiment.usable(split, experiment.config.evaluation[f"num_{split}"])
    large = sum(math.prod(source.size(i)) > tile**2 for i in indices)
    if not large:
        return []
    return [
        f"{large} of {len(indices)} images have more than {tile} x {tile} pixels and "
        "are scored whole: sphemb predict takes them in tiles, unless --tile is "
        "larger, and may find something else"
    ]
