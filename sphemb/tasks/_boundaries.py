"""Boundaries: group the pixels into two, those on a boundary and all the others.

Kong & Fowlkes, CVPR 2018, section 5.2.

Shape letters: B images, H rows, W columns, K branches, h_k w_k size of a branch's map,
M sampled pixels, D dimension, A annotators.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sphemb._checks import (
    InputError,
    check_choice,
    check_number,
)
from sphemb._grid import Grid, extended
from sphemb.losses import balanced_logistic_loss, margin_loss
from sphemb.metrics import BoundaryScores, boundary_counts, suppress_non_maxima
from sphemb.tasks._pixels import (
    PlacedMap,
    draw_pixels,
    enlarged,
    image_size,
    placed_maps,
    resized,
    unit_vectors_at,
    unit_vectors_of_all,
)
from sphemb.tasks._predictions import BoundaryMap
from sphemb.tasks._settings import check_counts
from sphemb.tasks._task import (
    Apply,
    Batch,
    LabelMap,
    Stateless,
    TaskState,
    maps_of,
)


def boundary_levels(boundary: ArrayLike) -> np.ndarray:
    """A map of boundaries in [0, 1] as it is written and scored, in 16 bits."""
    return np.rint(65535.0 * np.asarray(boundary, np.float64)).astype(np.uint16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boundaries(Stateless):
    r"""Learns where boundaries are, by grouping, by classifying, or by both.

    The grouping loss is the margin loss on each branch, with boundary and non-boundary
    for its two instances. Its weights let both count the same, which is all that is
    done about nine in ten pixels being no boundary. The logistic losses are balanced
    the same way, and read what the network has fused from the branches, and each branch
    by itself.

    Attributes:
        margin: :math:`\alpha` of Eq. 2.
        margin_weight: of the margin losses, averaged over the branches.
        num_samples: pixels of an image that are compared in them, at most.
        logistic_weight: of the logistic loss on the fused map.
        side_weight: of those on the branches, averaged over them.
        scales: an image is predicted at each of these sizes, and the maps averaged.
        scale_multiple: what the sides of a resized image are multiples of; what the
            network needs.
        nms: thin the maps by non-maximum suppression before they are scored.
        thresholds: number n of levels at which they are scored. Published scores have
            99; with another number they are reported as ``ods@n``.
        tolerance: how far a found boundary may be from a true one, in diagonals of the
            image.
    """

    margin: float = 0.2
    margin_weight: float = 1.0
    num_samples: int = 1024
    logistic_weight: float = 1.0
    side_weight: float = 0.0
    scales: tuple[float, ...] = (1.0,)
    scale_multiple: int = 32
    nms: bool = True
    thresholds: int = 99
    tolerance: float = 0.0075
    prediction: ClassVar[type] = BoundaryMap
    metrics_on_host: ClassVar[bool] = True
    scoring_settings: ClassVar[frozenset[str]] = frozenset(
        {
            "scales",
            "scale_multiple",
            "nms",
            "thresholds",
            "tolerance",
        }
    )

    def __post_init__(self):
        check_number("config.task.margin", self.margin, at_least=0, at_most=1)
        for name in ("margin_weight", "logistic_weight", "side_weight"):
            check_number(f"config.task.{name}", getattr(self, name), at_least=0)
        check_number("config.task.tolerance", self.tolerance, above=0, at_most=1)
        check_counts(self, num_samples=2, scale_multiple=1, thresholds=1)
        check_choice("config.task.nms", self.nms, (True, False))
        if not self.scales:
            raise InputError("config.task.scales must have one scale at least, got ()")
        for scale in self.scales:
            check_number("config.task.scales", scale, above=0)

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The target of the boundaries, and what each annotator marked."""
        return (LabelMap("instances"), LabelMap("boundaries", learned=False))

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted losses, averaged over the images.

        Args:
            apply: the network: ``branches``, ``sides`` and ``fused``, as
                `sphemb.models.SideBranches` gives them.
            state: ``()``.
            batch: ``image`` [B, H, W, 3], ``instances`` [B, H, W] with 0 and 1,
                ``index`` [B].
            key: of this step.

        Returns:
            The loss, and those of its terms whose weight is not zero:
            ``loss/branch{k}``, ``loss/fused``, ``loss/sides``.
        """
        maps = maps_of(apply, batch)
        images = batch["image"].shape[0]
        labels = batch["instances"].reshape(images, -1)
        total, terms = jnp.zeros(()), {}
        if self.margin_weight:
            branches = placed_maps(maps, "branches", batch)
            losses = self._margin_losses(branches, labels, batch, key)
            total += self.margin_weight * losses.mean()
            terms |= {f"loss/branch{k + 1}": loss for k, loss in enumerate(losses)}
        if self.logistic_weight:
            fused = maps["fused"].reshape(images, -1)
            terms["loss/fused"] = balanced_logistic_loss(fused, labels).mean()
            total += self.logistic_weight * terms["loss/fused"]
        if self.side_weight:
            sides = jnp.moveaxis(maps["sides"], -1, 0).reshape(-1, *labels.shape)
            every = jnp.broadcast_to(labels, sides.shape)
            terms["loss/sides"] = balanced_logistic_loss(sides, every).mean()
            total += self.side_weight * terms["loss/sides"]
        return total, terms

    def _margin_losses(
        self,
        branches: list[PlacedMap],
        labels: jax.Array,
        batch: Batch,
        key: jax.Array,
    ) -> jax.Array:
        """The margin loss of every branch, [K]; all of them see the same pixels."""
        sample = draw_pixels(batch, key, self.num_samples)
        vectors = jnp.stack(
            [unit_vectors_at(branch, sample.indices) for branch in branches]
        )
        labels = jnp.take_along_axis(labels, sample.indices, axis=1)
        return margin_loss(
            vectors,
            jnp.broadcast_to(labels, vectors.shape[:-1]),
            margin=self.margin,
            mask=jnp.broadcast_to(sample.mask, vectors.shape[:-1]),
            normalize="pairs",
        ).mean(axis=-1)

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> BoundaryMap:
        """Maps every pixel to how much it looks like a boundary.

        Args:
            apply: the network.
            state: ``()``.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W], False where
                pixels are padding.

        Returns:
            The boundaries, averaged over the scales, and the branches at scale 1, or at
            the first scale.
        """
        image, mask = batch["image"], batch.get("mask")
        size = image.shape[1:3]
        first = 1.0 if 1.0 in self.scales else self.scales[0]
        total = jnp.zeros(image.shape[:3])
        branches = jnp.zeros(())
        for scale in self.scales:
            seen = resized(batch, scale, multiple=self.scale_multiple)
            maps = maps_of(apply, seen)
            found = jax.nn.sigmoid(maps["fused"])[..., None]
            found = PlacedMap(extended(found, seen.get("mask")), Grid())
            total += enlarged(found.at_scale(scale), size)[..., 0]
            if scale == first:
                branches = jnp.stack(
                    [
                        unit_vectors_of_all(branch.at_scale(scale), size)
                        for branch in placed_maps(maps, "branches", seen)
                    ],
                    axis=1,
                )
        boundary = total / len(self.scales)
        if mask is not None:
            boundary = jnp.where(mask, boundary, 0.0)
        return BoundaryMap(boundary, branches)

    def metrics(self, predictions: BoundaryMap, batch: Batch) -> dict[str, Any]:
        """The boundary benchmark, on the host: pixels are matched one to one.

        Args:
            predictions: of :meth:`predict`, as NumPy arrays.
            batch: ``boundaries`` int8 [B, A, H, W], -1 where an annotator is absent;
                ``mask`` and ``valid``.
        """
        counts = []
        for i in np.flatnonzero(batch["valid"]):
            height, width = image_size(batch["mask"][i])
            levels = boundary_levels(predictions.boundary[i])[:height, :width]
            found = levels / 65535.0  # as of the file that it is written to
            annotators = np.asarray(batch["boundaries"][i])[:, :height, :width]
            annotators = annotators[annotators[:, 0, 0] >= 0] > 0
            if self.nms:
                found = suppress_non_maxima(found)
            counts.append(
                boundary_counts(
                    found,
                    annotators,
                    thresholds=self.thresholds,
                    tolerance=self.tolerance,
                )
            )
        stacked = np.stack(counts) if counts else np.zeros((0, self.thresholds, 4), int)
        return {
            "boundaries": BoundaryScores.from_counts(
                stacked, thresholds=self.thresholds
            )
        }
