"""Claims about training: small networks on drawings of digits, one thing changed.

A run is a configuration and a seed. Runs of one seed start from the same weights and
see the same drawings in the same order, so that effects are paired differences.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from benchmarks._claims_records import Effect, over_seeds
from sphemb.configs import digits
from sphemb.evaluation import ScoredImage, evaluate
from sphemb.training import train

_POSITIVE, _SMALL = (0.0, None), (-0.05, 0.05)
_LEVELS = np.arange(0.5, 1.0, 0.05)
Settings = Mapping[str, Any]  # dotted names of a configuration
Digits = np.ndarray  # [Q, 2]: of each true digit its pixels and its best IoU

# A small network. After few steps its embedding is imperfect, and very different from
# seed to seed; comparisons from scratch need more.
SHORT: Settings = {
    "loader.batch_size": 8,
    "model.features": (16, 32, 64),
    "model.head_features": 16,
    "train.num_steps": 300,
    "train.eval_every": 0,
    "evaluation.num_test": 60,
}
LONG: Settings = {"train.num_steps": 1000}
# The margin and the concentration of configs/digits.py:sphere.
SPHERE: Settings = {
    "model.embedding_dim": 3,
    "task.margin": 0.7,
    "task.concentration": 100.0,
    "task.threshold": 0.9,
}
CONTINUED: Settings = {"optimizer.learning_rate": 5e-4, "train.num_steps": 150}


class Arm(NamedTuple):
    """What is changed, and the differences that the claim allows (see `Effect`)."""

    name: str
    settings: Settings
    claimed: tuple[float | None, float | None] | None = None


def configured(seed: int, settings: Settings) -> ml_collections.ConfigDict:
    """``configs/digits.py`` with `SHORT` and further settings."""
    config = digits.get_config()
    config.seed = seed
    config.update_from_flattened_dict({**SHORT, **settings})
    return config


def folder_of(runs: pathlib.Path, seed: int, settings: Settings) -> pathlib.Path:
    """The folder of a run, the same for the same settings."""
    text = json.dumps(configured(seed, settings).to_dict(), sort_keys=True)
    return runs / hashlib.sha256(text.encode()).hexdigest()[:12]


def trained_digits(
    runs: pathlib.Path, seed: int, settings: Settings, after: Settings | None = None
) -> Digits:
    """Trains and scores the test drawings, or reads the scores that are there.

    Args:
        runs: the folder of all runs.
        seed: of the run.
        settings: that differ from `SHORT`.
        after: the settings of the run that it continues, if any.
    """
    if after is not None:
        trained_digits(runs, seed, after)
        start = str(folder_of(runs, seed, after))
        settings = {**after, **CONTINUED, **settings, "train.init_from": start}
    workdir = folder_of(runs, seed, settings)
    record = workdir / "digits.npy"
    if record.is_file():
        return np.load(record)
    trained = train(configured(seed, settings), workdir)
    found: list[Digits] = []

    def keep(image: ScoredImage) -> None:
        found.append(best_ious(image.maps["instances"], image.prediction.labels))

    evaluate(trained, "test", num_samples=1, on_image=keep)
    np.save(record, np.concatenate(found))
    return np.concatenate(found)


def best_ious(truth: np.ndarray, labels: np.ndarray) -> Digits:
    """Of each object 1, 2, ... its pixels, and the largest IoU with a label >= 0."""
    rows, labels = [], np.where(truth < 0, -1, labels)
    for number in np.unique(truth[truth > 0]):
        mask = truth == number
        others = np.unique(labels[mask & (labels >= 0)])
        ious = [
            (mask & (labels == k)).sum() / (mask | (labels == k)).sum() for k in others
        ]
        rows.append((mask.sum(), max(ious, default=0.0)))
    return np.reshape(np.array(rows, float), (-1, 2))


def average_recall(found: Digits) -> float:
    """The mean share of the digits whose best IoU reaches .5, .55, ..., .95."""
    return float((found[:, 1, None] >= _LEVELS - 1e-9).mean())


def differences(
    flags: argparse.Namespace,
    arms: Sequence[Arm],
    base: Settings,
    after: Settings | None = None,
) -> list[Effect]:
    """The average recall of the base, and of each arm minus that of the base."""
    run = functools.partial(trained_digits, flags.runs, after=after)
    usual = [average_recall(run(seed, base)) for seed in range(flags.number)]
    effects = [over_seeds("average recall of the base", usual)]
    for arm in arms:
        settings = {**base, **arm.settings}
        changed = [average_recall(run(seed, settings)) for seed in range(flags.number)]
        gains = np.subtract(changed, usual).tolist()
        effects.append(over_seeds(arm.name, gains, claimed=arm.claimed))
    return effects


def measure_mean_shift(flags: argparse.Namespace) -> list[Effect]:
    """Continues short trainings with losses on the steps of a mean shift."""
    last = {"task.num_steps": 5, "task.step_weights": (0.0,) * 5 + (1.0,)}
    arms = [
        *(Arm(f"T = {t}", {"task.num_steps": t}, _POSITIVE) for t in (1, 3, 5, 10)),
        Arm("T = 5, the loss on the last step alone", last),
    ]
    flat = differences(flags, arms, {}, after={})
    arms = [Arm("3-d: T = 5", {"task.num_steps": 5}, _POSITIVE)]
    sphere = differences(flags, arms, {}, after=SPHERE)
    return [
        *flat,
        sphere[0]._replace(name="3-d: average recall of the base"),
        sphere[1],
    ]


def measure_concentrations(flags: argparse.Namespace) -> list[Effect]:
    """Continues short trainings through five steps of each kernel."""
    arms = [
        Arm(f"κ = {kappa:g}", {"task.concentration": kappa})
        for kappa in (6.0, 25.0, 100.0)
    ]
    return differences(flags, arms, {"task.num_steps": 5}, after={})


def measure_sampling(flags: argparse.Namespace) -> list[Effect]:
    """Trains with more and with fewer sampled pixels."""
    arms = [
        Arm(f"ratio {ratio:g}", {"task.sample_ratio": ratio}, _SMALL)
        for ratio in (0.05, 1.0)
    ]
    every = {"task.num_samples": 4096}
    arms = [arm._replace(settings={**every, **arm.settings}) for arm in arms]
    return differences(flags, arms, LONG)


def measure_weights(flags: argparse.Namespace) -> list[Effect]:
    """Trains with uniform weights of the pixels, and scores digits by their size."""
    names = ("digits in the smallest third", "in the middle", "in the largest")
    gains = []
    for seed in range(flags.number):
        weighted = trained_digits(flags.runs, seed, LONG)
        uniform = trained_digits(flags.runs, seed, {**LONG, "task.weight_power": 0.0})
        gain = (weighted - uniform)[np.argsort(weighted[:, 0], kind="stable"), 1]
        gains.append([part.mean() for part in np.array_split(gain, 3)])
    columns = zip(names, np.transpose(gains), strict=True)
    return [
        over_seeds(name, list(column), claimed=None if place else _POSITIVE)
        for place, (name, column) in enumerate(columns)
    ]


def measure_margins(flags: argparse.Namespace) -> list[Effect]:
    """Trains with other margins, and in fewer and more dimensions."""
    arms = [
        Arm("3 dimensions", {"model.embedding_dim": 3}, (None, 0.0)),
        Arm("8 dimensions", {"model.embedding_dim": 8}, _SMALL),
        Arm("64 dimensions", {"model.embedding_dim": 64}, _SMALL),
        Arm("margin .1", {"task.margin": 0.1}),
        Arm("margin .3", {"task.margin": 0.3}),
        Arm("margin .7", {"task.margin": 0.7}),
    ]
    return differences(flags, arms, LONG)
