"""Object proposals: embed the pixels, shift them together, read the instances off.

Kong & Fowlkes, CVPR 2018, sections 3 and 4. Drawn digits are grouped the same way.

Shape letters: B images, H rows, W columns, N pixels, M sampled pixels, D dimension,
T mean-shift steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from sphemb._checks import check_count, check_number, check_shape
from sphemb._labels import VOID
from sphemb.grouping import (
    accelerated_gbms,
    bucket_size,
    gbms_trajectory,
    label_modes,
    pad_points,
)
from sphemb.losses import margin_loss, sample_pixels
from sphemb.metrics import AverageRecall, InstanceCount
from sphemb.sphere import l2_normalize
from sphemb.tasks._task import Apply, Batch, Maps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposals:
    r"""Learns to group, by the margin loss on every step of a mean shift.

    In training, M of an image's pixels are drawn uniformly without replacement, and
    that sample alone is shifted: a Monte-Carlo estimate of the density that all pixels
    have. The draw depends on the seed, the step and the image's index, not on the
    device that the image happens to be on. To predict, every pixel is shifted.

    Attributes:
        margin: :math:`\alpha` of Eq. 2.
        concentration: :math:`\kappa` of the kernel :math:`\exp(\kappa\cos\theta)`.
        num_steps: T, mean-shift steps that the loss looks at; 0 trains the embedding
            alone.
        num_samples: M.
        step_weights: weights of the losses on steps 0..T; all 1 by default.
        negative_weight: of the pairs from different instances.
        predict_steps: mean-shift steps of a prediction, at most.
        predict_points: up to so many pixels, padding included, a prediction compares
            every pixel with every other; beyond, see `sphemb.accelerated_gbms`.
        threshold: cosine to a mode from which on a pixel belongs to it.
        max_groups: groups that a prediction can hold.
        min_size: pixels that a group needs; smaller ones go to the nearest group.
        max_objects: objects of an image that the scores can count.
    """

    margin: float = 0.5
    concentration: float = 36.0
    num_steps: int = 5
    num_samples: int = 512
    step_weights: tuple[float, ...] | None = None
    negative_weight: float = 1.0
    predict_steps: int = 10
    predict_points: int = 8192
    threshold: float = 0.7
    max_groups: int = 32
    min_size: int = 8
    max_objects: int = 16
    refresh_every: int = 0

    def __post_init__(self):
        check_number("config.task.margin", self.margin, at_least=0, at_most=1)
        check_number("config.task.concentration", self.concentration, above=0)
        check_number("config.task.threshold", self.threshold, above=-1, below=1)
        check_number("config.task.negative_weight", self.negative_weight, at_least=0)
        for name, least in {
            "num_steps": 0,
            "num_samples": 2,
            "predict_steps": 1,
            "predict_points": 8,
            "max_groups": 1,
            "min_size": 1,
            "max_objects": 1,
        }.items():
            check_count(f"config.task.{name}", getattr(self, name), at_least=least)
        if self.step_weights is not None:
            wanted = {"T": self.num_steps + 1}
            check_shape(
                "config.task.step_weights",
                self.step_weights,
                "T",
                dims=wanted,
                beside="config.task.num_steps",
            )

    def init(self, key: jax.Array) -> tuple[()]:
        """No memory."""
        return ()

    def refresh(
        self, apply: Apply, memory: tuple[()], batches: Iterable[Batch], key: jax.Array
    ) -> tuple[()]:
        """Nothing to renew."""
        return memory

    def loss(
        self, apply: Apply, memory: tuple[()], batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The trajectory's margin loss, averaged over the images.

        Args:
            apply: the network.
            memory: ``()``.
            batch: ``image`` [B, H, W, 3], ``instances`` [B, H, W], ``index`` [B].
            key: of this step.

        Returns:
            The loss, and ``loss/step{t}`` for each step of the mean shift.
        """
        embeddings = _flat_embeddings(apply(batch["image"]))
        labels = batch["instances"].reshape(embeddings.shape[:2])
        num_samples = min(self.num_samples, labels.shape[-1])

        def draw(index: jax.Array, labels: jax.Array):
            return sample_pixels(
                jax.random.fold_in(key, index), labels != VOID, num_samples=num_samples
            )

        sample = jax.vmap(draw)(batch["index"], labels)
        embeddings = jnp.take_along_axis(embeddings, sample.indices[..., None], axis=1)
        labels = jnp.take_along_axis(labels, sample.indices, axis=1)
        trajectory = gbms_trajectory(
            embeddings,
            concentration=self.concentration,
            num_steps=self.num_steps,
            mask=sample.mask,
        )
        # The steps are one more batch axis, so that each loss can be logged by itself.
        losses = margin_loss(
            trajectory,
            jnp.broadcast_to(labels, trajectory.shape[:-1]),
            margin=self.margin,
            mask=jnp.broadcast_to(sample.mask, trajectory.shape[:-1]),
            normalize="pairs",
            negative_weight=self.negative_weight,
        ).mean(axis=-1)
        weights = self.step_weights or (1.0,) * (self.num_steps + 1)
        total = jnp.sum(jnp.asarray(weights) * losses)
        return total, {f"loss/step{t}": losses[t] for t in range(len(weights))}

    def predict(self, apply: Apply, memory: tuple[()], batch: Batch) -> Maps:
        """Groups every pixel.

        Called outside of `jax.jit` with a compiled network, the grouping is compiled
        for a few numbers of pixels instead of every image size.

        Args:
            apply: the network.
            memory: ``()``.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W], False where
                pixels are padding.

        Returns:
            ``labels`` [B, H, W], groups by descending size, `VOID` where masked;
            ``num_groups`` [B]; ``background`` [B], the group that is taken for it, the
            largest; ``embedding`` [B, H, W, D], unit vectors before the mean shift.
        """
        image = batch["image"]
        embeddings = _flat_embeddings(apply(image))
        mask = batch.get("mask")
        flat = None if mask is None else mask.reshape(embeddings.shape[:2])
        padded = pad_points(embeddings, mask=flat)
        modes = accelerated_gbms(
            padded.points,
            concentration=self.concentration,
            num_steps=self.predict_steps,
            mask=padded.mask,
            max_points=bucket_size(self.predict_points),
        )
        grouping = label_modes(
            modes,
            threshold=self.threshold,
            max_groups=self.max_groups,
            min_size=self.min_size,
            mask=padded.mask,
        )
        labels = grouping.labels[:, : embeddings.shape[1]]
        return {
            "labels": labels.reshape(image.shape[:3]),
            "num_groups": grouping.num_groups,
            "background": jnp.zeros_like(grouping.num_groups),
            "embedding": embeddings.reshape(*image.shape[:3], -1),
        }

    def metrics(self, predictions: Maps, batch: Batch) -> dict[str, Any]:
        """Recall of the objects, and their number."""
        return {
            "average_recall": AverageRecall.from_batch(
                predictions["labels"],
                batch["instances"],
                max_predicted=self.max_groups,
                max_true=self.max_objects,
                valid=batch["valid"],
            ),
            "instance_count": InstanceCount.from_batch(
                predictions["num_groups"] - 1,  # the background is no instance
                batch["instances"],
                max_true=self.max_objects,
                valid=batch["valid"],
            ),
        }


def _flat_embeddings(maps: Maps) -> jax.Array:
    """The embedding map as unit vectors [B, N, D] in float32, whatever came before."""
    raw = maps["embedding"].astype(jnp.float32)
    return l2_normalize(raw.reshape(raw.shape[0], -1, raw.shape[-1]))
