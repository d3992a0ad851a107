"""Deep spectral clustering (Barnes & Dubrawski, ICLR 2018 workshop).

Shape letters: B images, H W image size, N pixels, M sampled pixels, D dimension.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sphemb.grouping import Rounding, group_padded, kwik_cluster, orthogonal_rounding
from sphemb.losses import instance_weights, spectral_loss
from sphemb.metrics import PairScores
from sphemb.tasks._pixels import (
    draw_pixels,
    placed_map,
    unit_vectors_at,
    unit_vectors_of_all,
)
from sphemb.tasks._proposals import group_scores
from sphemb.tasks._readoff import Readoff
from sphemb.tasks._task import (
    Apply,
    Batch,
    Groups,
    LabelMap,
    Stateless,
    TaskState,
    maps_of,
    setting,
)

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
