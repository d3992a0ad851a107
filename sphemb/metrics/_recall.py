"""Recall of objects by groups: B images, N pixels, P groups, Q objects."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import check_count, check_shape
from sphemb.instances import overlap_table, table_fits
from sphemb.metrics._overlaps import (
    LEVELS,
    images_pairs,
    overlaps,
    pair_overlaps,
    recall_scores,
    refuse_lost,
)
from sphemb.metrics._sums import Sums, flatten_images, valid_images


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AverageRecall(Sums):
    r"""How well the best group covers each true object, over a whole data set.

    .. math:: J^*_q = \max_p \frac{|\hat R_p \cap R_q|}{|\hat R_p \cup R_q|}

    is taken over all groups of the image, without one-to-one matching, and void pixels
    are removed from both masks. The recall at a level is the share of objects with
    :math:`J^*_q` at or above it; average recall is the mean over levels.

    Attributes:
        sum_best_iou: the sum of J* over objects.
        sum_excess: the sum of max(J* - .5, 0).
        hits: int [11], the objects that reach each of the levels .5, .55, ..., 1.
        num_objects: the number of true objects.
        lost_true: the number of pixels of objects numbered above ``max_true``.
        lost_predicted: the number of pixels of groups numbered ``max_predicted`` and
            above.

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

    sum_best_iou: jax.Array
    sum_excess: jax.Array
    hits: jax.Array
    num_objects: jax.Array
    lost_true: jax.Array
    lost_predicted: jax.Array

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
        """Scores a batch of label maps.

        Args:
            predicted: int [B, H, W] or [B, N] group ids in 0..max_predicted-1; every
                one is a candidate, the background's group too. Negative: no group.
            truth: int, the same shape; -1 void, 0 background, 1..max_true objects.
            max_predicted: the largest number of groups an image may have; static.
            max_true: the largest object number; static.
            valid: bool [B], False for images that only fill up the batch.

        Returns:
            The metric of this batch. Images of up to 10^8 pixels count exactly.

        Raises:
            InputError: shapes that differ, labels that are no integers.
        """
        check_count("max_predicted", max_predicted, at_least=1)
        check_count("max_true", max_true, at_least=1)
        dims = check_shape("predicted", predicted, "... N")
        check_shape("truth", truth, "... N", dims=dims, beside="predicted")
        predicted = flatten_images("predicted", predicted)
        truth = flatten_images("truth", truth)
        counts = valid_images(valid, truth.shape[0], "predicted")[:, None] & (
            truth >= 0
        )
        lost = jnp.sum(counts & (predicted >= max_predicted), dtype=jnp.int32)
        sizes = {"num_predicted": max_predicted, "num_true": max_true + 1}
        cells = len(truth) * (max_predicted + 1) * (max_true + 2)
        if not table_fits(cells, predicted, counts):
            return cls._of_pairs(predicted, truth, counts, lost, sizes)

        table = overlap_table(predicted, truth, **sizes, mask=counts)
        both = table[:, :max_predicted, 1 : max_true + 1]
        group_size = table.sum(axis=2)[:, :max_predicted, None]
        object_size = table.sum(axis=1)[:, None, 1 : max_true + 1]
        found = overlaps(both, group_size, object_size)
        is_object = object_size[:, 0] > 0
        best_iou = jnp.where(is_object, jnp.max(found.iou, axis=1), 0.0)
        best_level = jnp.max(found.twentieths, axis=1)
        levels = jnp.asarray(LEVELS, best_level.dtype)[None, None]
        reached = is_object[..., None] & (best_level[..., None] >= levels)
        return cls(
            sum_best_iou=jnp.sum(best_iou),
            sum_excess=jnp.sum(jnp.maximum(best_iou - 0.5, 0.0)),
            hits=jnp.sum(reached, axis=(0, 1), dtype=jnp.int32),
            num_objects=jnp.sum(is_object, dtype=jnp.int32),
            lost_true=jnp.sum(table[:, :, -1], dtype=jnp.int32),
            lost_predicted=lost,
        )

    @classmethod
    def _of_pairs(
        cls,
        predicted: jax.Array,
        truth: jax.Array,
        counts: jax.Array,
        lost: jax.Array,
        sizes: dict[str, int],
    ) -> Self:
        """The same on the host, where a table of all pairs would be too large."""
        total = np.zeros(2)
        hits = np.zeros(len(LEVELS), np.int64)
        objects = lost_true = 0
        num_groups, num_true = sizes["num_predicted"], sizes["num_true"]
        for pairs in images_pairs(predicted, truth, counts, **sizes):
            of_objects = pairs.within(slice(num_groups), slice(1, num_true))
            found = pair_overlaps(of_objects)
            best_iou = np.zeros(num_true, np.float32)
            best_level = np.zeros(num_true, np.int64)
            np.maximum.at(best_iou, of_objects.columns, found.iou)
            np.maximum.at(best_level, of_objects.columns, found.twentieths)
            is_object = pairs.column_sizes[1:num_true] > 0
            best_iou, best_level = best_iou[1:][is_object], best_level[1:][is_object]
            total += best_iou.sum(dtype=float), np.maximum(best_iou - 0.5, 0).sum()
            hits += (best_level[:, None] >= LEVELS).sum(axis=0)
            objects += len(best_iou)
            lost_true += pairs.column_sizes[num_true]
        return cls(
            sum_best_iou=jnp.float32(total[0]),
            sum_excess=jnp.float32(total[1]),
            hits=jnp.asarray(hits, jnp.int32),
            num_objects=jnp.int32(objects),
            lost_true=jnp.int32(lost_true),
            lost_predicted=lost,
        )

    def compute(self) -> dict[str, float]:
        """The scores, each the mean over all objects; NaN where there is none.

        Returns:
            ``mean_best_iou``: the mean of J*;
            ``recall@0.5``: the share of objects with J* >= .5;
            ``average_recall``: the mean recall at the ten levels .5:.05:.95 (COCO);
            ``average_recall_mcg``: at the eleven levels .5:.05:1 (MCG);
            ``average_recall_hosang``: 2 mean(max(J* - .5, 0)), the integral over all
            levels (Hosang et al.);
            ``num_objects``.

        Raises:
            InputError: a label above ``max_true`` or ``max_predicted`` was met, so that
                the scores would be of other objects than those asked for.
        """
        refuse_lost(max_true=self.lost_true, max_predicted=self.lost_predicted)
        scores = recall_scores(
            self.sum_best_iou, self.sum_excess, self.hits, self.num_objects
        )
        return scores | {"num_objects": float(self.num_objects)}
