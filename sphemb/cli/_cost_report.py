"""What training and scoring take, in memory and time, before they run out of either."""

from __future__ import annotations

import pathlib
import time
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from sphemb._checks import InputError
from sphemb.cli._advice import Advice
from sphemb.cli._costs import Cost, fits, free_bytes, prediction_cost, training_cost
from sphemb.training import Experiment, devices, duration, read_json

_SIZES_READ = 2000  # headers of images, to find the largest


class Estimate(NamedTuple):
    """What `estimate_costs` found.

    Attributes:
        record: all of it, as JSON can hold it.
        lines: in words.
        advice: settings without which the memory does not last.
    """

    record: dict[str, Any]
    lines: list[str]
    advice: list[Advice]


def estimate_costs(
    config: ml_collections.ConfigDict, workdir: pathlib.Path | None = None
) -> Estimate:
    """Compiles a training step and a prediction, and times them where there is room.

    Args:
        config: whose.
        workdir: of a run with this configuration, which tells how fast it was.

    Returns:
        Memory and time, and what to change where the memory is too small.
    """
    start = time.perf_counter()
    experiment, free = Experiment(config), free_bytes()
    training = training_cost(experiment)
    split, index, share = _largest(experiment)
    prediction = prediction_cost(experiment, index, split=split)
    spent = time.perf_counter() - start
    told = workdir / "training.json" if workdir else None
    before = read_json(told) if told and told.is_file() else {}
    advice = [
        # By this the recipe stays; a smaller config.loader.batch_size is another one.
        *smaller_batch(
            "config.loader.images_per_device",
            "training step",
            training,
            free,
            each=True,
        ),
        *smaller_batch("config.evaluation.batch_size", "prediction", prediction, free),
    ]
    steps, scored = experiment.num_steps, _scored(experiment)
    seconds = {
        "training": training.seconds and steps * training.seconds,
        "scoring": prediction.seconds
        and scored * share * prediction.seconds / prediction.images,
    }
    lines = [
        f"training: {_line(training, free)}"
        + _total(f"{steps:,} steps", seconds["training"]),
        f"scoring: {_line(prediction, free)}"
        + _total(f"all {scored:,} images that a run scores", seconds["scoring"]),
        f"measured by calls of the compiled programs, within {duration(spent)}, on "
        f"{devices()}, with new weights; reading images is not in it",
    ]
    if "images_per_second" in before:
        lines.append(
            f"that run went at {before['images_per_second']:g} images a second on "
            f"{before['device']}"
        )
    record = {
        "free_bytes": free,
        "device": devices(),
        "training": training._asdict(),
        "prediction": prediction._asdict(),
        "seconds": seconds,
    }
    return Estimate(record, lines, advice)


def _largest(experiment: Experiment) -> tuple[str, int, float]:
    """The largest image to be scored: split, place, and mean pixels over its own."""
    for split in ("validation", "test", "train"):
        try:
            source = experiment.source(split)
        except InputError:
            continue
        if not len(source):
            continue
        chosen = np.unique(
            np.linspace(0, len(source) - 1, min(len(source), _SIZES_READ)).astype(int)
        )
        pixels = np.array([np.prod(source.size(int(i))) for i in chosen])
        return split, int(chosen[pixels.argmax()]), float(pixels.mean() / pixels.max())
    raise InputError("config.data must have images, got none in any split")


def _scored(experiment: Experiment) -> int:
    """Images that a run scores, in all."""
    settings, train = experiment.config.evaluation, experiment.config.train
    times = {
        "test": 1,
        "validation": experiment.times_due(train.eval_every, experiment.num_steps),
    }
    number = 0
    for split, count in times.items():
        try:
            number += count * min(
                settings[f"num_{split}"], len(experiment.source(split))
            )
        except InputError:  # no images in that split: training tells so
            continue
    return number


def smaller_batch(
    setting: str, what: str, cost: Cost, free: int | None, *, each: bool = False
) -> list[Advice]:
    """The batch that has room, where the one that was compiled has not.

    Args:
        setting: of the batch size.
        what: the program, in words.
        cost: of it.
        free: bytes of a device, or None if nobody knows.
        each: the setting is of each device, not of all.

    Returns:
        The advice, or none if there is room.
    """
    if free is None or fits(cost.device_bytes, free):
        return []
    on_device = max(1, cost.images // jax.device_count())
    number = on_device
    while number > 1 and not fits(cost.kept_bytes + number * cost.image_bytes, free):
        number //= 2
    needed = cost.kept_bytes + number * cost.image_bytes
    reason = (
        f"a {what} with {cost.images} images takes {_memory(cost.device_bytes)} of the "
        f"{_memory(free)} that are free"
    )
    if not fits(needed, free):
        height, width = cost.size
        reason += f", and not even one image of {height} x {width} has room"
    return [Advice(setting, number * (1 if each else jax.device_count()), reason)]


def _line(cost: Cost, free: int | None) -> str:
    height, width = cost.size
    images = f"{cost.images} image{'s' * (cost.images != 1)} of {height} x {width}"
    of = "" if free is None else f" of the {_memory(free)} that are free"
    there = f"{images} take {_memory(cost.device_bytes)}{of}"
    if cost.seconds is None:
        return f"{there}: too much to be run and timed"
    return f"{there}, and {cost.seconds:.2f} s"


def _total(what: str, seconds: float | None) -> str:
    return f"; {what} take about {duration(seconds)}" if seconds else ""


def _memory(number: float) -> str:
    return (
        f"{number / 2**30:.2f} GiB" if number >= 2**28 else f"{number / 2**20:.0f} MiB"
    )
