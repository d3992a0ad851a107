"""PiCIE: classes of pixels from images without labels (Cho et al., CVPR 2021).

Shape letters: B images, H W image size, h w map size, D dimension, V views, K clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sphemb._checks import VOID, InputError
from sphemb.losses import overclustering_weights
from sphemb.metrics import MatchedIoU
from sphemb.tasks._picie_clusters import (
    PicieState,
    ViewSettings,
    cluster_stream,
    embedded_views,
    nearest_centroids,
    view_batch,
    view_keys,
    view_losses,
    view_points,
    warn_of_collapse,
)
from sphemb.tasks._pixels import PlacedMap, placed_map, resized
from sphemb.tasks._task import Apply, Batch, Clusters, LabelMap, Maps, maps_of, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picie(ViewSettings):
    r"""Clusters the pixels of all images, and learns to separate the clusters.

    Every `update` begins an epoch. It samples new random changes of each image, embeds
    the images in two views, and clusters each view by k-means: Lloyd's steps on the
    first images, running means on the rest. The centroids are then frozen. The loss
    pulls a pixel to the nearest centroid of its own view (within) and to the centroid
    of the other view that is nearest to the other view's pixel (cross).

    The label of a pixel is the same throughout an epoch. It is computed by the anchor,
    the network at the start of the epoch, which the state keeps; the authors store the
    labels instead. (With labels of the current network, training collapsed.)

    No label of the data is used in training: ``instances`` may be void everywhere.
    `ViewSettings` has the random changes.

    Attributes:
        num_clusters: K.
        num_overclusters: 0, or a second, larger number of clusters that is learned
            beside them; the paper's 100.
        embedding_dim: D, that of the network.
        feature: the network's map that is clustered.
        metric: ``"euclidean"``, as in the authors' code, or ``"spherical"`` for unit
            centroids, as in the paper's text.
        temperature: divisor of the products with the centroids; the authors' is 1.
        balance: of clusters, see `sphemb.losses.cluster_weights`.
        update_every: steps of an epoch; None for a pass over all images.
        cluster_images: images that an update uses, at most; None for all.
        cluster_pixels: M, cells of each of them.
        start_images: the first of them, on which Lloyd's steps are taken.
        start_steps: number of these steps.
        predict_view: the view whose centroids label an image, 0 or 1; the second sees
            whole images, as a prediction does.
        predict_scale: scale at which images are predicted, to match the training size.
        scale_multiple: multiple of the sides of a resized image, as the network needs.
        scored_by: ``"semantic"``, classes of the data set, if any; or ``"foreground"``,
            instances against background.
        first_class: number of the first class that is scored; lower ones are void.
        num_classes: number of classes that are scored.
        num_things: the first of them, which are things.
        matching: of clusters with classes, see `sphemb.metrics.MatchedIoU`.
    """

    num_clusters: int = setting(27, at_least=2)
    num_overclusters: int = setting(0, at_least=0)
    embedding_dim: int = setting(128, at_least=1)
    feature: str = "embedding"
    metric: str = setting("euclidean", choices=("euclidean", "spherical"))
    temperature: float = setting(1.0, above=0)
    balance: str = setting("none", choices=("none", "proportional", "inverse"))
    update_every: int | None = setting(None, at_least=1)
    cluster_images: int | None = setting(None, at_least=1)
    cluster_pixels: int = setting(400, at_least=1)
    start_images: int = setting(512, at_least=1)
    start_steps: int = setting(20, at_least=0)
    predict_view: int = setting(1, scoring=True, choices=(0, 1))
    predict_scale: float = setting(1.0, scoring=True, above=0)
    scale_multiple: int = setting(32, scoring=True, at_least=1)
    scored_by: str = setting(
        "semantic", scoring=True, choices=("semantic", "foreground")
    )
    first_class: int = setting(1, scoring=True, at_least=0)
    num_classes: int = setting(27, scoring=True, at_least=1)
    num_things: int = setting(12, scoring=True, at_least=0)
    matching: str = setting(
        "one_to_one", scoring=True, choices=("one_to_one", "majority")
    )
    prediction: ClassVar[type] = Clusters
    readoff: ClassVar[None] = None
    metrics_on_host: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if self.num_overclusters and self.num_overclusters <= self.num_clusters:
            raise InputError(
                "config.task.num_overclusters must be above num_clusters "
                f"{self.num_clusters}, or 0 for none, got {self.num_overclusters}"
            )

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """What the scores read, if the data have it; the loss reads none."""
        if self.scored_by == "foreground":
            return (LabelMap("instances", learned=False),)
        end = self.first_class + self.num_classes
        return (LabelMap("semantic", False, False, below=end, setting="num_classes"),)

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The numbers of clusters."""
        over = (self.num_overclusters,) if self.num_overclusters else ()
        return (self.num_clusters, *over)

    @property
    def _view_settings(self) -> ViewSettings:
        names = [field.name for field in dataclasses.fields(ViewSettings)]
        return ViewSettings(**{name: getattr(self, name) for name in names})

    def init(self, key: jax.Array, apply: Apply) -> PicieState:
        """No clusters yet; the first update, before the first step, finds them."""
        shapes = [(self.views, size) for size in self._sizes]
        return PicieState(
            seed=jax.random.key_data(key),
            epoch=jnp.zeros((), jnp.int32),
            centroids=tuple(jnp.zeros((*s, self.embedding_dim)) for s in shapes),
            counts=tuple(jnp.zeros(s) for s in shapes),
            anchor=jax.tree.map(jnp.copy, apply),
        )

    def update(
        self, apply: Apply, state: PicieState, batches: Iterable[Batch], key: jax.Array
    ) -> PicieState:
        """Begins an epoch: new random changes, and new clusters of each view."""
        state = state._replace(epoch=state.epoch + 1)
        points = embedded_views(
            lambda batch: self._features(maps_of(apply, batch), batch),
            state,
            batches,
            self._view_settings,
            cluster_images=self.cluster_images,
            cluster_pixels=self.cluster_pixels,
        )
        clusters = cluster_stream(
            key,
            points,
            sizes=self._sizes,
            start_images=self.start_images,
            start_steps=self.start_steps,
            metric=self.metric,
        )
        state = state._replace(
            centroids=tuple(one.centroids for one in clusters),
            counts=tuple(one.counts for one in clusters),
            anchor=jax.tree.map(jnp.copy, apply),
        )
        warn_of_collapse(state)
        return state

    def _features(self, maps: Maps, batch: Batch) -> PlacedMap:
        """The map of a batch's images that is clustered, [B, h, w, D]."""
        if self.feature not in maps:
            raise InputError(
                f"config.task.feature must be a map of the network, "
                f"{', '.join(k for k in maps if k != 'origins')}, got {self.feature!r}"
            )
        features = placed_map(maps, self.feature, batch)
        if features.values.shape[-1] != self.embedding_dim:
            raise InputError(
                f"config.task.embedding_dim must be that of the map {self.feature}, "
                f"{features.values.shape[-1]}, got {self.embedding_dim}"
            )
        return features

    def loss(
        self, apply: Apply, state: PicieState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        r"""The mean of within and cross losses, over views and numbers of clusters.

        .. math:: \ell = \sum_K \lambda_K \tfrac12 (\ell^{within}_K + \ell^{cross}_K)

        The terms are ``loss/within``, with two views ``loss/cross``, with finer
        clusters ``loss/over``, and ``largest_cluster``, the share of the most frequent
        label.
        """
        keys = view_keys(state.seed, state.epoch, batch["index"])
        views, anchors = [], []
        for view in range(self.views):
            chosen: Any = {"view": view, "settings": self._view_settings}
            seen = view_batch(batch, keys, **chosen)
            for network, points in ((apply, views), (state.anchor, anchors)):
                features, grid = self._features(maps_of(network, seen), seen)
                offset = grid.origin / grid.stride
                points.append(view_points(features, keys, offset=offset, **chosen))
        anchors = jax.lax.stop_gradient(anchors)
        how: Any = {"metric": self.metric, "balance": self.balance}
        found = [
            view_losses(views, anchors, *clusters, temperature=self.temperature, **how)
            for clusters in zip(state.centroids, state.counts, strict=True)
        ]
        totals = [
            one.within if self.views == 1 else 0.5 * (one.within + one.cross)
            for one in found
        ]
        terms = {"loss/within": found[0].within}
        total, largest = totals[0], found[0].largest
        if self.views == 2:
            terms["loss/cross"] = found[0].cross
        if self.num_overclusters:
            terms["loss/over"] = finer = totals[1]
            one, two = overclustering_weights(*self._sizes)
            total = one * total + two * finer
        return total, {**terms, "largest_cluster": largest}

    def predict(self, apply: Apply, state: PicieState, batch: Batch) -> Clusters:
        """Labels every pixel with the nearest centroid.

        The products with the centroids are interpolated between cells, not the labels.
        """
        mask = batch.get("mask")
        seen = resized(batch, self.predict_scale, multiple=self.scale_multiple)
        features = self._features(maps_of(apply, seen), seen)
        labels = nearest_centroids(
            features.at_scale(self.predict_scale),
            state.centroids[0][min(self.predict_view, self.views - 1)],
            batch["image"].shape[1:3],
            metric=self.metric,
        )
        if mask is not None:
            labels = jnp.where(mask, labels, VOID)
        return Clusters(labels)

    def metrics(self, predictions: Clusters, batch: Batch) -> dict[str, Any]:
        """Accuracy and mean IoU after one matching; nothing without classes."""
        if self.scored_by == "foreground":
            truth = jnp.minimum(batch["instances"], 1)
        elif "semantic" in batch:
            semantic = batch["semantic"]
            scored = semantic >= self.first_class
            truth = jnp.where(scored, semantic - self.first_class, VOID)
        else:
            return {}
        return {
            "classes": MatchedIoU.from_batch(
                predictions.classes,
                truth,
                num_clusters=self.num_clusters,
                num_classes=self.num_classes,
                num_things=self.num_things,
                matching=self.matching,
                valid=batch["valid"],
            )
        }
