"""How groups are read off an embedding: mean shift, modes, connected components.

Shape letters: B images, H W image size, h w map size, N points, D dimension, K groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sphemb._checks import VOID
from sphemb._grid import cells_of_image
from sphemb.grouping import (
    Grouping,
    accelerated_gbms,
    bucket_size,
    group_padded,
    label_modes,
)
from sphemb.instances import split_components
from sphemb.tasks._pixels import PlacedMap, unit_map, unit_vectors_of_all
from sphemb.tasks._task import Batch, Groups, Settings, setting


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
            image can hold, each of them an instance; for objects of one kind that do
            not touch.
    """

    concentration: float = setting(36.0, above=0)
    predict_steps: int = setting(10, scoring=True, at_least=1)
    predict_points: int = setting(8192, scoring=True, at_least=8)
    predict_pixels: bool = setting(False, scoring=True)
    threshold: float = setting(0.7, scoring=True, above=-1, below=1)
    max_groups: int = setting(32, scoring=True, at_least=1)
    min_size: int = setting(8, scoring=True, at_least=1)
    max_components: int = setting(0, scoring=True, at_least=0)

    @property
    def readoff(self) -> Readoff | None:
        """That of a task which inherits from it: the task itself."""
        return self

    @property
    def num_labels(self) -> int:
        """Labels that a prediction can have, that of the background among them."""
        return self.max_components + 1 if self.max_components else self.max_groups

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
        if cell == 1:
            points, counts = pixels, mask
        else:
            points = unit_map(embedding.values)
            counts = cells_of_image(mask, points.shape[1:3])

        kernels = [self._with(concentration=kappa) for kappa in pooled or ()]
        groupings = [k.group(points, counts, cell=cell) for k in (self, *kernels)]
        left_out = [g.num_left >= self._points_needed(cell) for g in groupings]
        reached = {"max_groups": jnp.stack(left_out).any(axis=0)}
        maps = []
        for grouping in groupings:
            found = grouping.labels
            if points is not pixels:
                found = nearest_modes(pixels, grouping)
            maps.append(jnp.where(mask, found.reshape(mask.shape), VOID))

        num_groups = groupings[0].num_groups
        background = jnp.zeros_like(num_groups)
        if self.max_components:
            limits: Any = {"max_components": self.max_components}
            limits |= {"min_size": self.min_size, "return_number": True}
            split = [split_components(found, background, **limits) for found in maps]
            maps = [components for components, _ in split]
            left_out = [number > self.max_components for _, number in split]
            reached["max_components"] = jnp.stack(left_out).any(axis=0)
            num_groups = 1 + jnp.max(maps[0], axis=(1, 2))
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

    def _with(self, **settings: Any) -> Readoff:
        """The settings of this read-off with others in their place."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Readoff)}
        return Readoff(**(own | settings))

    def _points_needed(self, cell: int) -> int:
        """Points of a group, at least, if each stands for so many pixels."""
        return max(1, round(self.min_size / cell))


def nearest_modes(pixels: jax.Array, grouping: Grouping) -> jax.Array:
    """The group whose mode is nearest to each pixel."""
    cosine = jnp.einsum(
        "bhwd,bkd->bhwk", pixels, grouping.modes, precision=jax.lax.Precision.HIGHEST
    )
    number = grouping.num_groups[:, None, None]
    found = jnp.arange(grouping.modes.shape[1]) < number[..., None]
    nearest = jnp.argmax(jnp.where(found, cosine, -jnp.inf), axis=-1)
    return jnp.where(number > 0, nearest.astype(jnp.int32), VOID)
