"""Label maps [..., H, W], stacks of masks [..., Q, H, W] and group ids."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sphemb._checks import (
    check_boolean,
    check_count,
    check_integer,
    check_shape,
)
from sphemb._labels import VOID


def labels_to_masks(labels: jax.Array, *, num_instances: int) -> jax.Array:
    """Cuts a label map into one mask per instance.

    Args:
        labels: int [..., H, W]; -1 void, 0 background, 1.. instances.
        num_instances: Q, the number of masks; static. Labels above it have none.

    Returns:
        bool [..., Q, H, W]; mask q - 1 holds the pixels labelled q.

    Raises:
        InputError: labels that are no integers or no images, a negative size.

    >>> labels_to_masks(jnp.array([[0, 2]]), num_instances=2).tolist()
    [[[False, False]], [[False, True]]]
    """
    check_integer("labels", labels)
    check_shape("labels", labels, "... H W")
    check_count("num_instances", num_instances)
    ids = jnp.arange(1, num_instances + 1)[:, None, None]
    return jnp.asarray(labels)[..., None, :, :] == ids


def masks_to_labels(masks: jax.Array) -> jax.Array:
    """Pastes masks into one label map; where they overlap, the later one wins.

    Args:
        masks: bool [..., Q, H, W].

    Returns:
        int32 [..., H, W]; 0 where no mask is set, q where mask q - 1 is the last one.

    Raises:
        InputError: masks that are not bool or have fewer than three axes.

    >>> masks_to_labels(jnp.array([[[True, True]], [[False, True]]])).tolist()
    [[1, 2]]
    """
    check_boolean("masks", masks)
    dims = check_shape("masks", masks, "... Q H W")
    ids = jnp.arange(1, dims["Q"] + 1, dtype=jnp.int32)[:, None, None]
    return jnp.max(jnp.where(jnp.asarray(masks), ids, 0), axis=-3, initial=0)


def relabel(labels: jax.Array, background: jax.Array | int) -> jax.Array:
    """Turns group ids 0..G-1 into instance ids with 0 for the background.

    The background's group becomes 0 and the others 1..G-1 in the order of their ids,
    without gaps where the ids had none. Negative labels become void.

    Args:
        labels: int [..., H, W] or [..., N] group ids.
        background: int, the group that is the background, for each of the leading axes
            of ``labels`` that it has; -1 where no group is, and then ids run 1..G.

    Returns:
        int32 of the shape of ``labels``.

    Raises:
        InputError: labels or background that are no integers, or a background whose
            axes are not the leading axes of the labels.

    >>> relabel(jnp.array([0, 1, 2, -1]), 1).tolist()
    [1, 0, 2, -1]
    """
    check_integer("labels", labels)
    check_integer("background", background)
    labels, background = jnp.asarray(labels), jnp.asarray(background)
    leading = background.shape
    check_shape(
        "background",
        background,
        "...",
        dims={"...": labels.shape[: len(leading)]},
        beside="labels",
        hint="one group id per image",
    )
    background = background.reshape(leading + (1,) * (labels.ndim - len(leading)))
    shifted = labels + ((labels < background) | (background < 0))
    instances = jnp.where(labels == background, 0, shifted)
    return jnp.where(labels < 0, VOID, instances).astype(jnp.int32)
