"""How networks are called: on padded images, and on tiles of an image.

Shape letters: B images, H W size of a padded image, C channels, G groups of channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sphemb._grid import cells_of_image, without_padding
from sphemb.models._layers import DepthwiseConv, MaxPool

_SPATIAL = (nn.Conv, DepthwiseConv, MaxPool)


def takes(model: nn.Module, name: str) -> bool:
    """Returns whether the call of a network has an argument of this name."""
    return name in inspect.signature(type(model).__call__).parameters


def apply_masked(
    model: nn.Module,
    variables: Any,
    image: jax.Array,
    mask: jax.Array | None = None,
    **settings: Any,
) -> Any:
    """Applies a network so that the padding of images does not change its output.

    Convolutions and poolings read zeros in the padding, as beyond the border of an
    image, and group normalization takes the moments of the image alone. So the maps
    depend neither on the amount of padding nor on its content, except for rounding.

    ``mask``, bool [B, H, W], is True in a rectangle, the image, and False in the
    padding; None means no padding, and an image that is all padding counts as one
    without. The network gets it if it takes it. ``settings`` are those of
    ``model.apply``, whose result is returned.
    """
    if mask is None:
        return model.apply(variables, image, **settings)
    mask = mask | ~mask.any(axis=(1, 2), keepdims=True)
    if takes(model, "mask"):
        settings["mask"] = mask

    def call_masked(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(layer, nn.GroupNorm):
            cells = cells_of_image(mask, args[0].shape[1:3])
            valid = jnp.broadcast_to(cells[..., None], args[0].shape)
            return call(*args, **{**kwargs, "mask": valid})
        if isinstance(layer, _SPATIAL):
            args = (without_padding(args[0], mask), *args[1:])
        return call(*args, **kwargs)

    with nn.intercept_methods(call_masked):
        return model.apply(variables, image, **settings)


class MomentSums(NamedTuple):
    """The sums that the moments of a layer are computed from; tiles are added up."""

    count: jax.Array  # [], how many values of a group were summed
    total: jax.Array  # [G], their sum
    squares: jax.Array  # [G], the sum of their squares


def apply_with_moments(
    model: nn.Module,
    variables: Any,
    image: jax.Array,
    moments: Mapping[str, jax.Array],
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    **settings: Any,
) -> tuple[dict[str, Any], dict[str, MomentSums]]:
    r"""Applies a network to a tile, with the group normalization of the whole image.

    Group normalization takes mean and variance over an image,

    .. math:: y = \gamma\, (x - \mu_g) / \sqrt{\sigma_g^2 + \epsilon} + \beta,

    so the output for a tile depends on where the tile ends, unless :math:`\mu_g` and
    :math:`\sigma_g` are those of the whole image. The input of a layer depends on the
    moments of the layers before it, so each layer takes one more pass over all tiles,
    with the moments of the pass before.

    ``moments`` maps names of layers to [2, G], mean and variance of the groups; layers
    that are not named compute their own. ``weights``, [H, W], are 1 for the pixels that
    are summed and 0 for those of other tiles, constant in cells of `model.stride`
    pixels. The other arguments are those of `apply_masked`. The result is the network's
    maps, and the sums of every layer's input over all images, by the layer's name.

    References:
        Wu and He, "Group normalization", ECCV 2018.
    """
    sums: dict[str, MomentSums] = {}

    def normalize(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if not isinstance(layer, nn.GroupNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        x, name = args[0], "/".join(layer.path)
        groups = layer.num_groups or x.shape[-1] // layer.group_size
        sums[name] = _moment_sums(x, weights, groups)
        if name not in moments:
            return call(*args, **kwargs)
        return _normalized(layer, x, moments[name])

    with nn.intercept_methods(normalize):
        maps: Any = apply_masked(model, variables, image, mask, **settings)
    return maps, sums


def _moment_sums(x: jax.Array, weights: jax.Array | None, groups: int) -> MomentSums:
    """The sums of [B, h, w, C], cells weighted by the pixel in their corner."""
    batch, height, width, channels = x.shape
    wide = x.astype(jnp.float32).reshape(batch, height, width, groups, -1)
    if weights is None:
        cells = jnp.ones((height, width))
    else:
        cells = weights[:: len(weights) // height, :: weights.shape[1] // width]
    share = cells[None, :, :, None, None]
    return MomentSums(
        batch * channels // groups * jnp.sum(cells),
        jnp.sum(share * wide, axis=(0, 1, 2, 4)),
        jnp.sum(share * jnp.square(wide), axis=(0, 1, 2, 4)),
    )


def _normalized(layer: nn.GroupNorm, x: jax.Array, moments: jax.Array) -> jax.Array:
    mean, var = (jnp.repeat(m, x.shape[-1] // len(m)) for m in moments)
    params = layer.variables["params"]
    scale = params["scale"] if layer.use_scale else 1.0
    factor = lax.rsqrt(var + layer.epsilon) * scale
    offset = params["bias"] if layer.use_bias else 0.0
    y = (x.astype(jnp.float32) - mean) * factor + offset
    return y.astype(layer.dtype or x.dtype)
