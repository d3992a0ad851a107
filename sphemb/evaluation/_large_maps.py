"""Maps of a whole image, from what its tiles bring, and grown in bands.

Shape letters: H W image size, M instances.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from sphemb.data import Tile
from sphemb.evaluation._findings import Found
from sphemb.instances import dilate_instances

_MAPS = ("labels", "classes", "boundary")
_ROWS = 1024  # of a label map that grow together


class Canvas:
    """The maps of a whole image [H, W, ...], made when the first tile brings them.

    Args:
        size: (H, W) of the image.
        embedding: keep the embedding, too.

    Attributes:
        found: the maps so far, by name, and the limits that were reached.
    """

    def __init__(self, size: tuple[int, int], *, embedding: bool) -> None:
        """Nothing is set aside yet; see the class."""
        self.embedding = embedding
        self.found: Found = {}
        self._size = size

    def paste(self, found: Found, tile: Tile) -> None:
        """Takes over the core of what is a map, and the limits that were reached."""
        self.note(found.get("reached", ()))
        core = tile.core.within(tile.outer)
        for name in (*_MAPS, "embedding") if self.embedding else _MAPS:
            if name not in found:
                continue
            part = found[name]
            if name not in self.found:
                shape = (*self._size, *part.shape[2:])
                self.found[name] = np.zeros(shape, part.dtype)
            self.found[name][tile.core.slices] = part[core.slices]

    def note(self, reached: Sequence[str]) -> None:
        """Keeps the names of limits that some tile, or all together, reached."""
        names = (*self.found.get("reached", ()), *reached)
        self.found["reached"] = tuple(dict.fromkeys(names))


def grow_in_bands(labels: np.ndarray, width: int) -> np.ndarray:
    """Grows the instances of a large map in place, some rows at a time.

    Args:
        labels: int32 [H, W]; 0 for the background and 1, 2, ...
        width: pixels, as for `sphemb.instances.dilate_instances`.

    Returns:
        The same array.
    """
    if not width:
        return labels
    above = labels[:0]
    for first in range(0, len(labels), max(_ROWS, width)):
        last = min(first + max(_ROWS, width), len(labels))
        window = np.concatenate([above, labels[first : last + width]])
        skipped, above = len(above), labels[last - width : last].copy()
        grown = np.asarray(dilate_instances(jnp.asarray(window), width))
        labels[first:last] = grown[skipped : skipped + last - first]
    return labels
