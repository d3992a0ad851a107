"""PiCIE: classes of pixels from images alone, by clustering to learn.

Cho et al., CVPR 2021.

Shape letters: B images, H rows, W columns, h w size of the feature map, N = h w cells,
M sampled cells, D dimension, V views, K clusters.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sphemb._checks import (
    InputError,
    check_choice,
    check_count,
    check_number,
)
from sphemb._labels import VOID
from sphemb.grouping import assign_clusters
from sphemb.losses import (
    cluster_weights,
    overclustering_weights,
    prototype_cross_entropy,
)
from sphemb.metrics import MatchedIoU
from sphemb.sphere import l2_normalize, pairwise_dot
from sphemb.tasks._clusters import SampledPoints, cluster_stream, sample_cells
from sphemb.tasks._pixels import unit_map
from sphemb.tasks._task import Apply, Batch, Maps
from sphemb.tasks._views import ViewSettings, view_image, view_keys, view_points

_COLLAPSED = 0.9  # share of the pixels in one cluster
_keys = jax.jit(view_keys)
_image = jax.jit(view_image, static_argnames=("view", "settings"))
_points = jax.jit(view_points, static_argnames=("view", "settings"))
_SAMPLE = 3  # the number of the key of the sampled cells, after those of the views


class PicieMemory(NamedTuple):
    """What a run of PiCIE knows beside its network.

    Attributes:
        seed: uint32 [2], of everything that is drawn.
        epoch: int32, refreshes so far; the images' random changes go by it.
        centroids: for each number of clusters K, [V, K, D].
        counts: for each of them, float32 [V, K], the cells behind each centroid.
        anchor: the network as it was when the epoch began, which gives the labels.
    """

    seed: jax.Array
    epoch: jax.Array
    centroids: tuple[jax.Array, ...]
    counts: tuple[jax.Array, ...]
    anchor: Apply


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picie:
    r"""Clusters the pixels of all images, and learns to tell the clusters apart.

    Every `refresh` begins an epoch: it draws new random changes for each image, which
    stay the same until the next, embeds the images in two views, and clusters each
    view by k-means: Lloyd's steps on the first images, running means on those after
    them. Until the next refresh the centroids are frozen. A pixel is pulled to the
    nearest centroid of its own view (within), and to the one of the other view's
    centroids that is nearest to the other view's pixel (cross).

    A pixel's label stays the same within an epoch: it is what the network said that
    the clusters were found with, the anchor, which the memory keeps. The authors store
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
        refresh_every: steps of an epoch; None for those that show every image once.
        cluster_images: images that a refresh looks at, at most; None for all.
        cluster_pixels: M, cells of each of them.
        start_images: the first of them, on which Lloyd's steps are taken.
        start_steps: their number.
        brightness: as of the next five, see `sphemb.warps.draw_photometric`.
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
    refresh_every: int | None = None
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
    metrics_on_host: ClassVar[bool] = False

    def __post_init__(self):
        where = "config.task"
        for name, least in {
            "num_clusters": 2,
            "num_overclusters": 0,
            "embedding_dim": 1,
            "cluster_pixels": 1,
            "start_images": 1,
            "start_steps": 0,
            "scale_multiple": 1,
            "first_class": 0,
            "num_classes": 1,
            "num_things": 0,
        }.items():
            check_count(f"{where}.{name}", getattr(self, name), at_least=least)
        for name in ("refresh_every", "cluster_images"):
            if getattr(self, name) is not None:
                check_count(f"{where}.{name}", getattr(self, name), at_least=1)
        if self.num_overclusters and self.num_overclusters <= self.num_clusters:
            raise InputError(
                f"{where}.num_overclusters must be above num_clusters "
                f"{self.num_clusters}, or 0 for none, got {self.num_overclusters}"
            )
        for name, choices in {
            "views": (1, 2),
            "metric": ("euclidean", "spherical"),
            "balance": ("none", "proportional", "inverse"),
            "predict_view": (0, 1),
            "scored_by": ("semantic", "foreground"),
            "matching": ("one_to_one", "majority"),
        }.items():
            check_choice(f"{where}.{name}", getattr(self, name), choices)
        check_number(f"{where}.predict_scale", self.predict_scale, above=0)
        check_number(f"{where}.temperature", self.temperature, above=0)

    @property
    def _sizes(self) -> tuple[int, ...]:
        """The numbers of clusters."""
        over = (self.num_overclusters,) if self.num_overclusters else ()
        return (self.num_clusters, *over)

    @property
    def _view_settings(self) -> ViewSettings:
        return ViewSettings(*(getattr(self, name) for name in ViewSettings._fields))

    def init(self, key: jax.Array, apply: Apply) -> PicieMemory:
        """No clusters yet; the first refresh, before the first step, finds them."""
        shapes = [(self.views, size) for size in self._sizes]
        return PicieMemory(
            seed=jax.random.key_data(key),
            epoch=jnp.zeros((), jnp.int32),
            centroids=tuple(jnp.zeros((*s, self.embedding_dim)) for s in shapes),
            counts=tuple(jnp.zeros(s) for s in shapes),
            anchor=jax.tree.map(jnp.copy, apply),
        )

    def refresh(
        self,
        apply: Apply,
        memory: PicieMemory,
        batches: Iterable[Batch],
        key: jax.Array,
    ) -> PicieMemory:
        """Begins an epoch: new random changes, and new clusters of each view.

        Args:
            apply: the network as it predicts, compiled.
            memory: of the epoch before.
            batches: ``image`` [B, H, W, 3], ``index`` [B] and ``valid`` [B].
            key: of this refresh, for the starts of k-means.

        Returns:
            The memory of the new epoch.
        """
        memory = memory._replace(epoch=memory.epoch + 1)
        states = cluster_stream(
            key,
            self._sampled(apply, memory, batches),
            sizes=self._sizes,
            start_images=self.start_images,
            start_steps=self.start_steps,
            metric=self.metric,
        )
        memory = memory._replace(
            centroids=tuple(state.centroids for state in states),
            counts=tuple(state.counts for state in states),
            anchor=jax.tree.map(jnp.copy, apply),
        )
        _warn_of_collapse(memory)
        return memory

    def _sampled(
        self, apply: Apply, memory: PicieMemory, batches: Iterable[Batch]
    ) -> Iterator[SampledPoints]:
        """The points of each batch, embedded one view after the other."""
        seen = 0
        for batch in batches:
            keys = _keys(memory.seed, memory.epoch, batch["index"])
            # Compiled in three parts, since the network is by whoever hands it in: its
            # parameters would be constants of a part that it stands in.
            views = []
            for view in range(self.views):
                image = _image(
                    batch["image"], keys, view=view, settings=self._view_settings
                )
                features = self._features(apply(image))
                views.append(
                    _points(features, keys, view=view, settings=self._view_settings)
                )
            cells = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, _SAMPLE)
            points, mask = sample_cells(
                tuple(views), cells, batch["valid"], number=self.cluster_pixels
            )
            images = len(batch["index"]) * jax.process_count()
            yield SampledPoints(*_of_all_processes(points, mask, images), images)
            seen += images
            if self.cluster_images is not None and seen >= self.cluster_images:
                return

    def _features(self, maps: Maps) -> jax.Array:
        """The map that is clustered, [B, h, w, D]."""
        if self.feature not in maps:
            raise InputError(
                f"config.task.feature must be a map of the network, "
                f"{', '.join(maps)}, got {self.feature!r}"
            )
        features = maps[self.feature]
        if features.shape[-1] != self.embedding_dim:
            raise InputError(
                f"config.task.embedding_dim must be that of the map {self.feature}, "
                f"{features.shape[-1]}, got {self.embedding_dim}"
            )
        return features

    def loss(
        self, apply: Apply, memory: PicieMemory, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        r"""The mean of within and cross losses, over views and numbers of clusters.

        .. math:: \ell = \sum_K \lambda_K \tfrac12 (\ell^{within}_K + \ell^{cross}_K)

        Args:
            apply: the network.
            memory: of this epoch.
            batch: ``image`` [B, H, W, 3], ``index`` [B].
            key: not used: chance goes by the epoch and the image.

        Returns:
            The loss, and its terms of K clusters: ``loss/within``, ``loss/cross`` with
            two views, ``loss/over``, all of the finer clusters'; ``largest_cluster``,
            the share of the batch's pixels that have one label.
        """
        keys = view_keys(memory.seed, memory.epoch, batch["index"])
        settings = self._view_settings
        views, anchors = [], []
        for view in range(self.views):
            image = view_image(batch["image"], keys, view=view, settings=settings)
            for network, points in ((apply, views), (memory.anchor, anchors)):
                features = self._features(network(image))
                points.append(view_points(features, keys, view=view, settings=settings))
        anchors = jax.lax.stop_gradient(anchors)
        within, cross, largest = self._losses(views, anchors, memory, 0)
        terms = {"loss/within": within}
        total = within
        if self.views == 2:
            terms["loss/cross"] = cross
            total = 0.5 * (within + cross)
        if self.num_overclusters:
            within, cross, _ = self._losses(views, anchors, memory, 1)
            finer = within if self.views == 1 else 0.5 * (within + cross)
            terms["loss/over"] = finer
            one, two = overclustering_weights(*self._sizes)
            total = one * total + two * finer
        return total, {**terms, "largest_cluster": largest}

    def _losses(
        self,
        views: list[jax.Array],
        anchors: list[jax.Array],
        memory: PicieMemory,
        which: int,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Within and cross losses of one number of clusters, and its largest share."""
        centroids = memory.centroids[which]
        weights = cluster_weights(memory.counts[which], balance=self.balance)
        labels = [
            assign_clusters(x, centroids[v], metric=self.metric)
            for v, x in enumerate(anchors)
        ]

        def mean_loss(shift: int) -> jax.Array:
            """Of every view with the labels and centroids of the view beside it."""
            losses = []
            for view, points in enumerate(views):
                by = (view + shift) % self.views
                loss = prototype_cross_entropy(
                    points,
                    centroids[by] / self.temperature,
                    labels[by],
                    weights=weights[by],
                )
                losses.append(loss.mean())
            return jnp.stack(losses).mean()

        sizes = jnp.stack(
            [jnp.bincount(y.reshape(-1), length=centroids.shape[1]) for y in labels]
        )
        largest = jnp.max(sizes / labels[0].size)
        return mean_loss(0), mean_loss(1), largest

    def predict(self, apply: Apply, memory: PicieMemory, batch: Batch) -> Maps:
        """Labels every pixel with the nearest centroid.

        Args:
            apply: the network.
            memory: of the last epoch.
            batch: ``image`` [B, H, W, 3]; optionally ``mask`` [B, H, W], False where
                pixels are padding.

        Returns:
            ``labels`` int32 [B, H, W], clusters 0..K-1; -1 where masked. Scores are
            interpolated between cells, not labels.
        """
        image, mask = batch["image"], batch.get("mask")
        seen = image
        if self.predict_scale != 1.0:
            size = (
                max(1, round(self.predict_scale * side / self.scale_multiple))
                * self.scale_multiple
                for side in image.shape[1:3]
            )
            seen = jax.image.resize(image, (image.shape[0], *size, 3), "bilinear")
        points = unit_map(self._features(apply(seen)))
        centroids = memory.centroids[0][min(self.predict_view, self.views - 1)]
        if self.metric == "spherical":
            centroids = l2_normalize(centroids)
        lengths = jnp.sum(jnp.square(centroids), axis=-1)
        scores = pairwise_dot(points.reshape(-1, points.shape[-1]), centroids)
        scores = (scores - 0.5 * lengths).reshape(*points.shape[:3], -1)
        scores = jax.image.resize(
            scores, (*image.shape[:3], scores.shape[-1]), "bilinear"
        )
        labels = jnp.argmax(scores, axis=-1).astype(jnp.int32)
        if mask is not None:
            labels = jnp.where(mask, labels, VOID)
        return {"labels": labels}

    def metrics(self, predictions: Maps, batch: Batch) -> dict[str, Any]:
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
                predictions["labels"],
                truth,
                num_clusters=self.num_clusters,
                num_classes=self.num_classes,
                num_things=self.num_things,
                matching=self.matching,
                valid=batch["valid"],
            )
        }


def _of_all_processes(
    points: jax.Array, mask: jax.Array, images: int
) -> tuple[jax.Array, jax.Array]:
    """Points [V, P, D] and mask [P] of all processes, as if there were one.

    The i-th image of every process comes before the next one of any, which is the order
    that they were dealt out in.
    """
    count = jax.process_count()
    if count == 1:
        return points, mask
    views, _, dim = points.shape
    points, mask = (multihost_utils.process_allgather(x) for x in (points, mask))
    points = points.reshape(count, views, images // count, -1, dim)
    mask = mask.reshape(count, images // count, -1)
    points = points.transpose(1, 2, 0, 3, 4).reshape(views, -1, dim)
    return jnp.asarray(points), jnp.asarray(mask.transpose(1, 0, 2).reshape(-1))


def _warn_of_collapse(memory: PicieMemory) -> None:
    """Says so, once, where nearly all pixels are in one cluster."""
    for counts in memory.counts:
        sizes = np.asarray(counts)
        shares = sizes.max(axis=1) / np.maximum(sizes.sum(axis=1), 1)
        view = int(shares.argmax())
        if shares[view] > _COLLAPSED and jax.process_index() == 0:
            print(
                f"warning: collapse in epoch {int(memory.epoch)}: cluster "
                f"{int(sizes[view].argmax())} of {sizes.shape[1]} holds "
                f"{100 * shares[view]:.0f} % of the pixels of view {view}; a smaller "
                "config.optimizer.learning_rate, shorter epochs or "
                "config.task.balance='inverse' may help",
                file=sys.stderr,
                flush=True,
            )
