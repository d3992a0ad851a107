"""What can be seen of a trained grouping: pictures after the paper's Figs. 4 and 5."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphemb.evaluation._score import Evaluation
from sphemb.grouping import gbms, gbms_trajectory
from sphemb.instances import relabel
from sphemb.losses import margin_loss
from sphemb.metrics import AverageRecall
from sphemb.tasks import Proposals
from sphemb.training import Trained
from sphemb.viz import (
    draw_curves,
    draw_gradients,
    draw_grouping,
    draw_recall_curves,
    draw_similarity_histograms,
    draw_sphere,
    save_figure,
)

_STEPS_SHOWN = 5
_SIDE_COMPARED = 64  # pixels; that many squared are compared with each other


def draw_pictures(
    trained: Trained,
    evaluation: Evaluation,
    records: Sequence[Mapping[str, Any]],
    folder: pathlib.Path,
) -> list[pathlib.Path]:
    """Draws what an evaluation saw.

    ``grouping.png``: images, truth, prediction, embedding; ``sphere.png``: the points
    at every step of the mean shift (Fig. 4); ``gradients.png``: the loss's gradient
    without and with a step of mean shift (Fig. 5); ``similarities.png``: within and
    between instances at every step; ``proposals.png``: recall against the number of
    proposals (Fig. 8), where the task has budgets; ``curves.png``: the training.

    Args:
        trained: the network.
        evaluation: of it.
        records: of the training, from `sphemb.training.read_log`.
        folder: where the pictures go.

    Returns:
        The files.
    """
    task, figures = trained.experiment.task, {}
    if isinstance(task, Proposals):
        figures = _grouping_figures(task, evaluation.samples)
        if task.budgets and evaluation.scores["num_objects"]:
            name = trained.experiment.config.model.name
            figures["proposals"] = draw_recall_curves({name: evaluation.scores})
    if records:
        figures["curves"] = draw_curves(records)
    return [save_figure(f, folder / f"{name}.png") for name, f in figures.items()]


def _grouping_figures(
    task: Proposals, samples: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    truth = samples["instances"]
    if not (truth >= 0).any():
        return {}  # nothing that could be set beside what was found
    found = np.asarray(
        relabel(jnp.asarray(samples["labels"]), jnp.asarray(samples["background"]))
    )
    scores = [
        AverageRecall.from_batch(
            jnp.asarray(p[None]),
            jnp.asarray(t[None]),
            max_predicted=task.num_labels,
            max_true=task.max_objects,
        ).compute()["mean_best_iou"]
        for p, t in zip(samples["labels"], truth, strict=True)
    ]
    # The image with the most instances says most about how they part.
    chosen = int(np.argmax([len(np.unique(t[t >= 0])) for t in truth]))
    # Every pixel against every other is for small images; of larger ones, a grid.
    step = -(-max(truth.shape[1:]) // _SIDE_COMPARED)
    image, instances, embedding = (
        samples[name][chosen][::step, ::step]
        for name in ("image", "instances", "embedding")
    )
    points = jnp.asarray(embedding.reshape(-1, embedding.shape[-1]))
    labels = instances.reshape(-1)
    trajectory = np.asarray(
        gbms_trajectory(
            points, concentration=task.concentration, num_steps=_STEPS_SHOWN
        )
    )

    def loss(points: jax.Array, num_steps: int) -> jax.Array:
        moved = gbms(points, concentration=task.concentration, num_steps=num_steps)
        return margin_loss(
            moved, jnp.asarray(labels), margin=task.margin, normalize="pairs"
        )

    gradients = {
        name: np.asarray(jax.grad(loss)(points, steps)).reshape(embedding.shape)
        for name, steps in {"no mean shift": 0, "one step of mean shift": 1}.items()
    }
    return {
        "grouping": draw_grouping(
            samples["image"], truth, found, samples["embedding"], scores=scores
        ),
        "sphere": draw_sphere(trajectory, labels, concentration=task.concentration),
        "similarities": draw_similarity_histograms(
            trajectory, labels, margin=task.margin
        ),
        "gradients": draw_gradients(image, instances, embedding, gradients),
    }
