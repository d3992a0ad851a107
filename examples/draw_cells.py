"""Draws cells that touch, with their masks: a folder to try the commands on.

    python examples/draw_cells.py DIR IMAGES

DIR gets ``images`` and ``masks``, whose values number the cells of an image; IMAGES
gets images alone.
"""

import argparse
import pathlib

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def draw_cells(seed, size=256, attempts=320):
    """An image [H, W] of 8 bits, and the number of each pixel's cell, of 16."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image, mask = np.full((size, size), 0.1), np.zeros((size, size), np.uint16)
    for _ in range(attempts):
        (row, column), turn = rng.uniform(0, size, 2), rng.uniform(0, np.pi)
        along = np.cos(turn) * (rows - row) + np.sin(turn) * (columns - column)
        across = np.cos(turn) * (columns - column) - np.sin(turn) * (rows - row)
        long, short = rng.uniform(8, 11), rng.uniform(6, 8)
        inside = (along / long) ** 2 + (across / short) ** 2 < 1
        if np.mean(mask[inside] > 0) < 0.15:  # a cell may press on its neighbors
            inside &= mask == 0
            mask[inside] = mask.max() + 1
            image[inside] = rng.uniform(0.4, 0.8)
    image = gaussian_filter(image, 1) + 0.04 * rng.standard_normal(image.shape)
    return (255 * np.clip(image, 0, 1)).astype(np.uint8), mask


def main(folder, images, number=24, more=3):
    for path in (folder / "images", folder / "masks", images):
        path.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        image, mask = draw_cells(i)
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    for i in range(more):
        image, _ = draw_cells(number + i, size=384, attempts=720)
        Image.fromarray(image).save(images / f"{i}.png")
    print(f"{number} images with masks in {folder}, {more} without in {images}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="images and masks")
    parser.add_argument("images", type=pathlib.Path, help="more images, larger ones")
    flags = parser.parse_args()
    main(flags.folder, flags.images)
