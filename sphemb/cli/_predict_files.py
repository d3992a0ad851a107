"""The files of a prediction, by its type: label images, pictures, lists.

Shape letters: H W image size.
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sphemb import tasks
from sphemb._checks import InputError
from sphemb._coco import encode_mask
from sphemb.cli._instance_files import AnnotationIds
from sphemb.cli._names import spelled, write_table
from sphemb.cli._regions import columns, regions_of, write_outlines
from sphemb.data import Box, ImageWindows, Resolution
from sphemb.data.files import write_image, write_labels, write_tiff
from sphemb.evaluation import Found
from sphemb.training import Trained, write_json
from sphemb.viz import draw_detections, overlay, overlay_boundaries, save_figure

_PNG_PIXELS = 2**26  # many readers refuse larger PNG files
_PNG_LABEL = 2**16 - 1
_ROWS = 256  # that are painted together
_COLORS = 4095  # that labels of a picture share, to be the same in all of its parts
Paths = Sequence[pathlib.Path]


class PredictionFiles:
    """The files of a type of prediction."""

    # {} is the name of an image's results; {}{} that of a label image, with its ending
    per_image: ClassVar[Sequence[str]] = ()
    shared: ClassVar[Sequence[str]] = ()  # names of files for all images
    embeds: ClassVar[bool] = True  # whether there is an embedding to keep
    outlines: ClassVar[bool] = False  # whether there are instances to outline
    noun: ClassVar[tuple[str, str]] = ("instance", "instances")  # that are found

    def __init__(self, trained: Trained):
        self.trained = trained
        self.called: Mapping[pathlib.Path, str] = {}  # names of results, or the stem

    def write(self, targets: Paths, image: ImageWindows, found: Found) -> int:
        """Writes the files of one image; returns the number of what was found."""
        raise NotImplementedError

    def finish(self, targets: Paths) -> None:
        """Writes the files of all images, as in ``shared``."""

    def write_outlines(self, target: pathlib.Path, found: Found) -> None:
        """Writes the outlines of the instances of one image as GeoJSON."""
        write_outlines(target, found["labels"])

    def name_of(self, image: ImageWindows) -> str:
        """The name of an image's results, in UTF-8."""
        return spelled(self.called.get(image.path, image.path.stem))

    def file_name(self, image: ImageWindows) -> str:
        """The file of an image in COCO's files."""
        return self.name_of(image) + spelled(image.path.suffix)


class _BoundaryFiles(PredictionFiles):
    """Boundaries in 16 bits, and in red over the image."""

    per_image = ("{}{}", "overlays/{}.png")
    embeds = False
    noun = ("pixels above .5", "pixels above .5")

    def write(self, targets: Paths, image: ImageWindows, found: Found) -> int:
        boundary = found["boundary"]
        save_labels(targets[0], tasks.boundary_levels(boundary), image.resolution)

        def rows(first: int, last: int) -> np.ndarray:
            pixels = image.read(Box(first, 0, last, image.size[1]))
            return overlay_boundaries(pixels, boundary[first:last])

        _save(targets[1], rows, image)
        return int(np.sum(boundary >= 0.5))


class _ClassFiles(PredictionFiles):
    """Classes by their numbers, and in colors over the image."""

    per_image = ("{}_classes{}", "{}_overlay.png")
    noun = ("class beside the background", "classes beside the background")
    shown: ClassVar[str] = "classes"

    def write(self, targets: Paths, image: ImageWindows, found: Found) -> int:
        labels = found[self.shown]
        save_labels(targets[0], labels, image.resolution)
        save_overlay(targets[1], image, labels)
        return int(np.sum(np.bincount(labels.ravel())[1:] > 0))


class _ClusterFiles(_ClassFiles):
    """Clusters by their numbers, and in colors over the image."""

    per_image = ("{}_labels{}", "{}_overlay.png")
    embeds = False
    noun = ("cluster", "clusters")
    shown = "labels"


class _GroupFiles(PredictionFiles):
    """Instances: label images, tables, and COCO's annotations of all images."""

    per_image = ("{}_labels{}", "{}_overlay.png", "{}_labels.csv")
    shared = ("instances.json",)
    outlines = True

    def __init__(self, trained: Trained):
        super().__init__(trained)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def write(self, targets: Paths, image: ImageWindows, found: Found) -> int:
        labels = found["labels"]
        save_labels(targets[0], labels, image.resolution)
        save_overlay(targets[1], image, labels)
        regions = list(regions_of(labels, image.intensities))
        rows = (region.row for region in regions)
        write_table(targets[2], columns(image.samples), rows)
        number, (height, width) = len(self._images) + 1, image.size
        entry = {"id": number, "file_name": self.file_name(image)}
        self._images.append(entry | {"height": height, "width": width})
        for region in regions:
            top, left, bottom, right = region.bbox
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": region.runs,
                    "area": region.area,
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
        return len(regions)

    def finish(self, targets: Paths) -> None:
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": 1, "name": "instance"}],
        }
        write_json(targets[0], content)


class DetectionFiles(PredictionFiles):
    """Instances with classes: label images, names over the image, COCO's results.

    The label image has the instances that reach the task's ``min_score``. COCO's
    results have all that are scored; but of an image in tiles, where an instance may be
    hidden by another tile's, those of the label image.
    """

    per_image = ("{}_labels{}", "{}_classes{}", "{}_overlay.png", "{}_labels.csv")
    shared = ("results.json",)
    outlines = True
    ids: AnnotationIds | None = None  # of COCO's annotations, for the results

    def __init__(self, trained: Trained):
        super().__init__(trained)
        self._results: list[dict[str, Any]] = []

    def write(self, targets: Paths, image: ImageWindows, found: Found) -> int:
        """Writes the files of one image; returns the number of instances."""
        labels = found["labels"]
        save_labels(targets[0], labels, image.resolution)
        save_labels(targets[1], found["classes"], image.resolution)
        if "seen" in found:
            names = self.trained.class_names
            figure = draw_detections(image.whole(), found["seen"], class_names=names)
            save_figure(figure, targets[2])
        else:
            save_overlay(targets[2], image, labels)
        regions = list(regions_of(labels, image.intensities))
        classes, scores = found["instance_classes"], found["instance_scores"]
        own = [(classes[r.label - 1], scores[r.label - 1]) for r in regions]
        label, *names = columns(image.samples)
        rows = [(r.label, *o, *r.row[1:]) for r, o in zip(regions, own, strict=True)]
        write_table(targets[3], (label, "class", "score", *names), rows)
        listed = [(r.runs, *o) for r, o in zip(regions, own, strict=True)]
        if "detections" in found:
            every = found["detections"]
            masks = map(encode_mask, every.masks)
            listed = list(zip(masks, every.classes, every.scores, strict=True))
        known = {int(kind): int(kind) for _, kind, _ in listed}
        if self.ids is not None:
            known = self.ids.classes
        self._results += [
            {
                "image_id": self._image_id(image),
                "category_id": known[int(kind)],
                "segmentation": runs,
                "score": round(float(score), 6),
                "file_name": self.file_name(image),
            }
            for runs, kind, score in listed
            if int(kind) in known
        ]
        return len(scores)

    def write_outlines(self, target: pathlib.Path, found: Found) -> None:
        """Writes the outlines and the names of the classes."""
        names = self.trained.class_names
        kinds = enumerate(found["instance_classes"].tolist(), start=1)
        shown = {n: names[k] if k < len(names) else str(k) for n, k in kinds}
        write_outlines(target, found["labels"], shown)

    def _image_id(self, image: ImageWindows) -> int | str:
        """The id of an image: COCO's, or its name; as a number unless 7 and 007 are."""
        if self.ids is not None:
            return self.ids.images[image.path]
        name = self.name_of(image)
        unique = name.isdecimal() and self._numbers[int(name)] <= 1
        return int(name) if unique else name

    @functools.cached_property
    def _numbers(self) -> Counter[int]:
        """How many images are called by a number."""
        return Counter(int(n) for n in self.called.values() if n.isdecimal())

    def finish(self, targets: Paths) -> None:
        """Writes COCO's results."""
        write_json(targets[0], self._results)


_FILES: dict[type, type[PredictionFiles]] = {
    tasks.BoundaryMap: _BoundaryFiles,
    tasks.ClassMap: _ClassFiles,
    tasks.Clusters: _ClusterFiles,
    tasks.Detections: DetectionFiles,
    tasks.Groups: _GroupFiles,
}


def files_for(trained: Trained) -> PredictionFiles:
    """The files of a run's predictions, by the type that its task predicts."""
    kind = trained.experiment.task.prediction
    for base in kind.__mro__:
        if base in _FILES:
            return _FILES[base](trained)
    raise InputError(
        f"config.task.name {trained.experiment.config.task.name} must predict Groups, "
        f"ClassMap, BoundaryMap or Detections, got {kind.__name__}"
    )


def save_labels(
    path: pathlib.Path, labels: np.ndarray, resolution: Resolution | None = None
) -> pathlib.Path:
    """Writes labels int [H, W] as PNG of 16 bits, or TIFF; returns the file."""
    known: Any = {"resolution": resolution}
    most = int(labels.max(initial=0))
    if path.suffix == ".png" and most <= _PNG_LABEL:
        write_labels(path, labels, **known)
    else:
        path = path.with_suffix(".tif")
        known["dtype"] = np.uint16 if most <= _PNG_LABEL else np.uint32
        write_tiff(path, lambda a, b: labels[a:b], size=labels.shape, **known)
    _remove_others(path)
    return path


def save_overlay(path: pathlib.Path, image: ImageWindows, labels: np.ndarray) -> None:
    """Writes labels int [H, W] above 0 in colors over their image, PNG or TIFF."""
    height, width = image.size
    many = int(labels.max(initial=0)) > _COLORS

    def rows(first: int, last: int) -> np.ndarray:
        # Outlines need the rows next to them.
        above, below = max(first - 1, 0), min(last + 1, height)
        seen = labels[above:below]
        if many:
            seen = np.where(seen > 0, 1 + (seen - 1) % _COLORS, seen)
        picture = overlay(image.read(Box(above, 0, below, width)), seen)
        return picture[first - above : last - above]

    _save(path, rows, image)


def _save(
    path: pathlib.Path, rows: Callable[[int, int], np.ndarray], image: ImageWindows
) -> None:
    """Writes a picture of an image in [0, 1], of which ``rows`` paints some."""
    known: Any = {"resolution": image.resolution}

    def in_parts(first: int, last: int) -> np.ndarray:
        parts = (rows(a, min(a + _ROWS, last)) for a in range(first, last, _ROWS))
        return np.concatenate([np.rint(255 * p).astype(np.uint8) for p in parts])

    if path.suffix == ".tif":
        known |= {"dtype": np.uint8, "channels": 3}
        write_tiff(path, in_parts, size=image.size, **known)
    else:
        write_image(path, in_parts(0, image.size[0]), **known)
    _remove_others(path)


def named_for(path: pathlib.Path, size: tuple[int, int]) -> pathlib.Path:
    """A picture's path, ending in ``.tif`` if it is too large for a PNG."""
    large = path.suffix == ".png" and math.prod(size) > _PNG_PIXELS
    return path.with_suffix(".tif") if large else path


def either_picture(path: pathlib.Path) -> set[pathlib.Path]:
    """Where a picture may be: large ones, and those of many labels, are TIFF."""
    endings = (".png", ".tif")
    return {path, *(path.with_suffix(end) for end in endings if path.suffix in endings)}


def _remove_others(path: pathlib.Path) -> None:
    """Removes what an earlier prediction has written with another ending."""
    for other in either_picture(path) - {path}:
        other.unlink(missing_ok=True)
