"""The network of a run on tiles of an image, with the values of the whole image.

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

_CONVERGED = 1e-6  # largest change of a moment, in standard deviations

Moments = dict[str, jax.Array]


class TiledNetwork:
    """The network of a run, for tiles of images.

    Far enough from a tile's border, convolutions give the values of the whole image.
    Two layers depend on more: group normalization, which here takes the moments of the
    whole image, and coordinates, which here start in the image's middle. If coordinates
    never repeat, a network cannot see an image larger than those of its training; then
    each tile is an image by itself, and `whole` is False.
    """

    def __init__(self, trained: Trained) -> None:
        self._model: Any = trained.experiment.model
        self._variables = {"params": trained.params, "batch_stats": trained.batch_stats}
        self.whole = bool(self._model.shiftable)
        self._maps = jax.jit(lambda *seen: self._see(*seen)[0])
        self._sums = jax.jit(lambda *seen: self._see(*seen)[1])

    @property
    def stride(self) -> int:
        """What the sides of a tile must be divisible by."""
        return self._model.stride

    def at(self, tile: Tile, size: tuple[int, int], moments: Moments) -> Apply:
        """The network as it sees a tile of an image of a size (H, W)."""
        bound = self._arguments(tile, size, moments)

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
        """`tile_batch`, with ``middle`` [2] of the image from the tile's corner."""
        batch, middle = tile_batch(image, tile), self._middle(tile, image.size)
        return batch if middle is None else {**batch, "middle": middle}

    def moments(
        self, image: ImageWindows, tiles: Sequence[Tile], progress: Callable[..., Any]
    ) -> Moments:
        """The moments of group normalization over all or some tiles of an image."""
        found: Moments = {}
        if not self.whole:
            return found
        bound = self._arguments(tiles[0], image.size, found)
        batch = tile_batch(image, tiles[0])
        layers = jax.eval_shape(self._sums, bound, batch["image"], batch["mask"])
        # Each pass corrects the moments of one more layer, see `apply_with_moments`.
        for _ in layers:
            passed = []
            for tile in progress(tiles, "moments"):
                batch = tile_batch(image, tile)
                weights = np.zeros(tile.outer.size, np.float32)
                weights[tile.core.within(tile.outer).slices] = 1
                bound = self._arguments(tile, image.size, found)
                sums = self._sums(
                    bound, batch["image"], batch["mask"], jnp.asarray(weights)
                )
                passed.append(jax.device_get(sums))
            old, found = found, _averaged(passed)
            if old and _distance(old, found) < _CONVERGED:
                break
        return found

    def _arguments(
        self, tile: Tile, size: tuple[int, int], moments: Moments
    ) -> dict[str, Any]:
        """What :meth:`_see` takes for a tile: arrays, as arguments of `jax.jit`."""
        middle = self._middle(tile, size)
        return {"variables": self._variables, "moments": moments, "middle": middle}

    def _see(
        self,
        bound: dict[str, Any],
        image: jax.Array,
        mask: jax.Array | None = None,
        weights: jax.Array | None = None,
    ) -> tuple[dict[str, Any], dict[str, MomentSums]]:
        given = bound["middle"] is not None and takes(self._model, "middle")
        where = {"middle": bound["middle"]} if given else {}
        seen = (self._model, bound["variables"], image, bound["moments"])
        return apply_with_moments(*seen, weights=weights, mask=mask, **where)

    def _middle(self, tile: Tile, size: tuple[int, int]) -> jax.Array | None:
        """The middle of the image, from the tile's corner."""
        if not self.whole:
            return None
        return jnp.array(size, jnp.float32) / 2 - jnp.array(tile.outer[:2], jnp.float32)


def tile_batch(image: ImageWindows, tile: Tile) -> Batch:
    """A tile as a task takes it, mirrored and masked beyond the image's border."""
    inside = tile.outer.clipped(*image.size).within(tile.outer)
    mask = np.zeros((1, *tile.outer.size), bool)
    mask[0][inside.slices] = True
    pixels = image.read(tile.outer)[None]
    return {"image": jnp.asarray(pixels, jnp.float32) / 255, "mask": jnp.asarray(mask)}


def _averaged(passed: list[dict[str, MomentSums]]) -> Moments:
    """The moments, from the sums of all tiles, added in float64."""
    found = {}
    for name in passed[0]:
        count, total, squares = (
            np.sum([np.asarray(x, np.float64) for x in column], axis=0)
            for column in zip(*(part[name] for part in passed), strict=True)
        )
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0)
        found[name] = jnp.asarray(np.stack([mean, variance]), jnp.float32)
    return found


def _distance(old: Moments, new: Moments) -> float:
    """The largest change of a moment, in standard deviations."""
    return max(
        float(jnp.max(jnp.abs(new[name] - old[name]) / jnp.sqrt(new[name][1] + 1e-5)))
        for name in new
    )
