"""Streams a split through predict and the metrics.

Shape letters: B images, H rows, W columns, D embedding dimension.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sphemb.data import make_loader
from sphemb.training import Trained, data_parallel, replicate, split_batch


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of a split, and some of its images to look at.

    Attributes:
        scores: name -> score, over all images.
        num_images: how many they were.
        samples: the first images: ``image`` [B, H, W, 3], ``instances`` [B, H, W] and
            what the task predicts.
    """

    scores: dict[str, float]
    num_images: int
    samples: dict[str, np.ndarray]


def evaluate(trained: Trained, split: str, *, num_samples: int = 5) -> Evaluation:
    """Scores a trained network, on all devices and hosts.

    Args:
        trained: from `sphemb.training.train` or `sphemb.training.load_run`.
        split: ``"validation"`` or ``"test"``; the first ``num_{split}`` images of it
            that ``config.evaluation`` asks for.
        num_samples: images that are kept to look at.

    Returns:
        Scores and samples.
    """
    experiment = trained.experiment
    settings = experiment.config.evaluation
    source = _First(experiment.source(split), settings[f"num_{split}"])
    devices = jax.local_device_count()
    loader = make_loader(
        source,
        batch_size=-(-settings.batch_size // devices) * devices,
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
        num_threads=experiment.config.loader.num_threads,
    )
    predict = _prediction(experiment)
    state = replicate((trained.params, trained.memory))
    totals: dict[str, Any] = {}
    samples: list[dict[str, np.ndarray]] = []
    kept = 0
    for batch in loader:
        predictions, metrics = predict(state, split_batch(batch))
        for name, stacked in jax.device_get(metrics).items():
            for device in range(devices):
                metric = jax.tree.map(lambda leaf, i=device: leaf[i], stacked)
                totals[name] = totals[name].merge(metric) if name in totals else metric
        if kept < num_samples:
            seen = {"image": batch["image"], "instances": batch["instances"]}
            for name, value in jax.device_get(predictions).items():
                seen[name] = value.reshape(-1, *value.shape[2:])
            samples.append({k: v[batch["valid"]] for k, v in seen.items()})
            kept += int(batch["valid"].sum())
    if jax.process_count() > 1:
        totals = jax.tree.map(
            lambda leaf: leaf.sum(axis=0), multihost_utils.process_allgather(totals)
        )
    scores = {k: v for metric in totals.values() for k, v in metric.compute().items()}
    joined = {
        k: np.concatenate([s[k] for s in samples])[:num_samples] for k in samples[0]
    }
    return Evaluation(scores, len(source), joined)


@functools.lru_cache(maxsize=4)
def _prediction(experiment: Any) -> Any:
    """Predict and measure on all devices; compiled once for an experiment."""
    task = experiment.task

    def predict(state: Any, batch: Any) -> Any:
        params, memory = state
        apply = functools.partial(experiment.network, params)
        predictions = task.predict(apply, memory, batch)
        return predictions, task.metrics(predictions, batch)

    return data_parallel(predict, replicated_output=False)


class _First:
    """The first examples of a source."""

    def __init__(self, source: Any, count: int):
        self._source, self._count = source, min(count, len(source))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[index]
