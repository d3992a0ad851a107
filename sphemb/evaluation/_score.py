"""Streams a split through predict and the metrics.

Shape letters: B images, H rows, W columns.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sphemb._files import gather_objects
from sphemb.tasks import compute_scores, measures_on_host, predict_and_measure
from sphemb.training import Trained, data_parallel, replicate, split_batch

_SHOWN = ("image", "instances", "semantic", "boundaries", "mask")
# Images are ranked by the first of these that a task has.
_RANKED_BY = ("mean_best_iou", "adjusted_rand_index", "mean_iou", "ods", "accuracy")


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """An image and its scores.

    Attributes:
        index: its place in the split.
        scores: name -> score; NaN if the image has nothing to score.
        maps: of the worst and the best images, as `Evaluation.samples`; else empty.
        prediction: of these, as `Evaluation.predictions`; else None.
    """

    index: int
    scores: dict[str, float]
    maps: dict[str, np.ndarray]
    prediction: Any = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of a split, and some of its images.

    Attributes:
        scores: name -> score, over all images.
        num_images: that were scored.
        metrics: name -> the metric of the scores.
        samples: the first images: ``image`` [B, H, W, 3], ``instances`` [B, H, W],
            ``mask``, False in the padding, ``semantic`` and ``boundaries`` if the data
            set has them.
        predictions: what the task predicts for them, on the host.
        ranked_by: the name of the score that images are ranked by.
        ranked: the images of this process that have one, the worst first.
    """

    scores: dict[str, float]
    num_images: int
    metrics: dict[str, Any]
    samples: dict[str, np.ndarray]
    predictions: Any
    ranked_by: str = ""
    ranked: tuple[ScoredImage, ...] = ()


def evaluate(
    trained: Trained,
    split: str,
    *,
    num_samples: int = 5,
    num_extremes: int = 0,
    on_image: Callable[[ScoredImage], None] | None = None,
) -> Evaluation:
    """Scores a trained network, on all devices and hosts.

    Args:
        trained: from `sphemb.training.train` or `sphemb.training.load_run`.
        split: ``"validation"`` or ``"test"``, of which the first ``num_{split}`` images
            of ``config.evaluation`` are scored.
        num_samples: images that are kept as samples, of the commonest size.
        num_extremes: with at least 1, each image is scored by itself, too, and the maps
            of so many of the worst and of the best are kept.
        on_image: gets each image of this process, scored by itself, with its maps.
    """
    experiment, task = trained.experiment, trained.experiment.task
    settings, devices = experiment.config.evaluation, jax.local_device_count()
    predict = _prediction(experiment)
    state = replicate((trained.params, trained.batch_stats, trained.task_state))
    totals: dict[str, Any] = {}
    samples: list[tuple[dict[str, np.ndarray], Any]] = []
    kept = 0
    one_by_one = num_extremes > 0 or on_image is not None
    ranking = _Ranking(trained, split, num_extremes, on_image)
    indices = experiment.usable(split, settings[f"num_{split}"])
    batch_size = -(-settings.batch_size // devices) * devices
    host_metrics = measures_on_host(task, batch_size // devices)
    for batch in experiment.one_pass(split, indices, batch_size=batch_size):
        predictions, metrics = predict(state, split_batch(batch))
        on_host = host_metrics or one_by_one
        if on_host:
            predictions = _joined(predictions)
        if one_by_one:
            ranking.add(predictions, batch)
        if host_metrics:
            parts = [task.metrics(predictions, batch)]
        else:
            metrics = jax.device_get(metrics)
            parts = [
                jax.tree.map(lambda leaf, i=device: leaf[i], metrics)
                for device in range(devices)
            ]
        for name, metric in (item for part in parts for item in part.items()):
            totals[name] = totals[name].merge(metric) if name in totals else metric
        # Samples are of one size, that of most images, to be one array.
        shape = batch["image"].shape[1:]
        alike = all(maps["image"].shape[1:] == shape for maps, _ in samples)
        if kept < num_samples and alike:
            shown = {k: batch[k] for k in _SHOWN if k in batch}
            found = predictions if on_host else _joined(predictions)
            valid = np.asarray(batch["valid"])
            samples.append(
                jax.tree.map(lambda a, valid=valid: a[valid], (shown, found))
            )
            kept += int(valid.sum())
    totals = {name: _gathered(metric) for name, metric in totals.items()}
    scores = compute_scores(totals, trained.class_names, split=split)
    shown, found = jax.tree.map(
        lambda *parts: np.concatenate(parts)[:num_samples], *samples
    )
    ranked = tuple(ranking.images)
    return Evaluation(scores, len(indices), totals, shown, found, ranking.by, ranked)


class _Ranking:
    """The images so far, the worst first; only the maps of the ends are kept."""

    def __init__(
        self,
        trained: Trained,
        split: str,
        num_extremes: int,
        on_image: Callable[[ScoredImage], None] | None,
    ):
        self.by = ""
        self.images: list[ScoredImage] = []
        self._on_image = on_image
        self._trained, self._split, self._kept = trained, split, num_extremes
        task = trained.experiment.task
        on_host = measures_on_host(task, 1)
        self._metrics = task.metrics if on_host else jax.jit(task.metrics)

    def add(self, predictions: Any, batch: dict[str, Any]) -> None:
        """Scores the images of a batch one by one."""
        for i in np.flatnonzero(batch["valid"]):
            alone, found = jax.tree.map(
                lambda array, i=i: array[i : i + 1], (dict(batch), predictions)
            )
            metrics = jax.device_get(self._metrics(found, alone))
            names = self._trained.class_names
            scores = compute_scores(metrics, names, split=self._split)
            self.by = self.by or _rank_name(scores)
            shown = {k: alone[k] for k in _SHOWN if k in alone}
            # A copy: a view would keep the whole batch.
            maps, found = jax.tree.map(lambda a: a[0].copy(), (shown, found))
            image = ScoredImage(int(batch["index"][i]), scores, maps, found)
            if self._on_image is not None:
                self._on_image(image)
            if np.isfinite(scores.get(self.by, np.nan)):
                self.images.append(image)
        self.images.sort(key=lambda image: image.scores[self.by])
        for place in range(self._kept, len(self.images) - self._kept):
            self.images[place] = dataclasses.replace(
                self.images[place], maps={}, prediction=None
            )


def _rank_name(scores: dict[str, float]) -> str:
    """The name of the score that images are ranked by, such as ods or ods@33."""
    known = {name.partition("@")[0]: name for name in scores}
    return next((known[name] for name in _RANKED_BY if name in known), "")


def _gathered(metric: Any) -> Any:
    """The metric of all processes; one may have more rows than another."""
    leaves, tree = jax.tree.flatten(metric)
    everyones = gather_objects([np.asarray(leaf) for leaf in leaves])
    parts = [tree.unflatten(leaves) for leaves in everyones]
    return functools.reduce(lambda total, part: total.merge(part), parts)


def _joined(stacked: Any) -> Any:
    """The arrays of all devices, concatenated on the host."""
    return jax.tree.map(
        lambda array: array.reshape(-1, *array.shape[2:]), jax.device_get(stacked)
    )


@functools.lru_cache(maxsize=4)
def _prediction(experiment: Any) -> Any:
    """Predict and measure on all devices; compiled once for an experiment."""
    task = experiment.task

    def predict(state: Any, batch: Any) -> Any:
        params, batch_stats, task_state = state
        apply = functools.partial(experiment.network, params, batch_stats)
        return predict_and_measure(task, apply, task_state, batch)

    return data_parallel(predict, replicated_output=False)
