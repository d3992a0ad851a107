"""Scores after a matching: instances with objects, clusters with classes."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import check_choice, check_count
from sphemb.instances import overlap_table, table_fits
from sphemb.metrics._metric import (
    LEVEL_UNIT,
    LEVELS,
    Metric,
    flatten_pair,
    images_pairs,
    pooled_table,
    ratio,
    refuse_lost,
)

_STRICT_LEVELS = LEVELS[:10]


class MatchedPrecision(Metric):
    r"""AP at an IoU threshold as StarDist and Cellpose define it; a mean over images.

    .. math:: \frac{TP}{TP + FP + FN}

    is the share of instances, found or true, that have a partner. It is also the
    average precision of the 2018 Data Science Bowl (AP50 at .5), and uses no scores of
    instances, unlike COCO's and VOC's. A pair matches if its IoU is *above* the level;
    the masks of a label map are disjoint, so that the matching is one to one from .5
    on.

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

    # [10], the sum over images, at the levels .5, .55, ..., .95.
    sum_precision: jax.Array
    num_images: jax.Array
    lost_true: jax.Array  # pixels of objects numbered above max_true
    lost_predicted: jax.Array  # pixels of instances above max_predicted

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

        ``predicted`` has 0 for the background, 1..max_predicted for instances, negative
        labels for none; ``truth`` likewise, and -1 for void, removed from both.
        """
        check_count("max_predicted", max_predicted, at_least=1)
        check_count("max_true", max_true, at_least=1)
        predicted, truth, valid = flatten_pair(predicted, truth, valid)
        inside = valid[:, None] & (truth >= 0)
        cells = len(truth) * (max_predicted + 2) * (max_true + 2)
        fits = table_fits(cells, predicted, inside)
        count = _count_matches if fits else _count_matches_of_pairs
        number, matched = count(predicted, truth, inside, max_predicted, max_true)
        share = matched / jnp.maximum(number[:, None] - matched, 1)
        # Nothing is there and nothing is found: a perfect image.
        share = jnp.where(number[:, None] == 0, 1.0, share)
        lost = inside & (predicted > max_predicted)
        return cls(
            sum_precision=jnp.sum(jnp.where(valid[:, None], share, 0.0), axis=0),
            num_images=jnp.sum(valid, dtype=jnp.int32),
            lost_true=jnp.sum(inside & (truth > max_true), dtype=jnp.int32),
            lost_predicted=jnp.sum(lost, dtype=jnp.int32),
        )

    def compute(self) -> dict[str, float]:
        """The scores, each a mean over images; NaN without images.

        Returns:
            ``matched_precision@0.5`` and ``matched_precision@0.75``;
            ``matched_precision``: the mean over the ten levels .5:.05:.95. An image
            without objects and without instances scores 1.
        """
        refuse_lost(max_true=self.lost_true, max_predicted=self.lost_predicted)
        sums, images = np.asarray(self.sum_precision), int(self.num_images)
        return {
            "matched_precision@0.5": ratio(sums[0], images),
            "matched_precision@0.75": ratio(sums[5], images),
            "matched_precision": ratio(sums.sum(), len(sums) * images),
        }


def _count_matches(
    predicted: jax.Array, truth: jax.Array, inside: jax.Array, found: int, true: int
) -> tuple[jax.Array, jax.Array]:
    """Instances [B], found or true, and matches [B, 10] at every level."""
    table = overlap_table(
        predicted, truth, num_predicted=found + 1, num_true=true + 1, mask=inside
    )
    both = table[:, 1 : found + 1, 1 : true + 1]
    found_sizes = table.sum(axis=2)[:, 1 : found + 1]
    true_sizes = table.sum(axis=1)[:, 1 : true + 1]
    either = found_sizes[..., None] + true_sizes[:, None] - both
    number = jnp.sum(found_sizes > 0, axis=1) + jnp.sum(true_sizes > 0, axis=1)
    matched = [
        jnp.sum(LEVEL_UNIT * both > level * either, axis=(1, 2))
        for level in _STRICT_LEVELS
    ]
    return number, jnp.stack(matched, axis=-1)


def _count_matches_of_pairs(
    predicted: jax.Array, truth: jax.Array, inside: jax.Array, found: int, true: int
) -> tuple[jax.Array, jax.Array]:
    """The same on the host, where a table of all pairs is too large."""
    numbers, matches = [], []
    rows, columns = slice(1, found + 1), slice(1, true + 1)
    sizes = {"num_predicted": found + 1, "num_true": true + 1}
    for pairs in images_pairs(predicted, truth, inside, **sizes):
        in_use = (pairs.row_sizes[rows] > 0, pairs.column_sizes[columns] > 0)
        numbers.append(sum(np.sum(used) for used in in_use))
        pairs = pairs.within(rows, columns)
        twenty = LEVEL_UNIT * pairs.counts[:, None]
        matches.append(np.sum(twenty > _STRICT_LEVELS * pairs.unions[:, None], axis=0))
    matched = np.array(matches).reshape(-1, len(_STRICT_LEVELS))
    number = jnp.asarray(np.array(numbers), jnp.int32)
    return number, jnp.asarray(matched, jnp.int32)


class MatchedIoU(Metric):
    r"""Accuracy and mean IoU of P clusters, matched with Q classes over a whole set.

    Clusters of an unsupervised method have no names. They get those of the classes by
    the matching with the most right pixels, one for all images (Kuhn 1955):

    .. math:: \max_\pi \sum_p n_{p\,\pi(p)}

    One to one, as many clusters are matched as there are classes; pixels of the others
    are wrong, and count as found for no class. With ``matching="majority"`` a cluster
    takes the class of most of its pixels, and several may take the same: the usual
    score of overclustering, which rises with the number of clusters.

    The mean is over classes that occur, in the truth or among the found ones, as in the
    authors' evaluation; other classes have no IoU.

    References:
        Ji et al., "Invariant Information Clustering", ICCV 2019; Cho et al., "PiCIE",
        CVPR 2021.

    >>> clusters = jnp.array([[1, 1, 1, 0, 0, 2]])
    >>> truth = jnp.array([[0, 0, 0, 1, 1, 1]])
    >>> scores = MatchedIoU.from_batch(
    ...     clusters, truth, num_clusters=3, num_classes=2
    ... ).compute()
    >>> round(scores["accuracy"], 3), round(scores["mean_iou"], 3)
    (0.833, 0.833)
    """

    # [Q, P+1] pixels of each class in each cluster; the last column has those in none.
    table: jax.Array
    lost_true: jax.Array  # pixels of classes numbered Q or above
    # Classes below this are things, the others are stuff.
    num_things: int = dataclasses.field(default=0, metadata={"static": True})
    matching: str = dataclasses.field(default="one_to_one", metadata={"static": True})

    @classmethod
    def from_batch(
        cls,
        clusters: jax.Array,
        truth: jax.Array,
        *,
        num_clusters: int,
        num_classes: int,
        num_things: int = 0,
        matching: str = "one_to_one",
        valid: jax.Array | None = None,
    ) -> Self:
        """Counts the pixels of label maps, int [B, H, W] or [B, N].

        ``clusters`` are 0..P-1, other values are no cluster; ``truth`` is 0..Q-1, and
        void if negative. The first ``num_things`` classes are things, the others stuff.
        """
        check_count("num_clusters", num_clusters, at_least=1)
        check_count("num_classes", num_classes, at_least=1)
        check_count("num_things", num_things)
        check_choice("matching", matching, ("one_to_one", "majority"))
        table = pooled_table(
            clusters, truth, valid, num_clusters, num_classes, name="clusters"
        )
        lost = jnp.sum(table[:, -1])
        return cls(table[:, :-1].T, lost, num_things=num_things, matching=matching)

    def assignment(self) -> np.ndarray:
        """The class of every cluster, int [P]; -1 for none."""
        from scipy.optimize import linear_sum_assignment

        table = np.asarray(self.table, np.int64)[:, :-1]
        classes = np.full(table.shape[1], -1)
        if self.matching == "majority":
            used = table.any(axis=0)
            classes[used] = table.argmax(axis=0)[used]
        else:
            rows, columns = linear_sum_assignment(table, maximize=True)
            classes[columns] = rows
        return classes

    def compute(self) -> dict[str, float]:
        """The scores over all pixels; NaN without pixels.

        Returns:
            ``accuracy``: the share of pixels whose cluster has their class;
            ``mean_iou``: the mean over classes that occur. With ``num_things``,
            ``accuracy_things`` and ``mean_iou_things`` of the pixels and classes that
            are things in the truth, and the same of ``stuff``, under the matching of
            all classes. ``num_clusters_used``: clusters with a pixel.
        """
        refuse_lost(num_classes=self.lost_true)
        table = np.asarray(self.table, np.int64)
        classes = np.arange(table.shape[0])
        confusion = table[:, :-1] @ (self.assignment()[:, None] == classes)
        true, found = table.sum(axis=1), confusion.sum(axis=0)
        right = np.diagonal(confusion)
        either = true + found - right
        with np.errstate(invalid="ignore"):
            iou = right / either
        cuts = {"": classes >= 0}
        if self.num_things:
            cuts["_things"] = classes < self.num_things
            cuts["_stuff"] = classes >= self.num_things
        scores = {}
        for name, cut in cuts.items():
            scores[f"accuracy{name}"] = ratio(right[cut].sum(), true[cut].sum())
            present = cut & (either > 0)
            scores[f"mean_iou{name}"] = ratio(iou[present].sum(), present.sum())
        used = table[:, :-1].any(axis=0).sum()
        return {**scores, "num_clusters_used": float(used)}
