r"""Group normalisation by the moments of an image of which a network sees a tile.

Shape letters: B images, H rows, W columns, C channels, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sphemb.models._masked import apply_masked

Moments = Mapping[str, jax.Array]
"""Name of a layer -> [2, G], mean and variance of its groups of channels."""


class MomentSums(NamedTuple):
    """What the moments of a layer are made of; sums of tiles are added up.

    Attributes:
        count: how many values of a group were summed, [].
        total: their sum, [G].
        squares: that of their squares, [G].
    """

    count: jax.Array
    total: jax.Array
    squares: jax.Array


def apply_with_moments(
    model: nn.Module,
    variables: Any,
    image: jax.Array,
    moments: Moments,
    *,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    **settings: Any,
) -> tuple[dict[str, Any], dict[str, MomentSums]]:
    r"""Applies a network whose group normalisation takes given moments.

    Group normalisation takes mean and variance over the whole of an image,

    .. math:: y = \gamma\, (x - \mu_g) / \sqrt{\sigma_g^2 + \epsilon} + \beta,

    so that what a network says about a tile depends on where the tile ends. With the
    image's :math:`\mu_g` and :math:`\sigma_g` it does not. They are found layer by
    layer: those of the first layer depend on no other, those of the second on the
    first's alone. So a pass over all tiles for each layer, with the moments of the pass
    before, makes them those of the whole image.

    Args:
        model: the network.
        variables: its variables.
        image: [B, H, W, 3] in [0, 1].
        moments: of some of its layers, or of none; the others take their own.
        weights: [H, W], 1 for the pixels that are summed and 0 for the others, such as
            those which a tile shares with the next. It must not change within a cell of
            `model.stride` pixels.
        mask: bool [B, H, W], False where pixels are padding, see `apply_masked`.
        settings: of the network's call.

    Returns:
        The network's maps; and name -> sums of every layer's input, over all images.

    References:
        Wu and He, "Group normalization", ECCV 2018.
    """
    sums: dict[str, MomentSums] = {}

    def normalise(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if not isinstance(layer, nn.GroupNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        x, name = args[0], "/".join(layer.path)
        groups = layer.num_groups or x.shape[-1] // layer.group_size
        sums[name] = _summed(x, weights, groups)
        if name not in moments:
            return call(*args, **kwargs)
        return _normalised(layer, x, moments[name])

    with nn.intercept_methods(normalise):
        maps: Any = apply_masked(model, variables, image, mask, **settings)
    return maps, sums


def _summed(x: jax.Array, weights: jax.Array | None, groups: int) -> MomentSums:
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


def _normalised(layer: nn.GroupNorm, x: jax.Array, moments: jax.Array) -> jax.Array:
    mean, var = (jnp.repeat(m, x.shape[-1] // len(m)) for m in moments)
    factor = lax.rsqrt(var + layer.epsilon)
    offset = jnp.zeros_like(mean)
    found = layer.variables["params"]
    if layer.use_scale:
        factor = factor * found["scale"]
    if layer.use_bias:
        offset = found["bias"]
    y = (x.astype(jnp.float32) - mean) * factor + offset
    return y.astype(layer.dtype or x.dtype)
