"""Folders of images and masks, as ``config.data.dir`` takes them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np
from PIL import Image


def write_folder(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], to: pathlib.Path
) -> None:
    """Writes images uint8 [H, W, 3] and masks uint8 or uint16 [H, W] as PNG files."""
    for kind in ("images", "masks"):
        (to / kind).mkdir(parents=True)
    for number, (image, mask) in enumerate(pairs):
        Image.fromarray(image).save(to / "images" / f"{number:04}.png")
        Image.fromarray(mask).save(to / "masks" / f"{number:04}.png")
