"""Going on with smaller tiles when a device has no memory for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from sphemb._checks import InputError

_EXHAUSTED = "RESOURCE_EXHAUSTED"  # how XLA calls it, on every platform

T = TypeVar("T")


def with_smaller_tiles(
    work: Callable[[int], T],
    tile: int,
    *,
    least: int,
    name: str,
    say: Callable[[str], None] = print,
) -> tuple[T, int]:
    """Does work in tiles, halved until the device's memory is enough.

    Args:
        work: from the side of a tile to the result; called anew for each.
        tile: the side that is tried first.
        least: no smaller ones are tried.
        name: of what is worked on.
        say: is told of every step down, in a line.

    Returns:
        The result, and the tile that it was possible with.

    Raises:
        InputError: the memory is not enough for the smallest tiles.
    """
    while True:
        try:
            return work(tile), tile
        except jax.errors.JaxRuntimeError as error:
            if _EXHAUSTED not in str(error):
                raise
            smaller = max(tile // 2, least)
            if smaller >= tile:
                raise InputError(
                    f"{name} does not fit in the device's memory in tiles of {tile} "
                    "pixels: give a smaller --halo and --tile"
                ) from error
        # Only here is what the failed attempt has left let go of.
        say(f"{name}: out of memory in tiles of {tile}, again in tiles of {smaller}")
        tile = smaller
