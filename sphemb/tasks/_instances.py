"""Instances with classes and scores (Kong & Fowlkes, CVPR 2018, section 5.4).

Shape letters: B images, H W image size, K label maps, G groups, C classes, Q objects.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sphemb._checks import VOID
from sphemb.instances import (
    PROPOSAL_FEATURES,
    LinearScore,
    apply_scores,
    fit_scores,
    overlap_pairs,
    pool_proposals,
    proposal_features,
    table_fits,
    vote_classes,
)
from sphemb.metrics import RegionPrecision
from sphemb.tasks._pixels import enlarged, placed_map
from sphemb.tasks._proposals import Proposals
from sphemb.tasks._semantic import class_map, class_scores, classes_loss, true_classes
from sphemb.tasks._task import (
    Apply,
    Batch,
    Detections,
    LabelMap,
    TaskState,
    maps_of,
    setting,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instances(Proposals):
    """Learns instances by `Proposals` and classes by cross-entropy, and scores them.

    A prediction pools the groups at all concentrations. The pixels of a group vote for
    its class. Its score is a linear regression on `PROPOSAL_FEATURES`, the task state:
    it is fitted when training ends to the IoU of proposals in training images with the
    object that they overlap most. Until then the score is the vote's probability.

    Attributes:
        num_classes: C, with the background.
        classes_weight: of the cross-entropy.
        class_balance: see `Semantic`.
        trimap_width: see `Semantic`.
        fit_images: training images that the scores are fitted to, at most.
        ridge: see `sphemb.instances.fit_scores`.
        min_score: score of an instance that is drawn and written to a label image, at
            least; metrics use all.
    """

    num_classes: int = setting(21, at_least=2)
    classes_weight: float = setting(1.0, at_least=0)
    class_balance: float = setting(0.0, at_least=0)
    trimap_width: int = setting(0, scoring=True, at_least=0)
    fit_images: int = setting(200, at_least=1)
    ridge: float = setting(1.0, at_least=0)
    min_score: float = setting(0.3, scoring=True, below=math.inf)
    update_every: int = -1
    prediction: ClassVar[type] = Detections
    metrics_on_host: ClassVar[bool] = True

    @property
    def scoring_settings(self) -> frozenset[str]:
        """Few: the scores are fitted to predictions, which the others change."""
        return frozenset({"max_objects", "budgets", "trimap_width", "min_score"})

    def init(self, key: jax.Array, apply: Apply) -> TaskState:
        """The regression whose score is the vote's probability."""
        number = len(PROPOSAL_FEATURES)
        return LinearScore(
            mean=jnp.zeros(number),
            scale=jnp.ones(number),
            slope=jnp.eye(number)[PROPOSAL_FEATURES.index("probability")],
            offset=jnp.zeros(()),
        )

    def update(
        self, apply: Apply, state: TaskState, batches: Iterable[Batch], key: jax.Array
    ) -> TaskState:
        """Fits the scores to the proposals of training images."""
        predict = jax.jit(lambda batch: self.predict(apply, state, batch))
        room = -(-self.fit_images // jax.process_count())
        groups = self.num_maps * self.num_labels
        features = np.zeros((room, groups, len(PROPOSAL_FEATURES)), np.float32)
        targets = np.full((room, groups), np.nan, np.float32)
        seen = 0
        for batch in batches:
            found = jax.device_get(
                predict({k: batch[k] for k in ("image", "mask") if k in batch})
            )
            for i in np.flatnonzero(np.asarray(batch["valid"]))[: room - seen]:
                truth = np.asarray(batch["instances"][i])
                best, _ = best_objects(
                    found.groups.proposals[i], truth, self.num_labels
                )
                there = np.isfinite(found.proposal_scores[i])
                targets[seen] = np.where(there, best, np.nan).reshape(-1)
                features[seen] = found.proposal_features[i].reshape(groups, -1)
                seen += 1
            if seen == room:
                break
        if jax.process_count() > 1:
            features, targets = (
                multihost_utils.process_allgather(x) for x in (features, targets)
            )
        there = np.isfinite(targets).reshape(-1)
        if not there.any():
            return state
        rows = features.reshape(-1, features.shape[-1])[there]
        return fit_scores(rows, targets.reshape(-1)[there], ridge=self.ridge)

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """Instances and classes."""
        return (*super().label_maps, class_map(self.num_classes))

    @property
    def num_maps(self) -> int:
        """K, the label maps whose groups are pooled."""
        return 1 + len(self.pooled_concentrations)

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Adds ``loss/classes``, the cross-entropy, to the loss of `Proposals`."""
        maps = maps_of(apply, batch)
        total, terms = super().loss(lambda *_: maps, (), batch, key)
        classes = classes_loss(
            maps,
            batch,
            true_classes(batch),
            num_classes=self.num_classes,
            balance=self.class_balance,
        )
        return total + self.classes_weight * classes, {**terms, "loss/classes": classes}

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> Detections:
        """Groups, classifies and scores; -inf for the background and duplicates."""
        maps = maps_of(apply, batch)
        groups = self._groups(lambda *_: maps, batch, pools=True)
        logits = enlarged(placed_map(maps, "logits", batch), batch["image"].shape[1:3])
        probabilities = jax.nn.softmax(logits, axis=-1)
        classes = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        mask = batch.get("mask")
        if mask is None:
            mask = jnp.ones(classes.shape, bool)
        proposals = jnp.asarray(groups.proposals)
        flat = proposals.reshape(*proposals.shape[:2], -1)
        by_pixel = probabilities.reshape(flat.shape[0], -1, self.num_classes)
        # Mapped, not vectorized, to hold the probabilities once and not for each map.
        votes = jax.lax.map(
            lambda labels: vote_classes(labels, by_pixel, max_groups=self.num_labels),
            flat.swapaxes(0, 1),
        )
        votes = jax.tree.map(lambda vote: vote.swapaxes(0, 1), votes)
        features = proposal_features(
            proposals,
            jnp.broadcast_to(classes[:, None], proposals.shape),
            votes,
            mask=jnp.broadcast_to(mask[:, None], proposals.shape),
        )
        pool = pool_proposals(
            flat,
            max_groups=self.num_labels,
            max_iou=self.max_iou,
            min_size=self.min_size,
        )
        kept = jax.vmap(
            lambda source, group, keep: (
                jnp.zeros(votes.classes.shape[1:], bool).at[source, group].set(keep)
            )
        )(pool.source, pool.group, pool.keep)
        if self.max_components:
            kept = kept.at[..., 0].set(False)  # the background
        return Detections(
            groups=groups,
            classes=jnp.where(mask, classes, VOID),
            proposal_classes=votes.classes,
            proposal_scores=jnp.where(kept, apply_scores(state, features), -jnp.inf),
            proposal_features=features,
        )

    def metrics(self, predictions: Any, batch: Batch) -> dict[str, Any]:
        """Scores of proposals and classes, and AP^r with the errors of its stages.

        ``ap_r`` scores the prediction. The others replace one stage by the truth:
        ``ap_r_true_classes`` the class, by that of the object of largest IoU;
        ``ap_r_true_scores`` the score, by that IoU; ``ap_r_true_masks`` the masks, with
        the predicted class of most of their pixels and its share.
        """
        measure = _proposal_metrics
        if not table_fits(len(batch["image"]) * self.table_cells):
            measure = Proposals.metrics  # which the host counts
        scores = dict(measure(self, predictions.groups, batch))
        scores |= class_scores(
            np.asarray(predictions.classes),
            batch,
            num_classes=self.num_classes,
            trimap_width=self.trimap_width,
        )
        return scores | region_scores(
            predictions, batch, num_groups=self.num_labels, num_classes=self.num_classes
        )


_proposal_metrics = jax.jit(Proposals.metrics, static_argnums=0)


_NAMES = ("ap_r", "ap_r_true_classes", "ap_r_true_scores", "ap_r_true_masks")


def region_scores(
    predictions: Detections, batch: Batch, *, num_groups: int, num_classes: int
) -> dict[str, RegionPrecision]:
    """AP^r of a batch and with true stages, see `Instances.metrics`."""
    totals = {
        name: RegionPrecision.empty(num_classes=num_classes, name=name)
        for name in _NAMES
    }
    for i in np.flatnonzero(np.asarray(batch["valid"])):
        image = _of_image(predictions, batch, int(i), num_groups, num_classes)
        totals = {name: totals[name].merge(image[name]) for name in _NAMES}
    return totals


def _of_image(
    predictions: Detections, batch: Batch, i: int, num_groups: int, num_classes: int
) -> dict[str, RegionPrecision]:
    truth = np.asarray(batch["instances"][i])
    semantic = np.asarray(true_classes(batch)[i])
    objects = majority(truth, semantic, num_classes)[0]
    maps = np.asarray(predictions.groups.proposals)[i]
    best_iou, best = best_objects(maps, truth, num_groups)
    classes = np.asarray(predictions.proposal_classes[i])
    scores = np.asarray(predictions.proposal_scores[i])
    perfect = np.where(np.isfinite(scores), best_iou, -np.inf)
    found = np.asarray(predictions.classes[i])
    voted, share = majority(truth, found, num_classes)
    given = {
        "ap_r": (maps, scores, classes),
        "ap_r_true_classes": (maps, scores, objects[best]),
        "ap_r_true_scores": (maps, perfect, classes),
        "ap_r_true_masks": (truth, share, voted),
    }
    return {
        name: RegionPrecision.from_image(
            labels,
            truth,
            scores=score,
            classes=which,
            true_classes=objects,
            num_classes=num_classes,
            name=name,
        )
        for name, (labels, score, which) in given.items()
    }


def majority(
    labels: np.ndarray, classes: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent foreground class of every label, and its share."""
    number = int(labels.max(initial=0)) + 1
    sizes = {"num_predicted": number, "num_true": num_classes}
    table = overlap_pairs(labels, classes, **sizes).table[:-1, :-1]
    best = 1 + table[:, 1:].argmax(axis=1)
    votes = table[np.arange(number), best]
    there = (votes > 0) & (np.arange(number) > 0)
    share = votes / np.maximum(table.sum(axis=1), 1)
    return np.where(there, best, 0), np.where(there, share, -np.inf)


def best_objects(
    maps: np.ndarray, truth: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """The IoU of every group of the maps [K, H, W] with the object it overlaps most."""
    number = int(truth.max(initial=0))
    iou = np.zeros((len(maps), groups))
    objects = np.full(iou.shape, min(number, 1))
    for k, labels in enumerate(maps):
        pairs = overlap_pairs(
            labels, truth, num_predicted=groups, num_true=number + 1
        ).within(slice(groups), slice(1, number + 1))
        found = pairs.counts / pairs.unions
        np.maximum.at(iou[k], pairs.rows, found)
        best = np.flatnonzero(found == iou[k][pairs.rows])[::-1]  # the first comes last
        objects[k][pairs.rows[best]] = pairs.columns[best]
    return iou, objects
