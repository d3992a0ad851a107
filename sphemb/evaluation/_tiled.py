"""Predictions for images of any size, tile by tile.

Shape letters: H W image size, N points, D embedding dimension, M instances.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sphemb.data import ImageWindows, Tile, tile_image
from sphemb.evaluation._findings import Found, found_in_image
from sphemb.evaluation._foreground_tiles import (
    ForegroundTiles,
    Progress,
    are_parts,
)
from sphemb.evaluation._large_maps import Canvas, grow_in_bands
from sphemb.evaluation._tiled_network import Moments, TiledNetwork, tile_batch
from sphemb.evaluation._votes import Votes
from sphemb.instances import stitch_labels
from sphemb.tasks import Apply, Batch, Boundaries, Instances, Picie, Semantic
from sphemb.training import Trained


class TiledPrediction:
    """What a run finds in images of any size, in the memory that a tile takes.

    How tiles are put together depends on the task (see ``docs/prediction.md``):

    * classes, boundaries and clusters are cut and put side by side;
    * where all that is no background is parted (``foreground_below`` without
      ``spatial_bandwidth``), the background's direction is that of the image, and
      instances are the connected components of the whole, so that no seam shows;
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
        self._task: Any = trained.experiment.task
        self._sample_tiles = sample_tiles
        self._network = TiledNetwork(trained)
        self._foreground = ForegroundTiles(
            self._network, self._task, trained.experiment.multiple
        )

    @property
    def parts(self) -> bool:
        """Whether instances are the connected parts of what is no background."""
        return are_parts(self._task)

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
        multiple = self.stride
        if math.prod(size) <= tile**2:
            # Padded as it is to be scored.
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
        """Finds what is in an image.

        Args:
            image: the image.
            tiles: of :meth:`tiles`. A single one is predicted as `Task.predict` does.
            min_size: pixels that an instance needs, beside what the task asks for.
            embedding: keep the embedding of every pixel.
            progress: goes round the tiles of each pass, with the pass's name.

        Returns:
            As `found_in_image`, for the whole image.
        """
        if len(tiles) == 1:
            batch = tile_batch(image, tiles[0])
            found = self._found(image, tiles[0], self._trained.apply, batch, min_size)
            return found if embedding else _without(found, "embedding")
        some = _spread(tiles, self._sample_tiles)
        moments = self._network.moments(image, some, progress)
        canvas = Canvas(image.size, embedding=embedding)
        if self.parts:
            ground, unsure = self._foreground.ground(image, some, moments, progress)
            canvas.note(("max_groups",) * bool(unsure))
            pieces = self._foreground.pieces(
                image, progress(tiles, "tiles"), moments, ground, canvas
            )
            needed = max(self._task.min_size, min_size)
            stitched = stitch_labels(
                pieces, image.size, band=1, min_share=0.0, min_size=needed
            )
            labels = grow_in_bands(stitched.labels, self._task.dilation)
            return canvas.found | {"labels": labels}
        every = self._every(image, progress(tiles, "tiles"), moments, canvas)
        if isinstance(self._task, Semantic | Boundaries | Picie):
            for tile, found in every:
                labels = {k: found[k] for k in ("labels",) if k in found}
                canvas.paste(labels, tile)
            return canvas.found
        # Near a tile's border it says little: the inner half of the halo counts.
        halo = _halo(tiles)
        votes = Votes()
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
        self,
        image: ImageWindows,
        tile: Tile,
        apply: Apply,
        batch: Batch,
        min_size: int = 1,
    ) -> Found:
        """What the task finds in a tile, without what lies beyond the image."""
        predictions = self._task.predict(apply, self._trained.task_state, batch)
        inside = tile.outer.clipped(*image.size)
        return found_in_image(self._task, predictions, inside.size, min_size=min_size)

    def _every(
        self,
        image: ImageWindows,
        tiles: Iterable[Tile],
        moments: Moments,
        canvas: Canvas,
    ) -> Iterator[tuple[Tile, Found]]:
        """The tiles with what is found in them; what can be cut is pasted already."""
        for tile in tiles:
            apply = self._network.at(tile, image.size, moments)
            batch = self._network.batch(image, tile)
            found = self._found(image, tile, apply, batch)
            canvas.paste(_without(found, "labels"), tile)
            yield tile, found


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
