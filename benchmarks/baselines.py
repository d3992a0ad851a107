"""Scores of what needs no learning, on the images that a run is tested on.

    python -m benchmarks.baselines --workdir RUN [--split test]

Felzenszwalb's segments and regions merged from them are scored as proposals, and for a
run of the task `Objects` the watershed is scored, too. The code is that of the run's
own ``summary.json``.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks._baselines import felzenszwalb_maps, merged_maps, watershed_nuclei
from sphemb import InputError
from sphemb.cli import one_line_errors
from sphemb.instances import pool_proposals
from sphemb.metrics import AverageRecall, MatchedPrecision, ProposalRecall
from sphemb.tasks import Objects, Proposals
from sphemb.training import Experiment, load_config

_SEGMENTS = 128  # of one scale
_SEGMENTATIONS = {"segments": felzenszwalb_maps, "merged segments": merged_maps}
_OBJECTS = {"budgets": (10, 60), "max_iou": 0.9}  # for a task that counts no proposals


def score_watershed(source, count: int, *, max_true: int) -> dict[str, float]:
    """Scores the watershed's nuclei, the background a group like any other."""
    totals = None
    for i in range(count):
        example = source[i]
        found = jnp.asarray(watershed_nuclei(example["image"])[None])
        truth = jnp.asarray(example["instances"][None])
        most = max(int(found.max()), 1)
        scores = (
            AverageRecall.from_batch(
                found, truth, max_predicted=most + 1, max_true=max_true
            ),
            MatchedPrecision.from_batch(
                found, truth, max_predicted=most, max_true=max_true
            ),
        )
        totals = scores if totals is None else _merged(totals, scores)
    return {k: v for metric in totals or () for k, v in metric.compute().items()}


def score_segments(
    source,
    count: int,
    segment: Callable[..., np.ndarray],
    *,
    max_true: int,
    budgets: tuple[int, ...],
    max_iou: float,
) -> dict[str, float]:
    """Scores segments of several scales, pooled as a run's are."""
    total = None
    for i in range(count):
        example = source[i]
        maps = jnp.asarray(segment(example["image"], max_groups=_SEGMENTS))
        flat = maps.reshape(1, len(maps), -1)
        pool = pool_proposals(flat, max_groups=_SEGMENTS, max_iou=max_iou)
        scores = ProposalRecall.from_batch(
            flat,
            pool,
            jnp.asarray(example["instances"].reshape(1, -1)),
            max_true=max_true,
            budgets=budgets,
        )
        total = scores if total is None else total.merge(scores)
    return {} if total is None else total.compute()


def _merged(totals, scores):
    return tuple(a.merge(b) for a, b in zip(totals, scores, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    flags = parser.parse_args()
    with one_line_errors():
        config = load_config(flags.workdir)
        experiment = Experiment(config)
        # The task, since a configuration may leave settings at their defaults.
        source, task = experiment.source(flags.split), experiment.task
        count = min(len(source), config.evaluation[f"num_{flags.split}"])
        pooling: dict[str, Any] = _OBJECTS
        found = {}
        if isinstance(task, Objects):
            most = task.max_objects
            found["watershed"] = score_watershed(source, count, max_true=most)
        elif isinstance(task, Proposals) and task.budgets:
            pooling = {"budgets": tuple(task.budgets), "max_iou": task.max_iou}
        else:
            wanted = "a run of Objects, or one with config.task.budgets of proposals"
            raise InputError(f"--workdir must be {wanted}, got {type(task).__name__}")
        for name, segment in _SEGMENTATIONS.items():
            found[name] = score_segments(
                source, count, segment, max_true=task.max_objects, **pooling
            )
    finite = {
        name: {k: round(v, 4) for k, v in scores.items() if np.isfinite(v)}
        for name, scores in found.items()
    }
    print(json.dumps({"images": count, **finite}, indent=2))


if __name__ == "__main__":
    main()
