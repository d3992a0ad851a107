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

from sphemb._checks import InputError
from sphemb.tasks import predict_and_measure
from sphemb.training import Trained, data_parallel, replicate, split_batch

_SHOWN = ("image", "instances", "semantic", "boundaries", "mask")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of a split, and some of its images to look at.

    Attributes:
        scores: name -> score, over all images.
        num_images: how many they were.
        metrics: name -> the metric that the scores are computed from.
        samples: the first images: ``image`` [B, H, W, 3], ``instances`` [B, H, W],
            ``mask`` where they are no padding, ``semantic`` and ``boundaries`` where
            the data set has them, and what the task predicts.
    """

    scores: dict[str, float]
    num_images: int
    metrics: dict[str, Any]
    samples: dict[str, np.ndarray]


def evaluate(trained: Trained, split: str, *, num_samples: int = 5) -> Evaluation:
    """Scores a trained network, on all devices and hosts.

    Args:
        trained: from `sphemb.training.train` or `sphemb.training.load_run`.
        split: ``"validation"`` or ``"test"``; the first ``num_{split}`` images of it
            that ``config.evaluation`` asks for.
        num_samples: images that are kept to look at, of the commonest size.

    Returns:
        Scores and samples.
    """
    experiment = trained.experiment
    settings = experiment.config.evaluation
    devices = jax.local_device_count()
    task = experiment.task
    predict = _prediction(experiment)
    state = replicate((trained.params, trained.batch_stats, trained.memory))
    totals: dict[str, Any] = {}
    samples: list[dict[str, np.ndarray]] = []
    kept = 0
    indices = experiment.usable(split, settings[f"num_{split}"])
    batch_size = -(-settings.batch_size // devices) * devices
    for batch in experiment.one_pass(split, indices, batch_size=batch_size):
        predictions, metrics = predict(state, split_batch(batch))
        if task.metrics_on_host:
            predictions = _joined(predictions)
            parts = [task.metrics(predictions, batch)]
        else:
            metrics = jax.device_get(metrics)
            parts = [
                jax.tree.map(lambda leaf, i=device: leaf[i], metrics)
                for device in range(devices)
            ]
        for part in parts:
            for name, metric in part.items():
                old = totals.get(name)
                totals[name] = old.merge(metric) if old else metric
        # Samples are of one size, that of most images, to be one array.
        shape = batch["image"].shape[1:]
        if kept < num_samples and all(s["image"].shape[1:] == shape for s in samples):
            seen = {k: batch[k] for k in _SHOWN if k in batch}
            if not task.metrics_on_host:
                predictions = _joined(predictions)
            seen |= predictions
            samples.append({k: v[batch["valid"]] for k, v in seen.items()})
            kept += int(batch["valid"].sum())
    if jax.process_count() > 1:
        totals = {name: _gathered(metric) for name, metric in totals.items()}
    scores: dict[str, float] = {}
    for name, metric in totals.items():
        try:
            named = (trained.class_names,) if metric.per_class else ()
            scores |= metric.compute(*named)
        except InputError as error:
            raise InputError(
                f"{name} of the {split} split cannot be computed, where max_true is "
                f"config.task.max_objects: {error}"
            ) from error
    joined = {
        k: np.concatenate([s[k] for s in samples])[:num_samples] for k in samples[0]
    }
    return Evaluation(scores, len(indices), totals, joined)


def _gathered(metric: Any) -> Any:
    """The metric of all processes; one may have more rows than another."""
    leaves, tree = jax.tree.flatten(metric)
    everyones = []
    for leaf in map(np.asarray, leaves):
        rows = leaf.shape[0] if leaf.ndim else 0
        numbers = np.ravel(multihost_utils.process_allgather(np.asarray(rows)))
        longer = [(0, int(numbers.max()) - rows), *[(0, 0)] * (leaf.ndim - 1)]
        padded = np.pad(leaf, longer) if leaf.ndim else leaf
        gathered = np.asarray(multihost_utils.process_allgather(padded))
        everyones.append(
            [
                part[:number] if leaf.ndim else part
                for part, number in zip(gathered, numbers, strict=True)
            ]
        )
    parts = [tree.unflatten(part) for part in zip(*everyones, strict=True)]
    return functools.reduce(lambda total, part: total.merge(part), parts)


def _joined(stacked: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """The arrays of all devices, one after the other, on the host."""
    arrays = jax.device_get(stacked)
    return {k: v.reshape(-1, *v.shape[2:]) for k, v in arrays.items()}


@functools.lru_cache(maxsize=4)
def _prediction(experiment: Any) -> Any:
    """Predict and measure on all devices; compiled once for an experiment."""
    task = experiment.task

    def predict(state: Any, batch: Any) -> Any:
        params, batch_stats, memory = state
        apply = functools.partial(experiment.network, params, batch_stats)
        return predict_and_measure(task, apply, memory, batch)

    return data_parallel(predict, replicated_output=False)
