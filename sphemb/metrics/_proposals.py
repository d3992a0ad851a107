"""Recall against the number of proposals: B images, K maps of N pixels and G groups.

C = K G candidates, M budgets, Q objects, S = 3 classes of size.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError, check_count, check_integer, check_shape
from sphemb.instances import ProposalPool, overlap_table, table_fits
from sphemb.metrics._overlaps import (
    LEVELS,
    images_pairs,
    overlaps,
    pair_overlaps,
    recall_scores,
    refuse_lost,
)
from sphemb.metrics._sums import Sums, flatten_images, ratio, valid_images

_SIZES = ("small", "medium", "large")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ProposalRecall(Sums):
    r"""How well the first n proposals cover the true objects, for several n.

    .. math:: J^*_q(n) = \max_{p\,:\ \text{rank}_p < n}
              \frac{|\hat R_p \cap R_q|}{|\hat R_p \cup R_q|}

    Matching is not one-to-one, and void pixels are removed from both masks, as in
    :class:`AverageRecall`; that one is the case of one map and all its groups.

    Attributes:
        sum_best_iou: [M, S], the sum of J* over objects.
        sum_excess: [M, S], the sum of max(J* - .5, 0).
        hits: int [M, S, 11], the objects that reach each of the levels .5, .55, ..., 1.
        num_objects: int [S].
        num_proposals: int [M], proposals used, over all images.
        num_images: int.
        lost_true: the number of pixels of objects numbered above ``max_true``.
        lost_predicted: the number of pixels, over all maps, of groups that the pool
            has no candidate for.
        budgets: the M numbers of proposals.
        areas: the two sizes in pixels at which objects become medium and large.

    References:
        Kong and Fowlkes (2018), Table 1 and Fig. 8; Hosang et al. (2016); Lin et al.
        (2014) for the classes of size.

    >>> from sphemb.instances import pool_proposals
    >>> maps = jnp.array([[[0, 0, 1, 1, 1, 1]]])
    >>> truth = jnp.array([[0, 0, 0, 0, 1, 1]])
    >>> scores = ProposalRecall.from_batch(
    ...     maps, pool_proposals(maps, max_groups=2), truth, max_true=1, budgets=(1, 2)
    ... ).compute()
    >>> scores["recall@0.5@1"], scores["average_recall@1"], scores["num_proposals@2"]
    (1.0, 0.1, 2.0)
    """

    sum_best_iou: jax.Array
    sum_excess: jax.Array
    hits: jax.Array
    num_objects: jax.Array
    num_proposals: jax.Array
    num_images: jax.Array
    lost_true: jax.Array
    lost_predicted: jax.Array
    budgets: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    areas: tuple[int, int] = dataclasses.field(metadata={"static": True})

    @classmethod
    def from_batch(
        cls,
        label_maps: jax.Array,
        proposals: ProposalPool,
        truth: jax.Array,
        *,
        max_true: int,
        budgets: tuple[int, ...] = (1, 2, 5, 10, 20, 30, 60, 100),
        areas: tuple[int, int] = (32**2, 96**2),
        valid: jax.Array | None = None,
    ) -> Self:
        """Scores a batch of pooled proposals.

        Args:
            label_maps: int [B, K, H, W] or [B, K, N] group ids, in any resolution that
                the truth has too.
            proposals: of these maps, or of the same maps in another resolution.
            truth: int [B, H, W] or [B, N]; -1 void, 0 background, 1..max_true objects.
            max_true: Q, the largest object number; static.
            budgets: rising numbers of proposals to look at; static.
            areas: pixels of the truth from which on objects are medium and large.
            valid: bool [B], False for images that only fill up the batch.

        Returns:
            The metric of this batch.

        Raises:
            InputError: shapes that do not go together, labels that are no integers,
                budgets or areas that do not rise.
        """
        check_count("max_true", max_true, at_least=1)
        _check_rising("budgets", budgets)
        _check_rising("areas", areas)
        if len(areas) != 2:
            raise InputError(f"areas must be two numbers of pixels, got {areas}")
        check_integer("label_maps", label_maps)
        truth = flatten_images("truth", truth)
        batch, num_points = truth.shape
        label_maps = jnp.asarray(label_maps)
        label_maps = label_maps.reshape(*label_maps.shape[:2], -1)
        num_maps = check_shape(
            "label_maps",
            label_maps,
            "B K N",
            dims={"B": batch, "N": num_points},
            beside="truth",
            hint="the second axis counts maps",
        )["K"]
        num_candidates = check_shape(
            "proposals.rank",
            proposals.rank,
            "B C",
            dims={"B": batch},
            beside="truth",
        )["C"]
        num_groups = num_candidates // max(num_maps, 1)
        if num_groups * num_maps != num_candidates:
            raise InputError(
                f"proposals must be of the {num_maps} maps of label_maps, got "
                f"{num_candidates} candidates"
            )
        valid = valid_images(valid, batch, "truth")
        counts = valid[:, None] & (truth >= 0)

        sizes = {"num_predicted": num_groups, "num_true": max_true + 1}
        most = jnp.asarray(budgets)[None, :, None]
        within = proposals.rank[:, None] < most  # [B, M, C]
        # Of every budget, each candidate is compared with each object.
        cells = batch * (num_candidates + num_maps) * (max_true + 2) * len(budgets)
        best = _best_of_tables
        if not table_fits(cells, label_maps, counts, proposals.rank):
            best = _best_of_pairs
        best_iou, best_level, object_size = best(
            label_maps, truth, counts, proposals, within, sizes
        )

        size = jnp.sum(
            object_size[..., None] >= jnp.asarray(areas)[None, None], axis=-1
        )
        is_object = object_size > 0
        every_size = jnp.arange(len(_SIZES))[None, None]
        sized = is_object[..., None] & (size[..., None] == every_size)
        excess = jnp.maximum(best_iou - 0.5, 0.0)

        def total(x: jax.Array) -> jax.Array:
            """Sums [B, M, Q] over images and objects, to [M, S]."""
            return jnp.sum(jnp.where(sized[:, None], x[..., None], 0), axis=(0, 2))

        return cls(
            sum_best_iou=total(best_iou),
            sum_excess=total(excess),
            hits=jnp.stack(
                [total((best_level >= level).astype(jnp.int32)) for level in LEVELS],
                axis=-1,
            ),
            num_objects=jnp.sum(sized, axis=(0, 1), dtype=jnp.int32),
            num_proposals=jnp.sum(
                within & valid[:, None, None], axis=(0, 2), dtype=jnp.int32
            ),
            num_images=jnp.sum(valid, dtype=jnp.int32),
            lost_true=jnp.sum(counts & (truth > max_true), dtype=jnp.int32),
            lost_predicted=jnp.sum(
                counts[:, None] & (label_maps >= num_groups), dtype=jnp.int32
            ),
            budgets=tuple(budgets),
            areas=tuple(areas),
        )

    def compute(self) -> dict[str, float]:
        """The scores at every budget n, each the mean over objects; NaN without any.

        Returns:
            The names of :meth:`AverageRecall.compute` with ``@n`` after them, such as
            ``average_recall@10``; ``recall@0.5@n`` and ``average_recall@n`` also with
            ``/small``, ``/medium`` and ``/large`` after that; ``num_proposals@n``, the
            mean number per image, which is below n where an image has fewer;
            ``num_objects``, also by size.

        Raises:
            InputError: a label above ``max_true`` was met, or a group that the pool
                does not know.
        """
        refuse_lost(max_true=self.lost_true, max_groups=self.lost_predicted)
        objects, images = np.asarray(self.num_objects), int(self.num_images)
        scores = {"num_objects": float(objects.sum())}
        scores |= {f"num_objects/{s}": float(objects[i]) for i, s in enumerate(_SIZES)}
        for m, budget in enumerate(self.budgets):
            iou, excess, hits = (
                np.asarray(x)[m]
                for x in (self.sum_best_iou, self.sum_excess, self.hits)
            )
            every = recall_scores(iou.sum(), excess.sum(), hits.sum(0), objects.sum())
            scores |= {f"{name}@{budget}": value for name, value in every.items()}
            for i, size in enumerate(_SIZES):
                part = recall_scores(iou[i], excess[i], hits[i], objects[i])
                for name in ("recall@0.5", "average_recall"):
                    scores[f"{name}@{budget}/{size}"] = part[name]
            proposals = np.asarray(self.num_proposals)[m]
            scores[f"num_proposals@{budget}"] = ratio(proposals, images)
        return scores


def _best_of_tables(
    label_maps: jax.Array,
    truth: jax.Array,
    counts: jax.Array,
    proposals: ProposalPool,
    within: jax.Array,
    sizes: dict[str, int],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Best IoU and level [B, M, Q] of every object, and its size [B, Q]."""
    num_groups, max_true = sizes["num_predicted"], sizes["num_true"] - 1
    table = overlap_table(
        label_maps,
        jnp.broadcast_to(truth[:, None], label_maps.shape),
        **sizes,
        mask=jnp.broadcast_to(counts[:, None], label_maps.shape),
    )
    rows = table[:, :, :num_groups].reshape(*proposals.rank.shape, max_true + 2)
    place = proposals.source * num_groups + proposals.group
    rows = jnp.take_along_axis(rows, place[..., None], axis=1)
    object_size = table[:, 0].sum(axis=1)[:, 1 : max_true + 1]
    found = overlaps(
        rows[..., 1 : max_true + 1],
        rows.sum(axis=2)[..., None],
        object_size[:, None],
    )
    best_iou, best_level = (
        jnp.max(jnp.where(within[..., None], x[:, None], 0), axis=2, initial=0)
        for x in found
    )
    return best_iou, best_level, object_size


def _best_of_pairs(
    label_maps: jax.Array,
    truth: jax.Array,
    counts: jax.Array,
    proposals: ProposalPool,
    within: jax.Array,
    sizes: dict[str, int],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same on the host, where a table of all pairs would be too large."""
    num_groups, columns = sizes["num_predicted"], sizes["num_true"]
    num_maps = label_maps.shape[1]
    chosen = np.asarray(within)
    best_iou = np.zeros((*chosen.shape[:2], columns), np.float32)
    best_level = np.zeros(best_iou.shape, np.int32)
    object_size = np.zeros((len(chosen), columns), np.int32)
    place = np.asarray(proposals.source) * num_groups + np.asarray(proposals.group)
    for k in range(num_maps):
        maps = images_pairs(label_maps[:, k], truth, counts, **sizes)
        for b, pairs in enumerate(maps):
            if k == 0:
                object_size[b] = pairs.column_sizes[:columns]
            of_objects = pairs.within(slice(num_groups), slice(1, columns))
            candidate = np.empty(num_maps * num_groups, np.int64)
            candidate[place[b]] = np.arange(len(candidate))
            which = candidate[k * num_groups + of_objects.rows]
            found = pair_overlaps(of_objects)
            for m, allowed in enumerate(chosen[b]):
                kept = allowed[which]
                at = of_objects.columns[kept]
                np.maximum.at(best_iou[b, m], at, found.iou[kept])
                np.maximum.at(best_level[b, m], at, found.twentieths[kept])
    arrays = (best_iou[..., 1:], best_level[..., 1:], object_size[:, 1:])
    return jax.tree.map(jnp.asarray, arrays)


def _check_rising(name: str, values: Any) -> None:
    if not isinstance(values, tuple) or not values:
        raise InputError(f"{name} must be a tuple of numbers, got {values!r}")
    for value in values:
        check_count(f"each of {name}", value, at_least=1)
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise InputError(f"{name} must rise, got {values}")
