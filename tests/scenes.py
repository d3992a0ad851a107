"""Small drawn scenes as files: in a folder, in VOC's layout, and in COCO's."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

Draw = Callable[[int, tuple[int, int]], tuple[np.ndarray, np.ndarray]]
"""(seed, size) -> image and instances."""


def draw_scene(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two bright discs that do not touch, on a dark ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    instances = np.zeros(size, np.uint8)
    for number, column in enumerate((0.25, 0.75), start=1):
        centre = (rng.uniform(0.3, 0.7) * size[0], column * size[1])
        radius = rng.uniform(0.1, 0.2) * min(size)
        inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        instances[inside] = number
    image = rng.integers(0, 60, (*size, 3)) + 120 * (instances > 0)[..., None]
    return image.astype(np.uint8), instances


def draw_blocks(
    seed: int = 0, size: tuple[int, int] = (64, 64), *, shift: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A red and a blue block in 64 x 64 pixels, whatever the seed and the size.

    Their borders are halfway between the cells of a ResNet's map of stride 8; shifted
    by 2, of stride 4.
    """
    image = np.full((64, 64, 3), 40, np.uint8)
    instances = np.zeros((64, 64), np.uint8)
    rows = slice(12 - shift, 44 - shift)
    for number, (left, right) in enumerate([(4, 28), (36, 52)]):
        block = rows, slice(left - shift, right - shift)
        image[block] = [(230, 60, 40), (40, 80, 230)][number]
        instances[block] = number + 1
    return image, instances


def _size(i: int) -> tuple[int, int]:
    return (56, 72) if i % 2 else (64, 64)


def write_folder(
    root: pathlib.Path, number: int = 12, draw: Draw = draw_scene
) -> pathlib.Path:
    """Images and label PNGs."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(number):
        image, instances = draw(i, _size(i))
        Image.fromarray(image).save(root / "images" / f"{i}.png")
        Image.fromarray(instances).save(root / "masks" / f"{i}.png")
    return root


def write_voc(
    root: pathlib.Path,
    number: int = 4,
    draw: Draw = draw_scene,
    classes: tuple[int, int] = (15, 15),
) -> pathlib.Path:
    """The folders of VOC's segmentation, with two lists; a class for each object."""
    folders = ("JPEGImages", "SegmentationObject", "SegmentationClass")
    for folder in (*folders, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split in ("train", "val"):
        names = [f"{split}_{i}" for i in range(number)]
        listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listed.write_text("".join(f"{name}\n" for name in names))
        for i, name in enumerate(names):
            image, instances = draw(i, _size(i))
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
            semantic = np.array([0, *classes], np.uint8)[instances]
            for folder, indices in zip(folders[1:], (instances, semantic), strict=True):
                paletted = Image.fromarray(indices)
                paletted.putpalette(list(range(256)) * 3)
                paletted.save(root / folder / f"{name}.png")
    return root


def write_coco(
    root: pathlib.Path,
    number: int = 4,
    draw: Draw = draw_scene,
    categories: tuple[int, int] = (1, 1),
) -> pathlib.Path:
    """Images and the boxes around their objects as polygons, of person (1), car (3)."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(number):
            image, instances = draw(i, _size(i))
            height, width = instances.shape
            name = f"{i:012d}.jpg"
            Image.fromarray(image).save(root / split / name)
            images.append(
                {"id": i, "file_name": name, "height": height, "width": width}
            )
            for instance in (1, 2):
                rows, columns = np.nonzero(instances == instance)
                top, bottom = int(rows.min()), int(rows.max()) + 1
                left, right = int(columns.min()), int(columns.max()) + 1
                outline = [left, top, right, top, right, bottom, left, bottom]
                annotations.append(
                    {
                        "id": 10 * i + instance,
                        "image_id": i,
                        "category_id": categories[instance - 1],
                        "iscrowd": 0,
                        "segmentation": [[float(v) for v in outline]],
                    }
                )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": category, "name": {1: "person", 3: "car"}[category]}
                for category in sorted(set(categories))
            ],
        }
        listed = root / "annotations" / f"instances_{split}.json"
        listed.write_text(json.dumps(content))
    return root
