"""How groups are read off an embedding: mean shift, modes, connected components.

Shape letters: B images, H W image size, h w map size, N points, D dimension, K groups.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sphemb._checks import VOID, InputError
from sphemb._grid import cells_of_image
from sphemb.grouping import (
    Grouping,
    accelerated_gbms,
    append_positions,
    bucket_size,
    group_padded,
    label_modes,
)
from sphemb.instances import dilate_instances, split_components
from sphemb.tasks._pixels import PlacedMap, unit_map, unit_vectors_of_all
from sphemb.tasks._task import Batch, Groups, Settings, setting

_SURVEYED = 2**18  # points that the background is found from, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readoff(Settings):
    r"""Reads the groups of an image off its embedding, by mean shift.

    The cells of the embedding map are shifted to the modes of their density, one group
    for each mode. A pixel belongs to the group whose mode is nearest to its embedding,
    interpolated between the cells. The largest group is the background.

    A task inherits from it, so that these are settings of the task
    (``config.task.threshold``), or has another one in its attribute ``readoff``.

    Attributes:
        concentration: :math:`\kappa` of the kernel :math:`\exp(\kappa\cos\theta)`;
            raise it if objects merge, lower it if they fall apart.
        predict_steps: mean-shift steps, at most; raise it if groups stay apart that
            approach each other.
        predict_points: up to so many points, padding included, every point is compared
            with every other; lower it for speed, see `sphemb.accelerated_gbms`.
        predict_pixels: shift every pixel and not every cell of a coarser map; for
            objects of a few cells.
        threshold: cosine to a mode from which on a point belongs to it; lower it if
            objects are split in two.
        max_groups: groups of an image, at most; above the number of objects.
        min_size: pixels of a group, at least; raise it to remove specks, whose pixels
            go to the nearest group.
        max_components: 0, or the number of connected components of the groups that an
            image can hold, each of them an instance; for many objects of one kind.
        foreground_below: None, or the cosine to the background's mode below which a
            pixel is foreground, whose connected components are the instances whatever
            their groups; for objects that ``erosion`` separates. Needs
            ``max_components``.
        spatial_bandwidth: 0, or the standard deviation in pixels of a kernel that
            groups the foreground by embedding and position, see
            `sphemb.grouping.append_positions`; for touching objects of about that
            radius. Needs ``foreground_below``.
        spatial_concentration: :math:`\kappa` of the embeddings in that kernel.
        dilation: pixels by which components are dilated; as many as ``erosion``
            removed. Needs ``max_components``.
    """

    concentration: float = setting(36.0, above=0)
    predict_steps: int = setting(10, scoring=True, at_least=1)
    predict_points: int = setting(8192, scoring=True, at_least=8)
    predict_pixels: bool = setting(False, scoring=True)
    threshold: float = setting(0.7, scoring=True, above=-1, below=1)
    max_groups: int = setting(32, scoring=True, at_least=1)
    min_size: int = setting(8, scoring=True, at_least=1)
    max_components: int = setting(0, scoring=True, at_least=0)
    foreground_below: float | None = setting(None, scoring=True, above=-1, below=1)
    spatial_bandwidth: float = setting(0.0, scoring=True, at_least=0)
    spatial_concentration: float = setting(3.0, scoring=True, above=0)
    dilation: int = setting(0, scoring=True, at_least=0)

    def __post_init__(self):
        super().__post_init__()
        where = "config.task"
        needy = {"foreground_below": self.foreground_below}
        needy["dilation"] = self.dilation or None
        for name, value in needy.items():
            if value is not None and not self.max_components:
                raise InputError(
                    f"{where}.{name} {value} needs {where}.max_components, the number "
                    "of components that a prediction can hold"
                )
        if self.spatial_bandwidth and self.foreground_below is None:
            raise InputError(
                f"{where}.spatial_bandwidth {self.spatial_bandwidth} needs "
                f"{where}.foreground_below, which selects the pixels that are grouped"
            )

    @property
    def readoff(self) -> Readoff:
        """That of a task which inherits from it: the task itself."""
        return self

    @property
    def num_labels(self) -> int:
        """Labels that a prediction can have, that of the background among them."""
        return self.max_components + 1 if self.max_components else self.max_groups

    @property
    def by_foreground(self) -> bool:
        """Whether instances are the connected components of the foreground."""
        return self.foreground_below is not None and not self.spatial_bandwidth

    def read(
        self,
        embedding: PlacedMap,
        batch: Batch,
        *,
        pooled: Sequence[float] | None = None,
    ) -> Groups:
        """Groups every pixel.

        Called outside of `jax.jit`, the grouping is compiled for a few numbers of
        points instead of every image size.

        Args:
            embedding: [B, h, w, D] of any length.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W].
            pooled: further concentrations, whose label maps are ``proposals`` beside
                that of the first; None for no proposals.

        Returns:
            Groups, or components with ``max_components``, by descending size after the
            background 0. A limit is ``reached`` if it was at any concentration.
        """
        size = batch["image"].shape[1:3]
        stride = size[0] // embedding.values.shape[1]
        pixels = unit_vectors_of_all(embedding, size)
        mask = batch.get("mask", jnp.ones(pixels.shape[:3], bool))
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

        kernels = [self._with(concentration=kappa) for kappa in pooled or ()]
        groupings = [k.group(points, counts, cell=cell) for k in (self, *kernels)]
        maps, few_groups, few_components = [], [], []
        for grouping in groupings:
            if self.foreground_below is not None:
                # Only the largest group is used.
                few_groups.append(largest_unsure(grouping))
                found, short = self._foreground(pixels, mask, grouping)
                few_components.append(short)
            else:
                few_groups.append(grouping.num_left >= self._points_needed(cell))
                found = grouping.labels
                if points is not pixels:
                    found = nearest_modes(pixels, grouping)
            maps.append(jnp.where(mask, found.reshape(mask.shape), VOID))

        num_groups = groupings[0].num_groups
        background = jnp.zeros_like(num_groups)
        if self.max_components:
            limits: Any = {"max_components": self.max_components}
            limits |= {"min_size": self.min_size, "return_number": True}
            for k, found in enumerate(maps):
                components, number = split_components(found, background, **limits)
                maps[k] = dilate_instances(components, self.dilation)
                few_components.append(number > self.max_components)
            num_groups = 1 + jnp.max(maps[0], axis=(1, 2))
        reached = {"max_groups": jnp.stack(few_groups).any(axis=0)}
        if few_components:
            reached["max_components"] = jnp.stack(few_components).any(axis=0)
        proposals = None if pooled is None else jnp.stack(maps, axis=1)
        return Groups(maps[0], num_groups, pixels, reached, background, proposals)

    def group(self, points: jax.Array, mask: jax.Array, *, cell: int = 1) -> Grouping:
        """Shifts unit vectors [B, h, w, D] to their modes, one group for each mode.

        The grouping is of N = h w points, each of which stands for ``cell`` pixels.
        """
        batch, height, width, dim = points.shape

        def group(points: jax.Array, mask: jax.Array) -> Grouping:
            modes = accelerated_gbms(
                points,
                concentration=self.concentration,
                num_steps=self.predict_steps,
                mask=mask,
                max_points=bucket_size(self.predict_points),
            )
            return label_modes(
                modes,
                threshold=self.threshold,
                max_groups=self.max_groups,
                min_size=self._points_needed(cell),
                mask=mask,
            )

        flat = points.reshape(batch, height * width, dim)
        return group_padded(group, flat, mask=mask.reshape(batch, height * width))

    def survey_step(self, pixels: float) -> int:
        """Rows and columns between the pixels that the background is found from.

        They are counted from the corner of an image of so many pixels with padding.
        """
        return max(1, math.ceil(math.sqrt(pixels / _SURVEYED)))

    def find_background(
        self, points: jax.Array, *, cell: int = 1
    ) -> tuple[jax.Array, jax.Array]:
        """The direction [D] of an image's background: the mode of its largest group.

        Also whether ``max_groups`` was reached before that group was certain. The
        points, [N, D] from all over the image, stand for ``cell`` pixels each.
        """
        mask = jnp.ones((1, 1, len(points)), bool)
        found = self.group(points[None, None], mask, cell=cell)
        return found.modes[0, 0], largest_unsure(found)[0]

    def is_foreground(
        self, pixels: jax.Array, mask: jax.Array, background: jax.Array
    ) -> jax.Array:
        """Where pixels [B, H, W, D] differ from the background's direction [B, D]."""
        return _differs(pixels, mask, background, self.foreground_below or 0.0)

    def _with(self, **settings: Any) -> Readoff:
        """The settings of this read-off with others in their place."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Readoff)}
        return Readoff(**(own | settings))

    def _points_needed(self, cell: int) -> int:
        """Points of a group, at least, if each stands for so many pixels."""
        return max(1, round(self.min_size / cell))

    def _foreground(
        self, pixels: jax.Array, mask: jax.Array, grouping: Grouping
    ) -> tuple[jax.Array, jax.Array]:
        """The groups of the foreground [B, H, W], and whether some are left out."""
        foreground = self.is_foreground(pixels, mask, grouping.modes[:, 0])
        if not self.spatial_bandwidth:
            return foreground.astype(jnp.int32), jnp.zeros_like(mask[:, 0, 0])
        batch, height, width, _ = pixels.shape
        rows, columns = jnp.mgrid[:height, :width]
        positions = jnp.stack([rows, columns], axis=-1).astype(jnp.float32)
        joint = append_positions(
            pixels.reshape(batch, height * width, -1),
            jnp.broadcast_to(positions.reshape(-1, 2), (batch, height * width, 2)),
            concentration=self.spatial_concentration,
            spatial_bandwidth=self.spatial_bandwidth,
        )
        # A mode takes the points within a standard deviation, whatever the threshold.
        kernel = self._with(
            concentration=joint.concentration,
            threshold=1.0 - 0.5 / joint.concentration,
            max_groups=self.max_components,
        )
        found = kernel.group(joint.points.reshape(*foreground.shape, -1), foreground)
        labels = jnp.where(foreground, found.labels.reshape(foreground.shape) + 1, 0)
        return labels, found.num_left >= self._points_needed(1)


def largest_unsure(grouping: Grouping) -> jax.Array:
    """Where a group that was not found may be larger than all others; bool [...]."""
    return grouping.num_left > grouping.sizes[..., 0]


def nearest_modes(pixels: jax.Array, grouping: Grouping) -> jax.Array:
    """The group whose mode is nearest to each pixel."""
    cosine = jnp.einsum(
        "bhwd,bkd->bhwk", pixels, grouping.modes, precision=jax.lax.Precision.HIGHEST
    )
    number = grouping.num_groups[:, None, None]
    found = jnp.arange(grouping.modes.shape[1]) < number[..., None]
    nearest = jnp.argmax(jnp.where(found, cosine, -jnp.inf), axis=-1)
    return jnp.where(number > 0, nearest.astype(jnp.int32), VOID)


@jax.jit
def _differs(
    pixels: jax.Array, mask: jax.Array, background: jax.Array, below: float
) -> jax.Array:
    """Where the cosine of valid pixels to the background is below a limit."""
    cosine = jnp.einsum(
        "bhwd,bd->bhw", pixels, background, precision=jax.lax.Precision.HIGHEST
    )
    return mask & (cosine < below)
