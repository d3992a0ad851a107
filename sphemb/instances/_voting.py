"""Classes of proposals, voted by their pixels: N pixels, G groups, C classes."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import check_count, check_floating, check_integer, check_shape


class Votes(NamedTuple):
    """What the pixels of every group say it is.

    Attributes:
        classes: [..., G] int32, 1..C-1, the class other than the background that has
            the largest mean probability; 0 for an empty group.
        probability: [..., G], that mean.
        background: [..., G], the mean probability of the background.
    """

    classes: jax.Array
    probability: jax.Array
    background: jax.Array


def vote_classes(
    labels: jax.Array, probabilities: jax.Array, *, max_groups: int
) -> Votes:
    r"""Lets the pixels of every group vote for its class.

    .. math:: \bar p_{gc} = \frac{1}{|R_g|} \sum_{i \in R_g} p_{ic}, \qquad
              c_g = \arg\max_{c > 0} \bar p_{gc}

    Args:
        labels: int [..., N], groups 0..G-1; the others vote for nothing.
        probabilities: p, [..., N, C], that of class 0, the background, first.
        max_groups: G; static.

    Returns:
        The `Votes`.

    Raises:
        InputError: shapes that do not go together, labels that are no integers, a
            single class.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4: "a simple voting strategy".

    >>> votes = vote_classes(
    ...     jnp.array([0, 0, 1]),
    ...     jnp.array([[0.0, 0.9, 0.1], [0.0, 0.3, 0.7], [0.4, 0.0, 0.6]]),
    ...     max_groups=2,
    ... )
    >>> votes.classes.tolist()
    [1, 2]
    """
    check_integer("labels", labels)
    check_floating("probabilities", probabilities)
    dims = check_shape("labels", labels, "... N")
    wanted = check_shape("probabilities", probabilities, "... N C")
    check_shape(
        "probabilities",
        probabilities,
        "... N C",
        dims=dims | {"C": wanted["C"]},
        beside="labels",
    )
    check_count("the number of classes", wanted["C"], at_least=2)
    check_count("max_groups", max_groups, at_least=1)
    labels, probabilities = jnp.asarray(labels), jnp.asarray(probabilities)
    batch, number = labels.shape[:-1], labels.shape[-1]

    def sums(labels: jax.Array, values: jax.Array) -> jax.Array:
        inside = (labels >= 0) & (labels < max_groups)
        place = jnp.where(inside, labels, max_groups)
        total = jnp.zeros((max_groups, values.shape[-1]), values.dtype)
        return total.at[place].add(values, mode="drop")

    ones = jnp.ones_like(probabilities[..., :1])
    values = jnp.concatenate([probabilities, ones], axis=-1)
    flat = values.reshape(math.prod(batch), number, -1)
    totals = jax.vmap(sums)(labels.reshape(math.prod(batch), number), flat)
    totals = totals.reshape(*batch, max_groups, -1)
    sizes = totals[..., -1]
    means = totals[..., :-1] / jnp.maximum(sizes, 1.0)[..., None]
    chosen = 1 + jnp.argmax(means[..., 1:], axis=-1).astype(jnp.int32)
    there = sizes > 0
    return Votes(
        classes=jnp.where(there, chosen, 0),
        probability=jnp.where(there, jnp.max(means[..., 1:], axis=-1), 0.0),
        background=means[..., 0],
    )
