"""Recall of objects by groups, of one label map and of pooled proposals.

B images, K maps of N pixels and G groups, Q objects, M budgets, S = 3 classes of size.
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
from sphemb.metrics._metric import (
    LEVEL_UNIT,
    LEVELS,
    Metric,
    flatten_images,
    flatten_pair,
    images_pairs,
    ratio,
    refuse_lost,
    valid_images,
)

_SIZES = ("small", "medium", "large")


class AverageRecall(Metric):
    r"""How well the best group covers each true object, over a whole data set.

    .. math:: J^*_q = \max_p \frac{|\hat R_p \cap R_q|}{|\hat R_p \cup R_q|}

    is taken over all groups of the image, without one-to-one matching; void pixels are
    removed from both masks. The recall at a level is the share of objects with
    :math:`J^*_q` at or above it; average recall is the mean over levels.

    References:
        Kong and Fowlkes (2018), Table 1 and Fig. 8; Hosang et al. (2016) for the
        average recall that is twice the mean excess over .5.

    >>> truth = jnp.array([[0, 0, 1, 1, 1, 1]])
    >>> predicted = jnp.array([[0, 0, 0, 1, 1, 1]])
    >>> scores = AverageRecall.from_batch(
    ...     predicted, truth, max_predicted=2, max_true=3
    ... ).compute()
    >>> scores["mean_best_iou"], scores["recall@0.5"], scores["average_recall"]
    (0.75, 1.0, 0.6)
    """

    sum_best_iou: jax.Array  # of J* over objects
    sum_excess: jax.Array  # of max(J* - .5, 0)
    hits: jax.Array  # int [11], objects that reach .5, .55, ..., 1
    num_objects: jax.Array
    lost_true: jax.Array  # pixels of objects numbered above max_true
    lost_predicted: jax.Array  # pixels of groups from max_predicted on

    @classmethod
    def from_batch(
        cls,
        predicted: jax.Array,
        truth: jax.Array,
        *,
        max_predicted: int,
        max_true: int,
        valid: jax.Array | None = None,
    ) -> Self:
        """Scores label maps, int [B, H, W] or [B, N].

        ``predicted`` has groups 0..max_predicted-1, each a candidate, the background's
        too; ``truth`` has -1 for void, 0 for the background and 1..max_true.
        """
        check_count("max_predicted", max_predicted, at_least=1)
        check_count("max_true", max_true, at_least=1)
        predicted, truth, valid = flatten_pair(predicted, truth, valid)
        inside = valid[:, None] & (truth >= 0)
        best_iou, best_level, object_size = _best_overlaps(
            predicted[:, None],
            truth,
            inside,
            jnp.ones((1, 1, max_predicted), bool),
            {"num_predicted": max_predicted, "num_true": max_true + 1},
        )
        best_iou, is_object = best_iou[:, 0], object_size > 0
        levels = jnp.asarray(LEVELS, best_level.dtype)[None, None]
        reached = is_object[..., None] & (best_level[:, 0, :, None] >= levels)
        lost = inside & (predicted >= max_predicted)
        return cls(
            sum_best_iou=jnp.sum(best_iou),
            sum_excess=jnp.sum(jnp.maximum(best_iou - 0.5, 0.0)),
            hits=jnp.sum(reached, axis=(0, 1), dtype=jnp.int32),
            num_objects=jnp.sum(is_object, dtype=jnp.int32),
            lost_true=jnp.sum(inside & (truth > max_true), dtype=jnp.int32),
            lost_predicted=jnp.sum(lost, dtype=jnp.int32),
        )

    def compute(self) -> dict[str, float]:
        """The scores, each the mean over all objects; NaN without objects.

        Returns:
            ``mean_best_iou``: the mean of J*;
            ``recall@0.5``: the share of objects with J* >= .5;
            ``average_recall``: the mean recall at the ten levels .5:.05:.95 (COCO);
            ``average_recall_mcg``: at the eleven levels .5:.05:1 (MCG);
            ``average_recall_hosang``: 2 mean(max(J* - .5, 0)), the integral over all
            levels (Hosang et al.);
            ``num_objects``.
        """
        refuse_lost(max_true=self.lost_true, max_predicted=self.lost_predicted)
        scores = _recall_scores(
            self.sum_best_iou, self.sum_excess, self.hits, self.num_objects
        )
        return scores | {"num_objects": float(self.num_objects)}


class ProposalRecall(Metric):
    r"""How well the first n proposals cover the true objects, for several n.

    .. math:: J^*_q(n) = \max_{p\,:\ \text{rank}_p < n}
              \frac{|\hat R_p \cap R_q|}{|\hat R_p \cup R_q|}

    as in :class:`AverageRecall`, which is the case of one map and all its groups.

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

    sum_best_iou: jax.Array  # [M, S], the sum of J* over objects
    sum_excess: jax.Array  # [M, S], the sum of max(J* - .5, 0)
    hits: jax.Array  # int [M, S, 11], objects that reach .5, .55, ..., 1
    num_objects: jax.Array  # int [S]
    num_proposals: jax.Array  # int [M], proposals used, over all images
    num_images: jax.Array  # int
    lost_true: jax.Array  # pixels of objects numbered above max_true
    lost_predicted: jax.Array  # pixels, over all maps, of groups not in the pool
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

        ``label_maps`` int [B, K, H, W] or [B, K, N] have the truth's resolution; the
        proposals may be of the same maps in another one. ``truth`` is that of
        :class:`AverageRecall`. ``budgets`` are rising numbers of proposals, ``areas``
        the pixels from which on objects are medium and large.
        """
        check_count("max_true", max_true, at_least=1)
        _check_rising("budgets", budgets)
        _check_rising("areas", areas)
        if len(areas) != 2:
            raise InputError(f"areas must be two numbers of pixels, got {areas}")
        check_integer("label_maps", label_maps)
        truth = flatten_images("truth", truth)
        sizes = {"B": truth.shape[0], "N": truth.shape[1]}
        label_maps = jnp.asarray(label_maps)
        label_maps = label_maps.reshape(*label_maps.shape[:2], -1)
        hint = "the second axis counts maps"
        num_maps = check_shape(
            "label_maps", label_maps, "B K N", dims=sizes, beside="truth", hint=hint
        )["K"]
        num_candidates = check_shape(
            "proposals.rank", proposals.rank, "B C", dims=sizes, beside="truth"
        )["C"]
        num_groups = num_candidates // max(num_maps, 1)
        if num_groups * num_maps != num_candidates:
            raise InputError(
                f"proposals must be of the {num_maps} maps of label_maps, got "
                f"{num_candidates} candidates"
            )
        valid = valid_images(valid, len(truth), "truth")
        inside = valid[:, None] & (truth >= 0)
        # The pool orders candidates by size, a table by map and group.
        group = proposals.source * num_groups + proposals.group
        order = jnp.argsort(group, axis=-1)
        rank = jnp.take_along_axis(proposals.rank, order, axis=-1)
        within = rank[:, None] < jnp.asarray(budgets)[None, :, None]  # [B, M, K G]
        sizes = {"num_predicted": num_groups, "num_true": max_true + 1}
        best_iou, best_level, object_size = _best_overlaps(
            label_maps, truth, inside, within, sizes
        )
        limits = jnp.asarray(areas)[None, None]
        size = jnp.sum(object_size[..., None] >= limits, axis=-1)
        of_size = size[..., None] == jnp.arange(len(_SIZES))[None, None]
        of_size &= (object_size > 0)[..., None]  # [B, Q, S]

        def total(x: jax.Array) -> jax.Array:
            """Sums [B, M, Q] over images and objects, to [M, S]."""
            return jnp.sum(jnp.where(of_size[:, None], x[..., None], 0), axis=(0, 2))

        hits = [total((best_level >= level).astype(jnp.int32)) for level in LEVELS]
        used = within & valid[:, None, None]
        lost = inside[:, None] & (label_maps >= num_groups)
        return cls(
            sum_best_iou=total(best_iou),
            sum_excess=total(jnp.maximum(best_iou - 0.5, 0.0)),
            hits=jnp.stack(hits, axis=-1),
            num_objects=jnp.sum(of_size, axis=(0, 1), dtype=jnp.int32),
            num_proposals=jnp.sum(used, axis=(0, 2), dtype=jnp.int32),
            num_images=jnp.sum(valid, dtype=jnp.int32),
            lost_true=jnp.sum(inside & (truth > max_true), dtype=jnp.int32),
            lost_predicted=jnp.sum(lost, dtype=jnp.int32),
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
        """
        refuse_lost(max_true=self.lost_true, max_groups=self.lost_predicted)
        objects, images = np.asarray(self.num_objects), int(self.num_images)
        scores = {"num_objects": float(objects.sum())}
        scores |= {f"num_objects/{s}": float(objects[i]) for i, s in enumerate(_SIZES)}
        sums = [np.asarray(x) for x in (self.sum_best_iou, self.sum_excess, self.hits)]
        for m, budget in enumerate(self.budgets):
            iou, excess, hits = (x[m] for x in sums)
            every = _recall_scores(iou.sum(), excess.sum(), hits.sum(0), objects.sum())
            scores |= {f"{name}@{budget}": value for name, value in every.items()}
            for i, size in enumerate(_SIZES):
                part = _recall_scores(iou[i], excess[i], hits[i], objects[i])
                for name in ("recall@0.5", "average_recall"):
                    scores[f"{name}@{budget}/{size}"] = part[name]
            proposals = np.asarray(self.num_proposals)[m]
            scores[f"num_proposals@{budget}"] = ratio(proposals, images)
        return scores


def _best_overlaps(
    label_maps: Any, truth: Any, inside: Any, within: Any, sizes: dict[str, int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best IoU of every object with the groups of each budget, [B, M, Q]."""
    batch, num_maps, _ = label_maps.shape
    num_groups, columns = sizes["num_predicted"], sizes["num_true"]
    cells = batch * num_maps * (num_groups + 1) * (columns + 1) * within.shape[1]
    if not table_fits(cells, label_maps, inside, within):
        return _best_overlaps_of_pairs(label_maps, truth, inside, within, sizes)
    table = overlap_table(
        label_maps,
        jnp.broadcast_to(truth[:, None], label_maps.shape),
        **sizes,
        mask=jnp.broadcast_to(inside[:, None], label_maps.shape),
    )
    object_size = table[:, 0].sum(axis=1)[:, 1:columns]
    table = table[:, :, :num_groups].reshape(batch, num_maps * num_groups, -1)
    both = table[..., 1:columns]
    either = table.sum(axis=2)[..., None] + object_size[:, None] - both
    either = jnp.maximum(either, 1)

    def best(x: jax.Array) -> jax.Array:
        x = jnp.where(within[..., None], x[:, None], 0)
        return jnp.max(x, axis=2, initial=0)

    return best(both / either), best(LEVEL_UNIT * both // either), object_size


def _best_overlaps_of_pairs(
    label_maps: Any, truth: Any, inside: Any, within: Any, sizes: dict[str, int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same on the host, where a table of all pairs is too large."""
    num_groups, columns = sizes["num_predicted"], sizes["num_true"]
    batch, num_maps, _ = label_maps.shape
    chosen = np.broadcast_to(within, (batch, *within.shape[1:]))
    best_iou = np.zeros((*chosen.shape[:2], columns), np.float32)
    best_level = np.zeros(best_iou.shape, np.int32)
    object_size = np.zeros((batch, columns), np.int32)
    for k in range(num_maps):
        images = images_pairs(label_maps[:, k], truth, inside, **sizes)
        for b, pairs in enumerate(images):
            object_size[b] = pairs.column_sizes[:columns]
            pairs = pairs.within(slice(num_groups), slice(1, columns))
            unions = np.maximum(pairs.unions, 1)
            iou = pairs.counts.astype(np.float32) / unions.astype(np.float32)
            level = LEVEL_UNIT * pairs.counts // unions
            for m, allowed in enumerate(chosen[b]):
                kept = allowed[k * num_groups + pairs.rows]
                objects = pairs.columns[kept]
                np.maximum.at(best_iou[b, m], objects, iou[kept])
                np.maximum.at(best_level[b, m], objects, level[kept])
    arrays = (best_iou[..., 1:], best_level[..., 1:], object_size[:, 1:])
    return jax.tree.map(jnp.asarray, arrays)


def _recall_scores(
    sum_best_iou: Any, sum_excess: Any, hits: Any, num_objects: Any
) -> dict[str, float]:
    """Means over objects, from the sums over J*; NaN without objects."""
    hits, objects = np.asarray(hits), int(num_objects)
    return {
        "mean_best_iou": ratio(sum_best_iou, objects),
        "recall@0.5": ratio(hits[0], objects),
        "average_recall": ratio(hits[:10].sum(), 10 * objects),
        "average_recall_mcg": ratio(hits.sum(), 11 * objects),
        "average_recall_hosang": ratio(2.0 * sum_excess, objects),
    }


def _check_rising(name: str, values: Any) -> None:
    if not isinstance(values, tuple) or not values:
        raise InputError(f"{name} must be a tuple of numbers, got {values!r}")
    for value in values:
        check_count(f"each of {name}", value, at_least=1)
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise InputError(f"{name} must rise, got {values}")
