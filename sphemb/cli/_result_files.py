"""What a prediction of instances with classes leaves behind."""

from __future__ import annotations

import functools
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sphemb.cli._annotation_ids import AnnotationIds
from sphemb.cli._instance_lists import regions_of
from sphemb.cli._label_files import run_lengths
from sphemb.cli._label_images import save_labels, save_overlay
from sphemb.cli._names import spelled
from sphemb.cli._prediction_files import COLUMNS, PredictionFiles, region_row
from sphemb.cli._results import write_table
from sphemb.data import ImageWindows
from sphemb.evaluation import Found
from sphemb.training import write_json
from sphemb.viz import draw_detections, save_figure


class ResultFiles(PredictionFiles):
    """Of instances with classes: label images, names over the image, COCO's results.

    The label image has what reaches the task's ``min_score``. COCO's results have all
    that is scored; of an image in tiles, where what is covered cannot be told from what
    another tile has seen, they have what the label image has.

    Attributes:
        ids: by which COCO's annotations call images and classes, if the results are to
            have these.
    """

    per_image = (
        "{}_labels.png",
        "{}_classes.png",
        "{}_overlay.png",
        "{}_labels.csv",
    )
    shared = ("results.json",)
    ids: AnnotationIds | None = None

    def write(
        self, targets: Sequence[pathlib.Path], image: ImageWindows, found: Found
    ) -> int:
        """Writes the files of one image; see the base."""
        labels = found["labels"]
        save_labels(targets[0], labels)
        save_labels(targets[1], found["classes"])
        if "seen" in found:
            figure = draw_detections(
                image.whole(),
                found["seen"],
                class_names=self.trained.class_names,
            )
            save_figure(figure, targets[2])
        else:
            save_overlay(targets[2], image, labels)
        regions = list(regions_of(labels))
        classes, scores = found["instance_classes"], found["instance_scores"]
        columns = (COLUMNS[0], "class", "score", *COLUMNS[1:])
        rows = [
            (r.label, classes[r.label - 1], scores[r.label - 1], *region_row(r)[1:])
            for r in regions
        ]
        write_table(targets[3], columns, rows)
        if "detections" in found:
            every = found["detections"]
            masks = map(run_lengths, every.masks)
            listed = list(zip(masks, every.classes, every.scores, strict=True))
        else:
            listed = [(r.runs, *row[1:3]) for r, row in zip(regions, rows, strict=True)]
        if self.ids is None:
            name = spelled(self.called.get(image.path, image.path.stem))
            # COCO's images are called by their number, unless 7 and 007 are two.
            number = int(name) if name.isdecimal() else None
            called: Any = (
                name if number is None or self._numbers[number] > 1 else number
            )
            known = {int(kind): int(kind) for _, kind, _ in listed}
        else:
            called, known = self.ids.images[image.path], self.ids.classes
        self._annotations += [
            {
                "image_id": called,
                "category_id": known[int(kind)],
                "segmentation": runs,
                "score": round(float(score), 6),
                "file_name": self.file_name(image),
            }
            for runs, kind, score in listed
            if int(kind) in known
        ]
        return len(scores)

    @functools.cached_property
    def _numbers(self) -> Counter[int]:
        """How many images are called by a number."""
        return Counter(int(n) for n in self.called.values() if n.isdecimal())

    def finish(self, targets: Sequence[pathlib.Path]) -> None:
        """Writes COCO's results; see the base."""
        write_json(targets[0], self._annotations)
