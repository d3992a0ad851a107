"""Object proposals: embed the pixels, shift them together, read the instances off.

Kong & Fowlkes, CVPR 2018, sections 3 and 4. Drawn digits are grouped the same way.

Shape letters: B images, H rows, W columns, N pixels, M sampled pixels, D dimension,
T mean-shift steps, h w size of the embedding map, K label maps.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sphemb._grid import cells_of_image
from sphemb._labels import VOID
from sphemb.grouping import Grouping, gbms_trajectory
from sphemb.instances import dilate_instances, erode_instances, split_components
from sphemb.losses import instance_weights, margin_loss
from sphemb.tasks._pixel_groups import (
    GroupSettings,
    differs,
    group_cells,
    group_places,
    largest_unsure,
    nearest_modes,
    stopped_early,
)
from sphemb.tasks._pixels import (
    draw_pixels,
    placed_map,
    unit_map,
    unit_vectors_at,
    unit_vectors_of_all,
)
from sphemb.tasks._proposal_checks import check_proposals
from sphemb.tasks._proposal_scores import budget_scores, group_scores, matched_scores
from sphemb.tasks._task import (
    REACHED,
    Apply,
    Batch,
    LabelMap,
    Maps,
    Stateless,
    TaskState,
    maps_of,
)

_SURVEYED = 2**18  # points that the background is found from, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposals(Stateless):
    r"""Learns to group, by the margin loss on every step of a mean shift.

    In training, M of an image's pixels are drawn uniformly without replacement, and
    that sample alone is shifted: a Monte-Carlo estimate of the density that all pixels
    have. The draw depends on the seed, the step and the image's index, not on the
    device that the image happens to be on. To predict, every cell of the embedding map
    is shifted, and a pixel goes to the group whose mode is nearest to its embedding,
    interpolated between the cells. (For a map as large as the image, each pixel is a
    cell.)

    Attributes:
        margin: :math:`\alpha` of Eq. 2.
        concentration: :math:`\kappa` of the kernel :math:`\exp(\kappa\cos\theta)`.
        num_steps: T, mean-shift steps that the loss looks at; 0 trains the embedding
            alone.
        num_samples: M, at most.
        sample_ratio: the share of the pixels that are drawn, as far as M allows.
        step_weights: weights of the losses on steps 0..T; all 1 by default.
        weight_power: of the weights that make all instances count the same; at 1, the
            paper's, few pixels of a large background hold the outlines of small
            objects, and those grow.
        normalize: what the loss is divided by, see `sphemb.margin_loss`.
        negative_weight: of the pairs from different instances.
        predict_steps: mean-shift steps of a prediction, at most.
        predict_points: up to so many points, padding included, a prediction compares
            every one with every other; beyond, see `sphemb.accelerated_gbms`.
        predict_pixels: shift every pixel and not every cell of a coarser map.
        threshold: cosine to a mode from which on a point belongs to it.
        max_groups: groups that a prediction can hold.
        min_size: pixels that a group needs; smaller ones go to the nearest group.
        max_components: 0 leaves every group whole. Otherwise each connected part of a
            group is an instance, up to so many: for many objects of one kind, which the
            embedding need part from their neighbours only.
        foreground_below: None parts each group by itself. Otherwise all pixels are
            parted together whose cosine to the background's mode is below this: for
            objects that ``erosion`` keeps apart, whatever groups they fall into. Needs
            ``max_components``. In an image of more than 2^18 pixels, padding included,
            the background is found from that many pixels on a grid.
    spatial_bandwidth: 0 parts them where they are not connected. Otherwise they are
        grouped first, in the joint domain of embedding and position, by a kernel of
        this standard deviation in pixels, see `sphemb.grouping.append_positions`:
        objects of about that radius are parted though they touch and their
        embeddings be alike. Needs ``foreground_below``.
    spatial_concentration: of the embeddings in that kernel.
        erosion: pixels at the border of each object that training counts as background,
            so that objects which touch have a gap between them.
        dilation: pixels by which the parts of a prediction grow back into such gaps.
            Needs ``max_components``.
        max_objects: objects of an image that the scores can count.
        pooled_concentrations: further ones at which a prediction groups, for more
            proposals.
        budgets: numbers of proposals at which recall is scored.
        max_iou: overlap of two proposals beyond which the later one is dropped.
    """

    margin: float = 0.5
    concentration: float = 36.0
    num_steps: int = 5
    num_samples: int = 512
    sample_ratio: float = 1.0
    step_weights: tuple[float, ...] | None = None
    weight_power: float = 1.0
    normalize: str = "pairs"
    negative_weight: float = 1.0
    predict_steps: int = 10
    predict_points: int = 8192
    predict_pixels: bool = False
    threshold: float = 0.7
    max_groups: int = 32
    min_size: int = 8
    max_components: int = 0
    foreground_below: float | None = None
    spatial_bandwidth: float = 0.0
    spatial_concentration: float = 3.0
    erosion: int = 0
    dilation: int = 0
    max_objects: int = 16
    pooled_concentrations: tuple[float, ...] = ()
    budgets: tuple[int, ...] = ()
    max_iou: float = 0.9
    metrics_on_host: ClassVar[bool] = False
    scoring_settings: ClassVar[frozenset[str]] = frozenset(
        {
            "predict_steps",
            "predict_points",
            "predict_pixels",
            "threshold",
            "max_groups",
            "min_size",
            "max_components",
            "foreground_below",
            "spatial_bandwidth",
            "spatial_concentration",
            "dilation",
            "max_objects",
            "pooled_concentrations",
            "budgets",
            "max_iou",
        }
    )

    def __post_init__(self):
        check_proposals(self)

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The instances."""
        return (LabelMap("instances"),)

    @property
    def num_labels(self) -> int:
        """How many labels a prediction can have, that of the background among them."""
        return self.max_components + 1 if self.max_components else self.max_groups

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

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> Maps:
        """Groups every pixel.

        Called outside of `jax.jit` with a compiled network, the grouping is compiled
        for a few numbers of points instead of every image size.

        Args:
            apply: the network.
            state: ``()``.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W], False where
                pixels are padding, and ``instances`` [B, H, W] where there is something
                to be scored.

        Returns:
            ``labels`` [B, H, W], groups by descending size of their points, `VOID`
            where masked; ``num_groups`` [B]; ``background`` [B], the group that is
            taken for it, the largest; ``embedding`` [B, H, W, D], unit vectors before
            the mean shift. With ``max_components``, the labels are 0 for the background
            and 1, 2, .. for the parts by size. With ``budgets`` and instances,
            ``proposals`` [B, K, H, W], such labels at every concentration.
            ``reached/max_groups`` and, where it is set, ``reached/max_components``,
            bool [B]: whether the limit has left something out, at any concentration.
        """
        size = batch["image"].shape[1:3]
        embedding = placed_map(maps_of(apply, batch), "embedding", batch)
        stride = size[0] // embedding.values.shape[1]
        pixels = unit_vectors_of_all(embedding, size)
        mask = batch.get("mask")
        if mask is None:
            mask = jnp.ones(pixels.shape[:3], bool)
        cell = 1 if stride == 1 or self.predict_pixels else stride**2
        surveyed = 1
        if self.foreground_below is not None:
            surveyed = self.survey_step(size[0] * size[1])
        if surveyed > 1:
            points, counts = (x[:, ::surveyed, ::surveyed] for x in (pixels, mask))
            cell = surveyed**2
        elif cell == 1:
            points, counts = pixels, mask
        else:
            points = unit_map(embedding.values)
            counts = cells_of_image(mask, points.shape[1:3])

        pooled = self.pooled_concentrations if self._pools(batch) else ()
        groupings = [
            group_cells(points, counts, self._grouping(concentration), cell=cell)
            for concentration in (self.concentration, *pooled)
        ]
        maps, few_groups, few_parts = [], [], []
        for concentration, grouping in zip(
            (self.concentration, *pooled), groupings, strict=True
        ):
            if self.foreground_below is not None:
                # Only the largest group is looked at.
                few_groups.append(largest_unsure(grouping))
                found, short = self._foreground(pixels, mask, grouping)
                few_parts.append(short)
            else:
                needed = self._grouping(concentration).points_needed(cell)
                few_groups.append(stopped_early(grouping, needed))
                if points is pixels:
                    found = grouping.labels.reshape(mask.shape)
                else:
                    found = nearest_modes(pixels, grouping)
            maps.append(jnp.where(mask, found, VOID))

        num_groups = groupings[0].num_groups
        background = jnp.zeros_like(num_groups)
        if self.max_components:
            for k, found in enumerate(maps):
                parts, number = split_components(
                    found,
                    background,
                    max_components=self.max_components,
                    min_size=self.min_size,
                    return_number=True,
                )
                maps[k] = dilate_instances(parts, self.dilation)
                few_parts.append(number > self.max_components)
            num_groups = 1 + jnp.max(maps[0], axis=(1, 2))
        predictions = {
            "labels": maps[0],
            "num_groups": num_groups,
            "background": background,
            "embedding": pixels,
            REACHED + "max_groups": jnp.stack(few_groups).any(axis=0),
        }
        if few_parts:
            predictions[REACHED + "max_components"] = jnp.stack(few_parts).any(axis=0)
        if self._pools(batch):
            predictions["proposals"] = jnp.stack(maps, axis=1)
        return predictions

    def unit_vectors(self, apply: Apply, batch: Batch) -> jax.Array:
        """The embedding of every pixel of a batch, [B, H, W, D]."""
        embedding = placed_map(maps_of(apply, batch), "embedding", batch)
        return unit_vectors_of_all(embedding, batch["image"].shape[1:3])

    def survey_step(self, pixels: float) -> int:
        """Rows and columns from one pixel that tells of the background to the next.

        The first is that of the image's corner.

        Args:
            pixels: how many there are to choose from, padding included.
        """
        if pixels <= _SURVEYED:
            return 1
        return math.ceil(math.sqrt(pixels / _SURVEYED))

    def find_ground(
        self, points: jax.Array, *, cell: int = 1
    ) -> tuple[jax.Array, jax.Array]:
        """The direction of an image's background: the mode of its largest group.

        Args:
            points: [N, D] unit vectors from all over the image.
            cell: pixels that each of them stands for.

        Returns:
            [D]; and bool, whether ``max_groups`` was reached before it was sure which
            group is the largest.
        """
        mask = jnp.ones((1, 1, len(points)), bool)
        settings = self._grouping(self.concentration)
        found = group_cells(points[None, None], mask, settings, cell=cell)
        return found.modes[0, 0], largest_unsure(found)[0]

    def is_foreground(self, apply: Apply, batch: Batch, ground: jax.Array) -> jax.Array:
        """What is no background; what a pixel is depends on no other pixel's group.

        Args:
            apply: the network.
            batch: ``image`` [B, H, W, 3], perhaps a tile of a larger one, and ``mask``
                [B, H, W].
            ground: [D], see `find_ground`.

        Returns:
            bool [B, H, W], where the cosine to it is below ``foreground_below``.
        """
        pixels = self.unit_vectors(apply, batch)
        return differs(
            pixels,
            batch["mask"],
            jnp.broadcast_to(ground, (len(pixels), len(ground))),
            self.foreground_below or 0.0,
        )

    def _pools(self, batch: Batch) -> bool:
        """Whether to group at the other concentrations, too."""
        return bool(self.budgets) and "instances" in batch

    def _grouping(self, concentration: float) -> GroupSettings:
        return GroupSettings(
            concentration=concentration,
            predict_steps=self.predict_steps,
            predict_points=self.predict_points,
            threshold=self.threshold,
            max_groups=self.max_groups,
            min_size=self.min_size,
        )

    def _foreground(
        self, pixels: jax.Array, mask: jax.Array, grouping: Grouping
    ) -> tuple[jax.Array, jax.Array]:
        """The foreground, grouped by position if asked for, and if parts are left out.

        Returns:
            int [B, H, W] and bool [B].
        """
        below = self.foreground_below or 0.0
        foreground = differs(pixels, mask, grouping.modes[:, 0], below)
        if not self.spatial_bandwidth:
            return foreground.astype(jnp.int32), jnp.zeros_like(mask[:, 0, 0])
        settings = self._grouping(self.spatial_concentration)
        settings = settings._replace(max_groups=self.max_components)
        return group_places(
            pixels, foreground, settings, spatial_bandwidth=self.spatial_bandwidth
        )

    def metrics(self, predictions: Maps, batch: Batch) -> dict[str, Any]:
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
