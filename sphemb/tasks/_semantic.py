"""The task `Semantic`: classes of pixels, with their loss and scores.

Shape letters: B images, H W image size, M sampled pixels, C classes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import VOID, InputError
from sphemb.instances import split_components
from sphemb.losses import cross_entropy, instance_weights, margin_loss
from sphemb.metrics import MeanIoU, PairScores, TrimapIoU
from sphemb.tasks._pixels import (
    draw_pixels,
    enlarged,
    image_size,
    placed_map,
    unit_vectors_at,
    unit_vectors_of_all,
)
from sphemb.tasks._task import (
    Apply,
    Batch,
    ClassMap,
    LabelMap,
    Maps,
    Stateless,
    TaskState,
    maps_of,
    setting,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Semantic(Stateless):
    r"""Learns the class of every pixel by cross-entropy, and an embedding beside it.

    The margin loss on sampled pixels gives pixels of one class, or of one instance,
    similar embeddings. The void of classes and the void of instances are two masks. A
    crowd has a class and no instances.

    Attributes:
        num_classes: C, with the background.
        class_balance: p of a pixel's weight :math:`1 / n_c^p` in an image with
            :math:`n_c` pixels of its class; 0: pixels count the same, 1: classes do.
        embedding_weight: of the margin loss; 0 for the cross-entropy alone.
        embedding_groups: its groups, ``"classes"`` or ``"instances"``.
        margin: :math:`\alpha` of Eq. 2.
        num_samples: M, pixels of an image in the margin loss, at most.
        normalize: what it is divided by, see `sphemb.margin_loss`.
        negative_weight: of its pairs from different groups.
        trimap_width: width in pixels of the widest band around true boundaries that is
            scored by itself; 0 for no bands.
        pair_scores: also score the classes as a partition, see
            `sphemb.metrics.PairScores`.
        max_objects: objects of an image that these scores can count.
    """

    num_classes: int = setting(21, at_least=2)
    class_balance: float = setting(0.0, at_least=0)
    embedding_weight: float = setting(0.0, at_least=0)
    embedding_groups: str = setting("classes", choices=("classes", "instances"))
    margin: float = setting(0.5, at_least=0, at_most=1)
    num_samples: int = setting(1024, at_least=2)
    normalize: str = setting("pairs", choices=("pixels", "pairs", "terms"))
    negative_weight: float = setting(1.0, at_least=0)
    trimap_width: int = setting(40, scoring=True, at_least=0)
    pair_scores: bool = setting(False, scoring=True, choices=(True, False))
    max_objects: int = setting(64, scoring=True, at_least=1)
    prediction: ClassVar[type] = ClassMap
    metrics_on_host: ClassVar[bool] = True

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
        """The weighted sum of ``loss/classes`` and ``loss/embedding``."""
        maps = maps_of(apply, batch)
        loss = classes_loss(maps, batch, self.num_classes, self.class_balance)
        terms = {"loss/classes": loss}
        if self.embedding_weight:
            names = {"classes": "semantic", "instances": "instances"}
            groups = {**batch, "instances": batch[names[self.embedding_groups]]}
            terms["loss/embedding"] = self._embedding_loss(maps, groups, key)
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
        """Classifies every pixel, and embeds it."""
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
        found = predictions.classes
        scores = class_scores(found, batch, self.num_classes, self.trimap_width)
        if self.pair_scores:
            scores |= class_pairs(
                jnp.asarray(found),
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
    """The classes [B, H, W] of a batch."""
    if "semantic" not in batch:
        raise InputError(
            "the data must have classes for config.task to learn, but their examples "
            "have no semantic: take config.data.name voc or coco, or a folder with "
            "config.data.masks classes"
        )
    return batch["semantic"]


def classes_loss(
    maps: Maps, batch: Batch, num_classes: int, balance: float
) -> jax.Array:
    """The cross-entropy of all pixels, averaged over the images."""
    classes = true_classes(batch)
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
    found: Any, batch: Batch, num_classes: int, trimap_width: int
) -> dict[str, Any]:
    """Mean IoU of the classes, and by their distance from true boundaries."""
    known, valid = true_classes(batch), jnp.asarray(batch["valid"])
    classes = MeanIoU.from_batch(
        jnp.asarray(found), known, num_classes=num_classes, valid=valid
    )
    if not trimap_width:
        return {"classes": classes}
    widths = {"num_classes": num_classes, "max_width": trimap_width}
    bands = TrimapIoU.empty(**widths)
    maps = np.stack([np.asarray(found), np.asarray(known)], axis=1)
    for i in np.flatnonzero(np.asarray(valid)):
        height, width = image_size(batch["mask"][i])  # padding has no boundary
        image = TrimapIoU.from_image(*maps[i, :, :height, :width], **widths)
        bands = bands.merge(image)
    return {"classes": classes, "trimap": bands}


def class_pairs(
    classes: jax.Array,
    true_classes: jax.Array,
    instances: jax.Array,
    *,
    num_classes: int,
    max_objects: int,
    valid: jax.Array | None = None,
) -> dict[str, PairScores]:
    """Pair scores of a class map (Barnes & Dubrawski, Table 1), on the host."""
    # The number of components as a power of two, to compile for few numbers.
    every = int(np.prod(classes.shape[1:]))
    parts = split_components(classes, 0, max_components=every)
    most = 1 << int(jnp.max(parts, initial=1)).bit_length()
    # The scores compare the same pixels: void in one map is void in both.
    void = (true_classes < 0) | (instances < 0)
    true_classes, instances = (
        jnp.where(void, VOID, labels) for labels in (true_classes, instances)
    )

    objects = (instances, max_objects)
    pairs = {
        "class": ("classes", classes, num_classes, true_classes, num_classes - 1),
        "region": ("regions", classes, num_classes, *objects),
        "part": ("parts", parts, most, *objects),
    }
    return {
        f"{key}_pairs": PairScores.from_batch(
            found,
            truth,
            max_predicted=groups,
            max_true=true,
            valid=valid,
            prefix=f"{name}/",
        )
        for key, (name, found, groups, truth, true) in pairs.items()
    }
