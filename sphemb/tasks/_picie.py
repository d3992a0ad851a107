"""PiCIE: classes of pixels from images alone, by clustering to learn.

Cho et al., CVPR 2021.

Shape letters: B images, H rows, W columns, h w size of the feature map, N = h w cells,
M sampled cells, D dimension, V views, K clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sphemb._checks import VOID, InputError
from sphemb.grouping import KMeansState
from sphemb.losses import overclustering_weights
from sphemb.metrics import MatchedIoU
from sphemb.tasks._centroids import nearest_centroids, view_losses
from sphemb.tasks._clusters import cluster_stream
from sphemb.tasks._picie_checks import check_picie
from sphemb.tasks._picie_state import (
    PicieState,
    embedded_views,
    empty_state,
    next_epoch,
)
from sphemb.tasks._pixels import PlacedMap, placed_map, resized
from sphemb.tasks._predictions import Clusters
from sphemb.tasks._task import Apply, Batch, LabelMap, Maps, maps_of
from sphemb.tasks._views import ViewSettings, view_batch, view_keys, view_points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picie:
    r"""Clusters the pixels of all images, and learns to tell the clusters apart.

    Every `update` begins an epoch: it draws new random changes for each image, which
    stay the same until the next, embeds the images in two views, and clusters each
    view by k-means: Lloyd's steps on the first images, running means on those after
    them. Until the next update the centroids are frozen. A pixel is pulled to the
    nearest centroid of its own view (within), and to the one of the other view's
    centroids that is nearest to the other view's pixel (cross).

    A pixel's label stays the same within an epoch: it is what the network said that
    the clusters were found with, the anchor, which the state keeps. The authors store
    the labels instead; here a run can go on from any step with nothing stored but two
    networks, and each image is embedded once more. (Labels of the network as it learns
    have no hold: it can move all pixels to one centroid, and did.)

    No label is read, in training: ``instances`` may be void everywhere.

    Attributes:
        num_clusters: K.
        num_overclusters: 0, or a second, larger number of clusters that is learned
            beside them, as the paper's 100.
        views: 2, or 1 for the baseline without recolouring and boxes, after
            DeepCluster.
        embedding_dim: D, that of the network.
        feature: the network's map that is clustered.
        metric: ``"euclidean"``, the authors', or ``"spherical"``, of centroids that are
            unit vectors, as the paper's text has them.
        temperature: that the products with centroids are divided by; 1 is the authors'.
            Below it the loss tells clusters that are alike apart more sharply.
        balance: of clusters, see `sphemb.losses.cluster_weights`.
        update_every: steps of an epoch; None for those that show every image once.
        cluster_images: images that a update looks at, at most; None for all.
        cluster_pixels: M, cells of each of them.
        start_images: the first of them, on which Lloyd's steps are taken.
        start_steps: their number.
        brightness: as of the next five, see `sphemb.warps.sample_photometric`.
        contrast: see there.
        saturation: see there.
        hue: see there.
        jitter: see there.
        grey: see there.
        blur: how likely an image is blurred.
        blur_sigma: see there.
        crop_side: smallest and largest side of the box, as shares of the image's.
        flip: how likely it is mirrored.
        predict_view: whose centroids label an image, 0 or 1; the second view sees
            whole images, as a prediction does.
        predict_scale: images are predicted at so many times their size, to look as
            large as they did in training.
        scale_multiple: what the sides of a resized image are multiples of; what the
            network needs.
        scored_by: ``"semantic"``, classes of the data set, if it has any; or
            ``"foreground"``, instances against background.
        first_class: number of the first class that is scored; what is below it counts
            for nothing.
        num_classes: that are scored.
        num_things: the first of them, which are things.
        matching: of clusters with classes, see `sphemb.metrics.MatchedIoU`.
    """

    num_clusters: int = 27
    num_overclusters: int = 0
    views: int = 2
    embedding_dim: int = 128
    feature: str = "embedding"
    metric: str = "euclidean"
    temperature: float = 1.0
    balance: str = "none"
    update_every: int | None = None
    cluster_images: int | None = None
    cluster_pixels: int = 400
    start_images: int = 512
    start_steps: int = 20
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.1
    jitter: float = 0.8
    grey: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    crop_side: tuple[float, float] = (0.5, 1.0)
    flip: float = 0.5
    predict_view: int = 1
    predict_scale: float = 1.0
    scale_multiple: int = 32
    scored_by: str = "semantic"
    first_class: int = 1
    num_classes: int = 27
    num_things: int = 12
    matching: str = "one_to_one"
    prediction: ClassVar[type] = Clusters
    readoff: ClassVar[None] = None
    metrics_on_host: ClassVar[bool] = False
    scoring_settings: ClassVar[frozenset[str]] = frozenset(
        {
            "predict_view",
            "predict_scale",
            "scale_multiple",
            "scored_by",
            "first_class",
            "num_classes",
            "num_things",
            "matching",
        }
    )

    def __post_init__(self):
        check_picie(self)

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """What the scores read, if the data have it; the loss reads none."""
        if self.scored_by == "foreground":
            return (LabelMap("instances", learned=False),)
        scored = LabelMap(
            "semantic",
            learned=False,
            needed=False,
            below=self.first_class + self.num_classes,
            setting="num_classes",
        )
        return (scored,)

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The numbers of clusters."""
        over = (self.num_overclusters,) if self.num_overclusters else ()
        return (self.num_clusters, *over)

    @property
    def _view_settings(self) -> ViewSettings:
        return ViewSettings(*(getattr(self, name) for name in ViewSettings._fields))

    def init(self, key: jax.Array, apply: Apply) -> PicieState:
        """No clusters yet; the first update, before the first step, finds them."""
        return empty_state(
            key, apply, views=self.views, sizes=self._sizes, dim=self.embedding_dim
        )

    def update(
        self,
        apply: Apply,
        state: PicieState,
        batches: Iterable[Batch],
        key: jax.Array,
    ) -> PicieState:
        """Begins an epoch: new random changes, and new clusters of each view.

        Args:
            apply: the network as it predicts, compiled.
            state: of the epoch before.
            batches: ``image`` [B, H, W, 3], ``index`` [B] and ``valid`` [B].
            key: of this update, for the starts of k-means.

        Returns:
            The state of the new epoch.
        """

        def cluster(state: PicieState) -> list[KMeansState]:
            points = embedded_views(
                lambda batch: self._features(maps_of(apply, batch), batch),
                state,
                batches,
                self._view_settings,
                cluster_images=self.cluster_images,
                cluster_pixels=self.cluster_pixels,
            )
            return cluster_stream(
                key,
                points,
                sizes=self._sizes,
                start_images=self.start_images,
                start_steps=self.start_steps,
                metric=self.metric,
            )

        return next_epoch(state, apply, cluster)

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

        Args:
            apply: the network.
            state: of this epoch.
            batch: ``image`` [B, H, W, 3], ``index`` [B].
            key: not used: chance goes by the epoch and the image.

        Returns:
            The loss, and its terms of K clusters: ``loss/within``, ``loss/cross`` with
            two views, ``loss/over``, all of the finer clusters'; ``largest_cluster``,
            the share of the batch's pixels that have one label.
        """
        keys = view_keys(state.seed, state.epoch, batch["index"])
        settings = self._view_settings
        views, anchors = [], []
        for view in range(self.views):
            seen = view_batch(batch, keys, view=view, settings=settings)
            for network, points in ((apply, views), (state.anchor, anchors)):
                features, grid = self._features(maps_of(network, seen), seen)
                points.append(
                    view_points(
                        features,
                        keys,
                        view=view,
                        settings=settings,
                        offset=grid.origin / grid.stride,
                    )
                )
        anchors = jax.lax.stop_gradient(anchors)
        found = [
            view_losses(
                views,
                anchors,
                centroids,
                counts,
                metric=self.metric,
                balance=self.balance,
                temperature=self.temperature,
            )
            for centroids, counts in zip(state.centroids, state.counts, strict=True)
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

        Args:
            apply: the network.
            state: of the last epoch.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W], False where
                pixels are padding.

        Returns:
            Clusters 0..K-1. The products with the centroids are interpolated between
            cells, not the clusters.
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
