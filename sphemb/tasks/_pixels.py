"""Pixels of an image against the cells of a coarser embedding map.

Shape letters: B images, H W image size, h w map size, s = H / h the map's stride, M
pixels of an image, D dimension.

A map of stride s holds a value for the middle of every s x s cell; between the middles
values are interpolated bilinearly, beyond the outermost they stay.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sphemb._checks import InputError
from sphemb._labels import VOID
from sphemb.losses import PixelSample, sample_pixels
from sphemb.sphere import l2_normalize
from sphemb.tasks._task import Batch


def map_stride(embedding: jax.Array, image_size: tuple[int, ...]) -> int:
    """The stride s of a map [B, h, w, D] of images H x W.

    Raises:
        InputError: the image's sides are no multiple of the map's.
    """
    size = embedding.shape[1:3]
    stride = image_size[0] // size[0]
    if tuple(stride * side for side in size) != tuple(image_size):
        raise InputError(
            f"the embedding map must have the image's size {tuple(image_size)} over a "
            f"whole stride, got {size}"
        )
    return stride


def cell_middles(values: jax.Array, stride: int) -> jax.Array:
    """What per-pixel values [B, H, W] are in the middle of each cell, [B, h, w]."""
    return values[:, stride // 2 :: stride, stride // 2 :: stride]


def draw_pixels(batch: Batch, key: jax.Array, num_samples: int) -> PixelSample:
    """Draws pixels of every image, uniformly and without replacement.

    The draw depends on the key and the image's index, not on the device that the image
    happens to be on.

    Args:
        batch: ``instances`` [B, H, W], `VOID` where pixels do not count; ``index`` [B].
        key: of this step.
        num_samples: M, at most H W.

    Returns:
        ``indices`` and ``mask`` [B, M], see `sphemb.sample_pixels`.
    """
    labels = batch["instances"].reshape(batch["instances"].shape[0], -1)
    number = min(num_samples, labels.shape[-1])

    def draw(index: jax.Array, labels: jax.Array) -> PixelSample:
        return sample_pixels(
            jax.random.fold_in(key, index), labels != VOID, num_samples=number
        )

    return jax.vmap(draw)(batch["index"], labels)


def unit_map(embedding: jax.Array) -> jax.Array:
    """Embeddings [..., D] as unit vectors in float32, whatever came before."""
    return l2_normalize(embedding.astype(jnp.float32))


def unit_vectors_at(embedding: jax.Array, pixels: jax.Array, stride: int) -> jax.Array:
    """Unit vectors of some pixels.

    Args:
        embedding: [B, h, w, D] of any length.
        pixels: int [B, M], row-major numbers of the image's pixels.
        stride: s.

    Returns:
        float32 [B, M, D]. Interpolation comes before normalisation.
    """
    height, width = embedding.shape[1:3]
    flat = embedding.astype(jnp.float32).reshape(embedding.shape[0], height * width, -1)
    if stride == 1:
        return l2_normalize(jnp.take_along_axis(flat, pixels[..., None], axis=1))
    row, column = jnp.divmod(pixels, width * stride)

    def neighbours(place: jax.Array, last: int):
        where = jnp.clip((place + 0.5) / stride - 0.5, 0, last)
        first = jnp.floor(where).astype(jnp.int32)
        return first, jnp.minimum(first + 1, last), where - first

    top, bottom, down = neighbours(row, height - 1)
    left, right, along = neighbours(column, width - 1)
    total = jnp.zeros((*pixels.shape, embedding.shape[-1]), jnp.float32)
    for rows, row_weight in ((top, 1 - down), (bottom, down)):
        for columns, column_weight in ((left, 1 - along), (right, along)):
            cells = (rows * width + columns)[..., None]
            weight = (row_weight * column_weight)[..., None]
            total += weight * jnp.take_along_axis(flat, cells, axis=1)
    return l2_normalize(total)


def unit_vectors_of_all(embedding: jax.Array, stride: int) -> jax.Array:
    """Unit vectors of every pixel, as `unit_vectors_at` gives them.

    Args:
        embedding: [B, h, w, D] of any length.
        stride: s.

    Returns:
        float32 [B, H, W, D].
    """
    height, width = embedding.shape[1:3]
    return l2_normalize(enlarged(embedding, (stride * height, stride * width)))


def enlarged(values: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """A map [B, h, w, K] at the size (H, W) of the image, float32 [B, H, W, K]."""
    values = values.astype(jnp.float32)
    if values.shape[1:3] == tuple(size):
        return values
    shape = (values.shape[0], *size, values.shape[-1])
    return jax.image.resize(values, shape, "bilinear")


def resized(image: jax.Array, scale: float, *, multiple: int) -> jax.Array:
    """Images [B, H, W, 3] at so many times their size.

    Args:
        image: the images.
        scale: 1 leaves them as they are.
        multiple: what the new sides are multiples of.
    """
    if scale == 1.0:
        return image
    sides = (
        max(1, round(scale * side / multiple)) * multiple for side in image.shape[1:3]
    )
    shape = (image.shape[0], *sides, image.shape[-1])
    return jax.image.resize(image, shape, "bilinear")


def image_size(mask: ArrayLike) -> tuple[int, int]:
    """(H, W) of an image that is padded below and to the right, by its mask."""
    inside = np.asarray(mask)
    return int(inside.any(axis=1).sum()), int(inside.any(axis=0).sum())
