"""What a task is: it says which stations of the data meet, and owns no loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import jax

from sphemb._checks import InputError
from sphemb.instances import table_fits
from sphemb.tasks._predictions import Predictions

if TYPE_CHECKING:
    from sphemb.tasks._readoff import Readoff

Maps = dict[str, Any]
"""Arrays by name; where a network has several of a kind, a tuple of them."""
Batch = Mapping[str, jax.Array]
Apply = Callable[..., Maps]
"""The network with its parameters bound: images [B, H, W, 3], and a mask [B, H, W] that
is False in their padding where they have any -> named maps. That of a tile also takes
the ``middle`` of its image."""
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
    """A learning problem: how to score a batch, how to predict, what to measure.

    Attributes:
        prediction: what `predict` returns: `Groups`, `ClassMap`, `BoundaryMap`,
            `Detections` or a subclass of one of them. Files, pictures, tiles and
            reports depend on it alone.
        readoff: how the groups are read off the network's map ``embedding``; None for
            what is not groups, or groups found another way.
        update_every: steps between two calls of `update`, of which the first comes
            before step 1 and the last when training ends; -1 = then alone; 0 = never;
            None = so many as show every training image once.
        metrics_on_host: whether `metrics` takes NumPy arrays, of this process's images
            at a time, and is not compiled.
        scoring_settings: names of the settings that predictions and scores alone read.
            Nothing that a run stores depends on them, neither parameters nor state, so
            they may change when the run resumes.
    """

    prediction: type
    update_every: int | None
    metrics_on_host: bool
    scoring_settings: frozenset[str]

    @property
    def readoff(self) -> Readoff | None:
        """See the class."""
        ...

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The label maps of the data that loss and scores read.

        Data are compared with them before training, and as they are read.
        """
        ...

    def init(self, key: jax.Array, apply: Apply) -> TaskState:
        """The state at step 0, and so its structure for good.

        The network that is handed in here and to `update` is a pytree of its
        parameters: a task may keep it in its state, as a copy, since the state's own
        arrays are given away in each step.
        """
        ...

    def update(
        self, apply: Apply, state: TaskState, batches: Iterable[Batch], key: jax.Array
    ) -> TaskState:
        """The state renewed from a pass over this process's training batches.

        It is called on the host, with a network that is compiled. All processes call it
        together, and must come to the same state. The pass is in another order each
        time, and may be broken off, by all at the same batch.
        """
        ...

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of a batch, and its terms under names ``loss/...``.

        Both are means over the batch's images, so that the mean over equal shards is
        that of the whole batch.
        """
        ...

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> Predictions:
        """Predictions of static shape for a batch."""
        ...

    def metrics(self, predictions: Any, batch: Batch) -> dict[str, Any]:
        """Metric states of a batch; each has ``merge`` and ``compute``."""
        ...


def maps_of(apply: Apply, batch: Batch) -> Maps:
    """What the network says of a batch's images, and of nothing in their padding.

    Args:
        apply: the network.
        batch: ``image`` [B, H, W, 3]; ``mask`` [B, H, W] where there is padding; of a
            tile, ``middle`` [2], where its image has the middle.
    """
    if "mask" not in batch:
        return apply(batch["image"])
    where = {"middle": batch["middle"]} if "middle" in batch else {}
    return apply(batch["image"], batch["mask"], **where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stateless:
    """What tasks inherit that remember nothing between steps."""

    update_every: int = 0
    metrics_on_host: ClassVar[bool] = False
    scoring_settings: ClassVar[frozenset[str]] = frozenset()

    @property
    def readoff(self) -> Readoff | None:
        """None, unless a task has one."""
        return None

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """None, unless a task says which."""
        return ()

    def init(self, key: jax.Array, apply: Apply) -> TaskState:
        """No state."""
        return ()

    def update(
        self, apply: Apply, state: TaskState, batches: Iterable[Batch], key: jax.Array
    ) -> TaskState:
        """Nothing to renew."""
        return state


def predict_and_measure(
    task: Task, apply: Apply, state: TaskState, batch: Batch
) -> tuple[Predictions, dict[str, Any]]:
    """What is compiled of a prediction that is scored.

    Returns:
        The predictions, and the metrics unless they are for the host, see
        `measures_on_host`.
    """
    predictions = task.predict(apply, state, batch)
    on_host = measures_on_host(task, len(batch["image"]))
    return predictions, {} if on_host else task.metrics(predictions, batch)


def measures_on_host(task: Task, num_images: int) -> bool:
    """Whether `Task.metrics` takes NumPy arrays and is not compiled.

    Args:
        task: which says so, or whose ``table_cells``, if it has some, would be too
            many: the host counts the pairs of labels that there are.
        num_images: of a batch on one device.
    """
    cells = getattr(task, "table_cells", 0)
    return task.metrics_on_host or not table_fits(num_images * cells)


def compute_scores(
    metrics: Mapping[str, Any], class_names: Sequence[str] = (), *, split: str
) -> dict[str, float]:
    """The scores of metrics.

    Args:
        metrics: as `Task.metrics` gives them, on the host.
        class_names: for metrics that score each class.
        split: that they are of.

    Raises:
        InputError: a metric does not fit the data.
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
