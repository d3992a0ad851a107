"""What an evaluation shows: pictures after the paper's figures, and a page.

Shape letters: B images, H rows, W columns, N points, D dimensions, T steps.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb import tasks, viz
from sphemb._checks import InputError
from sphemb._files import written_whole
from sphemb.evaluation._score import Evaluation, ScoredImage
from sphemb.grouping import gbms, gbms_trajectory
from sphemb.instances import relabel, select_detections
from sphemb.losses import margin_loss
from sphemb.metrics import AverageRecall
from sphemb.training import Trained, load_run

_SIDE_SHOWN = 256  # pixels of a picture, at most
_POINTS_SHOWN = 1500
_MOST_BYTES = 3_000_000
_STEPS_SHOWN = 5
_BOUNDARIES_SHOWN = 3  # images
_SIDE_COMPARED = 64  # pixels; that many squared are compared with each other

Makers = dict[str, Callable[[], Any]]  # name of a picture -> what draws it


def draw_pictures(
    trained: Trained,
    evaluation: Evaluation,
    records: Sequence[Mapping[str, Any]],
    folder: pathlib.Path,
    *,
    say: Callable[[str], None] = print,
) -> list[pathlib.Path]:
    """Draws the samples and the curves of an evaluation, and returns the files.

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
    """
    makers = _makers(evaluation.predictions, trained, evaluation)
    if records:
        makers["curves"] = lambda: viz.draw_curves(records)
    files, missing = [], []
    for title, make in makers.items():
        path = folder / f"{title}.png"
        try:
            files.append(viz.save_figure(make(), path))
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


@_makers.register(tasks.Clusters)
def _(found: tasks.Clusters, trained: Trained, evaluation: Evaluation) -> Makers:
    samples = evaluation.samples
    image, truth = samples["image"], samples.get("semantic")
    return {"clusters": lambda: viz.draw_clusters(image, found.classes, truth=truth)}


@_makers.register(tasks.ClassMap)
def _(found: tasks.ClassMap, trained: Trained, evaluation: Evaluation) -> Makers:
    return _class_makers(found, None, trained, evaluation)


@_makers.register(tasks.Detections)
def _(found: tasks.Detections, trained: Trained, evaluation: Evaluation) -> Makers:
    classes = tasks.ClassMap(found.classes, found.groups.embedding)
    makers = _makers(found.groups, trained, evaluation)
    return makers | _class_makers(classes, found, trained, evaluation)


@_makers.register(tasks.Groups)
def _(found: tasks.Groups, trained: Trained, evaluation: Evaluation) -> Makers:
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
    margin: Any = getattr(task, "margin", None)

    @functools.cache
    def trajectory() -> np.ndarray:
        return grid.trajectory(concentration=kappa, num_steps=_STEPS_SHOWN)

    def gradients() -> Any:
        _check_annotated(grid.instances)
        return viz.draw_gradients(
            *grid, grid.gradients(concentration=kappa, margin=margin)
        )

    makers["sphere"] = lambda: viz.draw_sphere(
        trajectory(), labels, concentration=kappa
    )
    if margin is not None:
        makers["gradients"] = gradients
        makers["similarities"] = lambda: viz.draw_similarity_histograms(
            trajectory(), labels, margin=margin
        )
    return makers


@_makers.register(tasks.BoundaryMap)
def _(found: tasks.BoundaryMap, trained: Trained, evaluation: Evaluation) -> Makers:
    makers: Makers = {}
    if "boundaries" in evaluation.metrics:
        scores = evaluation.metrics["boundaries"]
        makers["precision"] = lambda: viz.draw_precision_curve(scores)
    if found.branches is None or "boundaries" not in evaluation.samples:
        return makers
    config, samples = trained.experiment.config, evaluation.samples
    height, width = _common_size(samples["mask"])
    area = (..., slice(height), slice(width))

    def cut(branches: Any) -> np.ndarray:
        return np.asarray(branches)[:, :, :height, :width]

    branches = {"after": cut(found.branches)}
    before = pathlib.Path(config.train.init_from or "")
    if config.train.init_from and (before / "checkpoints").is_dir():
        old, task = load_run(before), trained.experiment.task
        predict = jax.jit(lambda image: task.predict(old.apply, (), {"image": image}))
        first = [predict(image[None]).branches for image in samples["image"]]
        branches = {"before": cut(np.concatenate(first))} | branches
    annotated = samples["boundaries"][area]
    truth = _annotated_share(annotated)
    # The image with most boundaries shows most of their directions.
    chosen = int(np.argmax(truth.sum(axis=(1, 2))))
    rows = slice(0, _BOUNDARIES_SHOWN)

    def boundaries() -> Any:
        return viz.draw_boundaries(
            samples["image"][:, :height, :width][rows],
            truth[rows],
            found.boundary[area][rows],
            {name: array[rows] for name, array in branches.items()},
            branch_names=config.model.branches,
        )

    def orientations() -> Any:
        boundary = annotated[chosen, 0] > 0
        if not boundary.any():
            raise InputError("the images must have a boundary, got none")
        return viz.draw_orientations(branches["after"][chosen, 0], boundary)

    return makers | {"boundaries": boundaries, "orientations": orientations}


def _annotated_share(boundaries: np.ndarray) -> np.ndarray:
    """The share of annotators [..., H, W] of boundaries [..., A, H, W], -1 for none."""
    present = boundaries[..., :1, :1] >= 0
    marked = present & (boundaries > 0)
    return marked.sum(axis=-3) / np.maximum(present.sum(axis=-3), 1)


def _recall_figure(name: str, scores: Mapping[str, float]) -> Any:
    if not scores["num_objects"]:
        raise InputError("the images must have objects, got none")
    return viz.draw_recall_curves({name: scores})


def _grouping_figure(found: tasks.Groups, samples: Mapping[str, np.ndarray]) -> Any:
    truth = samples["instances"]
    _check_annotated(truth)
    number = max(int(found.labels.max()) + 1, 1)
    limits = {"max_predicted": number, "max_true": max(int(truth.max()), 1)}
    scores = [
        AverageRecall.from_batch(p[None], t[None], **limits).compute()["mean_best_iou"]
        for p, t in zip(*map(jnp.asarray, (found.labels, truth)), strict=True)
    ]
    maps = (samples["image"], truth, _instance_map(found), found.embedding)
    return viz.draw_grouping(*maps, scores=scores)


def _instance_map(found: tasks.Groups) -> np.ndarray:
    """The instances of groups, 0 for the background and 1, 2, .. for the others."""
    if found.background is None:
        return np.asarray(found.labels) + 1
    return np.asarray(relabel(jnp.asarray(found.labels), jnp.asarray(found.background)))


def _check_annotated(truth: np.ndarray) -> None:
    """Refuses images whose pixels are all void."""
    if not (truth >= 0).any():
        raise InputError("the images must have pixels that are not void, got none")


def _class_makers(
    found: tasks.ClassMap,
    detected: tasks.Detections | None,
    trained: Trained,
    of: Evaluation,
) -> Makers:
    samples, makers = of.samples, Makers()

    def classes() -> Any:
        height, width = _common_size(samples["mask"])
        maps = (samples["image"], samples["semantic"], found.classes, found.embedding)
        drawn = None
        if detected is not None:
            least = getattr(trained.experiment.task, "min_score", -np.inf)
            proposals = np.asarray(detected.groups.proposals)[..., :height, :width]
            scores, kinds = detected.proposal_scores, detected.proposal_classes
            drawn = [
                select_detections(p, scores=s, classes=c, min_score=least)
                for p, s, c in zip(proposals, scores, kinds, strict=True)
            ]
        return viz.draw_classes(
            *(np.asarray(array)[:, :height, :width] for array in maps),
            class_names=trained.class_names,
            detections=drawn,
        )

    if found.embedding is not None and "semantic" in samples:
        makers["classes"] = classes
    if "trimap" in of.metrics:
        name = trained.experiment.config.model.name
        curve = of.metrics["trimap"].curve()
        makers["trimap"] = lambda: viz.draw_trimap_curves({name: curve})
    return makers


def _common_size(mask: np.ndarray) -> tuple[int, int]:
    """(H, W) within which no image [B, H', W'] has padding."""
    inside = np.all(mask, axis=0)
    return int(np.any(inside, axis=1).sum()), int(np.any(inside, axis=0).sum())


class PixelGrid(NamedTuple):
    """The pixels of an image, or of every so many rows and columns of a large one.

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
        samples = samples | tasks.named_arrays(evaluation.predictions)
        step = -(-max(samples["instances"].shape[1:]) // _SIDE_COMPARED)
        return cls(*(samples[name][index][::step, ::step] for name in cls._fields))

    def trajectory(self, *, concentration: float, num_steps: int) -> np.ndarray:
        """The pixels at every step of the mean shift, [T+1, H W, D]."""
        settings = {"concentration": concentration, "num_steps": num_steps}
        return np.asarray(gbms_trajectory(self._points, **settings))

    def gradients(
        self, *, concentration: float, margin: float
    ) -> dict[str, np.ndarray]:
        """The margin loss's gradients [H, W, D] without and with one step of shift."""
        labels = jnp.asarray(self.instances.reshape(-1))

        def loss(points: jax.Array, num_steps: int) -> jax.Array:
            moved = gbms(points, concentration=concentration, num_steps=num_steps)
            return margin_loss(moved, labels, margin=margin, normalize="pairs")

        names = ("no mean shift", "one step of mean shift")
        found = (jax.grad(loss)(self._points, steps) for steps, _ in enumerate(names))
        shape = self.embedding.shape
        return {
            name: np.asarray(g).reshape(shape)
            for name, g in zip(names, found, strict=True)
        }

    @property
    def _points(self) -> jax.Array:
        return jnp.asarray(self.embedding.reshape(-1, self.embedding.shape[-1]))


def fullest_first(instances: np.ndarray) -> list[int]:
    """The images [B, H, W] by how many instances they have, the most first."""
    numbers = [len(np.unique(t[t >= 0])) for t in instances]
    return np.argsort(np.negative(numbers), kind="stable").tolist()


def write_report(
    trained: Trained,
    evaluation: Evaluation,
    records: Sequence[Mapping[str, Any]],
    path: pathlib.Path,
    *,
    split: str,
    facts: Sequence[str] = (),
) -> pathlib.Path:
    """Writes an evaluation with extremes as one page below 3 MB, and returns its path.

    Args:
        trained: the network.
        evaluation: of it.
        records: of the training, from `sphemb.training.read_log`.
        path: of the page.
        split: that was evaluated.
        facts: lines below its title.
    """
    kept = [image for image in evaluation.ranked if image.maps]
    half, by = -(-len(kept) // 2), evaluation.ranked_by
    ends = {"worst": kept[:half], "best": kept[half:][::-1]}
    source, config = trained.experiment.source(split), trained.experiment.config
    names = {
        image.index: str(source[image.index].get("name") or f"image {image.index}")
        for image in kept
    }
    scenes = (
        _scene(trained, image, f"{kind} {place}: {names[image.index]}")
        for kind, images in ends.items()
        for place, image in enumerate(images, start=1)
    )
    scenes = [scene for scene in scenes if scene]

    def page(side: int) -> bytes:
        def example(image: ScoredImage) -> viz.Example:
            score = f"{by} {image.scores[by]:.4f}"
            return viz.Example(names[image.index], score, _pictures(image, side))

        text = viz.html_page(
            f"{config.task.name} of {config.model.name}",
            facts=facts,
            scores=evaluation.scores,
            figures={"The training": viz.draw_curves(records)} if records else {},
            examples={
                f"The {kind} images": [example(image) for image in images]
                for kind, images in ends.items()
                if images
            },
            scenes=scenes,
        )
        # File names may hold bytes that UTF-8 cannot.
        return text.encode("utf-8", errors="backslashreplace")

    side = _SIDE_SHOWN
    while len(content := page(side)) >= _MOST_BYTES and side >= 32:
        side = side * 3 // 4
    with written_whole(path) as unfinished:
        unfinished.write_bytes(content)
    return path


def _cut(image: ScoredImage, side: int) -> dict[str, np.ndarray]:
    """The maps of an image without padding, of every so many pixels."""
    size = image.maps["mask"].shape
    height, width = _common_size(image.maps["mask"][None])
    step = -(-max(height, width) // side)
    cut = {}
    for name, array in (image.maps | tasks.named_arrays(image.prediction)).items():
        first = 1 if name in ("boundaries", "branches") else 0
        if array.shape[first : first + 2] == size:
            area = (slice(0, height, step), slice(0, width, step))
            cut[name] = array[(slice(None),) * first + area]
    return cut


@functools.singledispatch
def _labels(
    found: Any, maps: Mapping[str, np.ndarray]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """True and predicted labels, int [H, W], 0 the background; None without any."""
    return None, None


@_labels.register(tasks.ClassMap)
@_labels.register(tasks.Detections)
def _(found: Any, maps: Mapping[str, np.ndarray]) -> Any:
    return maps.get("semantic"), maps["classes"]


@_labels.register(tasks.Clusters)
def _(found: tasks.Clusters, maps: Mapping[str, np.ndarray]) -> Any:
    return maps.get("semantic"), maps["classes"] + 1


@_labels.register(tasks.Groups)
def _(found: tasks.Groups, maps: Mapping[str, np.ndarray]) -> Any:
    instances = _instance_map(found._replace(labels=maps["labels"]))
    return maps["instances"], viz.match_labels(instances, maps["instances"])


def _pictures(image: ScoredImage, side: int) -> dict[str, np.ndarray]:
    maps = _cut(image, side)
    pictures = {"image": maps["image"]}
    kinds = zip(("truth", "found"), _labels(image.prediction, maps), strict=True)
    for name, labels in kinds:
        if labels is not None:
            pictures[name] = viz.label_rgb(labels)
    if "boundaries" in maps:
        pictures["annotators"] = _black(_annotated_share(maps["boundaries"]))
    if "boundary" in maps:
        pictures["boundaries found"] = _black(maps["boundary"])
    if "embedding" in maps:
        pictures["embedding"] = viz.embedding_rgb(maps["embedding"])
    elif "branches" in maps:
        pictures["embedding of the finest branch"] = viz.embedding_rgb(
            maps["branches"][0]
        )
    return pictures


def _scene(trained: Trained, image: ScoredImage, name: str) -> viz.Scene | None:
    """The points of an image at every step of the mean shift, if it has points."""
    maps = _cut(image, _SIDE_COMPARED)
    if "embedding" not in maps:
        return None
    readoff = trained.experiment.task.readoff
    dim = maps["embedding"].shape[-1]
    points = jnp.asarray(maps["embedding"].reshape(-1, dim), jnp.float32)
    trajectory, grid = np.asarray(points)[None], f"{len(points):,} pixels on a grid"
    note = f"{grid}; this task shifts no points."
    if readoff is not None:
        kappa, steps = readoff.concentration, readoff.predict_steps
        shifted = gbms_trajectory(points, concentration=kappa, num_steps=steps)
        trajectory = np.asarray(shifted)
        note = f"Every step of the mean shift at κ = {kappa:g} of {grid}."
    shown = np.random.default_rng(0).permutation(len(points))[:_POINTS_SHOWN]
    if len(shown) < len(points):
        note += f" {len(shown):,} of them are shown."
    if dim > 3:
        note += f" Of {dim} dimensions, the three principal ones of the last step are "
        note += "shown, normalized to length one: points that are close here may be "
        note += "far apart in the embedding."
    kinds = zip(("truth", "found"), _labels(image.prediction, maps), strict=True)
    labels = {kind: array.reshape(-1) for kind, array in kinds if array is not None}
    weights = next((array for array in labels.values() if (array >= 0).any()), None)
    colors = {kind: viz.label_rgb(array)[shown] for kind, array in labels.items()}
    colors["image"] = np.clip(maps["image"].reshape(-1, 3), 0.0, 1.0)[shown]
    return viz.Scene(
        name, note, viz.onto_sphere(trajectory, labels=weights)[:, shown], colors
    )


def _black(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as black on white."""
    return np.repeat(1.0 - np.clip(values, 0.0, 1.0)[..., None], 3, axis=-1)
