"""Few image sizes instead of many, so that networks are compiled for few of them.

Shape letters: A annotators, H W image size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

from sphemb._checks import InputError
from sphemb._labels import VOID
from sphemb.data._examples import move_pixels
from sphemb.data._loader import ExampleSource


@dataclasses.dataclass(frozen=True)
class PadExample(grain.transforms.Map):
    """Extends an example at the bottom and the right to a given size.

    The image is mirrored at its border, so that no new edge appears; the instances, and
    what else there is of label maps and boundaries, are void there, and ``"mask"`` is
    False.

    Attributes:
        size: (H, W).

    >>> example = {"image": np.ones((2, 3, 3)), "instances": np.ones((2, 3), int)}
    >>> PadExample((2, 4)).map(example)["instances"]
    array([[ 1,  1,  1, -1],
           [ 1,  1,  1, -1]])
    """

    size: tuple[int, int]

    # Grain declares its base method without a result.
    def map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any]
    ) -> dict[str, Any]:
        """Pads one example.

        Args:
            element: ``"image"`` [h, w, 3] and ``"instances"`` [h, w]; perhaps
                ``"semantic"`` [h, w], ``"boundaries"`` [A, h, w] and ``"mask"`` [h, w];
                other entries pass.

        Returns:
            The example with image [H, W, 3], instances [H, W], bool ``"mask"`` [H, W],
            and what else there was in the same size.

        Raises:
            InputError: the example is larger than H x W, or a label map does not have
                the size of its image.
        """
        height, width = element["image"].shape[:2]
        below, right = self.size[0] - height, self.size[1] - width
        if below < 0 or right < 0:
            raise InputError(
                f"example {element.get('name', '')!r} must be at most "
                f"{self.size[0]} x {self.size[1]}, got {height} x {width}"
            )
        border = ((0, below), (0, right))
        mask = element.get("mask", np.ones((height, width), bool))

        def pad(labels: np.ndarray) -> np.ndarray:
            outside = False if labels.dtype == bool else VOID
            sides = [(0, 0)] * (labels.ndim - 2) + list(border)
            return np.pad(labels, sides, constant_values=outside)

        return move_pixels(
            {**element, "mask": mask},
            image=lambda image: np.pad(image, (*border, (0, 0)), mode="symmetric"),
            maps=pad,
        )


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The size that an image is padded to, below and to the right.

    It depends on the image alone: evaluation and prediction pad it alike, so that both
    compute the same numbers to the last digit.

    Args:
        size: (H, W).
        multiple: what the new sides are multiples of.

    >>> padded_size((50, 64), 32)
    (64, 64)
    """
    height, width = (side + -side % multiple for side in size)
    return height, width


def size_buckets(
    source: ExampleSource, indices: list[int], *, multiple: int
) -> Mapping[tuple[int, int], list[int]]:
    """Sorts examples by the size that they are padded to.

    Args:
        source: the examples.
        indices: those that are wanted.
        multiple: what the sides are rounded up to.

    Returns:
        (H, W) -> indices, the size of most examples first.

    >>> class Sizes:
    ...     def size(self, index):
    ...         return [(50, 60), (64, 64), (65, 64)][index]
    >>> size_buckets(Sizes(), [0, 1, 2], multiple=32)
    {(64, 64): [0, 1], (96, 64): [2]}
    """
    buckets: dict[tuple[int, int], list[int]] = {}
    for i in indices:
        buckets.setdefault(padded_size(source.size(i), multiple), []).append(i)
    return dict(sorted(buckets.items(), key=lambda item: (-len(item[1]), item[0])))
