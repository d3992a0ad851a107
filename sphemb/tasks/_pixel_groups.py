"""The groups of an image's pixels, from the groups of the cells of its embedding map.

Shape letters: B images, H W image size, h w map size, N cells, D dimension, K groups.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._labels import VOID
from sphemb.grouping import (
    Grouping,
    accelerated_gbms,
    append_positions,
    bucket_size,
    group_padded,
    label_modes,
)


class GroupSettings(NamedTuple):
    """How points are grouped; see `Proposals` for what the numbers mean."""

    concentration: float
    predict_steps: int
    predict_points: int
    threshold: float
    max_groups: int
    min_size: int

    def points_needed(self, cell: int) -> int:
        """Points of a group, at least, where each stands for so many pixels."""
        return max(1, round(self.min_size / cell))


def group_cells(
    points: jax.Array, mask: jax.Array, settings: GroupSettings, *, cell: int = 1
) -> Grouping:
    """Shifts unit vectors together and reads the groups off.

    Args:
        points: [B, h, w, D].
        mask: bool [B, h, w].
        settings: of the grouping; ``min_size`` is in pixels.
        cell: pixels that each point stands for.

    Returns:
        The grouping of the N = h w points.
    """
    batch, (height, width) = points.shape[0], mask.shape[1:]

    def group(points: jax.Array, mask: jax.Array) -> Grouping:
        modes = accelerated_gbms(
            points,
            concentration=settings.concentration,
            num_steps=settings.predict_steps,
            mask=mask,
            max_points=bucket_size(settings.predict_points),
        )
        return label_modes(
            modes,
            threshold=settings.threshold,
            max_groups=settings.max_groups,
            min_size=settings.points_needed(cell),
            mask=mask,
        )

    return group_padded(
        group,
        points.reshape(batch, height * width, points.shape[-1]),
        mask=mask.reshape(batch, height * width),
    )


def stopped_early(grouping: Grouping, num_points: int) -> jax.Array:
    """Where the limit of a grouping left as many points as a group needs; bool [B].

    Args:
        grouping: of points.
        num_points: that a group needs.
    """
    return grouping.num_left >= num_points


def largest_unsure(grouping: Grouping) -> jax.Array:
    """Where a group that was not looked for may be larger than all found; bool [...].

    Args:
        grouping: whose limit may have been reached.
    """
    return grouping.num_left > grouping.sizes[..., 0]


def nearest_modes(pixels: jax.Array, grouping: Grouping) -> jax.Array:
    """The group whose mode is nearest to each pixel.

    Args:
        pixels: [B, H, W, D] unit vectors.
        grouping: of K groups at most.

    Returns:
        int32 [B, H, W], `VOID` where there is no group.
    """
    cosine = jnp.einsum(
        "bhwd,bkd->bhwk", pixels, grouping.modes, precision=jax.lax.Precision.HIGHEST
    )
    numbers = jnp.arange(grouping.modes.shape[1])
    there = numbers < grouping.num_groups[:, None]
    nearest = jnp.argmax(
        jnp.where(there[:, None, None], cosine, -jnp.inf), axis=-1
    ).astype(jnp.int32)
    return jnp.where(grouping.num_groups[:, None, None] > 0, nearest, VOID)


@jax.jit
def differs(
    pixels: jax.Array, mask: jax.Array, ground: jax.Array, below: float
) -> jax.Array:
    """Where pixels are no background.

    Args:
        pixels: [B, H, W, D] unit vectors.
        mask: bool [B, H, W].
        ground: [B, D], the background's direction.
        below: the cosine to it that they have less than.

    Returns:
        bool [B, H, W], False where masked.
    """
    cosine = jnp.einsum(
        "bhwd,bd->bhw", pixels, ground, precision=jax.lax.Precision.HIGHEST
    )
    return mask & (cosine < below)


def group_places(
    pixels: jax.Array,
    foreground: jax.Array,
    settings: GroupSettings,
    *,
    spatial_bandwidth: float,
) -> tuple[jax.Array, jax.Array]:
    """Groups the foreground in the joint domain of embedding and place.

    Args:
        pixels: [B, H, W, D] unit vectors.
        foreground: bool [B, H, W], what is grouped.
        settings: of the grouping, with the embeddings' concentration; a mode takes
            what is within a standard deviation, whatever the threshold.
        spatial_bandwidth: standard deviation of the kernel in pixels.

    Returns:
        int32 [B, H, W], 1, 2, .. for the groups and 0 elsewhere; bool [B], where
        ``max_groups`` was reached.

    References:
        See `sphemb.grouping.append_positions`.
    """
    batch, height, width, _ = pixels.shape
    rows, columns = jnp.mgrid[:height, :width]
    places = jnp.stack([rows, columns], axis=-1).astype(jnp.float32)
    joint = append_positions(
        pixels.reshape(batch, height * width, -1),
        jnp.broadcast_to(places.reshape(-1, 2), (batch, height * width, 2)),
        concentration=settings.concentration,
        spatial_bandwidth=spatial_bandwidth,
    )
    parts = group_cells(
        joint.points.reshape(*foreground.shape, -1),
        foreground,
        settings._replace(
            concentration=joint.concentration,
            threshold=1.0 - 0.5 / joint.concentration,
        ),
    )
    labels = jnp.where(foreground, parts.labels.reshape(foreground.shape) + 1, 0)
    return labels, stopped_early(parts, settings.points_needed(1))
