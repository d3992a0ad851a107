"""Predictions for images of any size, tile by tile.

Shape letters: H W image size, M instances, D embedding dimension.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from sphemb import instances, tasks
from sphemb.data import Box, ImageWindows, Tile, padded_size, tile_image
from sphemb.evaluation._large_network import Moments, TiledNetwork, tile_batch
from sphemb.sphere import l2_normalize
from sphemb.training import Trained

_MAPS = ("labels", "classes", "boundary")
_ROWS = 1024  # of a label map that are dilated together
_CORNERS = np.ones((3, 3), bool)  # connect, too

Found = dict[str, Any]
Progress = Callable[[Sequence[Tile], str], Iterable[Tile]]


@functools.singledispatch
def found_in_image(
    predictions: tasks.Predictions,
    size: tuple[int, int],
    *,
    min_size: int = 1,
    min_score: float = -np.inf,
) -> Found:
    """Takes the padding and the batch axis off a prediction for one image, on the host.

    Args:
        predictions: for one image.
        size: (H, W) of the image without padding.
        min_size: pixels that an instance needs, beside the task's own limit.
        min_score: of a detection that is in ``labels``.

    Returns:
        Depending on the prediction: ``labels`` int32 [H, W], 0 background or void;
        ``classes`` int32 [H, W], `VOID` void; ``boundary`` float32 [H, W];
        ``embedding`` float16 [H, W, D]; ``seen`` and ``detections``, the
        `SelectedDetections` of the labels and all that are scored;
        ``instance_classes`` and ``instance_scores`` [M] of the labels; ``reached``, the
        names of the limits that were reached.
    """
    raise TypeError(
        "Task.predict must return Groups, ClassMap, BoundaryMap or Detections, got "
        f"{type(predictions).__name__}"
    )


@found_in_image.register(tasks.BoundaryMap)
def _(predictions: tasks.BoundaryMap, size: tuple[int, int], **_: Any) -> Found:
    return {"boundary": _cut(predictions.boundary, size).astype(np.float32)}


@found_in_image.register(tasks.ClassMap)
def _(predictions: tasks.ClassMap, size: tuple[int, int], **_: Any) -> Found:
    return _embedded(predictions, size) | {"classes": _cut(predictions.classes, size)}


@found_in_image.register(tasks.Clusters)
def _(predictions: tasks.Clusters, size: tuple[int, int], **_: Any) -> Found:
    # From 1 on: no cluster is the background, and 0 is void.
    labels = _cut(predictions.classes, size) + 1
    return _embedded(predictions, size) | {"labels": labels}


@found_in_image.register(tasks.Groups)
def _(
    predictions: tasks.Groups, size: tuple[int, int], *, min_size: int = 1, **_: Any
) -> Found:
    if predictions.background is None:
        labels = jnp.asarray(predictions.labels[0]) + 1
    else:
        labels = instances.relabel(predictions.labels, predictions.background)[0]
    # An image smaller than the smallest group has no group, and so no instance.
    labels = np.maximum(_cut(labels[None], size), 0)
    if min_size > 1:
        kept = np.bincount(labels.ravel()) >= min_size
        kept[0] = False
        labels = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
    return _of_groups(predictions, size) | {"labels": labels}


@found_in_image.register(tasks.Detections)
def _(
    predictions: tasks.Detections,
    size: tuple[int, int],
    *,
    min_size: int = 1,
    min_score: float = -np.inf,
) -> Found:
    maps = _cut(predictions.groups.proposals, size)
    scores = np.asarray(predictions.proposal_scores[0])
    number = scores.shape[-1]
    sizes = np.stack(
        [np.bincount(m[m >= 0].ravel(), minlength=number)[:number] for m in maps]
    )
    classes = np.asarray(predictions.proposal_classes[0])
    scores = np.where(sizes < min_size, -np.inf, scores)
    settings = {"scores": scores, "classes": classes}
    seen = instances.select_detections(maps, **settings, min_score=min_score)
    return _of_groups(predictions.groups, size) | {
        "detections": instances.select_detections(maps, **settings, max_overlap=1.0),
        "seen": seen,
        "labels": seen.labels,
        "instance_classes": seen.classes,
        "instance_scores": seen.scores,
        "classes": _cut(predictions.classes, size),
    }


def _cut(array: Any, size: tuple[int, int]) -> np.ndarray:
    """The first of the arrays [B, ..., H, W], without padding."""
    return np.asarray(array[0])[..., : size[0], : size[1]]


def _embedded(
    predictions: tasks.Groups | tasks.ClassMap, size: tuple[int, int]
) -> Found:
    if predictions.embedding is None:
        return {}
    shown = predictions.embedding[0, : size[0], : size[1]]
    return {"embedding": np.asarray(shown, np.float16)}


def _of_groups(groups: tasks.Groups, size: tuple[int, int]) -> Found:
    reached = (name for name, reached in groups.reached.items() if reached[0])
    return _embedded(groups, size) | {"reached": tuple(reached)}


class _Image(NamedTuple):
    """An image in tiles: moments and maps of the whole, and progress bars."""

    pixels: ImageWindows
    moments: Moments
    canvas: _Canvas
    progress: Progress


class TiledPrediction:
    """Predicts images of any size, in the memory that a tile takes.

    How tiles are put together depends on the prediction (see ``docs/prediction.md``):

    * class and boundary maps are cut and put side by side;
    * if instances are the connected components of the foreground
      (`sphemb.tasks.Readoff.by_foreground`), the background's direction is that of the
      image, and the components are those of the whole image, without a seam;
    * other groups are those of a tile, and one instance where they overlap enough, see
      `sphemb.instances.stitch_labels`.

    Args:
        trained: the run.
        sample_tiles: tiles, at most, spread over the image, from which the moments of
            group normalization and the background are found; None for all.
    """

    def __init__(self, trained: Trained, *, sample_tiles: int | None = 16) -> None:
        self._trained = trained
        self._task: Any = trained.experiment.task
        self._sample_tiles = sample_tiles
        self._network = network = TiledNetwork(trained)
        readoff: Any = self._task.readoff
        self._readoff = readoff
        # The network and the comparison are one program, so that the embedding of all
        # pixels is not kept.
        self._is_foreground = jax.jit(
            lambda bound, batch, background: readoff.is_foreground(
                tasks.embed_pixels(network.traced(bound), batch),
                batch["mask"],
                background,
            )
        )
        self._unit_vectors = jax.jit(
            lambda bound, batch: tasks.embed_pixels(network.traced(bound), batch)
        )

    def least_tile(self, halo: int) -> int:
        """The side of the smallest tile with such a halo and a core."""
        stride = self._network.stride
        return 2 * (halo + -halo % stride) + stride

    def tiles(self, size: tuple[int, int], *, tile: int, halo: int) -> list[Tile]:
        """The tiles of an image, see `sphemb.data.tile_image`.

        An image of no more pixels than a square tile is one tile, whatever its shape.
        """
        multiple = self._network.stride
        if math.prod(size) <= tile**2:
            # Padded as for scoring.
            tile, multiple = max(size), self._trained.experiment.multiple
        return tile_image(size, tile=tile, halo=halo, multiple=multiple)

    def predict(
        self,
        image: ImageWindows,
        tiles: Sequence[Tile],
        *,
        min_size: int = 1,
        embedding: bool = False,
        progress: Progress = lambda tiles, _: tiles,
    ) -> Found:
        """Predicts an image; returns what `found_in_image` does, for the whole image.

        Args:
            image: the image.
            tiles: of :meth:`tiles`. A single one is predicted as `Task.predict` does.
            min_size: pixels that an instance needs, beside the task's own limit.
            embedding: keep the embedding of every pixel.
            progress: iterates over the tiles of a pass, given the pass's name.
        """
        if len(tiles) == 1:
            apply, batch = self._trained.apply, tile_batch(image, tiles[0])
            found = self._found(image.size, tiles[0], apply, batch, min_size=min_size)
            return found if embedding else _without(found, "embedding")
        some = list(tiles)
        if self._sample_tiles and len(tiles) > self._sample_tiles:
            chosen = np.linspace(0, len(tiles) - 1, self._sample_tiles).round()
            some = [tiles[index] for index in chosen.astype(int)]
        moments = self._network.moments(image, some, progress)
        canvas = _Canvas(image.size, embedding=embedding)
        job = _Image(image, moments, canvas, progress)
        groups = issubclass(self._task.prediction, tasks.Groups)
        if groups and self._readoff is not None and self._readoff.by_foreground:
            background, unsure = self._background(job, some)
            canvas.note(("max_groups",) * bool(unsure))
            stitched = instances.stitch_labels(
                self._components(job, tiles, background),
                image.size,
                band=1,
                min_share=0.0,
                min_size=max(self._readoff.min_size, min_size),
            )
            labels = dilate_in_bands(stitched.labels, self._readoff.dilation)
            return canvas.found | {"labels": labels}
        every = self._every(job, tiles)
        if issubclass(self._task.prediction, tasks.ClassMap | tasks.BoundaryMap):
            for tile, found in every:
                canvas.paste({k: found[k] for k in ("labels",) if k in found}, tile)
            return canvas.found
        votes = _Votes()
        # Values near a tile's border are poor: the inner half of the halo counts.
        band, kinds = max(1, _halo(tiles) // 2), votes.classes
        stitched = instances.stitch_labels(
            votes.pieces(every), image.size, band=band, min_size=min_size, kinds=kinds
        )
        found = canvas.found | {"labels": stitched.labels}
        if issubclass(self._task.prediction, tasks.Detections):
            found |= votes.of_instances(stitched)
        return found

    def _found(
        self,
        size: tuple[int, int],
        tile: Tile,
        apply: tasks.Apply,
        batch: tasks.Batch,
        **kw: int,
    ) -> Found:
        """The prediction for a tile, without the pixels beyond the image."""
        predictions = self._task.predict(apply, self._trained.task_state, batch)
        least = getattr(self._task, "min_score", -np.inf)
        inside = tile.outer.clipped(*size).size
        return found_in_image(predictions, inside, min_score=least, **kw)

    def _every(
        self, job: _Image, tiles: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Found]]:
        """The tiles and their predictions; all maps but the labels are pasted."""
        size = job.pixels.size
        for tile in job.progress(tiles, "tiles"):
            apply = self._network.at(tile, size, job.moments)
            batch = self._network.batch(job.pixels, tile)
            found = self._found(size, tile, apply, batch)
            job.canvas.paste(_without(found, "labels"), tile)
            yield tile, found

    def _background(self, job: _Image, tiles: Sequence[Tile]) -> Any:
        """The background's direction, from pixels on a grid over the image."""
        size = job.pixels.size
        seen = sum(math.prod(tile.core.size) for tile in tiles) / math.prod(size)
        padded = math.prod(padded_size(size, self._trained.experiment.multiple))
        step = self._readoff.survey_step(padded * seen)
        positions, points = [], []
        for tile in job.progress(tiles, "background"):
            bound = self._network.arguments(tile, size, job.moments)
            vectors = self._unit_vectors(bound, tile_batch(job.pixels, tile))[0]
            rows, columns = (
                np.arange(first + -first % step, last, step)
                for first, last in zip(tile.core[:2], tile.core[2:], strict=True)
            )
            top, left = tile.outer[:2]
            found = vectors[rows[:, None] - top, columns[None] - left]
            points.append(np.asarray(found).reshape(-1, found.shape[-1]))
            positions.append((rows[:, None] * size[1] + columns[None]).ravel())
        order = np.argsort(np.concatenate(positions))
        ordered = jnp.asarray(np.concatenate(points)[order])
        return self._readoff.find_background(l2_normalize(ordered), cell=step**2)

    def _components(
        self, job: _Image, tiles: Sequence[Tile], background: jax.Array
    ) -> Iterator[instances.Piece]:
        """The connected components of each core and the pixel around it."""
        size = job.pixels.size
        for tile in job.progress(tiles, "tiles"):
            batch = tile_batch(job.pixels, tile)
            bound = self._network.arguments(tile, size, job.moments)
            where = self._is_foreground(bound, batch, background[None])
            if job.canvas.embedding:
                vectors = np.asarray(self._unit_vectors(bound, batch)[0], np.float16)
                job.canvas.paste({"embedding": vectors}, tile)
            top, left, bottom, right = core = tile.core
            seen = Box(top - 1, left - 1, bottom + 1, right + 1).clipped(*size)
            mask = np.asarray(where[0])[seen.within(tile.outer).slices]
            labels: Any = scipy.ndimage.label(mask, _CORNERS)[0]
            yield instances.Piece(labels, (seen.top, seen.left), tuple(core))


class _Canvas:
    """The maps of a whole image [H, W, ...], allocated with the first tile."""

    def __init__(self, size: tuple[int, int], *, embedding: bool) -> None:
        self.embedding = embedding  # whether it is kept
        self.found: Found = {}
        self._size = size

    def paste(self, found: Found, tile: Tile) -> None:
        """Copies the core of each map, and the limits that were reached."""
        self.note(found.get("reached", ()))
        core = tile.core.within(tile.outer)
        names = (*_MAPS, "embedding") if self.embedding else _MAPS
        for name in (name for name in names if name in found):
            part = found[name]
            if name not in self.found:
                shape = (*self._size, *part.shape[2:])
                self.found[name] = np.zeros(shape, part.dtype)
            self.found[name][tile.core.slices] = part[core.slices]

    def note(self, reached: Sequence[str]) -> None:
        """Keeps the names of limits that some tile, or all together, reached."""
        names = (*self.found.get("reached", ()), *reached)
        self.found["reached"] = tuple(dict.fromkeys(names))


class _Votes:
    """The class and the score of an instance of which several tiles see a part."""

    def __init__(self) -> None:
        self.classes: list[np.ndarray] = []  # of each tile's labels, from 0 on
        self._scores: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []

    def pieces(self, every: Iterable[tuple[Tile, Found]]) -> Iterator[instances.Piece]:
        """The label maps, while classes and scores are kept."""
        for tile, found in every:
            labels = found["labels"]
            number = int(labels.max(initial=0))
            core = labels[tile.core.within(tile.outer).slices]
            self._sizes.append(np.bincount(core.ravel(), minlength=number + 1)[1:])
            self._scores.append(found.get("instance_scores", np.zeros(number))[:number])
            classes = found.get("instance_classes", np.zeros(number, int))[:number]
            self.classes.append(np.concatenate([[0], classes]))
            yield instances.Piece(
                labels, (tile.outer.top, tile.outer.left), tuple(tile.core)
            )

    def of_instances(self, stitched: instances.Stitched) -> Found:
        """The class of all parts, and the mean of their scores by pixels."""
        number = len(stitched.sizes) - 1
        names = stitched.names[1:]
        sizes = np.concatenate(self._sizes)
        total = np.bincount(names, sizes, number + 1)[1:]
        scored = np.bincount(names, sizes * np.concatenate(self._scores), number + 1)
        classes = np.zeros(number + 1, int)
        classes[names] = np.concatenate([c[1:] for c in self.classes])
        scores = scored[1:] / np.maximum(total, 1)
        return {"instance_classes": classes[1:], "instance_scores": scores}


def dilate_in_bands(labels: np.ndarray, width: int) -> np.ndarray:
    """`sphemb.instances.dilate_instances` in place, some rows of a map at a time."""
    if not width:
        return labels
    above = labels[:0]
    for first in range(0, len(labels), max(_ROWS, width)):
        last = min(first + max(_ROWS, width), len(labels))
        window = np.concatenate([above, labels[first : last + width]])
        skipped, above = len(above), labels[last - width : last].copy()
        dilated = np.asarray(instances.dilate_instances(jnp.asarray(window), width))
        labels[first:last] = dilated[skipped : skipped + last - first]
    return labels


def _halo(tiles: Sequence[Tile]) -> int:
    """The least distance of a core from its tile's border, where tiles meet."""
    gaps = [
        core - outer
        for tile in tiles
        for core, outer in zip(tile.core[:2], tile.outer[:2], strict=True)
    ]
    return min((gap for gap in gaps if gap), default=0)


def _without(found: Found, name: str) -> Found:
    return {k: v for k, v in found.items() if k != name}
