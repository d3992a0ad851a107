"""Tasks that predict groups: `Proposals` and `Spectral`.

Shape letters: B images, H W image size, N pixels, M sampled pixels, D dimension.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_shape
from sphemb.grouping import (
    Rounding,
    gbms_trajectory,
    group_padded,
    kwik_cluster,
    orthogonal_rounding,
)
from sphemb.instances import ProposalPool, pool_proposals
from sphemb.losses import instance_weights, margin_loss, spectral_loss
from sphemb.metrics import (
    AverageRecall,
    InstanceCount,
    MatchedPrecision,
    PairScores,
    ProposalRecall,
    ReachedLimit,
)
from sphemb.tasks._pixels import (
    PlacedMap,
    draw_pixels,
    placed_map,
    unit_vectors_at,
    unit_vectors_of_all,
)
from sphemb.tasks._readoff import Readoff
from sphemb.tasks._task import (
    Apply,
    Batch,
    Groups,
    LabelMap,
    Maps,
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
            given: Any = {"dims": {"T": self.num_steps + 1}}
            given["beside"] = f"{where}.num_steps"
            check_shape(f"{where}.step_weights", self.step_weights, "T", **given)

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The instances."""
        return (LabelMap("instances"),)

    @property
    def object_limit(self) -> int:
        """The largest object number that the scores can count."""
        return self.max_objects

    @property
    def num_maps(self) -> int:
        """K, the label maps whose groups are pooled."""
        return 1 + len(self.pooled_concentrations)

    @property
    def table_cells(self) -> int:
        """Cells of the tables that compare the groups of an image with others."""
        maps = self.num_maps if self.budgets else 1
        rows = self.num_labels + 1
        return maps * rows * max(self.max_objects + 2, rows * (maps > 1))

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The trajectory's margin loss; its terms ``loss/step{t}``."""
        embedding = self._embedding(maps_of(apply, batch), batch)
        labels = batch["instances"].reshape(len(batch["image"]), -1)
        wanted = max(2, round(self.sample_ratio * labels.shape[-1]))
        sample = draw_pixels(batch, key, min(self.num_samples, wanted))
        labels = jnp.take_along_axis(labels, sample.indices, axis=1)
        trajectory = gbms_trajectory(
            unit_vectors_at(embedding, sample.indices),
            concentration=self.concentration,
            num_steps=self.num_steps,
            mask=sample.mask,
        )
        # The steps are one more batch axis, so that each loss can be logged by itself.
        pixel_weights = instance_weights(labels, mask=sample.mask) ** self.weight_power
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
        pools = bool(self.budgets) and "instances" in batch
        return self._groups(apply, batch, pools=pools)

    def _groups(self, apply: Apply, batch: Batch, *, pools: bool) -> Groups:
        embedding = self._embedding(maps_of(apply, batch), batch)
        pooled = self.pooled_concentrations if pools else None
        return self.read(embedding, batch, pooled=pooled)

    def _embedding(self, maps: Maps, batch: Batch) -> PlacedMap:
        """The map that is compared and grouped, of vectors of any length."""
        return placed_map(maps, "embedding", batch)

    def _pool(self, maps: jax.Array) -> ProposalPool:
        """The proposals of label maps [B, K, H W]."""
        limits: Any = {"max_iou": self.max_iou, "min_size": self.min_size}
        return pool_proposals(maps, max_groups=self.num_labels, **limits)

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
            scores["proposals"] = ProposalRecall.from_batch(
                maps,
                self._pool(maps.reshape(*maps.shape[:2], -1)),
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
    known: Any = {"max_true": max_objects, "valid": valid}
    number = predictions.num_groups - 1  # without the background
    return {
        "average_recall": AverageRecall.from_batch(
            predictions.labels, truth, max_predicted=num_labels, **known
        ),
        "instance_count": InstanceCount.from_batch(number, truth, **known),
        **{
            f"limit_{name}": ReachedLimit.from_batch(reached, name=name, valid=valid)
            for name, reached in predictions.reached.items()
        },
    }


ROUNDINGS = ("kwik_cluster", "mean_shift", "orthogonal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectral(Stateless):
    r"""Learns instances by the spectral loss.

    The products of the pixels' unit vectors approach one within an instance and zero
    between instances, so that an image can have as many instances as dimensions, with
    the background. A prediction rounds the vectors of all pixels to a partition.

    Attributes:
        num_samples: M, pixels of an image in the loss, at most; 0 for all, whose cost
            is linear.
        weight_power: power of the instance weights; 0, the paper's: pixels count the
            same; 1: instances do.
        rounding: ``"kwik_cluster"``, the paper's; ``"orthogonal"``, a locally optimal
            rotation, see `sphemb.grouping.orthogonal_rounding`; or ``"mean_shift"``.
        tries: random orders, or starts; the best one is kept.
        threshold: product with a pivot from which on KwikCluster takes a pixel.
        predict_seed: of the random orders and starts.
        max_groups: groups of an image, at most; an orthogonal rounding has D.
        min_size: pixels of a group, at least; smaller groups go to the nearest one. 1
            for KwikCluster as published.
        concentration: see `Readoff`, for mean shift.
        predict_steps: see `Readoff`, for mean shift.
        mode_threshold: ``threshold`` of `Readoff`, for mean shift.
        max_objects: objects of an image that the scores can count.
    """

    num_samples: int = setting(0, at_least=0)
    weight_power: float = setting(0.0, at_least=0)
    rounding: str = setting("kwik_cluster", scoring=True, choices=ROUNDINGS)
    tries: int = setting(1, scoring=True, at_least=1)
    threshold: float = setting(0.5, scoring=True, above=-1, below=1)
    predict_seed: int = setting(0, scoring=True, at_least=0)
    max_groups: int = setting(64, scoring=True, at_least=1)
    min_size: int = setting(1, scoring=True, at_least=1)
    concentration: float = setting(36.0, scoring=True, above=0)
    predict_steps: int = setting(10, scoring=True, at_least=1)
    mode_threshold: float = setting(0.7, scoring=True, above=-1, below=1)
    max_objects: int = setting(16, scoring=True, at_least=1)
    prediction: ClassVar[type] = Groups

    @property
    def object_limit(self) -> int:
        """The largest object number that the scores can count."""
        return self.max_objects

    @property
    def table_cells(self) -> int:
        """Cells of the table of groups and objects of an image."""
        return (self.max_groups + 1) * (self.max_objects + 2)

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The instances."""
        return (LabelMap("instances"),)

    @property
    def readoff(self) -> Readoff | None:
        """The read-off by mean shift, if that is the rounding."""
        if self.rounding != "mean_shift":
            return None
        return Readoff(
            concentration=self.concentration,
            predict_steps=self.predict_steps,
            threshold=self.mode_threshold,
            max_groups=self.max_groups,
            min_size=self.min_size,
        )

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The spectral loss, a mean over pairs of pixels, ``loss/spectral``."""
        embedding = placed_map(maps_of(apply, batch), "embedding", batch)
        labels = batch["instances"].reshape(len(batch["image"]), -1)
        if self.num_samples:
            sample = draw_pixels(batch, key, self.num_samples)
            vectors = unit_vectors_at(embedding, sample.indices)
            labels = jnp.take_along_axis(labels, sample.indices, axis=1)
            mask = sample.mask
        else:
            every = unit_vectors_of_all(embedding, batch["image"].shape[1:3])
            vectors, mask = every.reshape(*labels.shape, every.shape[-1]), None
        weights = None
        if self.weight_power:
            weights = instance_weights(labels, mask=mask) ** self.weight_power
        loss = spectral_loss(vectors, labels, weights=weights, mask=mask).mean()
        return loss, {"loss/spectral": loss}

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> Groups:
        """Groups every pixel; the largest group is the background.

        An orthogonal rounding never reaches ``max_groups``.
        """
        embedding = placed_map(maps_of(apply, batch), "embedding", batch)
        if self.readoff is not None:
            return self.readoff.read(embedding, batch)
        pixels = unit_vectors_of_all(embedding, batch["image"].shape[1:3])
        images, height, width, dim = pixels.shape
        mask = batch.get("mask")
        if mask is not None:
            mask = mask.reshape(images, height * width)
        points = pixels.reshape(images, height * width, dim)
        found = group_padded(self._round, points, mask=mask)
        return Groups(
            labels=found.labels.reshape(images, height, width),
            num_groups=found.num_groups,
            embedding=pixels,
            background=jnp.zeros_like(found.num_groups),
            reached={"max_groups": found.num_left >= self.min_size},
        )

    def _round(self, points: jax.Array, mask: jax.Array) -> Rounding:
        key = jax.random.key(self.predict_seed)
        if self.rounding == "orthogonal":
            return orthogonal_rounding(
                key, points, num_starts=self.tries, min_size=self.min_size, mask=mask
            )
        return kwik_cluster(
            key,
            points,
            max_groups=self.max_groups,
            threshold=self.threshold,
            num_orders=self.tries,
            min_size=self.min_size,
            unassigned="nearest",
            mask=mask,
        )

    def metrics(self, predictions: Groups, batch: Batch) -> dict[str, Any]:
        """Pairs of pixels; recall of the objects, and their number."""
        groups = self.max_groups
        if self.rounding == "orthogonal":
            groups = max(groups, predictions.embedding.shape[-1])
        pairs = PairScores.from_batch(
            predictions.labels,
            batch["instances"],
            max_predicted=groups,
            max_true=self.max_objects,
            valid=batch["valid"],
        )
        return {"pairs": pairs} | group_scores(
            predictions, batch, num_labels=groups, max_objects=self.max_objects
        )
