"""Thin boundaries: curves one pixel wide, maxima across a soft boundary. H W size."""

from __future__ import annotations

import numpy as np

from sphemb._checks import (
    InputError,
    check_count,
    check_floating,
    check_number,
    check_shape,
)

# The eight neighbours as (row, column), counterclockwise from the east: x1 .. x8.
_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
_SMOOTHING = 4  # the radius of the triangle filter before orientations are taken


def _removable() -> np.ndarray:
    """[2, 256]: may a pixel go, by which neighbours it has, in either half of a pass.

    The conditions G1, G2 and G3 or G3' of Lam, Lee and Suen, p. 879.
    """
    x = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1  # [256, 8]
    odd, even, following = x[:, ::2], x[:, 1::2], np.roll(x[:, ::2], -1, axis=1)
    crossings = np.sum(~odd & (even | following), axis=1)
    one = np.sum(odd | even, axis=1)
    other = np.sum(even | following, axis=1)
    fewest = np.minimum(one, other)
    thick = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    x1, x2, x3, x4, x5, x6, x7, x8 = x.T
    first = (x2 | x3 | ~x8) & x1
    second = (x6 | x7 | ~x4) & x5
    return np.stack([thick & ~first, thick & ~second])


_REMOVABLE = _removable()


def thin_curves(binary: np.ndarray) -> np.ndarray:
    """Thins a binary map until nothing changes, as ``bwmorph(map, 'thin', Inf)`` does.

    Args:
        binary: bool [H, W].

    Returns:
        bool [H, W], a part of ``binary`` with as many connected pieces.

    References:
        Lam, Lee and Suen (1992), "Thinning methodologies".
    """
    padded = np.pad(binary, 1)
    width = padded.shape[1]
    alive = padded.ravel()  # the padded copy is changed in place
    ring = np.array([row * width + column for row, column in _RING])
    bits = (1 << np.arange(8)).astype(np.uint8)
    # A pixel is looked at again only where a neighbour went since it was last kept.
    waiting = [alive.copy(), alive.copy()]
    while waiting[0].any() or waiting[1].any():
        for removable, marked in zip(_REMOVABLE, waiting, strict=True):
            pixels = np.flatnonzero(marked & alive)
            marked[:] = False
            codes = alive[pixels[:, None] + ring].astype(np.uint8) @ bits
            gone = pixels[removable[codes]]
            alive[gone] = False
            touched = (gone[:, None] + ring).ravel()
            for half in waiting:
                half[touched] = True
        for half in waiting:
            half &= alive
    return padded[1:-1, 1:-1].copy()


def suppress_non_maxima(
    boundary_map: np.ndarray,
    *,
    radius: int = 1,
    border: int = 5,
    slack: float = 1.01,
) -> np.ndarray:
    r"""Keeps a soft boundary map where it is largest across the boundary.

    The normal's angle comes from second derivatives of the map E, smoothed by a
    triangle filter of radius 4,

    .. math:: \theta = \arctan\frac{E_{yy}\,\mathrm{sign}(-E_{xy})}{E_{xx} + 10^{-5}},

    and a pixel p stays if :math:`m E(p) \ge E(p + d (\cos\theta, \sin\theta))` for all
    whole d with :math:`0 < |d| \le r`, interpolated between pixels. It then falls
    linearly to 0 within ``border`` pixels of the image's edge. Where
    :math:`E_{xy}` is exactly 0 the formula takes every boundary for a vertical one.
    That is so in drawings of horizontal lines, hardly ever in a network's output.

    Args:
        boundary_map: floating point [H, W], at least 0, two pixels or more each way.
        radius: r, in pixels.
        border: in pixels; 0 leaves the edge as it is.
        slack: m; above 1 neighbours of about the same height both stay.

    Returns:
        [H, W] of the same dtype; 0 where it was suppressed.

    Raises:
        InputError: no map of this kind, or a setting out of range.

    References:
        Dollár and Zitnick (2015), "Fast Edge Detection Using Structured Forests".

    >>> ridge = np.exp(-0.5 * (np.arange(21.0) - 10) ** 2) * np.ones((21, 1))
    >>> np.flatnonzero(suppress_non_maxima(ridge)[10]).tolist()
    [10]
    """
    check_floating("boundary_map", boundary_map)
    dims = check_shape("boundary_map", boundary_map, "H W")
    check_count("radius", radius, at_least=1)
    check_count("border", border)
    check_number("slack", slack, above=0)
    high, wide = dims["H"], dims["W"]
    if min(high, wide) < 2:
        raise InputError(
            f"boundary_map must have two pixels or more each way, got {(high, wide)}"
        )
    given = np.asarray(boundary_map)
    soft = given.astype(np.float64)
    normal = _normal_angle(soft)

    kept = soft.copy()
    rows, columns = np.nonzero(soft)
    angle = normal[rows, columns]
    height = slack * soft[rows, columns]
    largest = np.ones(len(rows), bool)
    for distance in range(-radius, radius + 1):
        if distance:
            beside = _interpolate(
                soft,
                rows + distance * np.sin(angle),
                columns + distance * np.cos(angle),
            )
            largest &= height >= beside
    kept[rows[~largest], columns[~largest]] = 0.0
    return (kept * _ramps(high, wide, border)).astype(given.dtype)


def _normal_angle(soft: np.ndarray) -> np.ndarray:
    """The angle across the boundary, from the x axis to the y axis (down), [H, W]."""
    from scipy.ndimage import correlate1d

    up = np.arange(1.0, _SMOOTHING + 2)
    triangle = np.concatenate([up, up[-2::-1]]) / (_SMOOTHING + 1) ** 2
    for axis in (0, 1):
        soft = correlate1d(soft, triangle, axis=axis, mode="reflect")
    along_y, along_x = np.gradient(soft)
    xx = np.gradient(along_x, axis=1)
    yy, xy = np.gradient(along_y)
    return np.mod(np.arctan(yy * np.sign(-xy) / (xx + 1e-5)), np.pi)


def _interpolate(soft: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear values at places, which are moved into the map first."""
    high, wide = soft.shape
    y, x = np.clip(y, 0, high - 1.001), np.clip(x, 0, wide - 1.001)
    top, left = y.astype(int), x.astype(int)
    down, right = y - top, x - left
    upper = soft[top, left] * (1 - right) + soft[top, left + 1] * right
    lower = soft[top + 1, left] * (1 - right) + soft[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def _ramps(high: int, wide: int, border: int) -> np.ndarray:
    """Factors [H, W] that rise from 0 at the edge to 1 at ``border`` pixels from it."""
    border = min(border, high // 2, wide // 2)
    factors = []
    for size in (high, wide):
        inward = np.minimum(np.arange(size), np.arange(size)[::-1])
        factors.append(np.minimum(inward / border, 1.0) if border else np.ones(size))
    return factors[0][:, None] * factors[1]
