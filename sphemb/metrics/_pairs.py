"""Scores of a partition by pairs of pixels: B images, N pixels, P found, Q true."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError, check_count, check_shape
from sphemb.instances import overlap_table, table_fits
from sphemb.metrics._overlaps import images_pairs, refuse_lost
from sphemb.metrics._sums import Sums, flatten_images, ratio, valid_images

# Numbers of pairs are held in two int32, one of them in units of 2^20: JAX has no int64
# by default, and an image of 2^20 pixels has 2^40 pairs.
_BITS = 20
_UNIT = 1 << _BITS
_HALF = _BITS // 2
_NAMES = ("pair_accuracy", "pair_precision", "pair_recall", "adjusted_rand_index")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PairScores(Sums):
    r"""How well a partition of the pixels agrees with another, by its pairs of pixels.

    A pair is positive where the truth puts its pixels together. With the contingency
    table :math:`n_{pq}` and its sums over rows and columns, there are, of ordered pairs
    of different pixels,

    .. math:: TP = \sum_{pq} n_{pq}^2 - n, \quad FP = \sum_p n_p^2 - \sum_{pq} n_{pq}^2,
              \quad FN = \sum_q n_q^2 - \sum_{pq} n_{pq}^2

    and TN the rest of n (n - 1). Neither partition needs names that mean anything, and
    nothing is matched; large segments weigh most, the background among them.

    Attributes:
        counts: int32 [2, 4], true positive, false positive, false negative and true
            negative pairs of all images, in units of 2^20 and what is left.
        sum_scores: [4], the sums over images of each image's accuracy, precision,
            recall and adjusted Rand index.
        num_scores: int [4], the images that have one.
        lost_true: the number of pixels of segments numbered above ``max_true``.
        lost_predicted: the number of pixels of groups numbered ``max_predicted`` and
            above.
        prefix: what the names of the scores begin with; static.

    References:
        Barnes & Dubrawski, "Deep spectral clustering for object instance segmentation",
        ICLR 2018 workshop, Table 1, who do not say whether pairs are pooled over the
        images or scores averaged; Hubert & Arabie, "Comparing partitions", Journal of
        Classification 1985, for the adjusted Rand index.

    >>> truth = jnp.array([[0, 0, 1, 1, 1, -1]])
    >>> predicted = jnp.array([[3, 3, 3, 2, 2, 2]])
    >>> scores = PairScores.from_batch(
    ...     predicted, truth, max_predicted=4, max_true=1
    ... ).compute()
    >>> scores["pair_accuracy"], scores["pair_precision"], scores["pair_recall"]
    (0.6, 0.5, 0.5)
    """

    counts: jax.Array
    sum_scores: jax.Array
    num_scores: jax.Array
    lost_true: jax.Array
    lost_predicted: jax.Array
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
        """Scores a batch of label maps.

        Args:
            predicted: int [B, H, W] or [B, N], groups 0..max_predicted-1; every pixel
                with a negative label is a group of its own.
            truth: int, the same shape, segments 0..max_true, such as instances with the
                background 0, or classes; -1 void, which counts in no pair.
            max_predicted: the largest number of groups an image may have; static.
            max_true: the largest number of a segment; static.
            valid: bool [B], False for images that only fill up the batch.
            prefix: of the scores' names, for more than one partition of the same
                images; static.

        Returns:
            The metric of this batch, exact for images of up to 2^20 pixels and batches
            of up to 2047 of them.

        Raises:
            InputError: shapes that differ, labels that are no integers, larger images.
        """
        check_count("max_predicted", max_predicted, at_least=1)
        check_count("max_true", max_true, at_least=0)
        dims = check_shape("predicted", predicted, "... N")
        check_shape("truth", truth, "... N", dims=dims, beside="predicted")
        predicted = flatten_images("predicted", predicted)
        truth = flatten_images("truth", truth)
        if truth.shape[1] > _UNIT:
            raise InputError(
                f"truth must have at most {_UNIT:,} pixels an image, whose pairs can "
                f"be counted, got {truth.shape[1]:,}"
            )
        valid = valid_images(valid, truth.shape[0], "predicted")
        counts = valid[:, None] & (truth >= 0)
        sizes = {"num_predicted": max_predicted, "num_true": max_true + 1}
        cells = len(truth) * (max_predicted + 1) * (max_true + 2)
        if table_fits(cells, predicted, counts):
            pairs, lost_true = cls._of_table(predicted, truth, counts, sizes)
        else:
            pairs, lost_true = cls._of_pairs(predicted, truth, counts, sizes)
        scores = jnp.stack(_scores(pairs[:, 0] * float(_UNIT) + pairs[:, 1]), axis=-1)
        defined = ~jnp.isnan(scores)
        return cls(
            counts=jnp.sum(pairs, axis=0, dtype=jnp.int32),
            sum_scores=jnp.sum(jnp.where(defined, scores, 0.0), axis=0),
            num_scores=jnp.sum(defined, axis=0, dtype=jnp.int32),
            lost_true=lost_true,
            lost_predicted=jnp.sum(
                counts & (predicted >= max_predicted), dtype=jnp.int32
            ),
            prefix=prefix,
        )

    @staticmethod
    def _of_table(
        predicted: jax.Array, truth: jax.Array, counts: jax.Array, sizes: dict[str, int]
    ) -> tuple[jax.Array, jax.Array]:
        """Pairs [B, 2, 4], high and low, and pixels of segments that are lost."""
        table = overlap_table(predicted, truth, **sizes, mask=counts)
        # The last row has the pixels that are a group of their own.
        groups = table[:, :-1]
        alone = table[:, -1].sum(axis=-1)
        both = _sum_of_squares(groups.reshape(len(table), -1), alone)
        found = _sum_of_squares(groups.sum(axis=2), alone)
        true = _sum_of_squares(table.sum(axis=1), jnp.zeros_like(alone))
        number = table.sum(axis=(1, 2))
        every = _sum_of_squares(number[:, None], jnp.zeros_like(alone))
        single = jnp.stack([jnp.zeros_like(number), number], axis=-1)
        pairs = jnp.stack(
            [
                _carried(both - single),
                _carried(found - both),
                _carried(true - both),
                _carried(every - found - true + both),
            ],
            axis=-1,
        )
        return pairs, jnp.sum(table[:, :, -1], dtype=jnp.int32)

    @staticmethod
    def _of_pairs(
        predicted: jax.Array, truth: jax.Array, counts: jax.Array, sizes: dict[str, int]
    ) -> tuple[jax.Array, jax.Array]:
        """The same on the host, where a table of all pairs would be too large."""
        numbers, lost = [], 0
        for image in images_pairs(predicted, truth, counts, **sizes):
            groups = image.rows < sizes["num_predicted"]
            *rows, alone = image.row_sizes.tolist()
            both = int(np.sum(image.counts[groups] ** 2)) + alone
            found = sum(size * size for size in rows) + alone
            true = int(np.sum(image.column_sizes**2))
            number = sum(rows) + alone
            numbers.append(
                [
                    both - number,
                    found - both,
                    true - both,
                    number**2 - found - true + both,
                ]
            )
            lost += int(image.column_sizes[-1])
        pairs = np.array(numbers, np.int64).reshape(-1, 4)
        parts = np.stack([pairs >> _BITS, pairs & (_UNIT - 1)], axis=1)
        return jnp.asarray(parts, jnp.int32), jnp.int32(lost)

    @property
    def pairs(self) -> np.ndarray:
        """The ordered pairs of all images, int64 [[TN, FP], [FN, TP]]."""
        high, low = np.asarray(self.counts, np.int64)
        positive, wrong, missed, negative = (high << _BITS) + low
        return np.array([[negative, wrong], [missed, positive]])

    def compute(self) -> dict[str, float]:
        """The scores; NaN where there is none.

        Returns:
            ``pair_accuracy``, ``pair_precision``, ``pair_recall``,
            ``adjusted_rand_index``: of the pairs of all images together, so that an
            image counts by the square of its size; and ``.../image``: each the mean
            over the images where it is defined (precision needs a pair that is found
            together, recall a true one). An image of fewer than two pixels has none.

        Raises:
            InputError: a label above ``max_true`` or ``max_predicted`` was met.
        """
        refuse_lost(max_true=self.lost_true, max_predicted=self.lost_predicted)
        (negative, wrong), (missed, positive) = self.pairs.astype(np.float64)
        pooled = _scores(np.array([positive, wrong, missed, negative]))
        means = map(ratio, np.asarray(self.sum_scores), np.asarray(self.num_scores))
        return {
            **{self.prefix + n: float(v) for n, v in zip(_NAMES, pooled, strict=True)},
            **{
                f"{self.prefix}{n}/image": v for n, v in zip(_NAMES, means, strict=True)
            },
        }


def _sum_of_squares(counts: jax.Array, ones: jax.Array) -> jax.Array:
    """Of int32 [B, K] up to 2^20 in all, and of so many ones; [B, 2], high and low.

    A count is h 2^10 + l, so that no sum of h h, h l or l l exceeds an int32.
    """
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
    share = pairs / xp.where(total > 0, total, 1)[..., None]  # or products overflow
    positive, wrong, missed, negative = (share[..., i] for i in range(4))

    def quotient(some: Any, all_of_them: Any) -> Any:
        there = all_of_them > 0
        return xp.where(there, some / xp.where(there, all_of_them, 1.0), xp.nan)

    chance = (positive + missed) * (missed + negative)
    chance = chance + (positive + wrong) * (wrong + negative)
    agreement = 2.0 * (positive * negative - missed * wrong)
    # Partitions that are the same agree, also where any other would agree by chance.
    adjusted = xp.where((wrong == 0) & (missed == 0), 1.0, quotient(agreement, chance))
    return (
        quotient(pairs[..., 0] + pairs[..., 3], total),
        quotient(positive, positive + wrong),
        quotient(positive, positive + missed),
        xp.where(total > 0, adjusted, xp.nan),
    )
