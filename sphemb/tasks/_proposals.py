"""Object proposals: embed the pixels, shift them together, read the instances off.

Kong & Fowlkes, CVPR 2018, sections 3 and 4. Drawn digits are grouped the same way.

Shape letters: B images, H rows, W columns, N pixels, M sampled pixels, D dimension,
T mean-shift steps, K label maps.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sphemb._checks import (
    InputError,
    check_choice,
    check_count,
    check_number,
    check_shape,
)
from sphemb.grouping import gbms_trajectory
from sphemb.instances import erode_instances
from sphemb.losses import instance_weights, margin_loss
from sphemb.tasks._pixels import draw_pixels, placed_map, unit_vectors_at
from sphemb.tasks._predictions import Groups, Predictions
from sphemb.tasks._proposal_scores import budget_scores, group_scores, matched_scores
from sphemb.tasks._readoff import Readoff
from sphemb.tasks._settings import check_counts
from sphemb.tasks._task import Apply, Batch, LabelMap, Stateless, TaskState, maps_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposals(Readoff, Stateless):
    r"""Learns to group, by the margin loss on every step of a mean shift.

    In training, M of an image's pixels are sampled uniformly without replacement, and
    that sample alone is shifted: a Monte-Carlo estimate of the density of all pixels.
    The sample depends on the seed, the step and the image's index, not on the device.
    To predict, the settings inherited from `Readoff` say how groups are read off; the
    kernel's ``concentration`` is that of the loss, too.

    Attributes:
        margin: :math:`\alpha` of Eq. 2.
        num_steps: T, mean-shift steps that the loss looks at; 0 trains the embedding
            alone.
        num_samples: M, at most.
        sample_ratio: the share of the pixels that are sampled, as far as M allows.
        step_weights: weights of the losses on steps 0..T; all 1 by default.
        weight_power: of the weights that make all instances count the same; at 1, the
            paper's, few pixels of a large background hold the outlines of small
            objects, and those get too wide.
        normalize: what the loss is divided by, see `sphemb.margin_loss`.
        negative_weight: of the pairs from different instances.
        erosion: pixels at the border of each object that training counts as background,
            so that objects which touch have a gap between them.
        max_objects: objects of an image that the scores can count.
        pooled_concentrations: further ones at which a prediction groups, for more
            proposals.
        budgets: numbers of proposals at which recall is scored.
        max_iou: overlap of two proposals beyond which the later one is dropped.
    """

    margin: float = 0.5
    num_steps: int = 5
    num_samples: int = 512
    sample_ratio: float = 1.0
    step_weights: tuple[float, ...] | None = None
    weight_power: float = 1.0
    normalize: str = "pairs"
    negative_weight: float = 1.0
    erosion: int = 0
    max_objects: int = 16
    pooled_concentrations: tuple[float, ...] = ()
    budgets: tuple[int, ...] = ()
    max_iou: float = 0.9
    prediction: ClassVar[type] = Groups
    metrics_on_host: ClassVar[bool] = False
    scoring_settings: ClassVar[frozenset[str]] = frozenset(
        {f.name for f in dataclasses.fields(Readoff)} - {"concentration"}
    ) | {"max_objects", "pooled_concentrations", "budgets", "max_iou"}

    def __post_init__(self):
        super().__post_init__()
        where = "config.task"
        check_number(f"{where}.margin", self.margin, at_least=0, at_most=1)
        check_number(f"{where}.negative_weight", self.negative_weight, at_least=0)
        check_number(f"{where}.weight_power", self.weight_power, at_least=0)
        check_number(f"{where}.max_iou", self.max_iou, at_least=0, at_most=1)
        check_number(f"{where}.sample_ratio", self.sample_ratio, above=0, at_most=1)
        check_counts(self, num_steps=0, num_samples=2, erosion=0, max_objects=1)
        check_choice(f"{where}.normalize", self.normalize, ("pixels", "pairs", "terms"))
        for value in self.pooled_concentrations:
            check_number(f"{where}.pooled_concentrations", value, above=0)
        for value in self.budgets:
            check_count(f"{where}.budgets", value, at_least=1)
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
        """The largest number of an object that the scores can count."""
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
        """The trajectory's margin loss, averaged over the images.

        Args:
            apply: the network.
            state: ``()``.
            batch: ``image`` [B, H, W, 3], ``instances`` [B, H, W], ``index`` [B].
            key: of this step.

        Returns:
            The loss, and ``loss/step{t}`` for each step of the mean shift.
        """
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
        """Groups every pixel, see `Readoff.read`.

        Args:
            apply: the network.
            state: ``()``.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W], False where
                pixels are padding, and ``instances`` [B, H, W] if the prediction is
                scored.

        Returns:
            The groups; with ``proposals``, label maps at every concentration, where
            there are ``budgets`` and instances.
        """
        return self._groups(
            apply, batch, pools=bool(self.budgets) and "instances" in batch
        )

    def _groups(self, apply: Apply, batch: Batch, *, pools: bool) -> Groups:
        embedding = placed_map(maps_of(apply, batch), "embedding", batch)
        pooled = self.pooled_concentrations if pools else None
        return self.read(embedding, batch, pooled=pooled)

    def metrics(self, predictions: Any, batch: Batch) -> dict[str, Any]:
        """Recall of the objects, their number, and what each proposal adds."""
        counted = {"num_labels": self.num_labels, "max_objects": self.max_objects}
        scores = group_scores(predictions, batch, **counted)
        if self.max_components:
            scores |= matched_scores(
                predictions,
                batch,
                max_components=self.max_components,
                max_objects=self.max_objects,
            )
        if self.budgets:
            scores |= budget_scores(
                predictions,
                batch,
                **counted,
                budgets=self.budgets,
                max_iou=self.max_iou,
                min_size=self.min_size,
            )
        return scores
