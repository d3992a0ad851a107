"""Random changes of drawings that leave the instances what they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import grain
import numpy as np

from sphemb._checks import InputError
from sphemb.data._examples import move_pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsAugmentation(grain.transforms.RandomMap):
    """Turns, flips and recolours an example at random.

    A turned or mirrored digit may be no digit any more, but it still is one instance,
    which is all that grouping asks.

    Attributes:
        flip: mirror left and right, half of the time.
        turn: turn by a multiple of 90 degrees (of 180 where the image is not square).
        permute_channels: shuffle red, green and blue.

    >>> example = {"image": np.eye(4, dtype=np.uint8)[..., None].repeat(3, -1),
    ...            "instances": np.eye(4, dtype=np.int32), "name": "diagonal"}
    >>> turned = DigitsAugmentation().random_map(example, np.random.default_rng(0))
    >>> bool((turned["image"][..., 0] == turned["instances"]).all())
    True
    """

    flip: bool = True
    turn: bool = True
    permute_channels: bool = True

    # Grain declares its base method without a result.
    def random_map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Changes one example.

        Args:
            element: ``"image"`` [H, W, 3] and ``"instances"`` [H, W]; perhaps
                ``"semantic"`` [H, W], ``"boundaries"`` [A, H, W] and ``"mask"`` [H, W],
                which move along. Other entries pass.
            rng: the only source of chance.

        Returns:
            The example with a new image and new label maps of the same shapes.

        Raises:
            InputError: the image is not [H, W, 3], or a label map does not have its
                size.
        """
        image, instances = element["image"], element["instances"]
        if image.ndim != 3 or image.shape[2] != 3 or instances.shape != image.shape[:2]:
            raise InputError(
                f"example {element.get('name', '')!r} must have image [H, W, 3] and "
                f"instances [H, W], got {image.shape} and {instances.shape}"
            )
        # Every number is drawn whether it is used or not, so that switching one change
        # off leaves the others as they were.
        mirrored = rng.integers(2) == 1
        quarters = int(rng.integers(4))
        channels = rng.permutation(3)
        mirrored = mirrored and self.flip
        if not self.turn:
            quarters = 0
        elif image.shape[0] != image.shape[1]:
            quarters -= quarters % 2

        def move(array: np.ndarray, rows: int, columns: int) -> np.ndarray:
            if mirrored:
                array = np.flip(array, columns)
            return np.ascontiguousarray(np.rot90(array, quarters, (rows, columns)))

        moved = move_pixels(
            element,
            image=lambda image: move(image, 0, 1),
            maps=lambda labels: move(labels, -2, -1),
        )
        if self.permute_channels:
            moved["image"] = np.ascontiguousarray(moved["image"][..., channels])
        return moved
