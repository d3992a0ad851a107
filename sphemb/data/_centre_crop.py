"""Images of one size without chance: scaled, and cut around the middle.

Shape letters: H W size of an example, h w size of what comes out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import grain
import numpy as np

from sphemb._checks import check_count
from sphemb.data._curves import mend_examples
from sphemb.data._examples import move_pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentreCrop(grain.transforms.Map):
    """Scales an example until it covers the size, and keeps the middle.

    Tasks that fix each image's random changes for an epoch draw these themselves, and
    need examples that are the same every time. Labels take the nearest pixel's; curves
    (those of ``"boundaries"``, and the instances beside them) stay connected.

    Attributes:
        size: (h, w).

    Raises:
        InputError: a size without pixels.

    >>> example = {"image": np.zeros((40, 60, 3), np.uint8),
    ...            "instances": np.ones((40, 60), np.int32), "name": "a"}
    >>> CentreCrop(size=(32, 32)).map(example)["image"].shape
    (32, 32, 3)
    """

    size: tuple[int, int] = (320, 320)

    def __post_init__(self):
        for side in self.size:
            check_count("config.augmentation.size", side, at_least=1)

    # Grain declares its base method without a result.
    def map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any]
    ) -> dict[str, Any]:
        """Scales and cuts one example.

        Args:
            element: ``"image"`` uint8 [H, W, 3], ``"instances"`` [H, W]; perhaps
                ``"semantic"`` [H, W], ``"boundaries"`` [A, H, W] and ``"mask"`` [H, W];
                other entries pass.

        Returns:
            The example with arrays of [h, w].

        Raises:
            InputError: a label map does not have the size of the image.
        """
        image = element["image"]
        height, width = image.shape[:2]
        factor = max(self.size[0] / height, self.size[1] / width)
        scaled = tuple(
            max(wanted, round(factor * side))
            for wanted, side in zip(self.size, (height, width), strict=True)
        )
        corner = [(s - w) // 2 for s, w in zip(scaled, self.size, strict=True)]
        rows = slice(corner[0], corner[0] + self.size[0])
        columns = slice(corner[1], corner[1] + self.size[1])
        way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, scaled[::-1], interpolation=way)
        nearest = np.ix_(
            *(
                np.minimum((np.arange(s) + 0.5) * n / s, n - 1).astype(int)[part]
                for s, n, part in zip(
                    scaled, (height, width), (rows, columns), strict=True
                )
            )
        )
        moved = move_pixels(
            element,
            image=lambda _: np.ascontiguousarray(resized[rows, columns]),
            maps=lambda labels: labels[..., *nearest],
        )
        ratio = np.array([height, width]) / scaled
        offset = ratio * (np.array(corner) + 0.5) - 0.5
        return mend_examples(moved, element, np.diag(ratio), offset)
