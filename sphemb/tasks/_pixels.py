"""Pixels of an image against the cells of a coarser embedding map, see `sphemb._grid`.

Shape letters: B images, H W image size, h w map size, s = H / h the map's stride, M
pixels of an image, D dimension.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sphemb._checks import VOID, InputError
from sphemb._grid import Grid, Origins, extended, resample
from sphemb.losses import PixelSample, sample_pixels
from sphemb.sphere import l2_normalize
from sphemb.tasks._task import Apply, Batch, Maps, maps_of


class PlacedMap(NamedTuple):
    """A map of a network, and where its cells lie among the image's pixels."""

    values: jax.Array  # [B, h, w, D]; beyond an image those at its border
    grid: Grid

    def at_scale(self, scale: float) -> PlacedMap:
        """The map of an image that was seen at so many times its size."""
        stride, origin = self.grid
        return PlacedMap(self.values, Grid(stride / scale, origin / scale))


def placed_map(maps: Maps, name: str, batch: Batch) -> PlacedMap:
    """The map [B, h, w, D] of a batch's images of that name.

    `InputError` if the image's sides are not multiples of the map's.
    """
    return _placed(maps, name, None, maps[name], batch)


def placed_maps(maps: Maps, name: str, batch: Batch) -> list[PlacedMap]:
    """Several maps of one name, each as of `placed_map`."""
    return [_placed(maps, name, i, one, batch) for i, one in enumerate(maps[name])]


def _placed(
    maps: Maps, name: str, index: int | None, values: jax.Array, batch: Batch
) -> PlacedMap:
    stride = map_stride(values, batch["image"].shape[1:3])
    origin = maps.get("origins", Origins()).of(name, index)
    return PlacedMap(extended(values, batch.get("mask")), Grid(stride, origin))


def map_stride(embedding: jax.Array, image_size: tuple[int, ...]) -> int:
    """The stride s of a map [B, h, w, D] of images H x W."""
    size = embedding.shape[1:3]
    stride = image_size[0] // size[0]
    if tuple(stride * side for side in size) != tuple(image_size):
        raise InputError(
            f"the embedding map must have the image's size {tuple(image_size)} over a "
            f"whole stride, got {size}"
        )
    return stride


def draw_pixels(batch: Batch, key: jax.Array, num_samples: int) -> PixelSample:
    """Draws pixels of every image, uniformly and without replacement."""
    labels = batch["instances"].reshape(batch["instances"].shape[0], -1)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, batch["index"])
    draw = functools.partial(
        sample_pixels, num_samples=min(num_samples, labels.shape[-1])
    )
    return jax.vmap(draw)(keys, labels != VOID)


def unit_map(embedding: jax.Array) -> jax.Array:
    """Embeddings [..., D] as unit vectors in float32, whatever came before."""
    return l2_normalize(embedding.astype(jnp.float32))


def unit_vectors_at(embedding: PlacedMap, pixels: jax.Array) -> jax.Array:
    """Unit vectors of some pixels."""
    values, grid = embedding
    height, width = values.shape[1:3]
    flat = values.astype(jnp.float32).reshape(values.shape[0], height * width, -1)
    if grid == Grid():
        return l2_normalize(jnp.take_along_axis(flat, pixels[..., None], axis=1))
    row, column = jnp.divmod(pixels, width * grid.stride)

    def neighbours(place: jax.Array, last: int):
        where = jnp.clip(grid.cells(place), 0, last)
        first = jnp.floor(where).astype(jnp.int32)
        return first, jnp.minimum(first + 1, last), where - first

    top, bottom, down = neighbours(row, height - 1)
    left, right, along = neighbours(column, width - 1)
    total = jnp.zeros((*pixels.shape, values.shape[-1]), jnp.float32)
    for rows, row_weight in ((top, 1 - down), (bottom, down)):
        for columns, column_weight in ((left, 1 - along), (right, along)):
            cells = (rows * width + columns)[..., None]
            weight = (row_weight * column_weight)[..., None]
            total += weight * jnp.take_along_axis(flat, cells, axis=1)
    return l2_normalize(total)


def unit_vectors_of_all(embedding: PlacedMap, size: tuple[int, ...]) -> jax.Array:
    """Unit vectors of every pixel, as `unit_vectors_at` gives them."""
    return l2_normalize(enlarged(embedding, size))


def embed_pixels(apply: Apply, batch: Batch) -> jax.Array:
    """The unit vectors [B, H, W, D] of a batch's pixels, of the map ``embedding``."""
    embedding = placed_map(maps_of(apply, batch), "embedding", batch)
    return unit_vectors_of_all(embedding, batch["image"].shape[1:3])


def enlarged(found: PlacedMap, size: tuple[int, ...]) -> jax.Array:
    """A map [B, h, w, K] at the size (H, W) of the image, float32 [B, H, W, K]."""
    return resample(found.values.astype(jnp.float32), found.grid, Grid(), size)


def displaced(moved: PlacedMap, period: float) -> jax.Array:
    r"""Positions [B, h, w, 2] of cells, in pixels, of displacements in radians.

    A cell at :math:`p` with the displacement :math:`\delta` is at
    :math:`p + \tfrac{P}{2\pi} \delta`, for the period P.
    """
    sides = (moved.grid.centers(side) for side in moved.values.shape[1:3])
    own = jnp.stack(jnp.meshgrid(*sides, indexing="ij"), axis=-1)
    return own + period / (2 * math.pi) * moved.values.astype(jnp.float32)


def beside_background(
    vectors: jax.Array, foreground: jax.Array, background: jax.Array
) -> jax.Array:
    r"""Unit vectors [..., D + 1] of the foreground's [..., D] and the background.

    The background is a direction of its own, orthogonal to all others:
    :math:`[\sqrt{f}\, v, \sqrt{b}]` with the probabilities f and b [..., 1].
    """
    parts = [jnp.sqrt(foreground) * vectors, jnp.sqrt(background)]
    return jnp.concatenate(parts, axis=-1)


def resized(batch: Batch, scale: float, *, multiple: int) -> Batch:
    """Images at so many times their size."""
    image, mask = batch["image"], batch.get("mask")
    # Counted from the corner of the first pixel, so that it scales without an offset.
    where = {"middle": batch["middle"] * scale} if "middle" in batch else {}
    if scale == 1.0:
        there = {} if mask is None else {"mask": mask}
        return {"image": image, **there, **where}
    if mask is None:
        mask = jnp.ones(image.shape[:3], bool)
    sides = tuple(
        math.ceil(scale * side / multiple) * multiple for side in image.shape[1:3]
    )

    def read(values: jax.Array) -> jax.Array:
        shape = (values.shape[0], *sides, values.shape[-1])
        by = jnp.full(2, scale, jnp.float32)
        return jax.image.scale_and_translate(
            values, shape, (1, 2), by, jnp.zeros(2, jnp.float32), "linear"
        )

    share = read(mask[..., None].astype(image.dtype))
    total = read(jnp.where(mask[..., None], image, 0))
    seen = jnp.where(share > 0, total / jnp.where(share > 0, share, 1), 0)
    for axis, side in enumerate(sides, start=1):
        places = jnp.floor((jnp.arange(side) + 0.5) / scale).astype(jnp.int32)
        inside = jnp.expand_dims(places < mask.shape[axis], 2 - axis)
        mask = jnp.take(mask, places, axis=axis, mode="clip") & inside
    return {"image": seen, "mask": mask, **where}


def image_size(mask: ArrayLike) -> tuple[int, int]:
    """(H, W) of an image that is padded below and to the right, by its mask."""
    inside = np.asarray(mask)
    return int(inside.any(axis=1).sum()), int(inside.any(axis=0).sum())
