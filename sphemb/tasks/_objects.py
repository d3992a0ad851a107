"""The task `Objects`: many objects of one kind, separated from their neighbors.

Shape letters: B images, H W image size, V windows of an image, M sampled pixels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import VOID, InputError
from sphemb._grid import Grid, middle_of_image
from sphemb.grouping import group_positions, position_vectors, spread_labels
from sphemb.instances import near_two_instances
from sphemb.losses import margin_loss, sample_pixels
from sphemb.metrics import MatchedPrecision
from sphemb.tasks._groups import group_scores
from sphemb.tasks._pixels import (
    PlacedMap,
    beside_background,
    displaced,
    enlarged,
    placed_map,
    resized,
)
from sphemb.tasks._task import (
    Apply,
    Batch,
    Groups,
    LabelMap,
    Stateless,
    TaskState,
    maps_of,
    setting,
)


class _Seen(NamedTuple):
    """What a network says of each pixel."""

    logits: jax.Array  # [B, H, W], of the foreground
    positions: jax.Array  # [B, H, W, 2], in pixels of the image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objects(Stateless):
    r"""Learns where objects are, and a position that the pixels of one have in common.

    Of a pixel at :math:`p_i` the network gives a logit :math:`f_i` of the foreground
    (map ``logits``) and a displacement :math:`\delta_i` in radians (map
    ``embedding``). The position :math:`q_i = p_i + \tfrac{P}{2\pi} \delta_i` becomes a
    unit vector (`sphemb.grouping.position_vectors`), and the margin loss over the
    pixels of a window pulls those of an object together and pushes those of its
    neighbors apart. Objects that are far from each other are never compared: equal ones
    cannot differ, and need not. A prediction groups the foreground by the modes of the
    positions, see `sphemb.grouping.group_positions`.

    Images are resized so that an object of the data's ``diameter`` has the size
    ``seen_diameter``; other lengths are of these resized images.

    Attributes:
        diameter: of a typical object, in pixels of the data; None: training measures
            the median of its images, and keeps it.
        seen_diameter: in pixels of the resized image; more takes more time.
        enlarge: whether images of smaller objects than ``seen_diameter`` are enlarged;
            if not, they keep their size.
        scale_multiple: multiple of the sides of a resized image, as the network needs.
        periods: of the unit vectors, in pixels; the first is P, about two diameters of
            the largest objects, and the others divide it.
        window: side of the windows, whose pixels are compared with each other; it
            divides the sides of the training images.
        num_samples: M, foreground pixels of a window in the loss, at most.
        margin: :math:`\alpha` of Eq. 2.
        position_weight: of the margin loss, beside the logistic loss of the foreground.
        gap: a pixel with two objects within so many pixels has the weight
            ``gap_weight`` in the logistic loss, others have 1.
        gap_weight: see ``gap``.
        bandwidth: h, in pixels, of the density of positions; lower it if objects merge,
            raise it if they are split.
        mirrors: whether a prediction is the mean over the image and its mirror images,
            by rows and by columns; four times as much work for the network.
        threshold: probability of the foreground, from which on a pixel is grouped.
        min_score: mean probability of the foreground over an object, at least; raise it
            if there are false objects, lower it if objects are missed.
        min_size: pixels of an object, at least.
        max_groups: objects of an image, at most.
        max_objects: objects of an image that the scores can count.

    References:
        Kong & Fowlkes, CVPR 2018, Eq. 2; Novotny et al., "Semi-convolutional operators
        for instance segmentation", ECCV 2018, for the displacement.
    """

    diameter: float | None = setting(None, above=0)
    seen_diameter: float = setting(16.0, above=0)
    enlarge: bool = setting(True, choices=(True, False))
    scale_multiple: int = setting(32, scoring=True, at_least=1)
    periods: tuple[float, ...] = setting((96.0, 48.0, 24.0), above=0)
    window: int = setting(64, at_least=1)
    num_samples: int = setting(256, at_least=2)
    margin: float = setting(0.7, at_least=0, at_most=1)
    position_weight: float = setting(5.0, at_least=0)
    gap: int = setting(2, at_least=0)
    gap_weight: float = setting(3.0, at_least=0)
    bandwidth: float = setting(2.5, scoring=True, above=0)
    mirrors: bool = setting(True, scoring=True, choices=(True, False))
    threshold: float = setting(0.5, scoring=True, above=0, below=1)
    min_score: float = setting(0.75, scoring=True, at_least=0, at_most=1)
    min_size: int = setting(16, scoring=True, at_least=1)
    max_groups: int = setting(400, scoring=True, at_least=1)
    max_objects: int = setting(400, scoring=True, at_least=1)
    prediction: ClassVar[type] = Groups

    def __post_init__(self):
        super().__post_init__()
        if not self.periods:
            raise InputError("config.task.periods must have one period at least")

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """The instances."""
        return (LabelMap("instances"),)

    @property
    def object_limit(self) -> int:
        """The largest object number that the scores can count."""
        return self.max_objects

    @property
    def table_cells(self) -> int:
        """Cells of the table of groups and objects of an image."""
        return (self.max_groups + 2) * (self.max_objects + 2)

    @property
    def embedding_dim(self) -> int:
        """Entries of the unit vectors of a prediction."""
        return 4 * len(self.periods) + 1

    @property
    def image_scale(self) -> float:
        """Factor of the size at which the network sees images, a power of root 2.

        So coarse that images of nearly the right size are not resized.
        """
        if self.diameter is None:
            return 1.0
        steps = round(2.0 * math.log2(self.seen_diameter / self.diameter))
        return 2.0 ** ((steps if self.enlarge else min(steps, 0)) / 2.0)

    def _see(self, apply: Apply, batch: Batch) -> _Seen:
        maps, size = maps_of(apply, batch), batch["image"].shape[1:3]
        channels = tuple(maps[name].shape[-1] for name in ("embedding", "logits"))
        if channels != (2, 1):
            raise InputError(
                "config.model must have embedding_dim 2, rows and columns of a "
                "displacement, and num_classes 1, the foreground, got "
                f"{channels[0]} and {channels[1]}"
            )
        moved = enlarged(placed_map(maps, "embedding", batch), size)
        logits = enlarged(placed_map(maps, "logits", batch), size)[..., 0]
        return _Seen(logits, displaced(PlacedMap(moved, Grid()), self.periods[0]))

    def _see_mirrored(self, apply: Apply, batch: Batch) -> _Seen:
        """The mean over the mirror images, with their displacements turned back."""
        mask = batch.get("mask", jnp.ones(batch["image"].shape[:3], bool))
        ends = 2 * middle_of_image(mask) - 1  # first and last row, or column, added
        seen = []
        for axes in ((), (1,), (2,), (1, 2)):

            def mirror(array: jax.Array, axes: tuple[int, ...] = axes) -> jax.Array:
                # The image is turned where it is; its padding stays.
                for axis in axes:
                    number = array.shape[axis]
                    last = ends[:, axis - 1].astype(jnp.int32)[:, None]
                    where = (last - jnp.arange(number)) % number
                    where = jnp.expand_dims(where, 3 - axis)
                    where = where.reshape(*where.shape, *(1,) * (array.ndim - 3))
                    array = jnp.take_along_axis(array, where, axis=axis)
                return array

            turned = jnp.array([axis in axes for axis in (1, 2)])
            mirrored = {**batch, "image": mirror(batch["image"])}
            if "middle" in batch:
                middle = jnp.where(turned, ends + 1 - batch["middle"], batch["middle"])
                mirrored["middle"] = middle
            found = self._see(apply, mirrored)
            positions = mirror(found.positions)
            back = ends[:, None, None] - positions
            positions = jnp.where(turned, back, positions)
            seen.append(_Seen(mirror(found.logits), positions))
        return jax.tree.map(lambda *each: sum(each) / len(each), *seen)

    def loss(
        self, apply: Apply, state: TaskState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """``loss/foreground``, a logistic loss, and ``loss/positions``."""
        seen, labels = self._see(apply, batch), batch["instances"]
        against = jnp.where(labels > 0, -seen.logits, seen.logits)
        losses = jax.nn.softplus(against)
        weights = jnp.where(near_two_instances(labels, self.gap), self.gap_weight, 1.0)
        weights = jnp.where(labels == VOID, 0.0, weights)
        total = jnp.sum(weights, axis=(1, 2))
        foreground = jnp.sum(weights * losses, axis=(1, 2))
        foreground = jnp.mean(foreground / jnp.where(total > 0, total, 1.0))

        labels = _windows(jnp.where(labels > 0, labels, VOID), self.window)
        positions = _windows(seen.positions, self.window)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["index"])
        number = min(self.num_samples, labels.shape[-1])
        sample = jax.vmap(lambda k, x: sample_pixels(k, x, num_samples=number))(
            keys, labels
        )
        labels = jnp.take_along_axis(labels, sample.indices, axis=-1)
        positions = jnp.take_along_axis(positions, sample.indices[..., None], axis=-2)
        apart = margin_loss(
            position_vectors(positions, periods=self.periods),
            labels,
            margin=self.margin,
            mask=sample.mask,
            normalize="terms",
        ).mean()
        terms = {"loss/foreground": foreground, "loss/positions": apart}
        return foreground + self.position_weight * apart, terms

    def predict(self, apply: Apply, state: TaskState, batch: Batch) -> Groups:
        """Groups the foreground; the background is group 0."""
        size, scale = batch["image"].shape[1:3], self.image_scale
        mask = batch.get("mask", jnp.ones(batch["image"].shape[:3], bool))
        small = resized(batch, scale, multiple=self.scale_multiple)
        seen = (self._see_mirrored if self.mirrors else self._see)(apply, small)
        share = jax.nn.sigmoid(seen.logits)
        inside = small.get("mask", True) & (share >= self.threshold)
        found = group_positions(
            seen.positions,
            inside,
            bandwidth=self.bandwidth,
            max_groups=self.max_groups,
            min_size=self.min_size,
            scores=share,
            min_score=self.min_score,
        )
        vectors = position_vectors(seen.positions, periods=self.periods)
        shares = share[..., None], 1.0 - share[..., None]
        labels, embedding = found.labels, beside_background(vectors, *shares)
        if scale != 1.0:
            logits = PlacedMap(seen.logits[..., None], Grid()).at_scale(scale)
            foreground = jax.nn.sigmoid(enlarged(logits, size)[..., 0])
            foreground = mask & (foreground >= self.threshold)
            rows, columns = (
                jnp.floor((jnp.arange(side) + 0.5) * scale).astype(jnp.int32)
                for side in size
            )
            # What is left out has a label here, so that nothing grows into it.
            out = self.max_groups + 1
            labels = jnp.where(inside & (labels == 0), out, labels)
            labels = labels[:, rows][:, :, columns]
            labels = spread_labels(jnp.where(foreground, labels, 0), foreground)
            labels = jnp.where(labels == out, 0, labels)
            embedding = embedding[:, rows][:, :, columns]
        number = jnp.minimum(found.num_groups, self.max_groups)
        return Groups(
            labels=jnp.where(mask, labels, VOID),
            num_groups=number + 1,
            embedding=embedding,
            reached={"max_groups": found.num_groups > self.max_groups},
            background=jnp.zeros_like(number),
        )

    def metrics(self, predictions: Any, batch: Batch) -> dict[str, Any]:
        """Recall and number of the objects, and AP at the thresholds of IoU."""
        known: Any = {"max_true": self.max_objects, "valid": batch["valid"]}
        scores = group_scores(
            predictions,
            batch,
            num_labels=self.max_groups + 1,
            max_objects=self.max_objects,
        )
        scores["matched_precision"] = MatchedPrecision.from_batch(
            predictions.labels,
            batch["instances"],
            max_predicted=self.max_groups,
            **known,
        )
        return scores


def _windows(array: jax.Array, side: int) -> jax.Array:
    """Cuts [B, H, W, ...] into windows, [B, V, side^2, ...]."""
    number, height, width, *tail = array.shape
    if height % side or width % side:
        raise InputError(
            f"config.task.window must divide the sides of the training images, {height}"
            f" and {width}, got {side}"
        )
    shape = number, height // side, side, width // side, side, *tail
    return array.reshape(shape).swapaxes(2, 3).reshape(number, -1, side**2, *tail)
