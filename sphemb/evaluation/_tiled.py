"""Predictions for images of any size, tile by tile.

Shape letters: H W image size, N points, D embedding dimension, M instances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from sphemb.data import Box, ImageWindows, Tile, tile_image
from sphemb.evaluation._findings import Found, found_in_image
from sphemb.evaluation._tiled_network import Moments, TiledNetwork, tile_batch
from sphemb.instances import Piece, Stitched, grow_instances, stitch_labels
from sphemb.sphere import l2_normalize
from sphemb.tasks import Boundaries, Instances, Picie, Proposals, Semantic
from sphemb.training import Trained

_SURVEYED = 2**18  # points that the background is found from, at most
_ROWS = 1024  # of a label map that grow together
_CORNERS = np.ones((3, 3), bool)  # connect, too

Progress = Callable[[Sequence[Tile], str], Iterable[Tile]]


class TiledPrediction:
    """What a run finds in images of any size, in the memory that a tile takes.

    How tiles are put together depends on the task (see ``docs/prediction.md``):

    * classes, boundaries and clusters are cut and put side by side;
    * where all that is no background is parted (``foreground_below`` without
      ``reach``), the background's direction is that of the image, and instances are the
      connected parts of the whole, so that no seam leaves a trace;
    * other groups are those of a tile, and one instance where they overlap enough, see
      `sphemb.instances.stitch_labels`.

    Args:
        trained: the run.
        sample_tiles: tiles, at most, spread over the image, from which the moments of
            group normalisation and the background are found; None for all.
    """

    def __init__(self, trained: Trained, *, sample_tiles: int | None = 16) -> None:
        """Compiles nothing yet; see the class."""
        self._trained = trained
        task: Any = trained.experiment.task
        self._task = task
        self._sample_tiles = sample_tiles
        self._network = network = TiledNetwork(trained)
        # With the network in one program, no embedding of all pixels need be kept.
        self._is_foreground = jax.jit(
            lambda bound, batch, ground: task.is_foreground(
                network.traced(bound), batch, ground
            )
        )
        self._unit_vectors = jax.jit(
            lambda bound, batch: task.unit_vectors(network.traced(bound), batch)
        )

    @property
    def parts(self) -> bool:
        """Whether instances are the connected parts of what is no background."""
        task = self._task
        plain = isinstance(task, Proposals) and not isinstance(task, Instances)
        return plain and task.foreground_below is not None and not task.reach

    @property
    def whole(self) -> bool:
        """Whether the network sees tiles as parts, see `TiledNetwork`."""
        return self._network.whole

    @property
    def stride(self) -> int:
        """What the sides of a tile are multiples of."""
        return self._network.stride

    def least_tile(self, halo: int) -> int:
        """The side of the smallest tile with such a halo and a core."""
        return 2 * (halo + -halo % self.stride) + self.stride

    def tiles(self, size: tuple[int, int], *, tile: int, halo: int) -> list[Tile]:
        """The tiles of an image, see `sphemb.data.tile_image`.

        Args:
            size: (H, W) of the image; one of no more pixels than a square tile is a
                tile by itself, whatever its shape.
            tile: side of a tile.
            halo: pixels around its core.
        """
        if math.prod(size) <= tile**2:
            tile = max(size)
        return tile_image(size, tile=tile, halo=halo, multiple=self.stride)

    def predict(
        self,
        image: ImageWindows,
        tiles: Sequence[Tile],
        *,
        min_size: int = 1,
        embedding: bool = False,
        progress: Progress = lambda tiles, _: tiles,
    ) -> Found:
        """Finds what is in an image.

        Args:
            image: the image.
            tiles: of :meth:`tiles`. A single one is predicted as `Task.predict` does;
                but the background of parts is found from a sample of at most 2^18
                pixels, so that it does not depend on the tiles.
            min_size: pixels that an instance needs, beside what the task asks for.
            embedding: keep the embedding of every pixel.
            progress: goes round the tiles of each pass, with the pass's name.

        Returns:
            As `found_in_image`, for the whole image.
        """
        if len(tiles) == 1 and not (self.parts and math.prod(image.size) > _SURVEYED):
            found = self._found(image, tiles[0], self._trained.apply, min_size)
            return found if embedding else _without(found, "embedding")
        some = _spread(tiles, self._sample_tiles)
        moments = self._network.moments(image, some, progress)
        canvas = _Canvas(image.size, embedding=embedding)
        if self.parts:
            ground = self._ground(image, some, moments, progress)
            turned = self._foreground(
                image, progress(tiles, "tiles"), moments, ground, canvas
            )
            needed = max(self._task.min_size, min_size)
            stitched = stitch_labels(
                turned, image.size, band=1, min_share=0.0, min_size=needed
            )
            return canvas.found | {"labels": _grown(stitched.labels, self._task.grow)}
        every = self._every(image, progress(tiles, "tiles"), moments, canvas)
        if isinstance(self._task, Semantic | Boundaries | Picie):
            for tile, found in every:
                labels = {k: found[k] for k in ("labels",) if k in found}
                canvas.paste(labels, tile)
            return canvas.found
        # Near a tile's border it says little: the inner half of the halo counts.
        halo = _halo(tiles)
        votes = _Votes()
        stitched = stitch_labels(
            votes.pieces(every),
            image.size,
            band=max(1, halo // 2),
            min_size=min_size,
            kinds=votes.classes,
        )
        found = canvas.found | {"labels": stitched.labels}
        if isinstance(self._task, Instances):
            found |= votes.of_instances(stitched)
        return found

    def _found(
        self, image: ImageWindows, tile: Tile, apply: Any, min_size: int = 1
    ) -> Found:
        """What the task finds in a tile, without what lies beyond the image."""
        predictions = self._task.predict(
            apply, self._trained.memory, tile_batch(image, tile)
        )
        inside = tile.outer.clipped(*image.size)
        return found_in_image(self._task, predictions, inside.size, min_size=min_size)

    def _every(
        self,
        image: ImageWindows,
        tiles: Iterable[Tile],
        moments: Moments,
        canvas: _Canvas,
    ) -> Iterator[tuple[Tile, Found]]:
        """The tiles with what is found in them; what can be cut is pasted already."""
        for tile in tiles:
            apply = self._network.at(tile, image.size, moments)
            found = self._found(image, tile, apply)
            canvas.paste(_without(found, "labels"), tile)
            yield tile, found

    def _foreground(
        self,
        image: ImageWindows,
        tiles: Iterable[Tile],
        moments: Moments,
        ground: jax.Array,
        canvas: _Canvas,
    ) -> Iterator[Piece]:
        """The connected parts of each core and the pixel around it."""
        for tile in tiles:
            batch = tile_batch(image, tile)
            bound = self._network.arguments(tile, image.size, moments)
            where = self._is_foreground(bound, batch, ground)
            if canvas.embedding:
                vectors = self._unit_vectors(bound, batch)
                canvas.paste({"embedding": np.asarray(vectors[0], np.float16)}, tile)
            core = tile.core
            seen = Box(core.top - 1, core.left - 1, core.bottom + 1, core.right + 1)
            seen = seen.clipped(*image.size)
            mask = np.asarray(where[0])[seen.within(tile.outer).slices]
            labels: Any = scipy.ndimage.label(mask, _CORNERS)[0]
            yield Piece(labels, (seen.top, seen.left), tuple(core))

    def _ground(
        self,
        image: ImageWindows,
        tiles: Sequence[Tile],
        moments: Moments,
        progress: Progress,
    ) -> jax.Array:
        """The background's direction [D], from pixels on a grid over the image.

        The grid is the image's, and its points come line by line: with all tiles in the
        sample they are the same for any tiles.
        """
        pixels = sum(math.prod(tile.core.size) for tile in tiles)
        step = math.ceil(math.sqrt(pixels / _SURVEYED))
        places, points = [], []
        for tile in progress(tiles, "background"):
            batch = tile_batch(image, tile)
            bound = self._network.arguments(tile, image.size, moments)
            vectors = self._unit_vectors(bound, batch)[0]
            rows, columns = (
                np.arange(first + (step // 2 - first) % step, last, step)
                for first, last in zip(tile.core[:2], tile.core[2:], strict=True)
            )
            top, left = tile.outer[:2]
            found = vectors[rows[:, None] - top, columns[None] - left]
            points.append(np.asarray(found).reshape(-1, found.shape[-1]))
            places.append((rows[:, None] * image.size[1] + columns[None]).ravel())
        order = np.argsort(np.concatenate(places))
        ordered = jnp.asarray(np.concatenate(points)[order])
        return self._task.find_ground(l2_normalize(ordered), cell=step**2)


class _Canvas:
    """The maps of a whole image [H, W, ...], made when the first tile brings them."""

    def __init__(self, size: tuple[int, int], *, embedding: bool) -> None:
        self.embedding = embedding
        self.found: Found = {}
        self._size = size

    def paste(self, found: Found, tile: Tile) -> None:
        """Takes over the core of what is a map."""
        core = tile.core.within(tile.outer)
        names = ("labels", "classes", "boundary")
        for name in (*names, "embedding") if self.embedding else names:
            if name not in found:
                continue
            part = found[name]
            if name not in self.found:
                shape = (*self._size, *part.shape[2:])
                self.found[name] = np.zeros(shape, part.dtype)
            self.found[name][tile.core.slices] = part[core.slices]


class _Votes:
    """The classes and scores of instances of which several tiles see a part."""

    def __init__(self) -> None:
        self.classes: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []

    def pieces(self, every: Iterable[tuple[Tile, Found]]) -> Iterator[Piece]:
        """The label maps, while classes and scores are kept."""
        for tile, found in every:
            labels = found["labels"]
            number = int(labels.max(initial=0))
            none = np.zeros(number)
            core = labels[tile.core.within(tile.outer).slices]
            sizes = np.bincount(core.ravel(), minlength=number + 1)
            self._sizes.append(sizes[1:])
            self._scores.append(found.get("instance_scores", none)[:number])
            classes = found.get("instance_classes", none.astype(int))[:number]
            self.classes.append(np.concatenate([[0], classes]))
            yield Piece(labels, (tile.outer.top, tile.outer.left), tuple(tile.core))

    def of_instances(self, stitched: Stitched) -> Found:
        """The class of all parts, and the mean of their scores by pixels."""
        number = len(stitched.sizes) - 1
        names = stitched.names[1:]
        sizes = np.concatenate(self._sizes)
        scores = np.concatenate(self._scores)
        classes = np.concatenate([c[1:] for c in self.classes])
        total = np.bincount(names, sizes, number + 1)[1:]
        scored = np.bincount(names, sizes * scores, number + 1)[1:]
        of_all = np.zeros(number + 1, int)
        of_all[names] = classes
        return {
            "instance_classes": of_all[1:],
            "instance_scores": scored / np.maximum(total, 1),
        }


def _spread(tiles: Sequence[Tile], number: int | None) -> list[Tile]:
    """So many of the tiles, evenly spread in their order."""
    if number is None or len(tiles) <= number:
        return list(tiles)
    places = np.linspace(0, len(tiles) - 1, number).round().astype(int)
    return [tiles[place] for place in places]


def _halo(tiles: Sequence[Tile]) -> int:
    """The least distance of a core from its tile's border, where there is a seam."""
    gaps = [
        gap
        for tile in tiles
        for gap in (
            tile.core.top - tile.outer.top,
            tile.core.left - tile.outer.left,
        )
        if gap
    ]
    return min(gaps, default=0)


def _without(found: Found, name: str) -> Found:
    return {k: v for k, v in found.items() if k != name}


def _grown(labels: np.ndarray, width: int) -> np.ndarray:
    """Grows the instances of a large map in place, some rows at a time."""
    if not width:
        return labels
    above = labels[:0]
    for first in range(0, len(labels), max(_ROWS, width)):
        last = min(first + max(_ROWS, width), len(labels))
        window = np.concatenate([above, labels[first : last + width]])
        skipped, above = len(above), labels[last - width : last].copy()
        grown = np.asarray(grow_instances(jnp.asarray(window), width))
        labels[first:last] = grown[skipped : skipped + last - first]
    return labels
