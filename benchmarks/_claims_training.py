"""The claim about fine-tuning through mean shift, on drawings of digits.

Runs of one seed start from the same weights and see the same drawings and the same
sampled pixels in the same order, so that effects are paired differences.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from benchmarks._claims_records import Effect, over_seeds
from benchmarks._claims_runs import folder_of, scored_once
from sphemb.configs import digits
from sphemb.evaluation import evaluate
from sphemb.training import train

_POSITIVE = (0.0, None)
Settings = Mapping[str, Any]  # dotted names of a configuration
# A small network; after few steps its embedding is imperfect.
SHORT: Settings = {
    "loader.batch_size": 8,
    "model.features": (16, 32, 64),
    "model.head_features": 16,
    "train.num_steps": 300,
    "train.eval_every": 0,
    "evaluation.num_test": 60,
}
# The margin and the concentration of configs/digits.py:sphere.
SPHERE: Settings = {
    **SHORT,
    "model.embedding_dim": 3,
    "task.margin": 0.7,
    "task.concentration": 100.0,
    "task.threshold": 0.9,
}
CONTINUED: Settings = {"optimizer.learning_rate": 5e-4, "train.num_steps": 150}
LAST: Settings = {"task.num_steps": 5, "task.step_weights": (0.0,) * 5 + (1.0,)}


def configured(seed: int, settings: Settings) -> ml_collections.ConfigDict:
    """``configs/digits.py`` with other settings."""
    config = digits.get_config()
    config.seed = seed
    config.update_from_flattened_dict(settings)
    return config


def recall(runs: pathlib.Path, seed: int, settings: Settings) -> float:
    """Trains, and gives the average recall of .5 to .95 on the test drawings."""
    config = configured(seed, settings)

    def score(workdir: pathlib.Path) -> float:
        scores = evaluate(train(config, workdir), "test", num_samples=1).scores
        return float(scores["average_recall"])

    return scored_once(runs, config, score)


def continued(
    runs: pathlib.Path, start: Settings, changes: Settings, seed: int
) -> float:
    """The same of a run that continues another one with other settings."""
    recall(runs, seed, start)
    folder = str(folder_of(runs, configured(seed, start)))
    settings = {**start, **CONTINUED, **changes, "train.init_from": folder}
    return recall(runs, seed, settings)


def measure_mean_shift(flags: argparse.Namespace) -> list[Effect]:
    """Continues short trainings with losses on the steps of a mean shift."""

    def recalls(start: Settings, changes: Settings) -> np.ndarray:
        run = functools.partial(continued, flags.runs, start, changes)
        return np.array([run(seed) for seed in range(flags.number)])

    every = {t: recalls(SHORT, {"task.num_steps": t}) for t in (0, 1, 3, 5, 10)}
    last = recalls(SHORT, LAST)
    sphere = [recalls(SPHERE, {"task.num_steps": t}) for t in (0, 5)]
    gains = {f"T = {t}, all steps": every[t] - every[0] for t in (1, 3, 5, 10)}
    gains["T = 5, all steps minus the last alone"] = every[5] - last
    gains["3-d: T = 5, all steps"] = sphere[1] - sphere[0]
    return [over_seeds(n, g.tolist(), claimed=_POSITIVE) for n, g in gains.items()]
