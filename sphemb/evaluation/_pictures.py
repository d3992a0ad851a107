"""Pictures of what a trained network predicts, after the paper's figures.

Shape letters: B images, H rows, W columns, D dimensions, T steps.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError
from sphemb.evaluation._score import Evaluation
from sphemb.grouping import gbms, gbms_trajectory
from sphemb.instances import SelectedDetections, relabel, select_detections
from sphemb.losses import margin_loss
from sphemb.metrics import AverageRecall
from sphemb.tasks import (
    BoundaryMap,
    ClassMap,
    Clusters,
    Detections,
    Groups,
    named_arrays,
)
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
_SIDE_COMPARED = 64  # pixels; that many squared are compared with each other

Makers = dict[str, Callable[[], Any]]
"""The name of a picture -> what draws it, or raises `InputError` if it cannot."""


def draw_pictures(
    trained: Trained,
    evaluation: Evaluation,
    records: Sequence[Mapping[str, Any]],
    folder: pathlib.Path,
    *,
    say: Callable[[str], None] = print,
) -> list[pathlib.Path]:
    """Draws the samples and the curves of an evaluation.

    The prediction decides which: of groups ``grouping``, ``sphere`` (Fig. 4),
    ``gradients`` (Fig. 5), ``similarities`` and, with budgets, ``proposals`` (Fig. 8);
    of boundaries ``boundaries`` (Fig. 7), ``orientations`` (Fig. 3 of the supplement)
    and ``precision`` (Fig. 6); of classes ``classes`` (Figs. 10 and 11) and ``trimap``
    (Fig. 9); of clusters ``clusters``; and always ``curves``, the training.

    Args:
        trained: the network.
        evaluation: of it.
        records: of the training, from `sphemb.training.read_log`.
        folder: of the pictures.
        say: gets one line with the pictures that cannot be drawn, such as those of
            nearly void images.

    Returns:
        The files.
    """
    makers = _makers(evaluation.predictions, trained, evaluation)
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


@functools.singledispatch
def _makers(found: Any, trained: Trained, evaluation: Evaluation) -> Makers:
    """The pictures of a prediction."""
    return {}


@_makers.register(Clusters)
def _(found: Clusters, trained: Trained, evaluation: Evaluation) -> Makers:
    samples = evaluation.samples
    image, truth = samples["image"], samples.get("semantic")
    return {"clusters": lambda: draw_clusters(image, found.classes, truth=truth)}


@_makers.register(ClassMap)
def _(found: ClassMap, trained: Trained, evaluation: Evaluation) -> Makers:
    return _class_makers(found, None, trained, evaluation)


@_makers.register(Detections)
def _(found: Detections, trained: Trained, evaluation: Evaluation) -> Makers:
    classes = ClassMap(found.classes, found.groups.embedding)
    makers = _makers(found.groups, trained, evaluation)
    return makers | _class_makers(classes, found, trained, evaluation)


@_makers.register(Groups)
def _(found: Groups, trained: Trained, evaluation: Evaluation) -> Makers:
    task: Any = trained.experiment.task
    samples, readoff = evaluation.samples, task.readoff
    makers: Makers = {"grouping": lambda: _grouping_figure(found, samples)}
    if "proposals" in evaluation.metrics:
        name = trained.experiment.config.model.name
        makers["proposals"] = lambda: _recall_figure(name, evaluation.scores)
    if readoff is None:
        return makers
    # The image with the most instances shows best how they are separated.
    grid = PixelGrid.of_sample(evaluation, fullest_first(samples["instances"])[0])
    labels, kappa = grid.instances.reshape(-1), readoff.concentration
    margin = getattr(task, "margin", None)

    @functools.cache
    def trajectory() -> np.ndarray:
        return grid.trajectory(concentration=kappa, num_steps=_STEPS_SHOWN)

    makers["sphere"] = lambda: draw_sphere(trajectory(), labels, concentration=kappa)
    if margin is None:
        return makers

    def gradients() -> Any:
        _check_annotated(grid.instances)
        return draw_gradients(*grid, grid.gradients(concentration=kappa, margin=margin))

    makers["similarities"] = lambda: draw_similarity_histograms(
        trajectory(), labels, margin=margin
    )
    return makers | {"gradients": gradients}


@_makers.register(BoundaryMap)
def _(found: BoundaryMap, trained: Trained, evaluation: Evaluation) -> Makers:
    makers: Makers = {}
    if "boundaries" in evaluation.metrics:
        scores = evaluation.metrics["boundaries"]
        makers["precision"] = lambda: draw_precision_curve(scores)
    if found.branches is None or "boundaries" not in evaluation.samples:
        return makers
    config, samples = trained.experiment.config, evaluation.samples
    height, width = common_size(samples["mask"])
    area = (..., slice(height), slice(width))

    def cut(branches: Any) -> np.ndarray:
        return np.asarray(branches)[:, :, :height, :width]

    branches = {"after": cut(found.branches)}
    before = pathlib.Path(config.train.init_from or "")
    if config.train.init_from and (before / "checkpoints").is_dir():
        old = load_run(before)
        task: Any = trained.experiment.task
        predict = jax.jit(
            lambda image: task.predict(old.apply, (), {"image": image}).branches
        )
        first = [predict(image[None]) for image in samples["image"]]
        branches = {"before": cut(np.concatenate(first))} | branches
    annotated = samples["boundaries"][area]
    present = annotated[:, :, :1, :1] >= 0
    marked = np.where(present, annotated > 0, 0)
    truth = marked.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    # The image with most boundaries shows most of their directions.
    chosen = int(np.argmax(truth.sum(axis=(1, 2))))
    rows = slice(0, _BOUNDARIES_SHOWN)

    def orientations() -> Any:
        boundary = marked[chosen, 0].astype(bool)
        if not boundary.any():
            raise InputError("the images must have a boundary, got none")
        return draw_orientations(branches["after"][chosen, 0], boundary)

    return makers | {
        "boundaries": lambda: draw_boundaries(
            samples["image"][:, :height, :width][rows],
            truth[rows],
            found.boundary[area][rows],
            {name: array[rows] for name, array in branches.items()},
            branch_names=config.model.branches,
        ),
        "orientations": orientations,
    }


def _recall_figure(name: str, scores: Mapping[str, float]) -> Any:
    if not scores["num_objects"]:
        raise InputError("the images must have objects, got none")
    return draw_recall_curves({name: scores})


def _grouping_figure(found: Groups, samples: Mapping[str, np.ndarray]) -> Any:
    truth = samples["instances"]
    _check_annotated(truth)
    scores = [
        AverageRecall.from_batch(
            jnp.asarray(p[None]),
            jnp.asarray(t[None]),
            max_predicted=max(int(found.labels.max()) + 1, 1),
            max_true=max(int(truth.max()), 1),
        ).compute()["mean_best_iou"]
        for p, t in zip(found.labels, truth, strict=True)
    ]
    shown = instance_map(found)
    return draw_grouping(samples["image"], truth, shown, found.embedding, scores=scores)


def instance_map(found: Groups) -> np.ndarray:
    """The instances of groups, 0 for the background and 1, 2, .. for the others."""
    if found.background is None:
        return np.asarray(found.labels) + 1
    return np.asarray(relabel(jnp.asarray(found.labels), jnp.asarray(found.background)))


def _check_annotated(truth: np.ndarray) -> None:
    """Refuses images whose pixels are all void."""
    if not (truth >= 0).any():
        raise InputError("the images must have pixels that are not void, got none")


def _class_makers(
    found: ClassMap,
    detected: Detections | None,
    trained: Trained,
    evaluation: Evaluation,
) -> Makers:
    samples = evaluation.samples
    makers: Makers = {}

    def classes() -> Any:
        height, width = common_size(samples["mask"])
        maps = (samples["image"], samples["semantic"], found.classes, found.embedding)
        drawn = None
        if detected is not None:
            drawn = _selected(detected, trained, (height, width))
        return draw_classes(
            *(np.asarray(array)[:, :height, :width] for array in maps),
            class_names=trained.class_names,
            detections=drawn,
        )

    if found.embedding is not None and "semantic" in samples:
        makers["classes"] = classes
    if "trimap" in evaluation.metrics:
        name = trained.experiment.config.model.name
        curve = evaluation.metrics["trimap"].curve()
        makers["trimap"] = lambda: draw_trimap_curves({name: curve})
    return makers


def _selected(
    detected: Detections, trained: Trained, size: tuple[int, int]
) -> list[SelectedDetections]:
    """The detections of each image that are drawn."""
    proposals = np.asarray(detected.groups.proposals)[..., : size[0], : size[1]]
    scores, classes = detected.proposal_scores, detected.proposal_classes
    least = getattr(trained.experiment.task, "min_score", -np.inf)
    return [
        select_detections(maps, scores=s, classes=c, min_score=least)
        for maps, s, c in zip(proposals, scores, classes, strict=True)
    ]


def common_size(mask: np.ndarray) -> tuple[int, int]:
    """(H, W) within which no image [B, H', W'] has padding."""
    inside = np.all(mask, axis=0)
    return int(np.any(inside, axis=1).sum()), int(np.any(inside, axis=0).sum())


class PixelGrid(NamedTuple):
    """The pixels of an image, or of every so many rows and columns of a large one.

    Every pixel is compared with every other.

    Attributes:
        image: float [H, W, 3].
        instances: int [H, W].
        embedding: [H, W, D] unit vectors.
    """

    image: np.ndarray
    instances: np.ndarray
    embedding: np.ndarray

    @classmethod
    def of_sample(cls, evaluation: Evaluation, index: int) -> Self:
        """A sample of an evaluation of groups, at most 64 pixels a side."""
        samples: Any = evaluation.samples
        samples = samples | named_arrays(evaluation.predictions)
        step = -(-max(samples["instances"].shape[1:]) // _SIDE_COMPARED)
        return cls(*(samples[name][index][::step, ::step] for name in cls._fields))

    def trajectory(self, *, concentration: float, num_steps: int) -> np.ndarray:
        """The pixels at every step of the mean shift, [T+1, H W, D]."""
        return np.asarray(
            gbms_trajectory(
                self._points, concentration=concentration, num_steps=num_steps
            )
        )

    def gradients(
        self, *, concentration: float, margin: float
    ) -> dict[str, np.ndarray]:
        """The margin loss's gradients [H, W, D] without and with one step of shift."""
        labels = jnp.asarray(self.instances.reshape(-1))

        def loss(points: jax.Array, num_steps: int) -> jax.Array:
            moved = gbms(points, concentration=concentration, num_steps=num_steps)
            return margin_loss(moved, labels, margin=margin, normalize="pairs")

        return {
            name: np.asarray(jax.grad(loss)(self._points, num_steps)).reshape(
                self.embedding.shape
            )
            for num_steps, name in enumerate(
                ("no mean shift", "one step of mean shift")
            )
        }

    @property
    def _points(self) -> jax.Array:
        return jnp.asarray(self.embedding.reshape(-1, self.embedding.shape[-1]))


def fullest_first(instances: np.ndarray) -> list[int]:
    """The images [B, H, W] by how many instances they have, the most first."""
    return np.argsort(
        [-len(np.unique(t[t >= 0])) for t in instances], kind="stable"
    ).tolist()
