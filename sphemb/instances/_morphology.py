"""The shape of a proposal in numbers: H W image size, G groups, F features."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from sphemb._checks import check_count, check_integer, check_shape
from sphemb.instances._components import connected_components
from sphemb.instances._voting import Votes

PROPOSAL_FEATURES = (
    "size",
    "connectedness",
    "fill",
    "aspect",
    "height",
    "border",
    "probability",
    "agreement",
    "class_iou",
)
"""The columns of :func:`proposal_features`."""


def proposal_features(
    labels: jax.Array,
    classes: jax.Array,
    votes: Votes,
    *,
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""Describes the shape of every group, and how it goes with a map of classes.

    ======================= ===========================================================
    ``size``                :math:`\sqrt{|R_g| / HW}`
    ``connectedness``       the share of the largest connected part
    ``fill``                the share of its bounding box
    ``aspect``              shorter side of the box over the longer one
    ``height``              of the box, as a share of the image's
    ``border``              1 if the box ends at the image's border
    ``probability``         of the class that was voted for, less the background's
    ``agreement``           the share of its pixels that have this class in the map
    ``class_iou``           IoU with all that has this class in the map
    ======================= ===========================================================

    All are 0 for an empty group.

    Args:
        labels: int [..., H, W], groups 0..G-1; the others belong to none.
        classes: int [..., H, W], the class of every pixel.
        votes: of the groups, [..., G].
        mask: bool [..., H, W], False where pixels are padding; the image is the box
            around the others.

    Returns:
        float32 [..., G, F], F = 9, in the order of `PROPOSAL_FEATURES`.

    Raises:
        InputError: shapes that do not go together, labels that are no integers.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4: "its morphology (e.g., size,
        connectedness) and the consistency w.r.t. the semantic segmentation
        prediction".

    >>> labels = jnp.array([[0, 0, 1, 1], [0, 0, 1, -1]])
    >>> votes = Votes(jnp.array([2, 3]), jnp.array([0.9, 0.5]), jnp.zeros(2))
    >>> features = proposal_features(labels, jnp.full((2, 4), 2), votes)
    >>> features[:, 2].tolist(), features[:, 7].tolist()
    ([1.0, 0.75], [1.0, 0.0])
    """
    check_integer("labels", labels)
    check_integer("classes", classes)
    dims = check_shape("labels", labels, "... H W")
    check_shape("classes", classes, "... H W", dims=dims, beside="labels")
    groups = check_shape("votes.classes", votes.classes, "... G")["G"]
    check_count("the number of groups", groups, at_least=1)
    labels, classes = jnp.asarray(labels), jnp.asarray(classes)
    if mask is None:
        mask = jnp.ones(labels.shape, bool)
    batch, size = labels.shape[:-2], labels.shape[-2:]
    flat = (math.prod(batch), *size)
    labels = jnp.where(mask & (labels < groups), labels, -1)
    features = jax.vmap(_describe, in_axes=(0, 0, 0, 0, 0, None))(
        labels.reshape(flat),
        connected_components(labels).reshape(flat),
        classes.reshape(flat),
        jnp.broadcast_to(mask, labels.shape).reshape(flat),
        jax.tree.map(lambda x: jnp.asarray(x).reshape(flat[0], groups), votes),
        groups,
    )
    return features.reshape(*batch, groups, len(PROPOSAL_FEATURES))


def _describe(labels, parts, classes, mask, votes: Votes, groups: int) -> jax.Array:
    """The features [G, F] of the groups of one image [H, W]."""
    height, width = labels.shape
    place = jnp.where(labels >= 0, labels, groups).reshape(-1)

    def count(where: jax.Array) -> jax.Array:
        ones = where.reshape(-1).astype(jnp.float32)
        return jnp.zeros(groups).at[place].add(ones, mode="drop")

    sizes = count(labels >= 0)
    rows, columns = (
        jnp.broadcast_to(x, labels.shape).reshape(-1)
        for x in (jnp.arange(height)[:, None], jnp.arange(width))
    )

    def extent(values: jax.Array, last: int) -> tuple[jax.Array, jax.Array]:
        first = jnp.full(groups, last).at[place].min(values, mode="drop")
        return first, jnp.zeros(groups, int).at[place].max(values, mode="drop")

    top, bottom = extent(rows, height)
    left, right = extent(columns, width)
    high, wide = bottom - top + 1, right - left + 1
    # The image without its padding, which lies below and to the right of it.
    tall = jnp.max(jnp.where(mask.any(axis=1), jnp.arange(height) + 1, 0))
    broad = jnp.max(jnp.where(mask.any(axis=0), jnp.arange(width) + 1, 0))
    at_border = (top == 0) | (left == 0) | (bottom == tall - 1) | (right == broad - 1)

    part = jnp.where(parts >= 0, parts, labels.size).reshape(-1)
    part_sizes = jnp.zeros(labels.size).at[part].add(1.0, mode="drop")
    own_part = part_sizes.at[part].get(mode="fill", fill_value=0.0)
    largest = jnp.zeros(groups).at[place].max(own_part, mode="drop")

    voted = jnp.append(votes.classes, -1)[place].reshape(labels.shape)
    agreeing = count((classes == voted) & (labels >= 0))
    of_class = jax.vmap(lambda c: jnp.sum((classes == c) & mask))(votes.classes)
    features = [
        jnp.sqrt(sizes / jnp.maximum(tall * broad, 1)),
        largest / jnp.maximum(sizes, 1.0),
        sizes / jnp.maximum(high * wide, 1),
        jnp.minimum(high, wide) / jnp.maximum(jnp.maximum(high, wide), 1),
        high / jnp.maximum(tall, 1),
        at_border.astype(jnp.float32),
        votes.probability - votes.background,
        agreeing / jnp.maximum(sizes, 1.0),
        agreeing / jnp.maximum(sizes + of_class - agreeing, 1.0),
    ]
    table = jnp.stack([f.astype(jnp.float32) for f in features], axis=-1)
    return jnp.where(sizes[:, None] > 0, table, 0.0)
