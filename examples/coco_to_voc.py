"""Writes the VOC classes of COCO as a tree in the form of PASCAL VOC.

    python examples/coco_to_voc.py --coco_dir=coco --masks=panoptic --out=coco_as_voc

What reads VOC can be tried on such a tree: `sphemb.data.prepare_voc` takes it as
voc_dir, ``configs/voc.py`` as config.data.voc_dir. It is not VOC: other photographs,
outlined by other people, with other ideas of what counts as an object. COCO's train is
its train, COCO's val its val. Images without an object of the twenty classes are left
out, since VOC has none. The JPEG files are those of COCO, byte for byte, but those that
a camera's orientation turns are saved upright; in the masks index 255 is void, which
here are crowds and what nobody labelled.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import sys

import numpy as np
from PIL import Image

from sphemb._checks import InputError
from sphemb.data import BuilderDataset, prepare_coco

VOID = 255
SPLITS = {"train": "train", "validation": "val"}


def voc_palette() -> np.ndarray:
    """Returns VOC's colours, uint8 [256, 3]: the bits of the index, dealt out in turn.

    Bits 0, 3, 6 of an index make the highest bits of red, bits 1, 4, 7 those of green,
    bits 2, 5 those of blue.
    """
    index = np.arange(256)[:, None]
    channel = np.arange(3)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(3):
        colours |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def to_palette_png(labels: np.ndarray, *, name: str) -> bytes:
    """Encodes labels, -1 for void, as a PNG with VOC's palette."""
    if labels.max(initial=0) >= VOID:
        raise InputError(
            f"{name} must have fewer than {VOID} objects for a palette, got "
            f"{labels.max()}"
        )
    image = Image.fromarray(np.where(labels < 0, VOID, labels).astype(np.uint8))
    image.putpalette(voc_palette().ravel().tolist())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def to_jpeg(image: np.ndarray) -> bytes:
    """Encodes an image as it is seen."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def export(dataset: BuilderDataset, out: pathlib.Path) -> dict[str, int]:
    """Writes a data set with VOC's classes as a tree.

    Args:
        dataset: as `prepare_coco` makes it with ``categories="voc"``.
        out: the tree's folder, absent or empty.

    Returns:
        The number of images in ``"train"`` and ``"val"``.

    Raises:
        InputError: out is not empty or cannot be written to.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"out must be absent or an empty folder, got {out}")
        return _write(dataset, out)
    except OSError as error:
        raise InputError(f"the tree cannot be written to {out}: {error}") from error


def _write(dataset: BuilderDataset, out: pathlib.Path) -> dict[str, int]:
    folders = ("JPEGImages", "SegmentationClass", "SegmentationObject")
    for folder in (*folders, "ImageSets/Segmentation"):
        (out / folder).mkdir(parents=True)
    counts = {}
    for split, short in SPLITS.items():
        source, names = dataset.source(split), []
        for i in range(len(source)):
            example = source[i]
            name, instances = example["name"], example["instances"]
            if instances.max() < 1:
                continue
            record = source.encoded(i)
            jpeg = record["image"]
            if source.header(record).orientation != 1:
                # Labels are upright here, and not every reader of VOC knows EXIF.
                jpeg = to_jpeg(example["image"])
            files = {
                f"JPEGImages/{name}.jpg": jpeg,
                f"SegmentationClass/{name}.png": to_palette_png(
                    example["semantic"], name=name
                ),
                f"SegmentationObject/{name}.png": to_palette_png(instances, name=name),
            }
            for path, content in files.items():
                (out / path).write_bytes(content)
            names.append(f"{name}\n")
        (out / f"ImageSets/Segmentation/{short}.txt").write_text("".join(names))
        counts[short] = len(names)
    return counts


def main() -> None:
    """Prepares COCO with VOC's classes, if need be, and exports it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coco_dir", required=True, help="the folder of COCO")
    parser.add_argument("--masks", default="instances", help="instances or panoptic")
    parser.add_argument("--out", required=True, help="the tree's folder")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    options = parser.parse_args()
    try:
        builder = prepare_coco(
            coco_dir=options.coco_dir,
            masks=options.masks,
            categories="voc",
            data_dir=options.data_dir,
        )
        counts = export(BuilderDataset(builder), pathlib.Path(options.out))
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"{options.out}: {counts['train']} images in train, {counts['val']} in val")


if __name__ == "__main__":
    main()
