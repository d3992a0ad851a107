"""What a task is, and the four types of predictions.

Letters: B images, H W image size, D embedding dimension, K label maps, G groups, C
classes, F features, S branches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import jax

from sphemb._checks import InputError, check_choice, check_count, check_number
from sphemb.instances import table_fits

if TYPE_CHECKING:
    from sphemb.tasks._readoff import Readoff


Array = Any  # of JAX, or of NumPy on the host


class Groups(NamedTuple):
    """Instances without classes: the groups of the pixels.

    Attributes:
        labels: int32 [B, H, W], groups 0, 1, ..; `VOID` where masked.
        num_groups: int32 [B], the background among them.
        embedding: float32 [B, H, W, D], unit vectors.
        reached: name of a setting of the task that limits the number of groups -> bool
            [B], True where the limit was reached, so that there may be more.
        background: int32 [B], the group that is the background; None if every group is
            an instance.
        proposals: int32 [B, K, H, W], further label maps whose groups are proposals;
            None if there are none.
    """

    labels: Array
    num_groups: Array
    embedding: Array
    reached: dict[str, Array]
    background: Array | None = None
    proposals: Array | None = None


class ClassMap(NamedTuple):
    """A class of the data set for each pixel.

    Attributes:
        classes: int32 [B, H, W], 0..C-1; `VOID` where masked.
        embedding: float32 [B, H, W, D], unit vectors, or None.
    """

    classes: Array
    embedding: Array | None = None


class Clusters(ClassMap):
    """A class map of clusters, which have no names; none of them is the background."""

    __slots__ = ()


class BoundaryMap(NamedTuple):
    """How much each pixel looks like a boundary.

    Attributes:
        boundary: float32 [B, H, W] in [0, 1]; 0 where masked.
        branches: float32 [B, S, H, W, D], unit vectors of each branch, or None.
    """

    boundary: Array
    branches: Array | None = None


class Detections(NamedTuple):
    """Instances with a class and a score.

    Attributes:
        groups: the groups, with ``proposals`` [B, K, H, W].
        classes: int32 [B, H, W], the class of each pixel; `VOID` where masked.
        proposal_classes: int32 [B, K, G], of each group of the proposals.
        proposal_scores: float32 [B, K, G], -inf for a group that is not a detection.
        proposal_features: float32 [B, K, G, F], what the scores are computed from, or
            None.
    """

    groups: Groups
    classes: Array
    proposal_classes: Array
    proposal_scores: Array
    proposal_features: Array | None = None


Predictions = Groups | ClassMap | BoundaryMap | Detections


def groups_of(predictions: Predictions) -> Groups | None:
    """The groups of a prediction, None if it has none."""
    if isinstance(predictions, Detections):
        return predictions.groups
    return predictions if isinstance(predictions, Groups) else None


def named_arrays(predictions: Predictions) -> dict[str, Any]:
    """The arrays of a prediction by name, as an export returns them: ``reached/..``."""
    arrays: dict[str, Any] = {}
    for name, value in predictions._asdict().items():
        if isinstance(value, Groups):
            arrays |= named_arrays(value)
        elif isinstance(value, dict):
            arrays |= {f"{name}/{key}": array for key, array in value.items()}
        elif value is not None:
            arrays[name] = value
    return arrays


def setting(
    default: Any, *, scoring: bool = False, choices: tuple[Any, ...] = (), **bounds: Any
) -> Any:
    """Declares a setting of a task by its default, its range, and what reads it.

    Args:
        default: value that is used if the configuration has none; None passes.
        scoring: whether predictions and scores alone read it.
        choices: values that it can have.
        **bounds: ``at_least``, ``above``, ``at_most``, ``below``, of a number or of
            each entry of a tuple.
    """
    metadata = {"scoring": scoring, "choices": choices, "bounds": bounds}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class whose fields are checked as their `setting` declares."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), f"config.task.{field.name}"
            bounds = field.metadata.get("bounds")
            if value is None and field.default is None:
                continue
            if field.metadata.get("choices"):
                check_choice(name, value, field.metadata["choices"])
            if bounds:
                whole = str(field.type).startswith(("int", "tuple[int"))
                check = check_count if whole else check_number
                for entry in value if isinstance(value, tuple) else (value,):
                    check(name, entry, **bounds)

    @property
    def scoring_settings(self) -> frozenset[str]:
        """Names of the settings that predictions and scores alone read."""
        fields = dataclasses.fields(self)
        return frozenset(f.name for f in fields if f.metadata.get("scoring"))


Maps = dict[str, Any]
"""Arrays by name; where a network has several of a kind, a tuple of them."""
Batch = Mapping[str, jax.Array]
Apply = Callable[..., Maps]
"""The network with its parameters: images [B, H, W, 3], optionally a mask [B, H, W],
False in padding, and ``middle``, the center of a tile's image -> named maps."""
TaskState = Any
"""A pytree that the train state carries along: ``()`` for most tasks."""


class LabelMap(NamedTuple):
    """A label map of the data that a task reads.

    Attributes:
        name: its entry of a batch: ``"instances"``, ``"semantic"``, ``"boundaries"``.
        learned: whether the loss reads it; False for what the scores alone read.
        needed: whether data without it are refused.
        below: what its labels must be smaller than; None for any number.
        setting: of the task, that the bound comes from.
    """

    name: str
    learned: bool = True
    needed: bool = True
    below: int | None = None
    setting: str = ""


class Task(Protocol):
    """A learning problem: its loss, its predictions and its metrics.

    Attributes:
        prediction: type that `predict` returns: `Groups`, `ClassMap`, `BoundaryMap`,
            `Detections` or a subclass. Files, pictures, tiles and reports depend on it.
        readoff: how groups are read off the map ``embedding``; None without one.
        update_every: steps between two calls of `update`, the first before step 1, the
            last when training ends. -1 = the last alone; 0 = never; None = an epoch.
        metrics_on_host: whether `metrics` takes NumPy arrays of this process's images
            and is not compiled.
        scoring_settings: names of settings that only predictions and scores read, and
            that may change when a run resumes.
        image_scale: optional; factor of the size at which the network sees images. The
            task resizes them in `predict`, and the augmentation of training images is
            multiplied by it.
    """

    prediction: type
    update_every: int | None
    metrics_on_host: bool

    @property
    def scoring_settings(self) -> frozenset[str]: ...

    @property
    def readoff(self) -> Readoff | None: ...

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """Label maps that loss and scores read; the data are checked against them."""
        ...

    def init(self, key: jax.Array, apply: Apply) -> TaskState:
        """Returns the state at step 0, which fixes its structure.

        The network is a pytree of its parameters. A task that keeps it in its state
        copies it, because a step donates the arrays of the train state.
        """
        ...

    def update(
        self, apply: Apply, state: TaskState, batches: Iterable[Batch], key: jax.Array
    ) -> TaskState:
        """Renews the state from a pass over this process's training batches.

        Called on the host with a compiled network, by all processes together, which
        must return the same state. A pass may be stopped early, by all at one batch.
        """
        ...

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Computes the loss of a batch and its terms ``loss/...``.

        Both are means over the images: the mean over equal shards is that of the batch.

        Args:
            apply: the network.
            state: the task state.
            batch: ``image`` [B, H, W, 3], ``mask`` [B, H, W] where there is padding,
                ``index`` [B] of the images in the data, and the `label_maps`.
            key: of this step, the same on all devices.
        """
        ...

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> Predictions:
        """Predicts a batch, ``image`` and perhaps ``mask``, with static shapes."""
        ...

    def metrics(self, predictions: Any, batch: Batch) -> dict[str, Any]:
        """Returns a `sphemb.metrics.Metric` of a batch for each name.

        The batch has ``valid`` [B], False for images that only fill it up.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stateless(Settings):
    """Base class of tasks without a state."""

    update_every: int = 0
    metrics_on_host: ClassVar[bool] = False

    @property
    def readoff(self) -> Readoff | None:
        """No read-off."""
        return None

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """No labels."""
        return ()

    def init(self, key: jax.Array, apply: Apply) -> TaskState:
        """Returns the empty state."""
        return ()

    def update(
        self, apply: Apply, state: TaskState, batches: Iterable[Batch], key: jax.Array
    ) -> TaskState:
        """Returns the state as it is."""
        return state


def maps_of(apply: Apply, batch: Batch) -> Maps:
    """Applies the network to ``image``, ``mask`` and, of a tile, ``middle``."""
    if "mask" not in batch:
        return apply(batch["image"])
    where = {"middle": batch["middle"]} if "middle" in batch else {}
    return apply(batch["image"], batch["mask"], **where)


def predict_and_measure(
    task: Task, apply: Apply, state: TaskState, batch: Batch
) -> tuple[Predictions, dict[str, Any]]:
    """Predicts and, unless `measures_on_host`, measures; this is what is compiled."""
    predictions = task.predict(apply, state, batch)
    on_host = measures_on_host(task, len(batch["image"]))
    return predictions, {} if on_host else task.metrics(predictions, batch)


def measures_on_host(task: Task, num_images: int) -> bool:
    """Whether `Task.metrics` takes NumPy arrays and is not compiled.

    True also if a table of the task's ``table_cells`` for each image is too large for a
    device: the host counts the pairs that occur.
    """
    cells = getattr(task, "table_cells", 0)
    return task.metrics_on_host or not table_fits(num_images * cells)


def compute_scores(
    metrics: Mapping[str, Any], class_names: Sequence[str] = (), *, split: str
) -> dict[str, float]:
    """The scores of the metrics of a split, on the host.

    ``class_names`` are for metrics that score each class. `InputError` names a metric
    that does not fit the data.
    """
    scores: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            scores |= metric.report(class_names)
        except InputError as error:
            raise InputError(
                f"{name} of the {split} split cannot be computed, where max_true is "
                f"config.task.max_objects: {error}"
            ) from error
    return scores
