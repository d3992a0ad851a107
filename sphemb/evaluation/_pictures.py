"""What can be seen of a trained network: pictures after the paper's figures."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError
from sphemb.evaluation._score import Evaluation
from sphemb.evaluation._shifted import PixelGrid, fullest_first
from sphemb.instances import SelectedDetections, relabel, select_detections
from sphemb.metrics import AverageRecall
from sphemb.tasks import Boundaries, Instances, Picie, Proposals, Semantic, Spectral
from sphemb.training import Trained, load_run
from sphemb.viz import (
    draw_boundaries,
    draw_classes,
    draw_clusters,
    draw_curves,
    draw_gradients,
    draw_grouping,
    draw_orientations,
    draw_precision_curve,
    draw_recall_curves,
    draw_similarity_histograms,
    draw_sphere,
    draw_trimap_curves,
    save_figure,
)

_STEPS_SHOWN = 5
_BOUNDARIES_SHOWN = 3  # images

Makers = dict[str, Callable[[], Any]]
"""The name of a picture -> what draws it, or raises `InputError` where it cannot."""


def draw_pictures(
    trained: Trained,
    evaluation: Evaluation,
    records: Sequence[Mapping[str, Any]],
    folder: pathlib.Path,
    *,
    say: Callable[[str], None] = print,
) -> list[pathlib.Path]:
    """Draws what an evaluation saw.

    ``grouping.png``: images, truth, prediction, embedding; ``sphere.png``: the points
    at every step of the mean shift (Fig. 4); ``gradients.png``: the loss's gradient
    without and with a step of mean shift (Fig. 5); ``similarities.png``: within and
    between instances at every step; ``proposals.png``: recall against the number of
    proposals (Fig. 8), where the task has budgets. Of boundaries: ``boundaries.png``:
    images, annotators, boundaries found and the branches' embeddings, before and after
    a fine-tuning (Fig. 7); ``orientations.png``: the finest branch against a boundary's
    direction and distance (Fig. 3 of the supplement); ``precision.png``: precision
    against recall (Fig. 6). Of classes: ``classes.png``: images, classes, instances if
    there are some, three projections of the embedding (Figs. 10 and 11);
    ``trimap.png``: mean IoU by the distance from true boundaries (Fig. 9).
    Of clusters: ``clusters.png``: images, clusters, and classes where there are some.
    ``curves.png``: the training.

    Args:
        trained: the network.
        evaluation: of it.
        records: of the training, from `sphemb.training.read_log`.
        folder: where the pictures go.
        say: gets one line with the pictures that cannot be drawn, if there are such: a
            nearly void image has no two points to compare.

    Returns:
        The files.
    """
    task, samples = trained.experiment.task, evaluation.samples
    name = trained.experiment.config.model.name
    makers: Makers = {}
    if isinstance(task, Proposals):
        makers = _grouping_makers(task, samples)
        if task.budgets:
            makers["proposals"] = lambda: _recall_figure(name, evaluation.scores)
    elif isinstance(task, Spectral):
        makers["grouping"] = lambda: _grouping_figure(task, samples)
    elif isinstance(task, Picie):
        makers["clusters"] = lambda: draw_clusters(
            samples["image"], samples["labels"], truth=samples.get("semantic")
        )
    elif isinstance(task, Boundaries):
        makers = _boundary_makers(trained, evaluation)
    if isinstance(task, Semantic | Instances):
        makers |= _class_makers(trained, evaluation)
    if records:
        makers["curves"] = lambda: draw_curves(records)
    files, missing = [], []
    for title, make in makers.items():
        path = folder / f"{title}.png"
        try:
            files.append(save_figure(make(), path))
        except InputError as error:
            path.unlink(missing_ok=True)  # of an earlier evaluation
            missing.append(f"{path.name} ({error})")
    if missing:
        say(f"warning: pictures that cannot be drawn: {', '.join(missing)}")
    return files


def _recall_figure(name: str, scores: Mapping[str, float]) -> Any:
    if not scores["num_objects"]:
        raise InputError("the images must have objects, got none")
    return draw_recall_curves({name: scores})


def _grouping_figure(
    task: Proposals | Spectral, samples: Mapping[str, np.ndarray]
) -> Any:
    truth, labels = samples["instances"], samples["labels"]
    _check_annotated(truth)
    found = np.asarray(relabel(jnp.asarray(labels), jnp.asarray(samples["background"])))
    scores = [
        AverageRecall.from_batch(
            jnp.asarray(p[None]),
            jnp.asarray(t[None]),
            max_predicted=max(int(labels.max()) + 1, 1),
            max_true=task.max_objects,
        ).compute()["mean_best_iou"]
        for p, t in zip(labels, truth, strict=True)
    ]
    return draw_grouping(
        samples["image"], truth, found, samples["embedding"], scores=scores
    )


def _check_annotated(truth: np.ndarray) -> None:
    """Refuses images without anything to set beside what was found."""
    if not (truth >= 0).any():
        raise InputError("the images must have pixels that are not void, got none")


def _grouping_makers(task: Proposals, samples: Mapping[str, np.ndarray]) -> Makers:
    # The image with the most instances says most about how they part.
    grid = PixelGrid.of_sample(samples, fullest_first(samples["instances"])[0])
    labels = grid.instances.reshape(-1)

    @functools.cache
    def trajectory() -> np.ndarray:
        return grid.trajectory(concentration=task.concentration, num_steps=_STEPS_SHOWN)

    def gradients() -> Any:
        _check_annotated(grid.instances)
        found = grid.gradients(concentration=task.concentration, margin=task.margin)
        return draw_gradients(*grid, found)

    return {
        "grouping": lambda: _grouping_figure(task, samples),
        "sphere": lambda: draw_sphere(
            trajectory(), labels, concentration=task.concentration
        ),
        "similarities": lambda: draw_similarity_histograms(
            trajectory(), labels, margin=task.margin
        ),
        "gradients": gradients,
    }


def _class_makers(trained: Trained, evaluation: Evaluation) -> Makers:
    makers: Makers = {"classes": lambda: _class_figure(trained, evaluation)}
    if "trimap" in evaluation.metrics:
        curves = {
            trained.experiment.config.model.name: evaluation.metrics["trimap"].curve()
        }
        makers["trimap"] = lambda: draw_trimap_curves(curves)
    return makers


def _class_figure(trained: Trained, evaluation: Evaluation) -> Any:
    samples = evaluation.samples
    height, width = common_size(samples["mask"])
    shown = {
        name: samples[name][:, :height, :width]
        for name in ("image", "semantic", "classes", "embedding")
    }
    detections: list[SelectedDetections] | None = None
    task = trained.experiment.task
    if isinstance(task, Instances):
        detections = [
            select_detections(
                maps[:, :height, :width],
                scores=scores,
                classes=classes,
                min_score=task.min_score,
            )
            for maps, scores, classes in zip(
                samples["proposals"],
                samples["proposal_scores"],
                samples["proposal_classes"],
                strict=True,
            )
        ]
    return draw_classes(
        shown["image"],
        shown["semantic"],
        shown["classes"],
        shown["embedding"],
        class_names=trained.class_names,
        detections=detections,
    )


def common_size(mask: np.ndarray) -> tuple[int, int]:
    """(H, W) that no image [B, H', W'] is padded in."""
    inside = np.all(mask, axis=0)
    return int(np.any(inside, axis=1).sum()), int(np.any(inside, axis=0).sum())


def _boundary_makers(trained: Trained, evaluation: Evaluation) -> Makers:
    experiment, samples = trained.experiment, evaluation.samples
    name = pathlib.Path(experiment.config.train.init_from or "")
    branches = {"after": samples["branches"]}
    if experiment.config.train.init_from and (name / "checkpoints").is_dir():
        before = load_run(name)
        predict = jax.jit(
            lambda image: experiment.task.predict(before.apply, (), {"image": image})
        )
        found = [predict(image[None])["branches"] for image in samples["image"]]
        branches = {"before": np.concatenate(found)} | branches
    # Padding is no part of what people should look at.
    height, width = common_size(samples["mask"])
    samples = {
        "image": samples["image"][:, :height, :width],
        "boundary": samples["boundary"][:, :height, :width],
        "boundaries": samples["boundaries"][:, :, :height, :width],
    }
    branches = {k: b[:, :, :height, :width] for k, b in branches.items()}
    there = samples["boundaries"][:, :, :1, :1] >= 0
    marked = np.where(there, samples["boundaries"] > 0, 0)
    truth = marked.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    rows = slice(0, _BOUNDARIES_SHOWN)
    # The image with most boundaries says most about their directions.
    chosen = int(np.argmax(truth.sum(axis=(1, 2))))
    first = marked[chosen, 0].astype(bool)

    def orientations() -> Any:
        if not first.any():
            raise InputError("the images must have a boundary, got none")
        return draw_orientations(branches["after"][chosen, 0], first)

    return {
        "boundaries": lambda: draw_boundaries(
            samples["image"][rows],
            truth[rows],
            samples["boundary"][rows],
            {name: array[rows] for name, array in branches.items()},
            branch_names=experiment.config.model.branches,
        ),
        "precision": lambda: draw_precision_curve(evaluation.metrics["boundaries"]),
        "orientations": orientations,
    }
