"""Deep spectral clustering: predict the eigenvectors of the truth, and round them.

Barnes & Dubrawski, ICLR 2018 workshop.

Shape letters: B images, H rows, W columns, N pixels, M sampled pixels, D dimension.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sphemb._checks import check_choice, check_number
from sphemb.grouping import Rounding, group_padded, kwik_cluster, orthogonal_rounding
from sphemb.losses import instance_weights, spectral_loss
from sphemb.metrics import PairScores
from sphemb.tasks._pixels import (
    draw_pixels,
    placed_map,
    unit_vectors_at,
    unit_vectors_of_all,
)
from sphemb.tasks._predictions import Groups
from sphemb.tasks._proposal_scores import group_scores
from sphemb.tasks._readoff import Readoff
from sphemb.tasks._settings import check_counts
from sphemb.tasks._task import Apply, Batch, LabelMap, Stateless, TaskState, maps_of

ROUNDINGS = ("kwik_cluster", "mean_shift", "orthogonal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectral(Stateless):
    r"""Learns instances by the spectral loss.

    The products of the pixels' unit vectors are to be one within an instance and zero
    between instances, so that there can be as many instances as dimensions, the
    background among them. To predict, the vectors of all pixels are rounded to a
    partition, by one of three ways.

    Attributes:
        num_samples: M, pixels of an image that the loss compares, at most; 0 for all of
            them, which costs little, as no pair is ever looked at.
        weight_power: of the weights that make all instances count the same; at 0, the
            paper's, every pixel counts the same, and large instances most.
        rounding: ``"kwik_cluster"``, the paper's; ``"orthogonal"``, a locally optimal
            rotation, see `sphemb.grouping.orthogonal_rounding`; or ``"mean_shift"``,
            as `Proposals` reads its groups off.
        tries: random orders, or starts, of which the one that fits best is kept.
        threshold: product with a pivot from which on KwikCluster takes a pixel.
        predict_seed: of the random orders and starts.
        max_groups: groups that a prediction can hold; an orthogonal rounding has D.
        min_size: pixels that a group needs; smaller ones go to the nearest group. 1 for
            KwikCluster as it is.
        concentration: :math:`\kappa` of the mean shift.
        predict_steps: of the mean shift, at most.
        mode_threshold: cosine to a mode from which on a point belongs to it, after the
            mean shift.
        max_objects: objects of an image that the scores can count.
    """

    num_samples: int = 0
    weight_power: float = 0.0
    rounding: str = "kwik_cluster"
    tries: int = 1
    threshold: float = 0.5
    predict_seed: int = 0
    max_groups: int = 64
    min_size: int = 1
    concentration: float = 36.0
    predict_steps: int = 10
    mode_threshold: float = 0.7
    max_objects: int = 16
    prediction: ClassVar[type] = Groups
    metrics_on_host: ClassVar[bool] = False
    scoring_settings: ClassVar[frozenset[str]] = frozenset(
        {
            "rounding",
            "tries",
            "threshold",
            "predict_seed",
            "max_groups",
            "min_size",
            "concentration",
            "predict_steps",
            "mode_threshold",
            "max_objects",
        }
    )

    def __post_init__(self):
        check_number("config.task.weight_power", self.weight_power, at_least=0)
        check_choice("config.task.rounding", self.rounding, ROUNDINGS)
        for name in ("threshold", "mode_threshold"):
            value = getattr(self, name)
            check_number(f"config.task.{name}", value, above=-1, below=1)
        check_number("config.task.concentration", self.concentration, above=0)
        check_counts(
            self,
            num_samples=0,
            tries=1,
            predict_seed=0,
            max_groups=1,
            min_size=1,
            predict_steps=1,
            max_objects=1,
        )

    @property
    def object_limit(self) -> int:
        """The largest number of an object that the scores can count."""
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
        """The spectral loss, a mean over pairs of pixels, averaged over the images.

        Args:
            apply: the network.
            state: ``()``.
            batch: ``image`` [B, H, W, 3], ``instances`` [B, H, W], ``index`` [B].
            key: of this step.

        Returns:
            The loss, and ``loss/spectral``.
        """
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
        """Groups every pixel.

        Args:
            apply: the network.
            state: ``()``.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W], False where
                pixels are padding.

        Returns:
            Groups by descending size, of which the largest is the background. An
            orthogonal rounding never reaches ``max_groups``: every pixel has its
            nearest direction.
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
