"""Instances with a class and a score: proposals, what their pixels vote for, how good.

Kong & Fowlkes, CVPR 2018, section 5.4.

Shape letters: B images, H rows, W columns, N = H W pixels, K label maps, G groups, C
classes, F features, Q objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sphemb._checks import VOID, check_count, check_number
from sphemb.instances import (
    PROPOSAL_FEATURES,
    LinearScore,
    apply_scores,
    fit_scores,
    pool_proposals,
    proposal_features,
    table_fits,
    vote_classes,
)
from sphemb.tasks._pixels import enlarged, placed_map
from sphemb.tasks._predictions import Detections
from sphemb.tasks._proposals import Proposals
from sphemb.tasks._region_scores import best_objects, region_scores
from sphemb.tasks._semantic import class_map, class_scores, classes_loss, true_classes
from sphemb.tasks._task import Apply, Batch, LabelMap, TaskState, maps_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instances(Proposals):
    """Learns to group and to classify, and then to score what it found.

    The loss is that of `Proposals` and the cross-entropy of every pixel's class. To
    predict, the groups at all concentrations are pooled; each takes the class that its
    pixels vote for, and a score, a line through numbers that tell its shape and how it
    goes with the map of classes. The line is the task's state. It is fitted when
    training ends, to proposals in training images and their IoU with the object that
    they overlap most; until then the vote is the score.

    Attributes:
        num_classes: C, that of the background among them.
        classes_weight: of the cross-entropy.
        class_balance: see `Semantic`.
        trimap_width: see `Semantic`.
        fit_images: training images whose proposals the line is fitted to, at most.
        ridge: see `sphemb.instances.fit_scores`.
        min_score: what an instance needs to be drawn, and to be in a label image;
            scores are of all.
    """

    num_classes: int = 21
    classes_weight: float = 1.0
    class_balance: float = 0.0
    trimap_width: int = 0
    fit_images: int = 200
    ridge: float = 1.0
    min_score: float = 0.3
    update_every: int = -1
    prediction: ClassVar[type] = Detections
    metrics_on_host: ClassVar[bool] = True
    # Few: the line of the scores is fitted to what all the others predict.
    scoring_settings: ClassVar[frozenset[str]] = frozenset(
        {
            "max_objects",
            "budgets",
            "trimap_width",
            "min_score",
        }
    )

    def __post_init__(self):
        super().__post_init__()
        check_count("config.task.num_classes", self.num_classes, at_least=2)
        check_number("config.task.classes_weight", self.classes_weight, at_least=0)
        check_number("config.task.class_balance", self.class_balance, at_least=0)
        check_count("config.task.trimap_width", self.trimap_width)
        check_count("config.task.fit_images", self.fit_images, at_least=1)
        check_number("config.task.ridge", self.ridge, at_least=0)
        check_number("config.task.min_score", self.min_score)

    def init(self, key: jax.Array, apply: Apply) -> TaskState:
        """The line that takes the vote for the score."""
        number = len(PROPOSAL_FEATURES)
        return LinearScore(
            mean=jnp.zeros(number),
            scale=jnp.ones(number),
            slope=jnp.eye(number)[PROPOSAL_FEATURES.index("probability")],
            offset=jnp.zeros(()),
        )

    def update(
        self,
        apply: Apply,
        state: TaskState,
        batches: Iterable[Batch],
        key: jax.Array,
    ) -> TaskState:
        """The line, fitted to the proposals of training images.

        Args:
            apply: the network.
            state: the line so far, which stays where there is no proposal.
            batches: of training images as they are.
            key: not used.
        """
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
        """The instances and the classes."""
        return (*super().label_maps, class_map(self.num_classes))

    @property
    def num_maps(self) -> int:
        """K, the label maps whose groups are pooled."""
        return 1 + len(self.pooled_concentrations)

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of `Proposals`, and the cross-entropy, averaged over the images.

        Args:
            apply: the network, with ``embedding`` and ``logits``.
            state: not used.
            batch: as for `Proposals`, with ``semantic`` [B, H, W].
            key: of this step.

        Returns:
            The loss, the terms of `Proposals`, and ``loss/classes``.
        """
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
        """Groups, classifies and scores.

        Args:
            apply: the network.
            state: the line of the scores.
            batch: as for `Proposals`.

        Returns:
            The detections, whose proposals are the groups at every concentration; a
            score is -inf for the background and for a duplicate.
        """
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
        # One after another: side by side, every map would have its own probabilities.
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
        """Scores of the proposals, of the classes, and AP^r with its parts.

        ``ap_r`` is what is found. Beside it, what it would be if one stage were
        perfect: ``ap_r_true_classes``, each proposal with the class of the object that
        it overlaps most; ``ap_r_true_scores``, with that IoU for its score;
        ``ap_r_true_masks``, the true masks, each with the class and the share of most
        of its pixels in the map of classes.
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
            predictions,
            batch,
            num_groups=self.num_labels,
            num_classes=self.num_classes,
        )


_proposal_metrics = jax.jit(Proposals.metrics, static_argnums=0)
