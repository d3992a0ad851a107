"""Changes of an example that move its image and all its maps together.

H W size of an example, h w size of the result.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import grain
import numpy as np

from sphemb._checks import VOID, InputError, check_count, check_number
from sphemb.data._pipeline import move_pixels

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_BAND = 32  # rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsAugmentation(grain.transforms.RandomMap):
    """Rotates, flips and recolors a rendering of digits at random."""

    flip: bool = True  # mirror left and right, half of the time
    turn: bool = True  # by a multiple of 90 degrees, of 180 if the image is not square
    permute_channels: bool = True  # shuffle red, green and blue

    def random_map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Returns the example with image [H, W, 3] and maps of the same shapes."""
        image, instances = element["image"], element["instances"]
        if image.ndim != 3 or image.shape[2] != 3 or instances.shape != image.shape[:2]:
            raise InputError(
                f"example {element.get('name', '')!r} must have image [H, W, 3] and "
                f"instances [H, W], got {image.shape} and {instances.shape}"
            )
        # Every number is sampled, used or not, so that switching one change off leaves
        # the others as they were.
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
            element, image=lambda a: move(a, 0, 1), maps=lambda a: move(a, -2, -1)
        )
        if self.permute_channels:
            moved["image"] = np.ascontiguousarray(moved["image"][..., channels])
        return moved


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAugmentation(grain.transforms.RandomMap):
    """Scales, rotates, mirrors, crops and recolors an example at random.

    All changes of geometry are one affine map from output to input pixels, by which
    the image is read bilinearly and the labels by nearest neighbor. Outside of the
    example, the result is black and void. The instances of an example with
    ``"boundaries"`` are curves, which stay connected; the result has no boundaries.

    With a ``size``, the result is a window at a random position in the scaled example,
    or around it where it is smaller. Without one, up to ``margin`` pixels are cut off
    at each side and the rest is cut to a multiple of ``multiple``, as by Kong & Fowlkes
    (CVPR 2018, section 5.1); a network is compiled for every such size.

    >>> example = {"image": np.zeros((40, 50, 3), np.uint8),
    ...            "instances": np.ones((40, 50), np.int32), "name": "a"}
    >>> augment = ImageAugmentation(size=(32, 32))
    >>> augment.random_map(example, np.random.default_rng(0))["image"].shape
    (32, 32, 3)
    """

    size: tuple[int, int] | None = None  # (h, w)
    scale: tuple[float, float] = (0.5, 1.5)  # factor, uniform in its logarithm
    rotation: float = 10.0  # largest angle in degrees, in both directions
    flip: bool = True  # mirror left and right, half of the time
    quarter_turns: bool = False  # rotate by a multiple of 90 degrees
    margin: int = 20  # pixels of the scaled example
    multiple: int = 8  # what the sides of the result are divisible by
    brightness: float = 0.2  # largest relative change, as for the next two
    contrast: float = 0.2  # of the distance from the mean gray
    saturation: float = 0.2  # of the distance from gray
    hue: float = 0.02  # largest rotation of the color circle, as a fraction of it

    def __post_init__(self):
        where = "config.augmentation"
        check_count(f"{where}.margin", self.margin)
        check_count(f"{where}.multiple", self.multiple, at_least=1)
        for side in self.size or ():
            check_count(f"{where}.size", side, at_least=self.multiple)
            if side % self.multiple:
                text = f"{where}.size must be multiples of {self.multiple}, got"
                raise InputError(f"{text} {self.size}")
        low, high = self.scale
        check_number(f"{where}.scale", low, above=0)
        check_number(f"{where}.scale", high, at_least=low)
        check_number(f"{where}.rotation", self.rotation, at_least=0, at_most=180)
        for name in ("brightness", "contrast", "saturation", "hue"):
            value = getattr(self, name)
            check_number(f"{where}.{name}", value, at_least=0, below=1)

    def random_map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Returns the example with image uint8 [h, w, 3] and maps [h, w]."""
        image, instances = element["image"], element["instances"]
        color = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        if not color or instances.shape != image.shape[:2] or image.size == 0:
            raise InputError(
                f"example {element.get('name', '')!r} must have image uint8 [H, W, 3] "
                f"and instances [H, W], got {image.dtype} {image.shape} and "
                f"{instances.shape}"
            )
        # Every number is sampled, used or not, so that switching one change off leaves
        # the others as they were.
        factor = math.exp(rng.uniform(*np.log(self.scale)))
        angle = math.radians(rng.uniform(-self.rotation, self.rotation))
        mirrored = bool(rng.integers(2)) and self.flip
        quarters = int(rng.integers(4)) * self.quarter_turns
        position = rng.uniform(size=4)
        jitter = rng.uniform(-1.0, 1.0, size=4)

        extent = factor * np.array(instances.shape, float)
        if quarters % 2:
            extent = extent[::-1]
        corner, size = self._window(extent, position)
        linear = _linear(factor, angle + 0.5 * math.pi * quarters, mirrored)
        # From the center of an output pixel, about the middle, to the input.
        offset = corner + 0.5 - 0.5 * extent
        offset = linear @ offset + 0.5 * np.array(instances.shape) - 0.5
        nearest = _nearest(linear, offset, size)
        moved = move_pixels(
            {key: value for key, value in element.items() if key != "boundaries"},
            image=lambda image: _warp_image(image, linear, offset, size),
            maps=lambda labels: _read_labels(labels, nearest),
        )
        moved["image"] = self._recolor(moved["image"], jitter)
        return _mend_curves(moved, element, linear, offset)

    def _window(
        self, extent: np.ndarray, position: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """The corner of the crop in the scaled example, and its size."""
        if self.size is not None:
            # Inside of the example; or the example inside, where it is smaller.
            return position[:2] * (extent - self.size), self.size
        before, behind = np.floor(position.reshape(2, 2) * (self.margin + 1))
        kept = np.floor((extent - before - behind) / self.multiple).astype(int)
        kept = np.maximum(kept, 1) * self.multiple
        return before, (int(kept[0]), int(kept[1]))

    def _recolor(self, image: np.ndarray, jitter: np.ndarray) -> np.ndarray:
        # By bands, which stay in a cache: new memory takes longer than the arithmetic.
        bands = [slice(top, top + _BAND) for top in range(0, len(image), _BAND)]
        turn = np.array([360.0 * (1.0 + self.hue * jitter[3]), 0.0, 0.0, 0.0])
        colors = np.empty(image.shape, np.float32)
        for rows in bands:
            band = image[rows].astype(np.float32)
            if self.hue:
                hsv = cv2.cvtColor(band, cv2.COLOR_RGB2HSV)  # hue in degrees
                band = cv2.add(hsv, turn, dst=band)  # OpenCV wraps it from 360 on
                band = cv2.cvtColor(band, cv2.COLOR_HSV2RGB, dst=hsv)
            colors[rows] = band
        # Away from gray by the saturation, then from the mean gray, which stays, by the
        # contrast, then all by the brightness: one affine map of the colors.
        largest = (self.brightness, self.contrast, self.saturation)
        bright, contrast, saturation = 1.0 + np.array(largest) * jitter[:3]
        linear = saturation * np.eye(3) + (1.0 - saturation) * _LUMA
        linear = (bright * contrast * linear).astype(np.float32)
        gray = _LUMA @ cv2.mean(colors)[:3]
        offset = np.full(4, bright * (1.0 - contrast) * gray)
        found = np.empty_like(image)
        for rows in bands:
            band = cv2.transform(colors[rows], linear)
            found[rows] = cv2.add(band, offset, dtype=cv2.CV_8U)  # rounded, 0 .. 255
        return found


def _linear(factor: float, angle: float, mirrored: bool) -> np.ndarray:
    """[2, 2], from rows and columns of the output to those of the input."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) / factor
    return turn @ np.diag([1.0, -1.0 if mirrored else 1.0])


def _warp_image(
    image: np.ndarray, linear: np.ndarray, offset: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    shrunk = int(math.sqrt(abs(np.linalg.det(linear))) + 1e-9)
    if shrunk >= 2:  # else pixels in between would be left out
        before = np.array(image.shape[:2])
        after = np.maximum(before // shrunk, 1)
        image = cv2.resize(image, after[::-1].tolist(), interpolation=cv2.INTER_AREA)
        ratio = after / before
        linear, offset = ratio[:, None] * linear, ratio * (offset + 0.5) - 0.5
    matrix = np.column_stack([linear[::-1, ::-1], offset[::-1]])  # OpenCV: x before y
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, size[::-1], flags=flags)


def _nearest(
    linear: np.ndarray, offset: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The column and row that an output pixel is read from: int16 [h, w, 2]."""
    nearest = np.empty((*size, 2), np.int16)
    rows, columns = map(np.arange, size)
    places = np.empty(size)
    for k, i in enumerate((1, 0)):  # OpenCV: x before y
        np.add.outer(linear[i, 0] * rows, linear[i, 1] * columns, out=places)
        places += offset[i]
        np.rint(places, out=places)  # OpenCV would round to 1 / 32 of a pixel first
        nearest[..., k] = np.clip(places, -1, np.iinfo(np.int16).max, out=places)
    return nearest


def _read_labels(labels: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    mask = labels.dtype == bool
    found = cv2.remap(
        labels.astype(np.uint8 if mask else np.int32),
        nearest,
        np.empty(0),  # no fractions
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0 if mask else VOID,),
    )
    return found.astype(bool) if mask else found


@dataclasses.dataclass(frozen=True, kw_only=True)
class CenterCrop(grain.transforms.Map):
    """Scales an example until it covers a size (h, w), and cuts that from its center.

    Labels are read by nearest neighbor; curves (``"boundaries"``, and the instances
    beside them) stay connected.

    >>> example = {"image": np.zeros((40, 60, 3), np.uint8),
    ...            "instances": np.ones((40, 60), np.int32), "name": "a"}
    >>> CenterCrop(size=(32, 32)).map(example)["image"].shape
    (32, 32, 3)
    """

    size: tuple[int, int] = (320, 320)

    def __post_init__(self):
        for side in self.size:
            check_count("config.augmentation.size", side, at_least=1)

    def map(  # pyrefly: ignore[bad-override]
        self, element: dict[str, Any]
    ) -> dict[str, Any]:
        """Returns the example with image uint8 [h, w, 3] and maps [..., h, w]."""
        image = element["image"]
        height, width = image.shape[:2]
        factor = max(self.size[0] / height, self.size[1] / width)
        sides = zip(self.size, (height, width), strict=True)
        scaled = tuple(max(wanted, round(factor * side)) for wanted, side in sides)
        corner = [(s - w) // 2 for s, w in zip(scaled, self.size, strict=True)]
        rows = slice(corner[0], corner[0] + self.size[0])
        columns = slice(corner[1], corner[1] + self.size[1])
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, scaled[::-1], interpolation=method)
        row, column = (
            np.minimum((np.arange(s) + 0.5) * n / s, n - 1).astype(int)
            for s, n in zip(scaled, (height, width), strict=True)
        )
        nearest = np.ix_(row[rows], column[columns])
        moved = move_pixels(
            element,
            image=lambda _: np.ascontiguousarray(resized[rows, columns]),
            maps=lambda labels: labels[..., *nearest],
        )
        ratio = np.array([height, width]) / scaled
        offset = ratio * (np.array(corner) + 0.5) - 0.5
        return _mend_curves(moved, element, np.diag(ratio), offset)


# Curves one pixel wide: reading the nearest pixel skips some of a curve where an image
# shrinks or turns. Here the steps from each of its pixels to the next are followed.

_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # half of the eight neighbors


def _mend_curves(
    moved: dict[str, Any], example: dict[str, Any], linear: np.ndarray, offset: Any
) -> dict[str, Any]:
    """Closes the gaps in the curves of an example that has ``"boundaries"``."""
    if "boundaries" not in example:
        return moved
    instances = mend_map(moved["instances"], example["instances"], linear, offset)
    mended = {**moved, "instances": instances}
    if "boundaries" in moved:
        pairs = zip(moved["boundaries"], example["boundaries"], strict=True)
        # A map without a curve stays: that of an absent annotator is void.
        mended["boundaries"] = np.stack(
            [mend_map(a, b, linear, offset) if (b == 1).any() else a for a, b in pairs]
        )
    return mended


def mend_map(
    moved: np.ndarray, labels: np.ndarray, linear: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Closes the gaps in one map, int32 [h, w]: 1 on curves, -1 on void ones."""
    found = moved.copy()
    if (labels == VOID).any():
        rows, columns = _trace(labels != 0, linear, offset, moved.shape)
        empty = found[rows, columns] == 0
        found[rows[empty], columns[empty]] = VOID
    found[_trace(labels == 1, linear, offset, moved.shape)] = 1
    return found


def _trace(
    curves: np.ndarray, linear: np.ndarray, offset: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the result that curves, bool [H, W], run through."""
    forward = np.linalg.inv(linear)
    height, width = curves.shape
    points = [np.argwhere(curves).astype(float)]
    for down, right in _STEPS:
        step = np.array([down, right])
        # The cosine of a right angle is not quite zero.
        pieces = math.ceil(np.abs(forward @ step).max() - 1e-6)
        if pieces < 2:
            continue
        left = max(-right, 0)
        here = curves[: height - down, left : width - max(right, 0)]
        there = curves[down:, max(right, 0) : width - left]
        starts = np.argwhere(here & there) + np.array([0, left])
        points += [starts + step * k / pieces for k in range(1, pieces)]
    # Not rint, which takes a half once up and once down, two pixels apart.
    placed = np.floor((np.concatenate(points) - offset) @ forward.T + 0.5).astype(int)
    inside = ((placed >= 0) & (placed < size)).all(axis=1)
    rows, columns = placed[inside].T
    return rows, columns
