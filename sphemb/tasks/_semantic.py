"""Semantic segmentation: a class for each pixel, with or without an embedding loss.

Kong & Fowlkes, CVPR 2018, section 5.4.

Shape letters: B images, H rows, W columns, N pixels, M sampled pixels, D dimension, K
classes, h w size of the network's maps.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import VOID, InputError, check_choice, check_count, check_number
from sphemb.losses import cross_entropy, instance_weights, margin_loss
from sphemb.metrics import MeanIoU, TrimapIoU
from sphemb.tasks._partitions import class_pairs
from sphemb.tasks._pixels import (
    draw_pixels,
    enlarged,
    image_size,
    placed_map,
    unit_vectors_at,
    unit_vectors_of_all,
)
from sphemb.tasks._predictions import ClassMap
from sphemb.tasks._task import (
    Apply,
    Batch,
    LabelMap,
    Maps,
    Stateless,
    TaskState,
    maps_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Semantic(Stateless):
    r"""Learns the class of every pixel.

    The cross-entropy of all pixels, and beside it the margin loss on a sample of them,
    which asks pixels of one class, or of one instance, to be embedded alike wherever
    they are. The void of classes and that of instances are two masks: what compares
    classes reads the one, what compares instances the other. A crowd has a class and no
    instances.

    Attributes:
        num_classes: K, that of the background among them.
        class_balance: 0 lets every pixel count the same, 1 every class that an image
            shows; in between, a pixel weighs :math:`1 / n_c^p` in an image with
            :math:`n_c` pixels of its class.
        embedding_weight: of the margin loss; 0 for the cross-entropy alone.
        embedding_groups: what is embedded alike: ``"classes"`` or ``"instances"``.
        margin: :math:`\alpha` of Eq. 2.
        num_samples: M, pixels of an image that are compared in it, at most.
        normalize: what it is divided by, see `sphemb.margin_loss`.
        negative_weight: of its pairs from different groups.
        trimap_width: pixels of the widest band around true boundaries in which the
            scores are told apart; 0 for no bands.
        pair_scores: score the classes as partitions of the pixels, too, see
            `sphemb.metrics.PairScores`.
        max_objects: objects of an image that these can count.
    """

    num_classes: int = 21
    class_balance: float = 0.0
    embedding_weight: float = 0.0
    embedding_groups: str = "classes"
    margin: float = 0.5
    num_samples: int = 1024
    normalize: str = "pairs"
    negative_weight: float = 1.0
    trimap_width: int = 40
    pair_scores: bool = False
    max_objects: int = 64
    prediction: ClassVar[type] = ClassMap
    metrics_on_host: ClassVar[bool] = True
    scoring_settings: ClassVar[frozenset[str]] = frozenset(
        {
            "trimap_width",
            "pair_scores",
            "max_objects",
        }
    )

    def __post_init__(self):
        check_count("config.task.num_classes", self.num_classes, at_least=2)
        check_number("config.task.class_balance", self.class_balance, at_least=0)
        check_number("config.task.embedding_weight", self.embedding_weight, at_least=0)
        check_choice(
            "config.task.embedding_groups",
            self.embedding_groups,
            ("classes", "instances"),
        )
        check_number("config.task.margin", self.margin, at_least=0, at_most=1)
        check_count("config.task.num_samples", self.num_samples, at_least=2)
        check_choice(
            "config.task.normalize", self.normalize, ("pixels", "pairs", "terms")
        )
        check_number("config.task.negative_weight", self.negative_weight, at_least=0)
        check_count("config.task.trimap_width", self.trimap_width)
        check_choice("config.task.pair_scores", self.pair_scores, (True, False))
        check_count("config.task.max_objects", self.max_objects, at_least=1)

    @property
    def object_limit(self) -> int | None:
        """The largest number of an object that the scores can count, if they do."""
        return self.max_objects if self.pair_scores else None

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The classes; the instances, if they are embedded or scored."""
        learned = self.embedding_weight > 0 and self.embedding_groups == "instances"
        maps = (class_map(self.num_classes),)
        if learned or self.pair_scores:
            maps += (LabelMap("instances", learned=learned),)
        return maps

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted losses, averaged over the images.

        Args:
            apply: the network, with ``logits`` and ``embedding``.
            state: ``()``.
            batch: ``image`` [B, H, W, 3]; ``semantic`` and ``instances`` [B, H, W];
                ``index`` [B].
            key: of this step.

        Returns:
            The loss, and ``loss/classes`` and ``loss/embedding``.

        Raises:
            InputError: the batch has no classes, or the network other ones.
        """
        maps = maps_of(apply, batch)
        classes = true_classes(batch)
        loss = classes_loss(
            maps,
            batch,
            classes,
            num_classes=self.num_classes,
            balance=self.class_balance,
        )
        terms = {"loss/classes": loss}
        if self.embedding_weight:
            groups = classes
            if self.embedding_groups == "instances":
                groups = batch["instances"]
            terms["loss/embedding"] = self._embedding_loss(
                maps, {**batch, "instances": groups}, key
            )
            loss = loss + self.embedding_weight * terms["loss/embedding"]
        return loss, terms

    def _embedding_loss(self, maps: Maps, batch: Batch, key: jax.Array) -> jax.Array:
        """The margin loss of the groups that stand for the instances."""
        sample = draw_pixels(batch, key, self.num_samples)
        labels = batch["instances"].reshape(len(batch["image"]), -1)
        return margin_loss(
            unit_vectors_at(placed_map(maps, "embedding", batch), sample.indices),
            jnp.take_along_axis(labels, sample.indices, axis=1),
            margin=self.margin,
            mask=sample.mask,
            normalize=self.normalize,
            negative_weight=self.negative_weight,
        ).mean()

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> ClassMap:
        """Classifies every pixel.

        Args:
            apply: the network.
            state: ``()``.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W], False where
                pixels are padding.

        Returns:
            The classes and the embedding.
        """
        size = batch["image"].shape[1:3]
        maps = maps_of(apply, batch)
        logits = enlarged(placed_map(maps, "logits", batch), size)
        classes = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        if "mask" in batch:
            classes = jnp.where(batch["mask"], classes, VOID)
        embedding = placed_map(maps, "embedding", batch)
        return ClassMap(classes, unit_vectors_of_all(embedding, size))

    def metrics(self, predictions: ClassMap, batch: Batch) -> dict[str, Any]:
        """Mean IoU, and inside and outside of bands around the true boundaries."""
        scores = class_scores(
            np.asarray(predictions.classes),
            batch,
            num_classes=self.num_classes,
            trimap_width=self.trimap_width,
        )
        if self.pair_scores:
            scores |= class_pairs(
                jnp.asarray(predictions.classes),
                true_classes(batch),
                jnp.asarray(batch["instances"]),
                num_classes=self.num_classes,
                max_objects=self.max_objects,
                valid=jnp.asarray(batch["valid"]),
            )
        return scores


def class_map(num_classes: int) -> LabelMap:
    """The classes of the data, of which there are ``config.task.num_classes``."""
    return LabelMap("semantic", below=num_classes, setting="num_classes")


def true_classes(batch: Batch) -> jax.Array:
    """The classes [B, H, W] of a batch.

    Raises:
        InputError: the batch has no classes.
    """
    if "semantic" not in batch:
        raise InputError(
            "the data must have classes for config.task to learn, but their examples "
            "have no semantic: take config.data.name voc or coco, or a folder with "
            "config.data.masks classes"
        )
    return batch["semantic"]


def classes_loss(
    maps: Maps, batch: Batch, classes: jax.Array, *, num_classes: int, balance: float
) -> jax.Array:
    """The cross-entropy of all pixels, averaged over the images.

    Args:
        maps: of the network: ``logits`` [B, h, w, K].
        batch: ``image`` [B, H, W, 3]; ``mask`` where there is padding.
        classes: [B, H, W].
        num_classes: K.
        balance: see `Semantic`.

    Raises:
        InputError: the network has other classes.
    """
    found = maps["logits"].shape[-1] if "logits" in maps else 0
    if found != num_classes:
        raise InputError(
            f"config.model.num_classes must be config.task.num_classes {num_classes}, "
            f"got {found}"
        )
    labels = classes.reshape(classes.shape[0], -1)
    logits = enlarged(placed_map(maps, "logits", batch), classes.shape[1:])
    weights = instance_weights(labels) ** balance if balance else None
    flat = logits.reshape(*labels.shape, num_classes)
    return cross_entropy(flat, labels, weights=weights).mean()


def class_scores(
    found: np.ndarray, batch: Batch, *, num_classes: int, trimap_width: int
) -> dict[str, Any]:
    """Mean IoU of the classes, and by their distance from true boundaries.

    Args:
        found: int [B, H, W], on the host.
        batch: with ``mask`` and ``valid``.
        num_classes: K.
        trimap_width: see `Semantic`.
    """
    known = true_classes(batch)
    scores: dict[str, Any] = {
        "classes": MeanIoU.from_batch(
            jnp.asarray(found),
            known,
            num_classes=num_classes,
            valid=jnp.asarray(batch["valid"]),
        )
    }
    if trimap_width:
        bands = TrimapIoU.empty(num_classes=num_classes, max_width=trimap_width)
        truth = np.asarray(known)
        for i in np.flatnonzero(np.asarray(batch["valid"])):
            # Padding has no boundary with the image.
            height, width = image_size(batch["mask"][i])
            bands = bands.merge(
                TrimapIoU.from_image(
                    found[i, :height, :width],
                    truth[i, :height, :width],
                    num_classes=num_classes,
                    max_width=trimap_width,
                )
            )
        scores["trimap"] = bands
    return scores
