"""Score instances with class and score against true ones."""

from __future__ import annotations

import pathlib
from collections import defaultdict
from typing import Any

import numpy as np

from sphemb._checks import InputError
from sphemb.cli._instance_files import InstanceFiles, read_instances
from sphemb.cli._results import (
    check_results,
    make_folder,
    progress,
    write_table,
    writing_results,
)
from sphemb.data import draw_annotations
from sphemb.metrics import RegionPrecision, coco_file_scores
from sphemb.training import write_json
from sphemb.viz import draw_region_levels, save_figure

_SCORES, _CLASSES, _PICTURE = "scores.json", "classes.csv", "levels.png"
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
    left = files.unpredicted
    more = f", {left} more without a prediction are left out" if left else ""
    where = f"; see {out}" if out is not None else ""
    print(f"on {record['num_images']} images{more}{where}", flush=True)
    return record


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
        truth, kinds = draw_annotations(
            true[number], size, path=groundtruth, image=number
        )
        found = detected[number]
        masks = [
            draw_annotations([result], size, path=predictions, image=number)[0] > 0
            for result in found
        ]
        one = RegionPrecision.from_image(
            # A map for each, in which it is group 0: detections may overlap.
            np.stack(masks).astype(np.int8) - 1 if masks else np.full((1, *size), -1),
            truth,
            scores=np.array([[float(r["score"])] for r in found] or [[-np.inf]]),
            classes=np.array([[numbers[r["category_id"]]] for r in found] or [[0]]),
            true_classes=np.array([0, *(numbers[c] for c in kinds)]),
            num_classes=len(numbers) + 1,
        )
        total = total.merge(one)
    return total
