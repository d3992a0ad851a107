"""Random changes of photographs and their masks, together.

Shape letters: H W size of an example, h w size of what comes out.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import grain
import numpy as np

from sphemb._checks import InputError, check_count, check_number
from sphemb._labels import VOID
from sphemb.data._curves import mend_examples
from sphemb.data._examples import move_pixels

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma, ITU-R BT.601


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAugmentation(grain.transforms.RandomMap):
    r"""Scales, turns, mirrors, crops and recolours an example at random.

    Everything that moves pixels is one map from the pixels that come out to those that
    go in, by which the image is read bilinearly and the instances as they are, so that
    nothing is resampled twice. What lies outside of the example is black and void.

    The instances of an example with ``"boundaries"`` are curves, thin enough to break
    when they are read so: they are followed from pixel to pixel as well, and stay
    connected. The boundaries of the single annotators are left out of what comes out.

    With a ``size``, examples of that size come out, as batches need: a window anywhere
    in the scaled example, or around it where it is smaller. Without one, up to
    ``margin`` pixels go at each side and what is left is cut to a multiple of
    ``multiple``, as the authors cropped, image by image; a network is compiled for
    every size that comes up.

    Attributes:
        size: (h, w), or None.
        scale: smallest and largest factor, drawn uniformly in its logarithm.
        rotation: largest angle in degrees, in both directions.
        flip: mirror left and right, half of the time.
        quarter_turns: turn by a multiple of 90 degrees, and so, with ``flip``, mirror
            in all directions: for images without an upside.
        margin: pixels, of the scaled example.
        multiple: what the size that comes out is divisible by.
        brightness: largest relative change, as of the next two.
        contrast: of the distance from the mean grey.
        saturation: of the distance from grey.
        hue: largest turn of the colour circle, as a share of it.

    Raises:
        InputError: a setting out of range.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.1: scale .5 to 1.5, rotation by 10 degrees,
        flips, crops with a margin of 20 pixels and sides divisible by 8, colour jitter.

    >>> example = {"image": np.zeros((40, 50, 3), np.uint8),
    ...            "instances": np.ones((40, 50), np.int32), "name": "a"}
    >>> augment = ImageAugmentation(size=(32, 32))
    >>> augment.random_map(example, np.random.default_rng(0))["image"].shape
    (32, 32, 3)
    """

    size: tuple[int, int] | None = None
    scale: tuple[float, float] = (0.5, 1.5)
    rotation: float = 10.0
    flip: bool = True
    quarter_turns: bool = False
    margin: int = 20
    multiple: int = 8
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02

    def __post_init__(self):
        where = "config.augmentation"
        check_count(f"{where}.margin", self.margin)
        check_count(f"{where}.multiple", self.multiple, at_least=1)
        for side in self.size or ():
            check_count(f"{where}.size", side, at_least=self.multiple)
            if side % self.multiple:
                raise InputError(
                    f"{where}.size must be multiples of {self.multiple}, got "
                    f"{self.size}"
                )
        low, high = self.scale
        check_number(f"{where}.scale", low, above=0)
        check_number(f"{where}.scale", high, at_least=low)
        check_number(f"{where}.rotation", self.rotation, at_least=0, at_most=180)
        for name in ("brightness", "contrast", "saturation", "hue"):
            value = getattr(self, name)
            check_number(f"{where}.{name}", value, at_least=0, below=1)

    # Grain declares its base method without a result.
    def random_map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Changes one example.

        Args:
            element: ``"image"`` uint8 [H, W, 3] and ``"instances"`` int [H, W];
                perhaps ``"semantic"`` int [H, W] and ``"mask"`` bool [H, W], which
                move along. ``"boundaries"`` says that the instances are curves. Other
                entries pass.
            rng: the only source of chance.

        Returns:
            The example with image uint8 [h, w, 3] and label maps [h, w], without
            boundaries.

        Raises:
            InputError: the image is not uint8 [H, W, 3], or a label map does not have
                its size.
        """
        image, instances = element["image"], element["instances"]
        coloured = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        if not coloured or instances.shape != image.shape[:2] or image.size == 0:
            raise InputError(
                f"example {element.get('name', '')!r} must have image uint8 [H, W, 3] "
                f"and instances [H, W], got {image.dtype} {image.shape} and "
                f"{instances.shape}"
            )
        # Every number is drawn whether it is used or not, so that switching one change
        # off leaves the others as they were.
        factor = math.exp(rng.uniform(*np.log(self.scale)))
        angle = math.radians(rng.uniform(-self.rotation, self.rotation))
        mirrored = bool(rng.integers(2)) and self.flip
        quarters = int(rng.integers(4)) * self.quarter_turns
        places = rng.uniform(size=4)
        colours = rng.uniform(-1.0, 1.0, size=4)

        extent = factor * np.array(instances.shape, float)
        if quarters % 2:
            extent = extent[::-1]
        (top, left), size = self._window(extent, places)
        linear = _linear(factor, angle + 0.5 * math.pi * quarters, mirrored)
        # From a pixel's centre that comes out, about the middle, to one that goes in.
        offset = np.array([top, left]) + 0.5 - 0.5 * extent
        offset = linear @ offset + 0.5 * np.array(instances.shape) - 0.5
        moved = move_pixels(
            {key: value for key, value in element.items() if key != "boundaries"},
            image=lambda image: _read_image(image, linear, offset, size),
            maps=lambda labels: _read_labels(labels, linear, offset, size),
        )
        moved["image"] = self._recolour(moved["image"], colours)
        return mend_examples(moved, element, linear, offset)

    def _window(
        self, extent: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """The corner of what is cut from the scaled example, and its size."""
        if self.size is not None:
            # Inside of the example; or the example inside, where it is smaller.
            return places[:2] * (extent - self.size), self.size
        before, behind = np.floor(places.reshape(2, 2) * (self.margin + 1))
        kept = np.floor((extent - before - behind) / self.multiple).astype(int)
        kept = np.maximum(kept, 1) * self.multiple
        return before, (int(kept[0]), int(kept[1]))

    def _recolour(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
        colours = image.astype(np.float32) / 255.0
        if self.hue:
            hsv = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV)  # hue in degrees
            hsv[..., 0] = (hsv[..., 0] + 360.0 * self.hue * draws[3]) % 360.0
            colours = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        grey = (colours @ _GREY)[..., None]
        colours = grey + (1.0 + self.saturation * draws[2]) * (colours - grey)
        mean = grey.mean()
        colours = mean + (1.0 + self.contrast * draws[1]) * (colours - mean)
        colours *= 1.0 + self.brightness * draws[0]
        return np.rint(255.0 * np.clip(colours, 0.0, 1.0)).astype(np.uint8)


def _linear(factor: float, angle: float, mirrored: bool) -> np.ndarray:
    """[2, 2], rows and columns that come out to rows and columns that go in."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) / factor
    return turn @ np.diag([1.0, -1.0 if mirrored else 1.0])


def _read_image(
    image: np.ndarray, linear: np.ndarray, offset: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    # OpenCV counts x before y.
    matrix = np.column_stack([linear[::-1, ::-1], offset[::-1]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, size[::-1], flags=flags)


def _read_labels(
    labels: np.ndarray, linear: np.ndarray, offset: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    rows = np.arange(size[0])[:, None]
    columns = np.arange(size[1])[None, :]
    # OpenCV's nearest neighbour takes few types of numbers, and rounds otherwise.
    row, column = (
        np.rint(linear[i, 0] * rows + linear[i, 1] * columns + offset[i]).astype(int)
        for i in range(2)
    )
    height, width = labels.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    found = labels[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    if labels.dtype == bool:  # a mask
        return inside & found
    return np.where(inside, found, VOID).astype(np.int32)
