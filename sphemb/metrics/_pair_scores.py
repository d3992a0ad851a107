"""Scores of a partition by pairs of pixels, and counts of instances and limits."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import (
    InputError,
    check_boolean,
    check_count,
    check_integer,
    check_shape,
)
from sphemb.instances import overlap_table, table_fits
from sphemb.metrics._metric import (
    Metric,
    flatten_images,
    flatten_pair,
    images_pairs,
    ratio,
    refuse_lost,
    valid_images,
)

# Numbers of pairs are held in two int32, one of them in units of 2^20: JAX has no int64
# by default, and an image of 2^20 pixels has 2^40 pairs.
_BITS = 20
_UNIT = 1 << _BITS
_HALF = _BITS // 2
_NAMES = ("pair_accuracy", "pair_precision", "pair_recall", "adjusted_rand_index")


class PairScores(Metric):
    r"""How well a partition of the pixels agrees with another, by its pairs of pixels.

    A pair is positive if the truth puts its pixels together. With the contingency table
    :math:`n_{pq}` and its sums over rows and columns, there are, of ordered pairs of
    different pixels,

    .. math:: TP = \sum_{pq} n_{pq}^2 - n, \quad FP = \sum_p n_p^2 - \sum_{pq} n_{pq}^2,
              \quad FN = \sum_q n_q^2 - \sum_{pq} n_{pq}^2

    and TN the rest of n (n - 1). The names of groups and segments do not matter and
    nothing is matched; large segments weigh most, the background among them.

    References:
        Barnes & Dubrawski, "Deep spectral clustering for object instance segmentation",
        ICLR 2018 workshop, Table 1; Hubert & Arabie, "Comparing partitions", Journal of
        Classification 1985, for the adjusted Rand index.

    >>> truth = jnp.array([[0, 0, 1, 1, 1, -1]])
    >>> predicted = jnp.array([[3, 3, 3, 2, 2, 2]])
    >>> scores = PairScores.from_batch(
    ...     predicted, truth, max_predicted=4, max_true=1
    ... ).compute()
    >>> scores["pair_accuracy"], scores["pair_precision"], scores["pair_recall"]
    (0.6, 0.5, 0.5)
    """

    # int32 [2, 4], true positive, false positive, false negative and true negative
    # pairs of all images, in units of 2^20 and the remainder.
    counts: jax.Array
    # [4], the sums over images of each image's accuracy, precision, recall and adjusted
    # Rand index.
    sum_scores: jax.Array
    num_scores: jax.Array  # int [4], the images that have one
    lost_true: jax.Array  # pixels of segments numbered above max_true
    lost_predicted: jax.Array  # pixels of groups from max_predicted on
    prefix: str = dataclasses.field(default="", metadata={"static": True})

    @classmethod
    def from_batch(
        cls,
        predicted: jax.Array,
        truth: jax.Array,
        *,
        max_predicted: int,
        max_true: int,
        valid: jax.Array | None = None,
        prefix: str = "",
    ) -> Self:
        """Scores label maps, int [B, H, W] or [B, N].

        ``predicted`` has the groups 0..max_predicted-1, and every pixel with a negative
        label is a group of its own; ``truth`` has the segments 0..max_true, and -1 for
        void, which is in no pair. ``prefix`` is that of the scores' names. Exact for
        images of up to 2^20 pixels and batches of up to 2047 of them.
        """
        check_count("max_predicted", max_predicted, at_least=1)
        check_count("max_true", max_true, at_least=0)
        predicted, truth, valid = flatten_pair(predicted, truth, valid)
        if truth.shape[1] > _UNIT:
            raise InputError(
                f"truth must have at most {_UNIT:,} pixels an image, whose pairs can "
                f"be counted, got {truth.shape[1]:,}"
            )
        inside = valid[:, None] & (truth >= 0)
        sizes = {"num_predicted": max_predicted, "num_true": max_true + 1}
        cells = len(truth) * (max_predicted + 1) * (max_true + 2)
        count = _count_pairs if table_fits(cells, predicted, inside) else _count_on_host
        pairs = count(predicted, truth, inside, sizes)
        number = pairs.astype(jnp.float32)
        scores = jnp.stack(_scores(number[:, 0] * float(_UNIT) + number[:, 1]), axis=-1)
        defined = ~jnp.isnan(scores)
        lost = inside & (predicted >= max_predicted)
        return cls(
            counts=jnp.sum(pairs, axis=0, dtype=jnp.int32),
            sum_scores=jnp.sum(jnp.where(defined, scores, 0.0), axis=0),
            num_scores=jnp.sum(defined, axis=0, dtype=jnp.int32),
            lost_true=jnp.sum(inside & (truth > max_true), dtype=jnp.int32),
            lost_predicted=jnp.sum(lost, dtype=jnp.int32),
            prefix=prefix,
        )

    @property
    def pairs(self) -> np.ndarray:
        """The ordered pairs of all images, int64 [[TN, FP], [FN, TP]]."""
        high, low = np.asarray(self.counts, np.int64)
        positive, wrong, missed, negative = (high << _BITS) + low
        return np.array([[negative, wrong], [missed, positive]])

    def compute(self) -> dict[str, float]:
        """The scores; NaN where undefined.

        Returns:
            ``pair_accuracy``, ``pair_precision``, ``pair_recall``,
            ``adjusted_rand_index``: of the pairs of all images together, so that an
            image weighs by the square of its size; and ``.../image``: each the mean
            over the images where it is defined (precision needs a pair that is found
            together, recall a true one). An image of fewer than two pixels has none.
        """
        refuse_lost(max_true=self.lost_true, max_predicted=self.lost_predicted)
        (negative, wrong), (missed, positive) = self.pairs.astype(np.float64)
        pooled = _scores(np.array([positive, wrong, missed, negative]))
        means = map(ratio, np.asarray(self.sum_scores), np.asarray(self.num_scores))
        names = [self.prefix + name for name in _NAMES]
        scores = {name: float(value) for name, value in zip(names, pooled, strict=True)}
        return scores | {f"{n}/image": v for n, v in zip(names, means, strict=True)}


def _count_pairs(
    predicted: jax.Array, truth: jax.Array, inside: jax.Array, sizes: dict[str, int]
) -> jax.Array:
    """Pairs [B, 2, 4], high and low."""
    table = overlap_table(predicted, truth, **sizes, mask=inside)
    # The last row has the pixels that are a group of their own.
    groups, alone = table[:, :-1], table[:, -1].sum(axis=-1)
    none = jnp.zeros_like(alone)
    both = _sum_of_squares(groups.reshape(len(table), -1), alone)
    found = _sum_of_squares(groups.sum(axis=2), alone)
    true = _sum_of_squares(table.sum(axis=1), none)
    number = table.sum(axis=(1, 2))
    every = _sum_of_squares(number[:, None], none)
    single = jnp.stack([none, number], axis=-1)
    pairs = (both - single, found - both, true - both, every - found - true + both)
    return jnp.stack([_carried(x) for x in pairs], axis=-1)


def _count_on_host(
    predicted: jax.Array, truth: jax.Array, inside: jax.Array, sizes: dict[str, int]
) -> jax.Array:
    """The same where a table of all pairs of labels is too large."""
    numbers = []
    for image in images_pairs(predicted, truth, inside, **sizes):
        groups = image.rows < sizes["num_predicted"]
        *rows, alone = image.row_sizes.tolist()
        both = int(np.sum(image.counts[groups] ** 2)) + alone
        found = sum(size * size for size in rows) + alone
        true = int(np.sum(image.column_sizes**2))
        number = sum(rows) + alone
        rest = number**2 - found - true + both
        numbers.append([both - number, found - both, true - both, rest])
    pairs = np.array(numbers, np.int64).reshape(-1, 4)
    parts = np.stack([pairs >> _BITS, pairs & (_UNIT - 1)], axis=1)
    return jnp.asarray(parts, jnp.int32)


def _sum_of_squares(counts: jax.Array, ones: jax.Array) -> jax.Array:
    """Of int32 [B, K] up to 2^20 in all, and of so many ones; [B, 2], high and low."""
    high, low = counts >> _HALF, counts & ((1 << _HALF) - 1)
    squares, products, rest = (
        jnp.sum(x, axis=-1) for x in (high * high, 2 * high * low, low * low)
    )
    middle = (products & ((1 << _HALF) - 1)) << _HALF
    upper = squares + (products >> _HALF)
    return _carried(jnp.stack([upper, middle + rest + ones], axis=-1))


def _carried(pairs: jax.Array) -> jax.Array:
    """High and low [..., 2] with the low one in 0 .. 2^20 - 1."""
    high, low = pairs[..., 0], pairs[..., 1]
    return jnp.stack([high + (low >> _BITS), low & (_UNIT - 1)], axis=-1)


def _scores(pairs: Any) -> tuple[Any, ...]:
    """Accuracy, precision, recall and adjusted Rand index of [..., 4] pairs."""
    xp = np if isinstance(pairs, np.ndarray) else jnp
    total = pairs.sum(axis=-1)
    share = pairs / xp.where(total > 0, total, 1.0)[..., None]  # or products overflow
    positive, wrong, missed, negative = (share[..., i] for i in range(4))

    def quotient(part: Any, whole: Any) -> Any:
        return xp.where(whole > 0, part / xp.where(whole > 0, whole, 1.0), xp.nan)

    chance = (positive + missed) * (missed + negative)
    chance = chance + (positive + wrong) * (wrong + negative)
    agreement = 2.0 * (positive * negative - missed * wrong)
    # Equal partitions agree, also where any other would agree by chance.
    adjusted = xp.where((wrong == 0) & (missed == 0), 1.0, quotient(agreement, chance))
    return (
        quotient(pairs[..., 0] + pairs[..., 3], total),
        quotient(positive, positive + wrong),
        quotient(positive, positive + missed),
        xp.where(total > 0, adjusted, xp.nan),
    )


class InstanceCount(Metric):
    """The number of instances found against the true number.

    >>> truth = jnp.array([[0, 1, 2, -1], [0, 0, 0, 1]])
    >>> InstanceCount.from_batch(
    ...     jnp.array([2, 3]), truth, max_true=4
    ... ).compute()["count_absolute_error"]
    1.0
    """

    sum_absolute_error: jax.Array  # of abs(found - true)
    num_exact: jax.Array  # images with found = true
    sum_found: jax.Array
    sum_true: jax.Array
    num_images: jax.Array
    lost_true: jax.Array  # pixels of instances above max_true

    @classmethod
    def from_batch(
        cls,
        found: jax.Array,
        truth: jax.Array,
        *,
        max_true: int,
        valid: jax.Array | None = None,
    ) -> Self:
        """Compares numbers int [B], without the background, with label maps.

        ``truth`` is int [B, H, W] or [B, N]: -1 void, 0 background, 1..max_true the
        objects, counted if they have a pixel. ``found`` below 0 (no group) is 0.
        """
        check_count("max_true", max_true, at_least=1)
        check_integer("found", found)
        truth = flatten_images("truth", truth)
        check_shape("found", found, "B", dims={"B": truth.shape[0]}, beside="truth")
        valid = valid_images(valid, truth.shape[0], "truth")
        table = overlap_table(
            jnp.zeros_like(truth),
            truth,
            num_predicted=1,
            num_true=max_true + 1,
            mask=jnp.broadcast_to(valid[:, None], truth.shape),
        )[:, 0]
        true = jnp.sum(table[:, 1:-1] > 0, axis=1, dtype=jnp.int32)
        found = jnp.where(valid, jnp.maximum(found, 0), 0).astype(jnp.int32)
        return cls(
            sum_absolute_error=jnp.sum(jnp.abs(found - true)),
            num_exact=jnp.sum((found == true) & valid, dtype=jnp.int32),
            sum_found=jnp.sum(found),
            sum_true=jnp.sum(true),
            num_images=jnp.sum(valid, dtype=jnp.int32),
            lost_true=jnp.sum(table[:, -1]),
        )

    def compute(self) -> dict[str, float]:
        """The scores, each a mean over images; NaN without images.

        Returns:
            ``count_absolute_error``: the mean of abs(found - true);
            ``count_signed_error``: the mean of found - true, below 0 where instances
            are merged or missed;
            ``count_exact``: the share of images with the right number;
            ``count_found`` and ``count_true``: the mean numbers.
        """
        refuse_lost(max_true=self.lost_true)
        images = int(self.num_images)
        signed = int(self.sum_found) - int(self.sum_true)
        return {
            "count_absolute_error": ratio(self.sum_absolute_error, images),
            "count_signed_error": ratio(signed, images),
            "count_exact": ratio(self.num_exact, images),
            "count_found": ratio(self.sum_found, images),
            "count_true": ratio(self.sum_true, images),
        }


class ReachedLimit(Metric):
    """The number of images in which a setting limited the result.

    >>> reached = jnp.array([True, False, True])
    >>> ReachedLimit.from_batch(reached, name="max_groups").compute()
    {'num_reached/max_groups': 2.0}
    """

    num_reached: jax.Array  # images
    name: str = dataclasses.field(metadata={"static": True})

    @classmethod
    def from_batch(
        cls, reached: jax.Array, *, name: str, valid: jax.Array | None = None
    ) -> Self:
        """Counts the images of a batch, bool [B], that reached the named setting."""
        check_boolean("reached", reached)
        images = check_shape("reached", reached, "B")["B"]
        counted = jnp.asarray(reached) & valid_images(valid, images, "reached")
        return cls(num_reached=jnp.sum(counted, dtype=jnp.int32), name=name)

    def compute(self) -> dict[str, float]:
        """The number of images, ``num_reached/{name}``."""
        return {f"num_reached/{self.name}": float(self.num_reached)}
