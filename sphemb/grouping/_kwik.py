"""KwikCluster: a partition from pairwise similarities, one random pivot after another.

Letters: N points, D dimensions, K the largest number of clusters, R orders; leading
axes are batch axes.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from sphemb._checks import check_choice, check_count, check_key, check_scalar
from sphemb.grouping._leaders import lead
from sphemb.grouping._modes import Grouping, countable_points, number_groups
from sphemb.grouping._rounding import Rounding, best_of, lots


def kwik_cluster(
    key: jax.Array,
    embeddings: jax.Array,
    *,
    max_groups: int,
    threshold: jax.Array | float = 0.5,
    num_orders: int = 1,
    min_size: int = 1,
    unassigned: Literal["nearest", "void"] = "void",
    mask: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
) -> Rounding:
    r"""Rounds embeddings to a partition: a random pivot takes all that is like it.

    The points are gone through in random order. The first free one is a pivot, and it
    and the free points of :math:`v_i^\top v_p > \tau` are a cluster, until no point is
    free or ``max_groups`` are found. With :math:`\tau = 1/2` the partition has, on
    average over the orders, at most three times as many wrong pairs against
    :math:`1_{[v_i^\top v_j > 1/2]}` as the best one (docs/spectral.md has what follows
    of it). A single order may be far worse: ``num_orders`` tries several and keeps the
    one whose affinity is nearest to the embeddings' products; ``errors`` has all.

    Static shapes; O(N D K) time for each order, one after another. No gradient.

    Args:
        key: a random key, typed or legacy. In the r-th order of a single image, the
            i-th point that is not masked comes by its number
            ``uniform(fold_in(split(key, num_orders)[r], i))`` (of `jax.random`), the
            smallest first, so that masked points change no order; images of a batch
            get their own.
        embeddings: [..., N, D] unit rows; rows with NaN or infinity are taken for
            masked.
        max_groups: K, static: the most clusters to look for; ``num_left`` of the
            result tells whether it was enough.
        threshold: tau in (-1, 1).
        num_orders: R, static.
        min_size: clusters of fewer points are dissolved; 1 for the algorithm as it is.
        unassigned: points of dissolved clusters and those left over stay VOID
            (``"void"``), or go to the nearest pivot that is left (``"nearest"``).
        mask: [..., N] bool, True = counts; the other points get VOID.
        precision: of the matmuls.

    Returns:
        A :class:`Rounding` whose modes are the pivots; clusters are numbered by falling
        size, among equals the one first found first.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Ailon, Charikar & Newman, "Aggregating inconsistent information: ranking and
        clustering", JACM 2008; Barnes & Dubrawski, "Deep spectral clustering for object
        instance segmentation", ICLR 2018 workshop, section 2.3.

    >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.96, 0.28]])
    >>> found = kwik_cluster(jax.random.key(0), x, max_groups=4)
    >>> found.labels.tolist(), found.sizes.tolist(), int(found.num_groups)
    ([1, 0, 0], [2, 1, 0, 0], 2)
    """
    x, counts = countable_points(embeddings, mask)
    check_count("max_groups", max_groups, at_least=1)
    check_scalar("threshold", threshold, above=-1.0, below=1.0, hint="it is a cosine")
    check_count("num_orders", num_orders, at_least=1)
    check_count("min_size", min_size, at_least=1)
    check_choice("unassigned", unassigned, ("nearest", "void"))
    return _clusters(
        check_key("key", key),
        x,
        counts,
        jnp.asarray(threshold, x.dtype),
        max_groups=int(max_groups),
        num_orders=int(num_orders),
        min_size=int(min_size),
        unassigned=unassigned,
        precision=precision,
    )


@functools.partial(
    jax.jit,
    static_argnames=("max_groups", "num_orders", "min_size", "unassigned", "precision"),
)
def _clusters(
    key: jax.Array,
    x: jax.Array,
    counts: jax.Array,
    threshold: jax.Array,
    *,
    max_groups: int,
    num_orders: int,
    min_size: int,
    unassigned: str,
    precision: jax.lax.PrecisionLike,
) -> Rounding:
    def one_order(key: jax.Array, x: jax.Array, counts: jax.Array) -> Grouping:
        order = jnp.argsort(lots(key, counts), stable=True)
        found = lead(
            x[order],
            counts[order],
            threshold,
            max_groups,
            precision,
            None,
            recentre=False,
        )
        labels = jnp.zeros_like(found.labels)
        labels = labels.at[order].set(found.labels, unique_indices=True)
        return number_groups(
            found._replace(labels=labels),
            x,
            counts,
            min_size=min_size,
            unassigned=unassigned,
            precision=precision,
        )

    return best_of(
        one_order,
        key,
        x,
        counts,
        number=num_orders,
        max_groups=max_groups,
        precision=precision,
    )
