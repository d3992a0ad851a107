"""Networks on padded images: what is padding changes nothing of what they say.

Shape letters: B images, H W size of a padded image.
"""

from __future__ import annotations

import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sphemb._grid import cells_of_image, without_padding
from sphemb.models._depthwise import DepthwiseConv
from sphemb.models._layers import MaxPool

_LOOK_AROUND = (nn.Conv, DepthwiseConv, MaxPool)


def apply_masked(
    model: nn.Module,
    variables: Any,
    image: jax.Array,
    mask: jax.Array | None = None,
    **settings: Any,
) -> Any:
    """Applies a network so that the padding of images makes no difference.

    Convolutions and poolings see zeros beyond the image, as they do beyond the border
    of an image without padding, and group normalisation takes the moments of the image
    alone. So the maps depend neither on how much padding there is nor on what is in it,
    but for the rounding of sums in another order.

    Args:
        model: the network. If its call takes ``mask``, it gets it, for what else
            depends on where an image ends: coordinates, and maps that are resized.
        variables: its variables.
        image: [B, H, W, 3] in [0, 1].
        mask: bool [B, H, W], True in a rectangle, the image, and False in the padding;
            None where there is none. An image that is all padding counts as one
            without any.
        settings: of ``model.apply``.

    Returns:
        What ``model.apply`` does.
    """
    if mask is None:
        return model.apply(variables, image, **settings)
    mask = mask | ~mask.any(axis=(1, 2), keepdims=True)
    if takes(model, "mask"):
        settings["mask"] = mask

    def look(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(layer, nn.GroupNorm):
            cells = cells_of_image(mask, args[0].shape[1:3])
            counted = jnp.broadcast_to(cells[..., None], args[0].shape)
            return call(*args, **{**kwargs, "mask": counted})
        if isinstance(layer, _LOOK_AROUND):
            args = (without_padding(args[0], mask), *args[1:])
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        return model.apply(variables, image, **settings)


def takes(model: nn.Module, name: str) -> bool:
    """Whether a network's call has an argument of this name."""
    return name in inspect.signature(type(model).__call__).parameters
