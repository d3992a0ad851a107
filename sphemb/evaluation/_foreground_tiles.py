"""Instances of a large image as the connected parts of what is no background.

Both are found for the image as a whole, a tile at a time, and so leave no seam.

Shape letters: H W image size, D embedding dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from sphemb.data import Box, ImageWindows, Tile, padded_size
from sphemb.evaluation._large_maps import Canvas
from sphemb.evaluation._tiled_network import Moments, TiledNetwork, tile_batch
from sphemb.instances import Piece
from sphemb.sphere import l2_normalize
from sphemb.tasks import Instances, Proposals

_CORNERS = np.ones((3, 3), bool)  # connect, too

Progress = Callable[[Sequence[Tile], str], Iterable[Tile]]


def are_parts(task: Any) -> bool:
    """Whether a task's instances are the connected parts of what is no background."""
    plain = isinstance(task, Proposals) and not isinstance(task, Instances)
    return plain and task.foreground_below is not None and not task.spatial_bandwidth


class ForegroundTiles:
    """The background's direction in an image, and the parts of what differs from it.

    Args:
        network: of the run.
        task: for which `are_parts` holds.
        multiple: what images are padded to multiples of that are predicted whole.
    """

    def __init__(self, network: TiledNetwork, task: Any, multiple: int) -> None:
        """Compiles nothing yet; see the class."""
        self._network, self._task, self._multiple = network, task, multiple
        # With the network in one program, no embedding of all pixels need be kept.
        self._is_foreground = jax.jit(
            lambda bound, batch, ground: task.is_foreground(
                network.traced(bound), batch, ground
            )
        )
        self._unit_vectors = jax.jit(
            lambda bound, batch: task.unit_vectors(network.traced(bound), batch)
        )

    def ground(
        self,
        image: ImageWindows,
        tiles: Sequence[Tile],
        moments: Moments,
        progress: Progress,
    ) -> tuple[jax.Array, jax.Array]:
        """The background's direction [D], from pixels on a grid over the image.

        The grid is the image's, and its points come line by line: with all tiles in the
        sample they are those of `Proposals.predict`.

        Args:
            image: the image.
            tiles: all of its tiles, or some.
            moments: of the image, see `TiledNetwork.moments`.
            progress: goes round the tiles, with the pass's name.

        Returns:
            As `Proposals.find_ground`.
        """
        pixels = sum(math.prod(tile.core.size) for tile in tiles)
        padding = math.prod(padded_size(image.size, self._multiple))
        step = self._task.survey_step(padding * (pixels / math.prod(image.size)))
        places, points = [], []
        for tile in progress(tiles, "background"):
            batch = tile_batch(image, tile)
            bound = self._network.arguments(tile, image.size, moments)
            vectors = self._unit_vectors(bound, batch)[0]
            rows, columns = (
                np.arange(first + -first % step, last, step)
                for first, last in zip(tile.core[:2], tile.core[2:], strict=True)
            )
            top, left = tile.outer[:2]
            found = vectors[rows[:, None] - top, columns[None] - left]
            points.append(np.asarray(found).reshape(-1, found.shape[-1]))
            places.append((rows[:, None] * image.size[1] + columns[None]).ravel())
        order = np.argsort(np.concatenate(places))
        ordered = jnp.asarray(np.concatenate(points)[order])
        return self._task.find_ground(l2_normalize(ordered), cell=step**2)

    def pieces(
        self,
        image: ImageWindows,
        tiles: Iterable[Tile],
        moments: Moments,
        ground: jax.Array,
        canvas: Canvas,
    ) -> Iterator[Piece]:
        """The connected parts of each core and the pixel around it.

        Args:
            image: the image.
            tiles: all of its tiles, line by line.
            moments: of the image.
            ground: of `ground`.
            canvas: gets the embedding, if it keeps it.
        """
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
