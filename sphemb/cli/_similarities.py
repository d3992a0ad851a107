"""How similar a run's embeddings are within and between instances.

N points of an image, D dimensions, T mean-shift steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError
from sphemb.grouping import gbms_trajectory
from sphemb.metrics import AverageRecall
from sphemb.tasks import Proposals
from sphemb.training import Trained

_POINTS = 1000  # of an image: all pairs of them are compared
_STEPS = 5


class Similarities(NamedTuple):
    """What a run's embeddings look like.

    Attributes:
        within: the similarity that half of the pairs of one instance reach.
        within_low: the one that nine tenths of them reach.
        between: the one that nineteen twentieths of the pairs of different instances
            stay below.
        instance: points of a typical instance among those that a prediction shifts.
        largest: points of the largest group, often the background.
        recall: of the run's own predictions, at IoU .5.
        trajectory: [T + 1, N, D] of the image with most instances.
        labels: [N], its instances.
        num_images: that were looked at.
    """

    within: float
    within_low: float
    between: float
    instance: float
    largest: float
    recall: float
    trajectory: np.ndarray
    labels: np.ndarray
    num_images: int


def measure_similarities(
    trained: Trained, split: str, indices: Sequence[int]
) -> Similarities:
    """Looks at the embeddings of some images.

    Pairs weigh as in Eq. 2, so that every instance counts the same.

    Args:
        trained: a run of `sphemb.tasks.Proposals`.
        split: of the images.
        indices: which of its images.

    Returns:
        What they look like.

    Raises:
        InputError: a run of another task, or images without two instances to compare.
    """
    task = trained.experiment.task
    if not isinstance(task, Proposals):
        raise InputError(
            "--workdir must be a run that learns instances by mean shift "
            f"(Proposals, Instances), got one of {type(task).__name__}"
        )
    pairs: dict[bool, list[np.ndarray]] = {True: [], False: []}
    typical, largest, recalls, chosen = [], [], [], None
    for batch in trained.experiment.one_pass(split, list(indices), batch_size=1):
        found = task.predict(trained.apply, trained.task_state, batch)
        truth = np.asarray(batch["instances"])
        recalls.append(
            AverageRecall.from_batch(
                found["labels"],
                jnp.asarray(truth),
                max_predicted=task.num_labels,
                max_true=max(1, int(truth.max())),
            )
        )
        labels, embedding = truth.reshape(-1), np.asarray(found["embedding"])
        there = np.flatnonzero(labels >= 0)
        numbers, sizes = np.unique(labels[there], return_counts=True)
        if len(numbers) < 2:
            continue
        # What is shifted is the map's cells, or every pixel.
        cell = 1 if task.predict_pixels else _cells(trained, truth.shape[1:])
        typical.append(np.median(sizes[numbers > 0]) / cell)
        largest.append(sizes.max() / cell)
        drawn = np.random.default_rng(0).permutation(there)[:_POINTS]
        points = embedding.reshape(len(labels), -1)[drawn]
        for same, kind in _pairs(points, labels[drawn]).items():
            pairs[same].append(kind)
        if chosen is None or len(numbers) > chosen[0]:
            chosen = (len(numbers), points, labels[drawn])
    if chosen is None or not all(kind.size for both in pairs.values() for kind in both):
        raise InputError(
            f"the {split} split must have images with two instances, or an instance "
            "and a background, got none of the usable ones"
        )
    recall = recalls[0]
    for other in recalls[1:]:
        recall = recall.merge(other)
    within, between = (np.concatenate(pairs[kind], axis=1) for kind in (True, False))
    return Similarities(
        within=_quantile(within, 0.5),
        within_low=_quantile(within, 0.1),
        between=_quantile(between, 0.95),
        instance=float(np.median(typical)),
        largest=float(np.median(largest)),
        recall=float(recall.compute()["recall@0.5"]),
        trajectory=np.asarray(
            gbms_trajectory(
                jnp.asarray(chosen[1]),
                concentration=task.concentration,
                num_steps=_STEPS,
            )
        ),
        labels=chosen[2],
        num_images=len(typical),
    )


def _cells(trained: Trained, size: tuple[int, ...]) -> int:
    """Pixels of a cell of the embedding map of an image H x W."""
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    own = trained.experiment.abstract_state
    network = trained.experiment.network
    maps = jax.eval_shape(network, own.params, own.batch_stats, image)
    return math.prod(size) // math.prod(maps["embedding"].shape[1:3])


def _pairs(points: np.ndarray, labels: np.ndarray) -> dict[bool, np.ndarray]:
    """Similarities and weights [2, P] of the pairs of one instance, and of two."""
    one, other = np.triu_indices(len(labels), 1)
    similarity = 0.5 * (1.0 + points @ points.T)[one, other]
    _, ranks, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    weights = 1.0 / (sizes[ranks[one]] * sizes[ranks[other]])
    same = labels[one] == labels[other]
    return {
        kind: np.stack(
            [similarity[mask], weights[mask] / max(weights[mask].sum(), 1e-30)]
        )
        for kind, mask in ((True, same), (False, ~same))
    }


def _quantile(kind: np.ndarray, share: float) -> float:
    """The weighted quantile of similarities and weights [2, P]."""
    order = np.argsort(kind[0])
    total = np.cumsum(kind[1, order])
    return float(kind[0, order][np.searchsorted(total, share * total[-1])])
