"""Precision of instances that are matched one to one: B images, P found, Q true."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import check_count, check_shape
from sphemb.instances import overlap_table, table_fits
from sphemb.metrics._overlaps import LEVEL_UNIT, LEVELS, images_pairs, refuse_lost
from sphemb.metrics._sums import Sums, flatten_images, ratio, valid_images

_STRICT_LEVELS = LEVELS[:10]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MatchedPrecision(Sums):
    r"""The share of instances, found or true, that have a partner; a mean over images.

    .. math:: \frac{TP}{TP + FP + FN}

    is what the 2018 Data Science Bowl and the literature on nuclei after it call
    average precision at an IoU level (AP50 at .5). It needs no scores of the instances
    and is not COCO's or VOC's average precision. A pair counts where its IoU is
    *above* the level; the masks of a label map are disjoint, so that above .5 no
    instance can have two partners and the matching is one to one by itself.

    Attributes:
        sum_precision: [10], the sum over images, at the levels .5, .55, ..., .95.
        num_images: the number of images.
        lost_true: the number of pixels of objects numbered above ``max_true``.
        lost_predicted: the number of pixels of instances above ``max_predicted``.

    References:
        Caicedo et al. (2019), "Nucleus segmentation across imaging experiments: the
        2018 Data Science Bowl".

    >>> truth = jnp.array([[1, 1, 1, 2, 2, 0, 0]])
    >>> predicted = jnp.array([[1, 1, 1, 0, 2, 2, 3]])
    >>> scores = MatchedPrecision.from_batch(
    ...     predicted, truth, max_predicted=3, max_true=2
    ... ).compute()
    >>> scores["matched_precision@0.5"]
    0.25
    """

    sum_precision: jax.Array
    num_images: jax.Array
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
            predicted: int [B, H, W] or [B, N]; 1..max_predicted instances, 0
                background (not one of the candidates here), negative: none.
            truth: int, the same shape; -1 void, 0 background, 1..max_true objects.
                Void pixels are removed from both.
            max_predicted: the largest number of an instance; static.
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
        valid = valid_images(valid, truth.shape[0], "predicted")
        counts = valid[:, None] & (truth >= 0)
        sizes = {"num_predicted": max_predicted + 1, "num_true": max_true + 1}
        cells = len(truth) * (max_predicted + 2) * (max_true + 2)
        if table_fits(cells, predicted, counts):
            number, matched, lost_true = cls._of_table(predicted, truth, counts, sizes)
        else:
            number, matched, lost_true = cls._of_pairs(predicted, truth, counts, sizes)
        share = matched / jnp.maximum(number[:, None] - matched, 1)
        # Nothing was there and nothing was found: a perfect image.
        share = jnp.where(number[:, None] == 0, 1.0, share)
        return cls(
            sum_precision=jnp.sum(jnp.where(valid[:, None], share, 0.0), axis=0),
            num_images=jnp.sum(valid, dtype=jnp.int32),
            lost_true=lost_true,
            lost_predicted=jnp.sum(
                counts & (predicted > max_predicted), dtype=jnp.int32
            ),
        )

    @staticmethod
    def _of_table(
        predicted: jax.Array, truth: jax.Array, counts: jax.Array, sizes: dict[str, int]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Instances [B], found or true, and matches [B, 10]; pixels of lost objects."""
        max_predicted, max_true = (size - 1 for size in sizes.values())
        table = overlap_table(predicted, truth, **sizes, mask=counts)
        both = table[:, 1 : max_predicted + 1, 1 : max_true + 1]
        found = table.sum(axis=2)[:, 1 : max_predicted + 1]
        true = table.sum(axis=1)[:, 1 : max_true + 1]
        either = found[..., None] + true[:, None] - both
        number = jnp.sum(found > 0, axis=1) + jnp.sum(true > 0, axis=1)  # [B]
        matched = jnp.stack(
            [
                jnp.sum(LEVEL_UNIT * both > level * either, axis=(1, 2))
                for level in _STRICT_LEVELS
            ],
            axis=-1,
        )
        return number, matched, jnp.sum(table[:, :, -1], dtype=jnp.int32)

    @staticmethod
    def _of_pairs(
        predicted: jax.Array, truth: jax.Array, counts: jax.Array, sizes: dict[str, int]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The same on the host, where a table of all pairs would be too large."""
        numbers, matches, lost = [], [], 0
        found, true = (slice(1, size) for size in sizes.values())
        for pairs in images_pairs(predicted, truth, counts, **sizes):
            numbers.append(
                np.sum(pairs.row_sizes[found] > 0)
                + np.sum(pairs.column_sizes[true] > 0)
            )
            of_objects = pairs.within(found, true)
            twentieths = LEVEL_UNIT * of_objects.counts[:, None]
            above = twentieths > _STRICT_LEVELS * of_objects.unions[:, None]
            matches.append(above.sum(axis=0))
            lost += int(pairs.column_sizes[true.stop])
        matched = np.array(matches).reshape(-1, len(_STRICT_LEVELS))
        return (
            jnp.asarray(np.array(numbers), jnp.int32),
            jnp.asarray(matched, jnp.int32),
            jnp.int32(lost),
        )

    def compute(self) -> dict[str, float]:
        """The scores, each a mean over images; NaN where there is none.

        Returns:
            ``matched_precision@0.5`` and ``matched_precision@0.75``;
            ``matched_precision``: the mean over the ten levels .5:.05:.95. An image
            without objects in which nothing was found counts 1.

        Raises:
            InputError: a label above ``max_true`` or ``max_predicted`` was met.
        """
        refuse_lost(max_true=self.lost_true, max_predicted=self.lost_predicted)
        sums, images = np.asarray(self.sum_precision), int(self.num_images)
        return {
            "matched_precision@0.5": ratio(sums[0], images),
            "matched_precision@0.75": ratio(sums[5], images),
            "matched_precision": ratio(sums.sum(), len(sums) * images),
        }
