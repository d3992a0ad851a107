"""Images and masks that lie in files, by random access.

H W image size.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sphemb.data._layouts import Pair
from sphemb.data.files import (
    AS_SHOWN,
    Annotations,
    FileError,
    Mask,
    Reading,
    inspect_mask,
    read_annotations,
    read_header,
    read_image,
    read_size,
)


class FolderExamples:
    """Images and masks by random access.

    Args:
        pairs: what belongs together.
        masks: see `read_mask`.
        void: see `read_mask`.
        reading: what is read of the images.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        masks: str = "instances",
        void: int | None = None,
        reading: Reading = AS_SHOWN,
    ) -> None:
        self.reading = reading
        self.pairs = tuple(pairs)
        self._masks, self._void = masks, void

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Reads one example.

        Args:
            index: which.

        Returns:
            ``{"image": uint8 [H, W, 3], "instances": int32 [H, W], "name": str}``, and
            ``"semantic"``, int32 [H, W], where the masks hold classes.

        Raises:
            InputError: a file cannot be used; it is named.
        """
        return self.inspect(index)[0]

    def size(self, index: int) -> tuple[int, int]:
        """Returns the (H, W) of an example from the header of its image."""
        return read_size(self.pairs[index].image, self.reading)

    def instances(self, index: int) -> np.ndarray:
        """Reads the instances of one example alone."""
        return self.mask(index).instances

    def inspect(self, index: int) -> tuple[dict[str, Any], Mask]:
        """Reads one example together with what is doubtful about its mask.

        Args:
            index: which.

        Returns:
            The example, and its mask.

        Raises:
            InputError: a file cannot be used; it is named.
        """
        pair = self.pairs[index]
        image, mask = read_image(pair.image, self.reading), self.mask(index)
        _check_size(pair, mask.instances.shape, image.shape[:2])
        example = {"image": image, "instances": mask.instances, "name": pair.name}
        if mask.semantic is not None:
            example["semantic"] = mask.semantic
        return example, mask

    def mask(self, index: int) -> Mask:
        """Reads the mask of one example alone.

        Args:
            index: which.

        Returns:
            The mask.

        Raises:
            FileError: its file cannot be used.
        """
        mask = self.pairs[index].mask
        if isinstance(mask, Annotations):
            # Before anything as large as the file says is set aside.
            header = read_header(self.pairs[index].image, self.reading)
            if not header.fits(mask.size):
                _check_size(self.pairs[index], mask.size, header.size)
            if self._masks == "classes":
                raise FileError(
                    f"annotations {mask} are no mask of classes: give label images",
                    kind="not ids",
                )
            drawn = read_annotations(mask)
            return drawn._replace(instances=header.turn(drawn.instances))
        return inspect_mask(mask, masks=self._masks, void=self._void)


def _check_size(pair: Pair, found: tuple[int, ...], size: tuple[int, ...]) -> None:
    if tuple(found) == tuple(size):
        return
    height, width = size
    turned = tuple(found) == (width, height)
    hint = ": images are turned as their camera says, masks are not" * turned
    file = isinstance(pair.mask, pathlib.Path)
    raise FileError(
        f"{'mask' if file else 'annotations'} {pair.mask} must be {height} x {width} "
        f"as the image {pair.image} is, got {' x '.join(map(str, found))}{hint}",
        kind="size mismatch",
    )
