"""Changes of color and sharpness, which move no pixel (H W size of an image)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import check_floating, check_key, check_number, check_shape

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_NO_BLUR = 1e-3  # of a pixel: the kernel is one pixel wide


class PhotometricTransform(NamedTuple):
    """Changes of color and sharpness.

    Attributes:
        brightness: [...] factor, 1 is neutral, as of the next two.
        contrast: [...] of the distance from the mean gray.
        saturation: [...] of the distance from gray.
        hue: [...] rotation of the color circle, as a fraction of it; 0 is neutral.
        gray: [...] bool, remove the colors.
        blur: [...] standard deviation in pixels, 0 for none.
    """

    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array
    gray: jax.Array
    blur: jax.Array


def sample_photometric(
    key: jax.Array,
    *,
    brightness: float = 0.3,
    contrast: float = 0.3,
    saturation: float = 0.3,
    hue: float = 0.1,
    jitter: float = 0.8,
    gray: float = 0.2,
    blur: float = 0.5,
    blur_sigma: tuple[float, float] = (0.1, 2.0),
) -> PhotometricTransform:
    """Samples a transform of scalars, with the authors' settings by default.

    Args:
        key: a random key, typed or legacy.
        brightness: largest relative change, as of the next two.
        contrast: of the distance from the mean gray.
        saturation: of the distance from gray.
        hue: largest rotation of the color circle, as a fraction of it.
        jitter: probability of each of these four changes.
        gray: probability of removing the colors.
        blur: probability of a blur.
        blur_sigma: its smallest and largest standard deviation, in pixels.

    References:
        Cho et al., "PiCIE", CVPR 2021; the numbers are those of its code.

    >>> change = sample_photometric(jax.random.key(0), hue=0.0, gray=1.0)
    >>> bool(change.hue == 0), bool(change.gray), bool(0.7 <= change.brightness <= 1.3)
    (True, True, True)
    """
    spans = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, value in (spans | {"jitter": jitter, "gray": gray, "blur": blur}).items():
        check_number(name, value, at_least=0, at_most=1)
    check_number("hue", hue, at_least=0, at_most=0.5)
    low, high = blur_sigma
    check_number("blur_sigma", low, at_least=0)
    check_number("blur_sigma", high, at_least=low)

    # Unused numbers are sampled too, so that switching a change off keeps the others.
    sizes, chances = jax.random.split(check_key("key", key))
    change = jax.random.uniform(sizes, (5,), minval=-1.0)
    chance = jax.random.uniform(chances, (6,))
    widest = jnp.array([*spans.values(), hue])
    change_of = jnp.where(chance[:4] < jitter, widest * change[:4], 0.0)
    sigma = low + 0.5 * (1.0 + change[4]) * (high - low)
    return PhotometricTransform(
        brightness=1.0 + change_of[0],
        contrast=1.0 + change_of[1],
        saturation=1.0 + change_of[2],
        hue=change_of[3],
        gray=chance[4] < gray,
        blur=jnp.where(chance[5] < blur, sigma, 0.0),
    )


def apply_photometric(image: jax.Array, transform: PhotometricTransform) -> jax.Array:
    """Changes brightness, contrast, saturation, hue, gray and blur, in this order.

    Args:
        image: [..., H, W, 3] floating point in [0, 1], as is the result.
        transform: of [...], or scalars.

    >>> neutral = PhotometricTransform(1.0, 1.0, 1.0, 0.0, False, 0.0)
    >>> image = jnp.array([[[0.2, 0.4, 0.8]]])
    >>> bool(jnp.allclose(apply_photometric(image, neutral), image))
    True
    >>> turned = apply_photometric(image, neutral._replace(hue=1 / 3))  # blue to red
    >>> [round(float(c), 3) for c in turned[0, 0]]
    [0.8, 0.2, 0.4]
    """
    check_shape("image", image, "... H W 3")
    check_floating("image", image)
    image = jnp.asarray(image)
    batch = jnp.broadcast_shapes(image.shape[:-3], *(jnp.shape(v) for v in transform))
    image = jnp.broadcast_to(image, batch + image.shape[-3:])
    brightness, contrast, saturation, hue, gray, blur = (
        jnp.broadcast_to(jnp.asarray(leaf), batch)[..., None, None, None]
        for leaf in transform
    )
    x = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    x = jnp.clip(brightness * x, 0.0, 1.0)
    mean = jnp.mean(_luma(x), axis=(-3, -2), keepdims=True)
    x = jnp.clip(mean + contrast * (x - mean), 0.0, 1.0)
    luma = _luma(x)
    x = jnp.clip(luma + saturation * (x - luma), 0.0, 1.0)
    x = _turn_hue(x, hue)
    x = jnp.where(gray, _luma(x), x)
    return _blurred(x, blur[..., 0, 0, 0]).astype(image.dtype)


def _luma(x: jax.Array) -> jax.Array:
    return jnp.sum(x * _channels(_LUMA, x), axis=-1, keepdims=True)


def _channels(numbers: tuple[float, float, float], x: jax.Array) -> jax.Array:
    """Three numbers along the last of as many axes as x has."""
    return jnp.array(numbers, x.dtype).reshape(*(1 for _ in x.shape[1:]), 3)


def _turn_hue(x: jax.Array, turn: jax.Array) -> jax.Array:
    """Rotates the color circle at the same value and chroma of HSV."""
    value = jnp.max(x, axis=-1, keepdims=True)
    chroma = value - jnp.min(x, axis=-1, keepdims=True)
    red, green, blue = jnp.split(x, 3, axis=-1)
    safe = jnp.where(chroma == 0, 1.0, chroma)
    # Channels are compared with each other: compiled, the largest of them may be
    # computed again and rounded differently, and then equals none.
    sixth = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / safe,
        jnp.where(green >= blue, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    # A channel falls from the value to the bottom of the chroma over a sixth of the
    # circle, two sixths from its own hue.
    wheel = jnp.mod(sixth + 6.0 * turn + _channels((5.0, 3.0, 1.0), x), 6.0)
    ramp = jnp.clip(jnp.minimum(wheel, 4.0 - wheel), 0.0, 1.0)
    return value - chroma * ramp


def _blurred(x: jax.Array, sigma: jax.Array) -> jax.Array:
    """A Gaussian blur whose weights add up to 1 at the border too."""

    def kernel(number: int) -> jax.Array:
        positions = jnp.arange(number, dtype=sigma.dtype)
        distance = positions[:, None] - positions[None]
        distance = distance.reshape(*(1 for _ in sigma.shape), number, number)
        width = jnp.maximum(sigma, _NO_BLUR)[..., None, None]
        weight = jnp.exp(-0.5 * jnp.square(distance / width))
        return weight / jnp.sum(weight, axis=-1, keepdims=True)

    height, width = x.shape[-3:-1]
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("...iy,...yxc->...ixc", kernel(height), x, precision=highest)
    return jnp.einsum("...jx,...ixc->...ijc", kernel(width), x, precision=highest)
