"""What a prediction leaves behind: label images, pictures to look at, COCO results."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sphemb.cli._label_files import run_lengths
from sphemb.data import write_image, write_labels
from sphemb.instances import relabel, select_detections
from sphemb.tasks import Boundaries, Instances, Maps, Picie, Semantic
from sphemb.training import Trained, write_json
from sphemb.viz import draw_detections, ink, overlay, save_figure


class PredictionFiles:
    """The files of a task whose groups are instances, and the base of all others.

    Attributes:
        per_image: names of an image's files; ``{}`` is the image's stem.
        shared: names of files for all images.
    """

    per_image: ClassVar[Sequence[str]] = ("{}_labels.png", "{}_overlay.png")
    shared: ClassVar[Sequence[str]] = ()

    def __init__(self, trained: Trained):
        self.trained = trained

    def write(
        self, targets: Sequence[pathlib.Path], image: np.ndarray, predictions: Maps
    ) -> str:
        """Writes the files of one image.

        Args:
            targets: where, in the order of ``per_image``.
            image: uint8 [H, W, 3].
            predictions: of the task, for this image alone, perhaps padded.

        Returns:
            What was found, in a few words.
        """
        height, width = image.shape[:2]
        labels = relabel(predictions["labels"], predictions["background"])[0]
        # An image smaller than any group may be has no group, and so no instance.
        labels = np.maximum(labels, 0)[:height, :width]
        write_labels(targets[0], labels)
        write_image(targets[1], _as_bytes(overlay(image, labels)))
        return _counted(int(labels.max()))

    def finish(self, targets: Sequence[pathlib.Path]) -> None:
        """Writes what is of all images.

        Args:
            targets: where, in the order of ``shared``.
        """


class BoundaryFiles(PredictionFiles):
    """Of boundaries: how certain, in 16 bits, and in ink over the image."""

    per_image = ("{}.png", "overlays/{}.png")

    def write(
        self, targets: Sequence[pathlib.Path], image: np.ndarray, predictions: Maps
    ) -> str:
        """Writes the files of one image; see the base."""
        height, width = image.shape[:2]
        boundary = np.asarray(predictions["boundary"][0])[:height, :width]
        write_labels(targets[0], np.rint(65535 * boundary).astype(np.int32))
        write_image(targets[1], _as_bytes(ink(image, boundary)))
        share = float(np.mean(boundary >= 0.5))
        return f"{100 * share:.1f} % of the pixels above .5"


class ClassFiles(PredictionFiles):
    """Of classes: their numbers, and in colours over the image."""

    per_image = ("{}_classes.png", "{}_overlay.png")

    def write(
        self, targets: Sequence[pathlib.Path], image: np.ndarray, predictions: Maps
    ) -> str:
        """Writes the files of one image; see the base."""
        height, width = image.shape[:2]
        classes = np.asarray(predictions["classes"][0])[:height, :width]
        write_labels(targets[0], classes)
        write_image(targets[1], _as_bytes(overlay(image, classes)))
        found = len(np.unique(classes[classes > 0]))
        return f"{found} class{'es' * (found != 1)} beside the background"


class ClusterFiles(PredictionFiles):
    """Of clusters: their numbers, and in colours over the image."""

    def write(
        self, targets: Sequence[pathlib.Path], image: np.ndarray, predictions: Maps
    ) -> str:
        """Writes the files of one image; see the base."""
        height, width = image.shape[:2]
        # From 1 on: no cluster is a background, and 0 is where there is none.
        labels = np.asarray(predictions["labels"][0])[:height, :width] + 1
        write_labels(targets[0], labels)
        write_image(targets[1], _as_bytes(overlay(image, labels)))
        found = len(np.unique(labels[labels > 0]))
        return f"{found} cluster{'s' * (found != 1)}"


class InstanceFiles(PredictionFiles):
    """Of instances with classes: label images, names over the image, COCO's results.

    The label image has what reaches the task's ``min_score``, COCO's results have all.
    """

    per_image = ("{}_labels.png", "{}_classes.png", "{}_overlay.png")
    shared = ("results.json",)

    def __init__(self, trained: Trained):
        super().__init__(trained)
        self._results: list[dict[str, Any]] = []

    def write(
        self, targets: Sequence[pathlib.Path], image: np.ndarray, predictions: Maps
    ) -> str:
        """Writes the files of one image; see the base."""
        height, width = image.shape[:2]
        maps = np.asarray(predictions["proposals"][0])[:, :height, :width]
        scores = np.asarray(predictions["proposal_scores"][0])
        classes = np.asarray(predictions["proposal_classes"][0])
        every = select_detections(maps, scores=scores, classes=classes, max_overlap=1.0)
        name = targets[0].name.removesuffix("_labels.png")
        for mask, number, score in zip(
            every.masks, every.classes, every.scores, strict=True
        ):
            self._results.append(
                {
                    # COCO's images are called by their number.
                    "image_id": int(name) if name.isdecimal() else name,
                    "category_id": int(number),
                    "segmentation": run_lengths(mask),
                    "score": round(float(score), 6),
                }
            )
        task: Any = self.trained.experiment.task
        seen = select_detections(
            maps, scores=scores, classes=classes, min_score=task.min_score
        )
        write_labels(targets[0], seen.labels)
        found = np.asarray(predictions["classes"][0])[:height, :width]
        write_labels(targets[1], found)
        save_figure(
            draw_detections(image, seen, class_names=self.trained.class_names),
            targets[2],
        )
        return _counted(len(seen.scores))

    def finish(self, targets: Sequence[pathlib.Path]) -> None:
        """Writes COCO's results; see the base."""
        write_json(targets[0], self._results)


def prediction_files(trained: Trained) -> PredictionFiles:
    """The files of a run's task."""
    task = trained.experiment.task
    for kind, files in {
        Boundaries: BoundaryFiles,
        Semantic: ClassFiles,
        Instances: InstanceFiles,
        Picie: ClusterFiles,
    }.items():
        if isinstance(task, kind):
            return files(trained)
    return PredictionFiles(trained)


def _counted(number: int) -> str:
    return f"{number} instance{'s' * (number != 1)}"


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * picture).astype(np.uint8)
