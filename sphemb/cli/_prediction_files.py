"""What a prediction leaves behind: label images, pictures to look at, lists."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sphemb.cli._instance_lists import Region, regions_of
from sphemb.cli._label_images import save_ink, save_labels, save_overlay
from sphemb.cli._names import spelled
from sphemb.cli._results import write_table
from sphemb.data import ImageWindows
from sphemb.evaluation import Found
from sphemb.tasks import boundary_levels
from sphemb.training import Trained, write_json

COLUMNS = ("label", "pixels", "row", "column", "top", "left", "bottom", "right")


class PredictionFiles:
    """The files of a task whose groups are instances, and the base of all others.

    Attributes:
        per_image: names of an image's files; ``{}`` is the name of its results.
        shared: names of files for all images.
        embeds: whether there is an embedding to keep.
        called: image file -> name of its results, if that is not its stem.
    """

    per_image: ClassVar[Sequence[str]] = (
        "{}_labels.png",
        "{}_overlay.png",
        "{}_labels.csv",
    )
    shared: ClassVar[Sequence[str]] = ("instances.json",)
    embeds: ClassVar[bool] = True

    def __init__(self, trained: Trained):
        self.trained = trained
        self.called: Mapping[pathlib.Path, str] = {}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def write(
        self, targets: Sequence[pathlib.Path], image: ImageWindows, found: Found
    ) -> int:
        """Writes the files of one image.

        Args:
            targets: where, in the order of ``per_image``.
            image: the image.
            found: in it.

        Returns:
            How many instances there are, or see :meth:`told`.
        """
        labels = found["labels"]
        save_labels(targets[0], labels)
        save_overlay(targets[1], image, labels)
        regions = list(regions_of(labels))
        write_table(targets[2], COLUMNS, map(region_row, regions))
        height, width = image.size
        number = len(self._images) + 1
        self._images.append(
            {
                "id": number,
                "file_name": self.file_name(image),
                "height": height,
                "width": width,
            }
        )
        self._annotations += [
            {
                "id": len(self._annotations) + i,
                "image_id": number,
                "category_id": 1,
                "segmentation": region.runs,
                "area": region.pixels,
                "bbox": region.coco_box,
                "iscrowd": 0,
            }
            for i, region in enumerate(regions, start=1)
        ]
        return len(regions)

    def file_name(self, image: ImageWindows) -> str:
        """The file of an image in COCO's files, by the name of its results."""
        name = self.called.get(image.path, image.path.stem)
        return spelled(f"{name}{image.path.suffix}")

    def told(self, number: int) -> str:
        """What was found, in a few words."""
        return f"{number} instance{'s' * (number != 1)}"

    def finish(self, targets: Sequence[pathlib.Path]) -> None:
        """Writes what is of all images.

        Args:
            targets: where, in the order of ``shared``.
        """
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": 1, "name": "instance"}],
        }
        write_json(targets[0], content)


class BoundaryFiles(PredictionFiles):
    """Of boundaries: how certain, in 16 bits, and in red over the image."""

    per_image = ("{}.png", "overlays/{}.png")
    shared = ()
    embeds = False

    def write(
        self, targets: Sequence[pathlib.Path], image: ImageWindows, found: Found
    ) -> int:
        """Writes the files of one image; returns the pixels above .5."""
        boundary = found["boundary"]
        save_labels(targets[0], boundary_levels(boundary))
        save_ink(targets[1], image, boundary)
        return int(np.sum(boundary >= 0.5))

    def told(self, number: int) -> str:
        """What was found, in a few words."""
        return f"{number} pixels above .5"

    def finish(self, targets: Sequence[pathlib.Path]) -> None:
        """There is nothing of all images."""


class ClassFiles(PredictionFiles):
    """Of classes: their numbers, and in colours over the image."""

    per_image = ("{}_classes.png", "{}_overlay.png")
    shared = ()

    def write(
        self, targets: Sequence[pathlib.Path], image: ImageWindows, found: Found
    ) -> int:
        """Writes the files of one image; returns how many classes there are."""
        save_labels(targets[0], found["classes"])
        save_overlay(targets[1], image, found["classes"])
        return int(np.sum(np.bincount(found["classes"].ravel())[1:] > 0))

    def told(self, number: int) -> str:
        """What was found, in a few words."""
        return f"{number} class{'es' * (number != 1)} beside the background"

    def finish(self, targets: Sequence[pathlib.Path]) -> None:
        """There is nothing of all images."""


class ClusterFiles(ClassFiles):
    """Of clusters: their numbers, and in colours over the image."""

    per_image = ("{}_labels.png", "{}_overlay.png")
    embeds = False

    def write(
        self, targets: Sequence[pathlib.Path], image: ImageWindows, found: Found
    ) -> int:
        """Writes the files of one image; returns how many clusters there are."""
        return super().write(targets, image, {"classes": found["labels"]})

    def told(self, number: int) -> str:
        """What was found, in a few words."""
        return f"{number} cluster{'s' * (number != 1)}"


def region_row(region: Region) -> tuple[Any, ...]:
    """An instance's row of the table, in the order of `COLUMNS`."""
    row, column = (round(place, 2) for place in region.middle)
    return (region.label, region.pixels, row, column, *region.box)
