"""How images are predicted: what the flags say, and what they cannot have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from sphemb._checks import InputError, check_count
from sphemb.data import ImageWindows

_EMBEDDING_BYTES = 2**31


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How images are predicted.

    Attributes:
        tile: side of a tile, in pixels; an image of no more pixels than that squared is
            taken whole.
        halo: pixels around what a tile answers for.
        min_size: pixels that an instance needs, beside what the run asks for.
        embeddings: keep the embedding of every pixel.
        page: of images with several, see `sphemb.data.Reading`; by default the run's.
    """

    tile: int = 1024
    halo: int = 128
    min_size: int = 1
    embeddings: bool = False
    page: int | str | None = None

    def __post_init__(self):
        check_count("--tile", self.tile, at_least=1)
        check_count("--halo", self.halo)
        check_count("--min-size", self.min_size, at_least=1)
        if self.tile <= 2 * self.halo:
            raise InputError(
                f"--tile must be more than twice --halo, got {self.tile} and "
                f"{self.halo}"
            )


def check_embeddings(images: Sequence[ImageWindows], model: Any) -> None:
    """Refuses to keep embeddings that are too large.

    Args:
        images: all that are predicted.
        model: the network.

    Raises:
        InputError: those of one image are.
    """
    for image in images:
        size = 2 * math.prod(image.size) * model.embedding_dim
        if size > _EMBEDDING_BYTES:
            raise InputError(
                f"--embeddings of {image.path} would take {size / 2**30:.1f} GiB, of "
                f"at most {_EMBEDDING_BYTES / 2**30:.0f}: leave it out, or cut the "
                "image"
            )
