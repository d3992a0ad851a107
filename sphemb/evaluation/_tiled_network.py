"""A network that says the same of a pixel in whatever tile of an image it sees it.

Shape letters: B images, H W image size, h w size of a tile, G groups of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphemb.data import ImageWindows, Tile
from sphemb.models import MomentSums, apply_with_moments, takes
from sphemb.tasks import Apply, Batch
from sphemb.training import Trained

_STILL = 1e-6  # of a standard deviation, by which moments may yet change

Moments = dict[str, jax.Array]


class TiledNetwork:
    """The network of a run, for tiles of images.

    A network of convolutions says the same of a pixel wherever its window ends, if that
    is far enough. Two things are in the way. Group normalisation takes the moments of
    all that is seen: here they are those of the whole image, see `moments`. And
    coordinates begin in the middle of what is seen: here in the image's. Where they
    never repeat, no tile can be seen as a part of a larger image than those of the
    training; then a tile is an image of its own, and `whole` is False.

    Args:
        trained: the run.

    Attributes:
        whole: whether tiles are seen as parts of their image.
    """

    def __init__(self, trained: Trained) -> None:
        """Compiles nothing yet; see the class."""
        self._model: Any = trained.experiment.model
        self._variables = {
            "params": trained.params,
            "batch_stats": trained.batch_stats,
        }
        self.whole = bool(self._model.shiftable)
        self._maps = jax.jit(lambda *seen: self._see(*seen)[0])
        self._sums = jax.jit(lambda *seen: self._see(*seen)[1])

    @property
    def stride(self) -> int:
        """What the sides of a tile must be divisible by."""
        return self._model.stride

    def at(self, tile: Tile, size: tuple[int, int], moments: Moments) -> Apply:
        """The network as it sees a tile.

        Args:
            tile: which.
            size: (H, W) of its image.
            moments: of the image.

        Returns:
            The function from the tile [B, h, w, 3], its mask and its ``middle``, see
            :meth:`batch`, to the network's maps. Of what has another size, such as the
            tile at another scale, it takes the own moments.
        """
        bound = self.arguments(tile, size, moments)

        def apply(
            image: jax.Array,
            mask: jax.Array | None = None,
            middle: jax.Array | None = None,
        ) -> dict[str, Any]:
            seen = bound if middle is None else bound | {"middle": middle}
            if image.shape[1:3] != tile.outer.size:
                seen = seen | {"moments": {}}
            return self._maps(seen, image, mask)

        return apply

    def batch(self, image: ImageWindows, tile: Tile) -> Batch:
        """A tile as a task takes it, for the network that :meth:`at` gives.

        Returns:
            As `tile_batch`, and where tiles are parts ``middle`` [2], where the middle
            of the image is, in pixels from the tile's corner.
        """
        middle = self._middle(tile, image.size)
        where = {} if middle is None else {"middle": middle}
        return {**tile_batch(image, tile), **where}

    def arguments(
        self, tile: Tile, size: tuple[int, int], moments: Moments
    ) -> dict[str, Any]:
        """What :meth:`traced` takes for a tile: arrays, to be handed into `jax.jit`."""
        return {
            "variables": self._variables,
            "moments": moments,
            "middle": self._middle(tile, size),
        }

    def traced(self, arguments: dict[str, Any]) -> Apply:
        """The network as it sees a tile, for what is compiled as a whole."""
        return lambda image, mask=None: self._see(arguments, image, mask)[0]

    def moments(
        self,
        image: ImageWindows,
        tiles: Sequence[Tile],
        progress: Callable[..., Any],
    ) -> Moments:
        """The moments of group normalisation over all of an image.

        Args:
            image: the image.
            tiles: all of its tiles; or some, for an estimate.
            progress: goes round what is iterated over.

        Returns:
            Name of a layer -> float32 [2, G], see `apply_with_moments`; nothing where
            tiles are no parts.
        """
        found: Moments = {}
        if not self.whole:
            return found
        bound = self.arguments(tiles[0], image.size, found)
        size = (1, *tiles[0].outer.size)
        seen = jax.ShapeDtypeStruct((*size, 3), jnp.float32)
        layers = jax.eval_shape(
            self._sums, bound, seen, jax.ShapeDtypeStruct(size, bool)
        )
        # Each pass makes the moments of one more layer right, see `apply_with_moments`.
        for _ in layers:
            passed = []
            for tile in progress(tiles, "moments"):
                batch = tile_batch(image, tile)
                sums = self._sums(
                    self.arguments(tile, image.size, found),
                    batch["image"],
                    batch["mask"],
                    jnp.asarray(_answered(tile), jnp.float32),
                )
                passed.append(jax.device_get(sums))
            old, found = found, _averaged(passed)
            if old and _distance(old, found) < _STILL:
                break
        return found

    def _see(
        self,
        bound: dict[str, Any],
        image: jax.Array,
        mask: jax.Array | None = None,
        weights: jax.Array | None = None,
    ) -> tuple[dict[str, Any], dict[str, MomentSums]]:
        told = bound["middle"] is not None and takes(self._model, "middle")
        where = {"middle": bound["middle"]} if told else {}
        return apply_with_moments(
            self._model,
            bound["variables"],
            image,
            bound["moments"],
            weights=weights,
            mask=mask,
            **where,
        )

    def _middle(self, tile: Tile, size: tuple[int, int]) -> jax.Array | None:
        """Where the middle of the image is, from the tile's corner."""
        if not self.whole:
            return None
        return jnp.array(size, jnp.float32) / 2 - jnp.array(tile.outer[:2], jnp.float32)


def tile_batch(image: ImageWindows, tile: Tile) -> Batch:
    """A tile as a task takes it.

    Returns:
        ``image`` float32 [1, h, w, 3] in [0, 1], mirrored where it reaches beyond the
        image; ``mask`` bool [1, h, w], False there.
    """
    inside = tile.outer.clipped(*image.size).within(tile.outer)
    mask = np.zeros((1, *tile.outer.size), bool)
    mask[0][inside.slices] = True
    pixels = image.read(tile.outer)[None]
    return {
        "image": jnp.asarray(pixels, jnp.float32) / 255,
        "mask": jnp.asarray(mask),
    }


def _answered(tile: Tile) -> np.ndarray:
    """What the tile answers for, [h, w]."""
    weights = np.zeros(tile.outer.size)
    weights[tile.core.within(tile.outer).slices] = 1
    return weights


def _averaged(passed: list[dict[str, MomentSums]]) -> Moments:
    """The moments, from the sums of all tiles, added in float64."""
    found = {}
    for name in passed[0]:
        count, total, squares = (
            np.sum([np.asarray(x, np.float64) for x in column], axis=0)
            for column in zip(*(part[name] for part in passed), strict=True)
        )
        mean, square = total / count, squares / count
        variance = np.maximum(square - mean**2, 0)
        found[name] = jnp.asarray(np.stack([mean, variance]), jnp.float32)
    return found


def _distance(old: Moments, new: Moments) -> float:
    """How much moments differ, in standard deviations."""
    return max(
        float(jnp.max(jnp.abs(new[name] - old[name]) / jnp.sqrt(new[name][1] + 1e-5)))
        for name in new
    )
