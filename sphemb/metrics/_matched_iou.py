"""Clusters without names against classes with names: P clusters, Q classes."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import check_choice, check_count, check_shape
from sphemb.instances import overlap_table
from sphemb.metrics._overlaps import refuse_lost
from sphemb.metrics._sums import Sums, flatten_images, ratio, valid_images


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MatchedIoU(Sums):
    r"""Accuracy and mean IoU of clusters, after one matching over the whole set.

    Unsupervised classes have no names. They get those of the true classes by the
    matching that makes most pixels right, one for all images (Kuhn 1955):

    .. math:: \max_\pi \sum_p n_{p\,\pi(p)}

    One to one, as many clusters as there are classes are matched; pixels of the others
    are wrong, and take nothing from any class. With ``matching="majority"`` a cluster
    takes the class that most of its pixels have, and several may take the same: the
    usual reading of overclustering, which any number of clusters makes easier.

    The mean is over classes that are there, in the truth or in what is found, as in
    the authors' evaluation; a class that is nowhere has no IoU.

    Attributes:
        table: [Q, P+1] pixels of each class in each cluster; the last column has those
            in none.
        lost_true: the number of pixels of classes numbered Q or above.
        num_things: classes below this are things, the others are stuff; static.
        matching: static.

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

    table: jax.Array
    lost_true: jax.Array
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
        """Counts the pixels of a batch.

        Args:
            clusters: int [B, H, W] or [B, N]; 0..P-1, anything else is in no cluster.
            truth: int, the same shape; 0..Q-1, negative where nobody knows, which
                counts for nothing.
            num_clusters: P, static.
            num_classes: Q, static.
            num_things: how many of the classes, the first, are things; static.
            matching: ``"one_to_one"`` or ``"majority"``.
            valid: bool [B], False for images that only fill up the batch.

        Returns:
            The metric of this batch.

        Raises:
            InputError: shapes that differ, labels that are no integers, a setting out
                of range.
        """
        check_count("num_clusters", num_clusters, at_least=1)
        check_count("num_classes", num_classes, at_least=1)
        check_count("num_things", num_things)
        check_choice("matching", matching, ("one_to_one", "majority"))
        dims = check_shape("clusters", clusters, "... N")
        check_shape("truth", truth, "... N", dims=dims, beside="clusters")
        clusters = flatten_images("clusters", clusters)
        truth = flatten_images("truth", truth)
        valid = valid_images(valid, truth.shape[0], "clusters")
        table = overlap_table(
            clusters,
            truth,
            num_predicted=num_clusters,
            num_true=num_classes,
            mask=jnp.broadcast_to(valid[:, None], truth.shape),
        ).sum(axis=0)
        return cls(
            table=table[:, :-1].T,
            lost_true=jnp.sum(table[:, -1]),
            num_things=num_things,
            matching=matching,
        )

    def assignment(self) -> np.ndarray:
        """The class of every cluster, int [P]; -1 where it has none."""
        from scipy.optimize import linear_sum_assignment

        table = np.asarray(self.table, np.int64)[:, :-1]
        classes = np.full(table.shape[1], -1)
        if self.matching == "majority":
            there = table.any(axis=0)
            classes[there] = table.argmax(axis=0)[there]
        else:
            rows, columns = linear_sum_assignment(table, maximize=True)
            classes[columns] = rows
        return classes

    def compute(self) -> dict[str, float]:
        """The scores over all pixels; NaN where there is nothing to score.

        Returns:
            ``accuracy``: the share of pixels whose cluster has their class;
            ``mean_iou``: the mean over classes that are there. With ``num_things``,
            ``accuracy_things`` and ``mean_iou_things`` of the pixels and classes that
            are things in the truth, and the same of ``stuff``; the matching is that of
            all classes. ``num_clusters_used``: those that hold a pixel.

        Raises:
            InputError: a class of Q or above was met.
        """
        refuse_lost(num_classes=self.lost_true)
        table = np.asarray(self.table, np.int64)
        given = self.assignment()
        classes = np.arange(table.shape[0])
        confusion = table[:, :-1] @ (given[:, None] == classes)  # truth x found
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
            there = cut & (either > 0)
            scores[f"mean_iou{name}"] = ratio(iou[there].sum(), there.sum())
        used = table[:, :-1].any(axis=0).sum()
        return {**scores, "num_clusters_used": float(used)}
