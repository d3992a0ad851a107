"""Boundaries: two groups of pixels (Kong & Fowlkes, CVPR 2018, section 5.2).

Shape letters: B images, H W image size, K branches, A annotators.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sphemb._checks import InputError
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
from sphemb.tasks._task import (
    Apply,
    Batch,
    BoundaryMap,
    LabelMap,
    Stateless,
    TaskState,
    maps_of,
    setting,
)


def boundary_levels(boundary: ArrayLike) -> np.ndarray:
    """A map of boundaries in [0, 1] as it is written and scored, in 16 bits."""
    return np.rint(65535.0 * np.asarray(boundary, np.float64)).astype(np.uint16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boundaries(Stateless):
    r"""Learns boundaries by the margin loss, by logistic losses, or by both.

    The margin loss of each branch has two instances, boundary and non-boundary, whose
    weights make both count the same. The logistic losses, balanced in the same way, are
    of the map that the network fuses from the branches, and of each branch.

    Attributes:
        margin: :math:`\alpha` of Eq. 2.
        margin_weight: of the margin losses, averaged over the branches.
        num_samples: pixels of an image in the margin losses, at most.
        logistic_weight: of the logistic loss of the fused map.
        side_weight: of the logistic losses of the branches, averaged over them.
        scales: sizes of the image at which it is predicted; the maps are averaged.
        scale_multiple: multiple of the sides of a resized image, as the network needs.
        nms: thin the maps by non-maximum suppression before they are scored.
        thresholds: number n of levels at which they are scored. Published scores have
            99; with another number they are reported as ``ods@n``.
        tolerance: distance of a match, at most, as a share of the image's diagonal.
    """

    margin: float = setting(0.2, at_least=0, at_most=1)
    margin_weight: float = setting(1.0, at_least=0)
    num_samples: int = setting(1024, at_least=2)
    logistic_weight: float = setting(1.0, at_least=0)
    side_weight: float = setting(0.0, at_least=0)
    scales: tuple[float, ...] = setting((1.0,), scoring=True, above=0)
    scale_multiple: int = setting(32, scoring=True, at_least=1)
    nms: bool = setting(True, scoring=True, choices=(True, False))
    thresholds: int = setting(99, scoring=True, at_least=1)
    tolerance: float = setting(0.0075, scoring=True, above=0, at_most=1)
    prediction: ClassVar[type] = BoundaryMap
    metrics_on_host: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not self.scales:
            raise InputError("config.task.scales must have one scale at least, got ()")

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The target of the boundaries, and what each annotator marked."""
        return (LabelMap("instances"), LabelMap("boundaries", learned=False))

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted sum of ``loss/branch{k}``, ``loss/fused`` and ``loss/sides``.

        The network gives ``branches``, ``sides`` and ``fused``, as
        `sphemb.models.SideBranches` does. A loss without a weight is left out.
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
        self, branches: list[PlacedMap], labels: jax.Array, batch: Batch, key: jax.Array
    ) -> jax.Array:
        """The margin loss of every branch, [K]; all of them see the same pixels."""
        sample = draw_pixels(batch, key, self.num_samples)
        vectors = jnp.stack([unit_vectors_at(one, sample.indices) for one in branches])
        labels = jnp.take_along_axis(labels, sample.indices, axis=1)
        return margin_loss(
            vectors,
            jnp.broadcast_to(labels, vectors.shape[:-1]),
            margin=self.margin,
            mask=jnp.broadcast_to(sample.mask, vectors.shape[:-1]),
            normalize="pairs",
        ).mean(axis=-1)

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> BoundaryMap:
        """Averages the scales; the branches are those at scale 1, or the first."""
        size = batch["image"].shape[1:3]
        first = 1.0 if 1.0 in self.scales else self.scales[0]
        total = jnp.zeros(batch["image"].shape[:3])
        branches: list[jax.Array] = []
        for scale in self.scales:
            seen = resized(batch, scale, multiple=self.scale_multiple)
            maps = maps_of(apply, seen)
            found = jax.nn.sigmoid(maps["fused"])[..., None]
            found = PlacedMap(extended(found, seen.get("mask")), Grid())
            total += enlarged(found.at_scale(scale), size)[..., 0]
            if scale == first:
                own = placed_maps(maps, "branches", seen)
                branches = [unit_vectors_of_all(b.at_scale(scale), size) for b in own]
        boundary = total / len(self.scales)
        if "mask" in batch:
            boundary = jnp.where(batch["mask"], boundary, 0.0)
        return BoundaryMap(boundary, jnp.stack(branches, axis=1))

    def metrics(self, predictions: BoundaryMap, batch: Batch) -> dict[str, Any]:
        """The boundary benchmark: found and true pixels are matched one to one.

        ``boundaries`` is int8 [B, A, H, W], -1 where an annotator is absent.
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
            how: Any = {"thresholds": self.thresholds, "tolerance": self.tolerance}
            counts.append(boundary_counts(found, annotators, **how))
        stacked = np.reshape(np.array(counts, int), (-1, self.thresholds, 4))
        scores = BoundaryScores.from_counts(stacked, thresholds=self.thresholds)
        return {"boundaries": scores}
