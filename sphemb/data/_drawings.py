"""Drawings of coloured digits: the learning-to-group problem in its smallest form.

Digits are pasted on a black canvas, in cells of a grid that overlap a little, each in
the colour of its class. Colour alone cannot tell two equal digits apart, so that a
network has to learn what an instance is.

H W image size, M handwritten digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sphemb._checks import (
    InputError,
    InputTypeError,
    check_count,
    check_integer,
    check_shape,
)
from sphemb.data._handwriting import GLYPH_SIZE

NUM_CLASSES = 10
_CELL_STEP = 17.5  # of the grid: 0, 17, 35 on the authors' 64 pixels
_SMALLEST, _MULTIPLE = 32, 8
_HUE_JITTER = 0.02  # a fifth of the distance between neighbouring hues


def draw_digits(
    rng: np.random.Generator,
    glyphs: np.ndarray,
    classes: np.ndarray,
    *,
    size: int | Sequence[int] = (64, 64),
    max_digits: int = 9,
    name: str = "",
) -> dict[str, Any]:
    r"""Draws one image of coloured digits together with its instances.

    The number of digits is uniform in 0 .. max_digits (as far as there are cells). They
    go, unscaled and in random order, to different cells of a grid whose corners are
    :math:`\lfloor 17.5\,i \rfloor`; where a later digit has ink it hides an earlier
    one. All digits of one class have one colour, and the ten colours are drawn anew for
    every image. A pixel belongs to a digit where its ink is > 0, and is not black.

    Args:
        rng: the only source of chance.
        glyphs: uint8 [M, 28, 28] ink to choose from.
        classes: int [M] the digits' values, 0 to 9.
        size: (H, W), or one number for both; multiples of 8 from 32 on, since a digit
            has 28 pixels.
        max_digits: the largest number of digits.
        name: what to call the example.

    Returns:
        ``{"image": uint8 [H, W, 3], "instances": int32 [H, W], "name": str}``;
        instances are numbered 1, 2, .. in the order of pasting, 0 is background. A
        digit that is covered completely has no pixel and no number.

    Raises:
        InputError: shapes, dtypes or the size do not fit.

    References:
        Kong & Fowlkes 2018, Fig. 4 and the authors' demo.

    >>> glyphs = np.full((1, 28, 28), 255, np.uint8)
    >>> drawing = draw_digits(np.random.default_rng(0), glyphs, np.array([7]), size=32)
    >>> drawing["image"].shape, drawing["instances"].max()
    ((32, 32, 3), np.int32(1))
    """
    height, width = check_size(size)
    check_count("max_digits", max_digits)
    sizes = check_shape("glyphs", glyphs, f"M {GLYPH_SIZE} {GLYPH_SIZE}")
    check_shape("classes", classes, "M", dims=sizes, beside="glyphs")
    check_integer("classes", classes)
    if glyphs.dtype != np.uint8:
        raise InputTypeError(f"glyphs must be uint8, got {glyphs.dtype}")
    if sizes["M"] == 0:
        raise InputError("glyphs must hold at least one digit, got none")

    palette = _draw_palette(rng)
    cells = [(y, x) for y in _corners(height) for x in _corners(width)]
    number = int(rng.integers(min(max_digits, len(cells)), endpoint=True))
    chosen_cells = rng.permutation(len(cells))[:number]
    chosen_glyphs = rng.integers(sizes["M"], size=number)

    image = np.zeros((height, width, 3), np.uint8)
    pasted = np.zeros((height, width), np.int32)
    pairs = zip(chosen_cells, chosen_glyphs, strict=True)
    for order, (cell, glyph) in enumerate(pairs, start=1):
        if not 0 <= classes[glyph] < NUM_CLASSES:
            raise InputError(
                f"classes must be digits from 0 to 9, got {classes[glyph]} at {glyph}"
            )
        y, x = cells[cell]
        window = np.s_[y : y + GLYPH_SIZE, x : x + GLYPH_SIZE]
        ink = glyphs[glyph]
        image[window][ink > 0] = _colour_ink(ink[ink > 0], palette[classes[glyph]])
        pasted[window][ink > 0] = order
    return {"image": image, "instances": _renumber(pasted, number), "name": name}


def check_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns (height, width), or complains about what cannot be drawn."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2:
        raise InputError(f"size must be (height, width) or one number, got {size!r}")
    for side in sides:
        check_count("size", side)
        if side < _SMALLEST or side % _MULTIPLE:
            raise InputError(
                f"size must be multiples of {_MULTIPLE} from {_SMALLEST} on, got {size}"
            )
    return int(sides[0]), int(sides[1])


def _corners(length: int) -> list[int]:
    starts = (int(_CELL_STEP * i) for i in range(length))
    return [start for start in starts if start + GLYPH_SIZE <= length]


def _draw_palette(rng: np.random.Generator) -> np.ndarray:
    """Draws ten colours, [10, 3] in 0..255, that are easy to tell apart."""
    hues = rng.uniform() + np.arange(NUM_CLASSES) / NUM_CLASSES
    hues += rng.uniform(-_HUE_JITTER, _HUE_JITTER, NUM_CLASSES)
    hues = rng.permutation(hues)[:, None]
    saturations = rng.uniform(0.5, 1.0, (NUM_CLASSES, 1))
    values = rng.uniform(0.7, 1.0, (NUM_CLASSES, 1))
    # HSV to RGB in closed form: each channel is a trapezium of the hue.
    ramp = (np.array([5.0, 3.0, 1.0]) + 6.0 * hues) % 6.0
    trapezium = np.clip(np.minimum(ramp, 4.0 - ramp), 0.0, 1.0)
    return 255.0 * values * (1.0 - saturations * trapezium)


def _colour_ink(ink: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Colours ink > 0, [n], into uint8 [n, 3] of which no row is black."""
    coloured = np.rint(ink[:, None] / 255.0 * colour).astype(np.uint8)
    brightest = np.argmax(colour)
    coloured[:, brightest] = np.maximum(coloured[:, brightest], 1)
    return coloured


def _renumber(pasted: np.ndarray, number: int) -> np.ndarray:
    """Closes the gaps that completely covered digits leave in the numbers."""
    seen = np.bincount(pasted.ravel(), minlength=number + 1) > 0
    seen[0] = False
    return (np.cumsum(seen) * seen).astype(np.int32)[pasted]
