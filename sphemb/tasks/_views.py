"""Two views of an image that shall say the same of every place in it.

Shape letters: B images, H rows, W columns, h w size of a feature map, D dimension, N =
h w cells.

View 0 is the network on the changed image, f(G(P0 x)); view 1 is the changed map of the
network, G(f(P1 x)). P0 and P1 recolour, G cuts a box and mirrors; both views have it,
one before the network and one after. This is how the text of PiCIE and its code have
it; the notes' pseudocode has the views the other way round, which is the same but for
their names.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb.tasks._pixels import unit_map
from sphemb.tasks._task import Batch
from sphemb.warps import (
    apply_geometric,
    apply_geometric_labels,
    apply_photometric,
    sample_geometric,
    sample_photometric,
)

_GEOMETRIC = 2  # the number of its key, after those of the two views


class ViewSettings(NamedTuple):
    """How much views differ; see `sphemb.warps` for what the numbers mean.

    With one view there is neither recolouring nor a box: the image as it is.
    """

    views: int
    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter: float
    grey: float
    blur: float
    blur_sigma: tuple[float, float]
    crop_side: tuple[float, float]
    flip: float


def view_keys(seed: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """A key for each image that is the same in all of an epoch.

    Args:
        seed: the data of a random key.
        epoch: its number.
        index: int [B], the images' places in the data set.

    Returns:
        Keys [B], which depend on these three alone: not on the step, the order of the
        images, or the device.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(seed), epoch)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def view_image(
    image: jax.Array, keys: jax.Array, *, view: int, settings: ViewSettings
) -> jax.Array:
    """What the network sees of the images in a view, [B, H, W, 3]."""
    if settings.views == 1:
        return image

    def draw(key: jax.Array):
        return sample_photometric(
            jax.random.fold_in(key, view),
            brightness=settings.brightness,
            contrast=settings.contrast,
            saturation=settings.saturation,
            hue=settings.hue,
            jitter=settings.jitter,
            gray=settings.grey,
            blur=settings.blur,
            blur_sigma=settings.blur_sigma,
        )

    recoloured = apply_photometric(image, jax.vmap(draw)(keys))
    if view == 1:
        return recoloured
    return apply_geometric(recoloured, _boxes(keys, settings))


def view_batch(
    batch: Batch, keys: jax.Array, *, view: int, settings: ViewSettings
) -> Batch:
    """`view_image` of ``image`` [B, H, W, 3], and the same of its ``mask``, if any."""
    image = view_image(batch["image"], keys, view=view, settings=settings)
    if "mask" not in batch:
        return {"image": image}
    mask = batch["mask"]
    if settings.views == 2 and view == 0:
        boxes = _boxes(keys, settings)
        mask = apply_geometric_labels(mask.astype(jnp.int32), boxes) > 0
    return {"image": image, "mask": mask}


def view_points(
    features: jax.Array,
    keys: jax.Array,
    *,
    view: int,
    settings: ViewSettings,
    offset: float = 0.0,
) -> jax.Array:
    """The unit vectors [B, N, D] of a view, from the network's map [B, h, w, D].

    Interpolation comes before normalisation. The offset is that of `apply_geometric`.
    """
    if settings.views == 2 and view == 1:
        boxes = _boxes(keys, settings)
        features = apply_geometric(features, boxes, offset=offset)
    batch, height, width, dim = features.shape
    return unit_map(features).reshape(batch, height * width, dim)


def _boxes(keys: jax.Array, settings: ViewSettings):
    def draw(key: jax.Array):
        return sample_geometric(
            jax.random.fold_in(key, _GEOMETRIC),
            side=settings.crop_side,
            flip=settings.flip,
        )

    return jax.vmap(draw)(keys)
