"""Object proposals: embed the pixels, shift them to modes, read the instances off."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_shape
from sphemb.grouping import gbms_trajectory
from sphemb.instances import erode_instances, pool_proposals
from sphemb.losses import instance_weights, margin_loss
from sphemb.metrics import (
    AverageRecall,
    InstanceCount,
    MatchedPrecision,
    ProposalRecall,
    ReachedLimit,
)
from sphemb.tasks._pixels import draw_pixels, placed_map, unit_vectors_at
from sphemb.tasks._readoff import Readoff
from sphemb.tasks._task import (
    Apply,
    Batch,
    Groups,
    LabelMap,
    Predictions,
    Stateless,
    TaskState,
    maps_of,
    setting,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposals(Readoff, Stateless):
    r"""Learns instances by the margin loss on every step of a mean shift.

    Training samples M pixels of an image and shifts these alone, a Monte-Carlo estimate
    of the density of all pixels. The sample depends on the seed, the step and the
    image's index. `Readoff` has the settings of a prediction; its ``concentration`` is
    that of the loss, too.

    Attributes:
        margin: :math:`\alpha` of Eq. 2.
        num_steps: T, mean-shift steps in the loss; 0 trains the embedding alone.
        num_samples: M, at most.
        sample_ratio: share of the pixels that are sampled, up to M.
        step_weights: weights of the losses on steps 0..T; all 1 by default.
        weight_power: power of the instance weights; 1 is the paper's, by which every
            instance counts the same; lower it if small objects become too wide.
        normalize: what the loss is divided by, see `sphemb.margin_loss`.
        negative_weight: of the pairs from different instances.
        erosion: pixels at the border of each object that training counts as background,
            so that a gap separates objects that touch.
        max_objects: objects of an image that the scores can count.
        pooled_concentrations: further concentrations at which a prediction groups, for
            more proposals.
        budgets: numbers of proposals at which recall is scored.
        max_iou: overlap of two proposals beyond which the later one is dropped.

    References:
        Kong & Fowlkes, CVPR 2018, sections 3 and 4.
    """

    margin: float = setting(0.5, at_least=0, at_most=1)
    num_steps: int = setting(5, at_least=0)
    num_samples: int = setting(512, at_least=2)
    sample_ratio: float = setting(1.0, above=0, at_most=1)
    step_weights: tuple[float, ...] | None = None
    weight_power: float = setting(1.0, at_least=0)
    normalize: str = setting("pairs", choices=("pixels", "pairs", "terms"))
    negative_weight: float = setting(1.0, at_least=0)
    erosion: int = setting(0, at_least=0)
    max_objects: int = setting(16, scoring=True, at_least=1)
    pooled_concentrations: tuple[float, ...] = setting((), scoring=True, above=0)
    budgets: tuple[int, ...] = setting((), scoring=True, at_least=1)
    max_iou: float = setting(0.9, scoring=True, at_least=0, at_most=1)
    prediction: ClassVar[type] = Groups

    def __post_init__(self):
        super().__post_init__()
        where = "config.task"
        if list(self.budgets) != sorted(set(self.budgets)):
            raise InputError(
                f"{where}.budgets must be rising numbers, got {self.budgets}"
            )
        if self.step_weights is not None:
            check_shape(
                f"{where}.step_weights",
                self.step_weights,
                "T",
                dims={"T": self.num_steps + 1},
                beside=f"{where}.num_steps",
            )

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The instances."""
        return (LabelMap("instances"),)

    @property
    def object_limit(self) -> int:
        """The largest object number that the scores can count."""
        return self.max_objects

    @property
    def table_cells(self) -> int:
        """Cells of the tables that compare the groups of an image with others."""
        maps = 1 + len(self.pooled_concentrations) if self.budgets else 1
        rows = self.num_labels + 1
        return maps * rows * max(self.max_objects + 2, rows * (maps > 1))

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The trajectory's margin loss; its terms ``loss/step{t}``."""
        embedding = placed_map(maps_of(apply, batch), "embedding", batch)
        apart = erode_instances(batch["instances"], self.erosion)
        labels = apart.reshape(len(batch["image"]), -1)
        # Outlines weigh as one more instance: a large background would drown them.
        kinds = jnp.where(apart == batch["instances"], apart, apart.size)
        kinds = kinds.reshape(labels.shape)
        wanted = max(2, round(self.sample_ratio * labels.shape[-1]))
        sample = draw_pixels(batch, key, min(self.num_samples, wanted))
        embeddings = unit_vectors_at(embedding, sample.indices)
        labels, kinds = (
            jnp.take_along_axis(x, sample.indices, axis=1) for x in (labels, kinds)
        )
        trajectory = gbms_trajectory(
            embeddings,
            concentration=self.concentration,
            num_steps=self.num_steps,
            mask=sample.mask,
        )
        # The steps are one more batch axis, so that each loss can be logged by itself.
        pixel_weights = instance_weights(kinds, mask=sample.mask) ** self.weight_power
        losses = margin_loss(
            trajectory,
            jnp.broadcast_to(labels, trajectory.shape[:-1]),
            margin=self.margin,
            weights=jnp.broadcast_to(pixel_weights, trajectory.shape[:-1]),
            mask=jnp.broadcast_to(sample.mask, trajectory.shape[:-1]),
            normalize=self.normalize,
            negative_weight=self.negative_weight,
        ).mean(axis=-1)
        weights = self.step_weights or (1.0,) * (self.num_steps + 1)
        total = jnp.sum(jnp.asarray(weights) * losses)
        return total, {f"loss/step{t}": losses[t] for t in range(len(weights))}

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> Predictions:
        """Groups every pixel; for budgets to score, at every concentration."""
        return self._groups(
            apply, batch, pools=bool(self.budgets) and "instances" in batch
        )

    def _groups(self, apply: Apply, batch: Batch, *, pools: bool) -> Groups:
        embedding = placed_map(maps_of(apply, batch), "embedding", batch)
        pooled = self.pooled_concentrations if pools else None
        return self.read(embedding, batch, pooled=pooled)

    def metrics(self, predictions: Any, batch: Batch) -> dict[str, Any]:
        """Recall and number of the objects; with components AP; by budgets recall."""
        truth, valid = batch["instances"], batch["valid"]
        scores = group_scores(
            predictions, batch, num_labels=self.num_labels, max_objects=self.max_objects
        )
        if self.max_components:
            scores["matched_precision"] = MatchedPrecision.from_batch(
                predictions.labels,
                truth,
                max_predicted=self.max_components,
                max_true=self.max_objects,
                valid=valid,
            )
        if self.budgets:
            maps: Any = predictions.proposals
            pool = pool_proposals(
                maps.reshape(*maps.shape[:2], -1),
                max_groups=self.num_labels,
                max_iou=self.max_iou,
                min_size=self.min_size,
            )
            scores["proposals"] = ProposalRecall.from_batch(
                maps,
                pool,
                truth,
                max_true=self.max_objects,
                budgets=self.budgets,
                valid=valid,
            )
        return scores


def group_scores(
    predictions: Groups, batch: Batch, *, num_labels: int, max_objects: int
) -> dict[str, Any]:
    """Scores groups: recall of the objects, their number, and the limits reached."""
    truth, valid = batch["instances"], batch["valid"]
    return {
        "average_recall": AverageRecall.from_batch(
            predictions.labels,
            truth,
            max_predicted=num_labels,
            max_true=max_objects,
            valid=valid,
        ),
        "instance_count": InstanceCount.from_batch(
            predictions.num_groups - 1,  # without the background
            truth,
            max_true=max_objects,
            valid=valid,
        ),
        **{
            f"limit_{name}": ReachedLimit.from_batch(reached, name=name, valid=valid)
            for name, reached in predictions.reached.items()
        },
    }
