"""Predictions for images of any size, tile by tile.

Shape letters: H W image size, M instances, D embedding dimension.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from sphemb import instances, tasks
from sphemb._checks import InputError, check_number
from sphemb.data import ImageWindows, Tile, tile_image
from sphemb.evaluation._large_network import Moments, TiledNetwork, tile_batch
from sphemb.training import Experiment, Trained

_MAPS = ("labels", "classes", "boundary")

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
    * groups are those of a tile, and one instance where they overlap enough, see
      `sphemb.instances.stitch_labels`.

    Args:
        trained: the run.
        sample_tiles: tiles, at most, spread over the image, from which the moments of
            group normalization are found; None for all.
    """

    def __init__(self, trained: Trained, *, sample_tiles: int | None = 16) -> None:
        self._trained = trained
        self._task: Any = trained.experiment.task
        self._sample_tiles = sample_tiles
        self._network = TiledNetwork(trained)
        self._scale = getattr(self._task, "image_scale", 1.0)

    def least_tile(self, halo: int) -> int:
        """The side of the smallest tile with such a halo and a core."""
        stride = self._network.stride
        return 2 * (halo + -halo % stride) + stride

    def tiles(self, size: tuple[int, int], *, tile: int, halo: int) -> list[Tile]:
        """The tiles of an image, see `sphemb.data.tile_image`.

        An image of no more pixels than a square tile is one tile, whatever its shape.
        ``tile`` and ``halo`` are pixels as the network sees them, of a task that
        resizes images, too.
        """
        multiple = self._network.stride
        tile, halo = (math.ceil(side / self._scale) for side in (tile, halo))
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
        moments: Moments = {}
        if self._scale == 1.0:  # else each tile is resized, and has its own
            moments = self._network.moments(image, some, progress)
        canvas = _Canvas(image.size, embedding=embedding)
        job = _Image(image, moments, canvas, progress)
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


class SizedPrediction:
    """Predicts images whose objects have another size than those of training.

    Args:
        trained: a run, of `sphemb.tasks.Objects` if there is a diameter.
        diameter: of a typical object in the images, in pixels; None for the run's.
            ``"auto"`` predicts each image, measures the median object, and predicts
            again if another size fits better.

    Attributes:
        trained: the run.
        first: what predicts an image, or predicts it first.
    """

    def __init__(
        self, trained: Trained, diameter: float | Literal["auto"] | None = None
    ) -> None:
        if isinstance(diameter, str) and diameter != "auto":
            text = "must be a number of pixels above 0, or 'auto'"
            raise InputError(f"diameter {text}, got {diameter!r}")
        self.trained, self._auto = trained, diameter == "auto"
        self.first = TiledPrediction(trained)
        task = trained.experiment.task
        self._diameter: float | None = getattr(task, "diameter", None)
        self._at = {getattr(task, "image_scale", 1.0): self.first}
        if diameter is None:
            return
        if not hasattr(task, "diameter"):
            raise InputError(
                f"diameter {diameter} must be for a run of Objects, got one of "
                f"{type(task).__name__}: that task does not resize images"
            )
        if not isinstance(diameter, str):
            check_number("diameter", diameter, above=0)
            self._diameter = float(diameter)
            self.first = self._of(self._diameter)

    def predict(
        self, image: ImageWindows, *, tile: int, halo: int, **settings: Any
    ) -> tuple[Found, int]:
        """Predicts an image, see `TiledPrediction`; also the number of its tiles.

        ``diameter`` of what is found is that for which the image was resized, in pixels
        of the image; None if the task does not resize images.
        """
        diameter = self._diameter
        tiles = self.first.tiles(image.size, tile=tile, halo=halo)
        found = self.first.predict(image, tiles, **settings)
        sizes = np.bincount(found["labels"].ravel())[1:] if self._auto else np.zeros(0)
        if sizes.any():
            diameter = math.sqrt(4.0 / math.pi * float(np.median(sizes[sizes > 0])))
            again = self._of(diameter)
            if again is not self.first:
                tiles = again.tiles(image.size, tile=tile, halo=halo)
                found = again.predict(image, tiles, **settings)
        return found | {"diameter": diameter}, len(tiles)

    def _of(self, diameter: float) -> TiledPrediction:
        """The prediction at a diameter; one for all that give the same scale."""
        experiment = self.trained.experiment
        config = experiment.config.copy_and_resolve_references()
        own: Any = experiment.task
        # A configuration may have an integer, and leave out what it does not change.
        with config.unlocked(), config.task.ignore_type():
            config.task.diameter = diameter
            if isinstance(own, tasks.Objects) and own.diameter is not None:
                # Objects are to be seen at the size of those of training.
                seen = own.diameter * own.image_scale
                config.task.update(seen_diameter=seen, enlarge=True)
        other = Experiment(config, prepares=experiment.prepares)
        task: Any = other.task
        if task.image_scale not in self._at:
            trained = dataclasses.replace(self.trained, experiment=other)
            self._at[task.image_scale] = TiledPrediction(trained)
        return self._at[task.image_scale]


class _Canvas:
    """The maps of a whole image [H, W, ...], allocated with the first tile."""

    def __init__(self, size: tuple[int, int], *, embedding: bool) -> None:
        self.embedding = embedding  # whether it is kept
        self.found: Found = {}
        self._size = size

    def paste(self, found: Found, tile: Tile) -> None:
        """Copies the core of each map, and the limits that were reached."""
        reached = (*self.found.get("reached", ()), *found.get("reached", ()))
        self.found["reached"] = tuple(dict.fromkeys(reached))
        core = tile.core.within(tile.outer)
        names = (*_MAPS, "embedding") if self.embedding else _MAPS
        for name in (name for name in names if name in found):
            part = found[name]
            if name not in self.found:
                shape = (*self._size, *part.shape[2:])
                self.found[name] = np.zeros(shape, part.dtype)
            self.found[name][tile.core.slices] = part[core.slices]


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
