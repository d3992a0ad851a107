"""Score instances with class and score against true ones."""

from __future__ import annotations

import pathlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from sphemb._checks import InputError
from sphemb._coco import paint_annotations
from sphemb.cli._instance_files import InstanceFiles, read_instances
from sphemb.cli._results import (
    check_results,
    make_folder,
    progress,
    write_table,
    writing_results,
)
from sphemb.metrics import RegionPrecision, coco_file_scores
from sphemb.training import write_json
from sphemb.viz import draw_region_levels, save_figure

_SCORES, _CLASSES, _PICTURE = "scores.json", "classes.csv", "levels.png"
_COCO_DETECTIONS = 100
_SHOWN = ("ap_r@0.5", "ap_r@0.7", "ap_r_vol", "AP", "AP50", "AP75")


def run_instance_scores(
    predictions: pathlib.Path,
    groundtruth: pathlib.Path,
    *,
    semantic: pathlib.Path | None = None,
    names: pathlib.Path | None = None,
    images: pathlib.Path | None = None,
    partial: bool = False,
    void: int | None = None,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Scores instances with class and score, and prints AP^r and COCO's AP.

    AP^r removes crowds and void from all masks; where objects overlap in COCO's
    annotations, the smaller lies on top, as the reader of this library draws them.
    COCO's AP is computed by pycocotools from the files as they are; void is a crowd.

    Args:
        predictions: COCO's results: a JSON list of ``image_id``, ``category_id``,
            ``segmentation`` and ``score``. Or a folder of ``NAME.png`` or
            ``NAME_labels.png``, 0 where no instance is, with ``NAME.csv`` or
            ``NAME.json``: ``label``, ``class`` and ``score`` of each. NAME is the path
            of the image, or its end.
        groundtruth: COCO's ``instances_*.json``. Or a folder of ``NAME.png`` with
            ``label`` and ``class`` of each beside them, unless ``semantic`` is given.
        semantic: a folder of ``NAME.png``, from whose values an object of a folder
            takes the commonest.
        names: a text file with a class in each line, the background's first, or a
            JSON list: what numbers of classes mean. By default those of the predictions
            are the ids of COCO's categories, where there are such.
        images: a text file with the names of the images that count; for a folder of
            true objects.
        partial: leave out true images without a file of predictions, and count them.
        void: the value of true pixels that count for nothing; in a palette file, 255 is
            void by default.
        out: gets ``scores.json``, ``classes.csv`` and ``levels.png``.
        overwrite: replace results that are there.

    Returns:
        What ``scores.json`` holds.

    Raises:
        InputError: a file that is something else, images without a file of predictions,
            results for images or classes that the truth does not have, a name that fits
            several images, no true object, results that are there. Nothing is written
            then.

    References:
        ``docs/semantic_benchmark.md``.
    """
    check_results(out, (_SCORES, _CLASSES, _PICTURE), overwrite=overwrite)
    files = read_instances(
        predictions,
        groundtruth,
        semantic=semantic,
        names=names,
        images=images,
        partial=partial,
        void=void,
    )
    categories = {c["id"]: str(c["name"]) for c in files.content["categories"]}
    total = _regions(files, sorted(categories), predictions, groundtruth)
    titles = ["background", *(categories[c] for c in sorted(categories))]
    record: dict[str, Any] = {
        **total.compute(titles),
        **coco_file_scores(files.content, files.results),
        "num_images": len(files.content["images"]),
        "num_unpredicted": files.unpredicted,
    }
    unknown = [name for name in _SHOWN if np.isnan(record[name])]
    if unknown:
        raise InputError(
            f"{groundtruth} must have true objects that count: without one, "
            f"{unknown[0]} is not a number"
        )
    if out is not None:
        make_folder(out)
        with writing_results():
            volumes = total.class_precisions().mean(axis=1)
            write_table(
                out / _CLASSES,
                ("class", "ap_r@0.5", "ap_r_vol", "AP", "objects"),
                [
                    (
                        name,
                        f"{record[f'ap_r@0.5/{name}']:.6f}",
                        f"{volumes[n]:.6f}",
                        f"{record[f'AP/{name}']:.6f}",
                        int(total.num_objects[n]),
                    )
                    for n, name in enumerate(titles)
                    if n
                ],
            )
            figure = draw_region_levels({predictions.stem: total})
            save_figure(figure, out / _PICTURE)
            write_json(out / _SCORES, record)  # last: where it is, the others are
    for name in _SHOWN:
        print(f"{name:9} {record[name]:.4f}")
    crowded = _beyond_coco(files.results)
    if crowded:
        print(
            f"warning: COCO's AP takes the {_COCO_DETECTIONS} best detections of a "
            f"class in an image: {crowded} images have more",
            file=sys.stderr,
        )
    left = files.unpredicted
    more = f", {left} more without a prediction are left out" if left else ""
    where = f"; see {out}" if out is not None else ""
    print(f"on {record['num_images']} images{more}{where}", flush=True)
    return record


def _beyond_coco(results: list[dict[str, Any]]) -> int:
    """The images with more detections of a class than COCO's AP looks at."""
    numbers = Counter((r["image_id"], r["category_id"]) for r in results)
    return len({image for (image, _), n in numbers.items() if n > _COCO_DETECTIONS})


def _regions(
    files: InstanceFiles,
    categories: list[int],
    predictions: pathlib.Path,
    groundtruth: pathlib.Path,
) -> RegionPrecision:
    """AP^r of all images, one at a time."""
    true, detected = defaultdict(list), defaultdict(list)
    for annotation in files.content["annotations"]:
        true[annotation["image_id"]].append(annotation)
    for result in files.results:
        detected[result["image_id"]].append(result)
    numbers = {c: n for n, c in enumerate(categories, start=1)}
    total = RegionPrecision.empty(num_classes=len(numbers) + 1)
    for image in progress(files.content["images"], "scoring"):
        number, size = image["id"], (image["height"], image["width"])
        truth = paint_annotations(
            true[number], size, where=f"annotations of {number} in {groundtruth}"
        )
        kinds = [true[number][i]["category_id"] for i in truth.shown]
        found = detected[number]
        masks = (
            paint_annotations(
                [result], size, where=f"annotations of {number} in {predictions}"
            ).instances
            > 0
            for result in found
        )
        maps, places = _label_maps(masks, size, len(found))
        scores = np.full(
            (len(maps), max([g for _, g in places], default=0) + 1), -np.inf
        )
        classes = np.zeros(scores.shape, int)
        for place, result in zip(places, found, strict=True):
            scores[place] = float(result["score"])
            classes[place] = numbers[result["category_id"]]
        one = RegionPrecision.from_image(
            maps,
            truth.instances,
            scores=scores,
            classes=classes,
            true_classes=np.array([0, *(numbers[c] for c in kinds)]),
            num_classes=len(numbers) + 1,
        )
        total = total.merge(one)
    return total


def _label_maps(
    masks: Iterable[np.ndarray], size: tuple[int, int], number: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Draws detections into as few label maps as their order allows.

    What overlaps a detection of the current map begins a new one: an image with
    thousands of detections that do not overlap takes one map, not thousands.

    Args:
        masks: bool [H, W] each.
        size: (H, W).
        number: how many there are.

    Returns:
        int [K, H, W], -1 where nothing is; and of each mask its map and its label.
    """
    dtype = np.int16 if number <= np.iinfo(np.int16).max else np.int32
    maps, places = [np.full(size, -1, dtype)], []
    label = 0
    for mask in masks:
        if (maps[-1][mask] >= 0).any():
            maps.append(np.full(size, -1, dtype))
            label = 0
        maps[-1][mask] = label
        places.append((len(maps) - 1, label))
        label += 1
    return np.stack(maps), places
