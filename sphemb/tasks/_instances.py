"""The task `Instances`: instances with classes and scores (CVPR 2018, section 5.4).

Shape letters: B images, H W image size, h w map size, K label maps, C classes.
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

from sphemb._checks import VOID, InputError
from sphemb._grid import extended
from sphemb.grouping import group_positions, position_vectors
from sphemb.instances import (
    PROPOSAL_FEATURES,
    LinearScore,
    apply_scores,
    fit_scores,
    overlap_pairs,
    proposal_features,
    split_components,
    table_fits,
    vote_classes,
)
from sphemb.metrics import RegionPrecision
from sphemb.tasks._groups import Proposals
from sphemb.tasks._pixels import (
    PlacedMap,
    beside_background,
    displaced,
    enlarged,
    placed_map,
)
from sphemb.tasks._readoff import Readoff
from sphemb.tasks._semantic import class_map, class_scores, classes_loss, true_classes
from sphemb.tasks._task import (
    Apply,
    Batch,
    Detections,
    Groups,
    LabelMap,
    Maps,
    TaskState,
    maps_of,
    setting,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instances(Proposals):
    r"""Learns instances by `Proposals` and classes by cross-entropy, and scores them.

    With ``position_periods`` the network gives displacements, as for `Objects`: a cell
    at :math:`p_i` has the position :math:`q_i = p_i + \tfrac{P}{2\pi} \delta_i`. The
    margin loss compares the vectors `sphemb.grouping.position_vectors` of the
    foreground. A prediction groups the pixels of the foreground, which is where the
    background has a probability below one half, by the modes of their positions.
    Connected components of the classes are proposals beside these. The kernel
    :math:`\exp(\kappa \cos\theta)` is nearly a Gaussian of the bandwidth

    .. math:: h = \Big(\frac{\kappa}{2 L} \sum_{l=1}^{L} (2\pi / P_l)^2\Big)^{-1/2}

    A prediction pools the groups at all concentrations. The pixels of a group vote for
    its class. Its score is a linear regression on `PROPOSAL_FEATURES`, the task state:
    it is fitted when training ends to the IoU of proposals in training images with the
    object that they overlap most. Until then the score is the vote's probability.

    Attributes:
        num_classes: C, with the background.
        classes_weight: of the cross-entropy.
        class_balance: see `Semantic`.
        trimap_width: see `Semantic`.
        position_periods: :math:`P_l` in pixels; the first is P, about two diameters of
            the largest objects. Of the settings of `Readoff`, a prediction then has
            ``concentration``, ``max_groups`` and ``min_size``. Empty: the network gives
            an embedding.
        fit_images: training images that the scores are fitted to, at most.
        ridge: see `sphemb.instances.fit_scores`.
        min_score: score of an instance that is drawn and written to a label image, at
            least; metrics use all.
    """

    num_classes: int = setting(21, at_least=2)
    classes_weight: float = setting(1.0, at_least=0)
    class_balance: float = setting(0.0, at_least=0)
    trimap_width: int = setting(0, scoring=True, at_least=0)
    position_periods: tuple[float, ...] = setting((), above=0)
    fit_images: int = setting(200, at_least=1)
    ridge: float = setting(1.0, at_least=0)
    min_score: float = setting(0.3, scoring=True, below=math.inf)
    update_every: int = -1
    prediction: ClassVar[type] = Detections
    metrics_on_host: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not self.position_periods:
            return
        if self.max_components or self.max_groups < 2:
            raise InputError(
                "with config.task.position_periods config.task must have max_components"
                " 0 and max_groups 2 or more, the background among them, got "
                f"{self.max_components} and {self.max_groups}"
            )

    @property
    def readoff(self) -> Readoff | None:
        """None with ``position_periods``: no embedding is shifted."""
        return None if self.position_periods else self

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
            images = {k: batch[k] for k in ("image", "mask") if k in batch}
            found = jax.device_get(predict(images))
            for i in np.flatnonzero(np.asarray(batch["valid"]))[: room - seen]:
                truth = np.asarray(batch["instances"][i])
                maps = found.groups.proposals[i]
                best, _ = best_objects(maps, truth, self.num_labels)
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

    def _embedding(self, maps: Maps, batch: Batch) -> PlacedMap:
        embedding = super()._embedding(maps, batch)
        if not self.position_periods:
            return embedding
        positions = self._positions(embedding, batch)
        vectors = position_vectors(positions, periods=self.position_periods)
        return embedding._replace(values=vectors)

    def _positions(self, moved: PlacedMap, batch: Batch) -> jax.Array:
        """Positions [B, h, w, 2] of the cells, in pixels; in padding the border's."""
        channels = moved.values.shape[-1]
        if channels != 2:
            raise InputError(
                "config.model.embedding_dim must be 2, rows and columns of a "
                f"displacement, for config.task.position_periods, got {channels}"
            )
        positions = displaced(moved, self.position_periods[0])
        return extended(positions, batch.get("mask"))

    def _groups(self, apply: Apply, batch: Batch, *, pools: bool) -> Groups:
        if not self.position_periods:
            return super()._groups(apply, batch, pools=pools)
        size, seen = batch["image"].shape[1:3], maps_of(apply, batch)
        mask = batch.get("mask", jnp.ones(batch["image"].shape[:3], bool))
        logits = enlarged(placed_map(seen, "logits", batch), size)
        background = jax.nn.softmax(logits, axis=-1)[..., :1]
        moved = placed_map(seen, "embedding", batch)
        positions = enlarged(moved._replace(values=self._positions(moved, batch)), size)
        curvature = sum((2 * math.pi / period) ** 2 for period in self.position_periods)
        pooled = self.pooled_concentrations if pools else ()
        found = [
            group_positions(
                positions,
                mask & (background[..., 0] < 0.5),
                bandwidth=math.sqrt(2 * len(self.position_periods) / kappa / curvature),
                max_groups=self.max_groups - 1,
                min_size=self.min_size,
            )
            for kappa in (self.concentration, *pooled)
        ]
        maps = [one.labels for one in found]
        numbers = jnp.stack([one.num_groups for one in found])
        if pools:  # one more guess: where a class is connected, it is one object
            classes = jnp.where(mask, jnp.argmax(logits, axis=-1), 0).astype(jnp.int32)
            limits: Any = {"max_components": self.max_groups - 1}
            limits |= {"min_size": self.min_size, "return_number": True}
            none = jnp.zeros_like(numbers[0])
            components, number = split_components(classes, none, **limits)
            maps.insert(1, components)
            numbers = jnp.concatenate([numbers, number[None]])
        labels = jnp.stack([jnp.where(mask, one, VOID) for one in maps], axis=1)
        vectors = position_vectors(positions, periods=self.position_periods)
        return Groups(
            labels=labels[:, 0],
            num_groups=1 + jnp.minimum(numbers[0], self.max_groups - 1),
            embedding=beside_background(vectors, 1.0 - background, background),
            reached={"max_groups": (numbers >= self.max_groups).any(axis=0)},
            background=jnp.zeros_like(numbers[0]),
            proposals=jnp.where(labels > 0, labels, VOID) if pools else None,
        )

    @property
    def num_maps(self) -> int:
        """K, the label maps whose groups are pooled."""
        return super().num_maps + bool(self.position_periods)

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Adds ``loss/classes``, the cross-entropy, to the loss of `Proposals`."""
        maps, learned = maps_of(apply, batch), batch
        if self.position_periods:  # which the background does not have
            instances = batch["instances"]
            instances = jnp.where(instances > 0, instances, VOID)
            learned = {**batch, "instances": instances}
        total, terms = super().loss(lambda *_, **__: maps, (), learned, key)
        classes = classes_loss(maps, batch, self.num_classes, self.class_balance)
        return total + self.classes_weight * classes, {**terms, "loss/classes": classes}

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> Detections:
        """Groups, classifies and scores; -inf for the background and duplicates."""
        maps = maps_of(apply, batch)
        groups = self._groups(lambda *_, **__: maps, batch, pools=True)
        logits = enlarged(placed_map(maps, "logits", batch), batch["image"].shape[1:3])
        probabilities = jax.nn.softmax(logits, axis=-1)
        classes = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        mask = batch.get("mask", jnp.ones(classes.shape, bool))
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
        pool = self._pool(flat)
        none = jnp.zeros(votes.classes.shape[1:], bool)
        kept = jax.vmap(lambda source, group, keep: none.at[source, group].set(keep))(
            pool.source, pool.group, pool.keep
        )
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
        number, width = self.num_classes, self.trimap_width
        scores |= class_scores(predictions.classes, batch, number, width)
        totals = {k: RegionPrecision.empty(num_classes=number, name=k) for k in _STAGES}
        for i in np.flatnonzero(np.asarray(batch["valid"])):
            image = _of_image(predictions, batch, int(i), self.num_labels, number)
            totals = {name: totals[name].merge(image[name]) for name in _STAGES}
        return scores | totals


_proposal_metrics = jax.jit(Proposals.metrics, static_argnums=0)
_STAGES = ("ap_r", "ap_r_true_classes", "ap_r_true_scores", "ap_r_true_masks")


def _of_image(
    predictions: Detections, batch: Batch, i: int, num_groups: int, num_classes: int
) -> dict[str, RegionPrecision]:
    """AP^r of an image and with true stages, see `Instances.metrics`."""
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
    given = (
        (maps, scores, classes),
        (maps, scores, objects[best]),
        (maps, perfect, classes),
        (truth, share, voted),
    )
    known = {"true_classes": objects, "num_classes": num_classes}
    return {
        name: RegionPrecision.from_image(
            labels, truth, scores=score, classes=which, name=name, **known
        )
        for name, (labels, score, which) in zip(_STAGES, given, strict=True)
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
