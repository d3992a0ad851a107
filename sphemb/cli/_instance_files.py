"""Instances with class and score, from COCO's files or from label images.

Whatever comes is brought into the form of COCO's files, so that there is one way on.
"""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError
from sphemb.cli._coco_files import Truth, coco_results, coco_truth, of_predicted
from sphemb.cli._image_names import ImageNames
from sphemb.cli._instance_tables import read_table, vote_objects
from sphemb.cli._label_files import (
    find_labels,
    match_labels,
    read_lines,
    read_values,
    run_lengths,
    unpredicted,
)
from sphemb.cli._results import progress
from sphemb.data import PaletteColors

_TAIL = "_labels"  # of what `sphemb predict` writes


class InstanceFiles(NamedTuple):
    """What was found and what is true, as COCO's files have it.

    Attributes:
        content: ``images``, ``annotations`` and ``categories``.
        results: a list of ``image_id``, ``category_id``, ``segmentation``, ``score``.
        unpredicted: the number of true images that were left out, without a file of
            predictions.
    """

    content: dict[str, Any]
    results: list[dict[str, Any]]
    unpredicted: int


def read_instances(
    predictions: pathlib.Path,
    groundtruth: pathlib.Path,
    *,
    semantic: pathlib.Path | None = None,
    names: pathlib.Path | None = None,
    images: pathlib.Path | None = None,
    void: int | None = None,
    partial: bool = False,
) -> InstanceFiles:
    """Reads predictions and truth, each from a JSON file or a folder.

    Args:
        predictions: COCO's results, or a folder of ``NAME.png`` or ``NAME_labels.png``
            whose values are instances, 0 for none, with ``NAME.csv`` or ``NAME.json``:
            ``label``, ``class`` and ``score`` of each.
        groundtruth: COCO's ``instances_*.json``, or a folder of ``NAME.png``, with
            ``label`` and ``class`` of each beside them unless ``semantic`` has them.
        semantic: a folder of ``NAME.png`` whose values are classes: an object has the
            class of most of its pixels.
        names: a text file with the names of classes, the background's first: what
            numbers of classes mean. Without it they are COCO's, or mean themselves.
        images: a text file with the names of the images that count.
        void: the value of true pixels that count for nothing; in palette files 255 is
            by default.
        partial: leave out true images without a file of predictions.

    Returns:
        The files.

    Raises:
        InputError: files that do not go together, or hold something else.
    """
    found = None
    if predictions.is_dir():
        found = find_labels(predictions, "--predictions", tail=_TAIL)
    titles = read_lines(names, "--names") if names else []
    if groundtruth.is_dir():
        true = find_labels(groundtruth, "--groundtruth")
        matched, chosen = match_labels(found or {}, true, groundtruth, images)
        left = []
        if found is not None:
            left = [name for name in chosen if name not in matched]
            if left and not partial:
                raise unpredicted(true[left[0]], len(left), len(chosen), predictions)
            found, chosen = matched, list(matched)
        truth = _folder_truth(true, chosen, groundtruth, semantic, titles, void)
        truth = truth._replace(unpredicted=len(left))
    else:
        given = {"--semantic": semantic, "--images": images}
        for flag, value in given.items():
            if value is not None:
                raise InputError(f"{flag} goes with a folder for --groundtruth")
        truth = coco_truth(groundtruth, titles)
        if found is not None:
            truth = of_predicted(
                truth, found, groundtruth, predictions, partial=partial
            )
    if found is None:
        results = coco_results(predictions, groundtruth, truth)
    else:
        results = _folder_results(found, truth)
    content = truth.content
    if groundtruth.is_dir():  # where 0 is the background; COCO has its own numbers
        results = [r for r in results if r["category_id"] > 0]
        used = [a["category_id"] for a in (*content["annotations"], *results)]
        number = len(truth.titles) or max(used, default=1) + 1
        content["categories"] = [
            {"id": c, "name": truth.titles[c] if truth.titles else str(c)}
            for c in range(1, number)
        ]
    content["annotations"] += _crowds(truth.voids, results)
    return InstanceFiles(content, results, truth.unpredicted)


def _folder_truth(
    true: Mapping[str, pathlib.Path],
    chosen: Sequence[str],
    folder: pathlib.Path,
    semantic: pathlib.Path | None,
    titles: list[str],
    void: int | None,
) -> Truth:
    kinds = {key: c for c, title in enumerate(titles) for key in (str(c), title)}
    classes = find_labels(semantic, "--semantic") if semantic else {}
    palettes = PaletteColors()
    of_classes, class_files = ImageNames(classes, semantic), list(classes.values())
    listed, objects = [], []
    numbers: dict[str, int] = {}
    voids: dict[int, Any] = {}
    for number, name in enumerate(progress(chosen, "reading"), start=1):
        values = read_values(true[name], void)
        numbers[name] = number
        height, width = values.shape
        listed.append({"id": number, "height": height, "width": width})
        if semantic is None:
            rows = read_table(true[name], name, values, kinds=kinds, scored=False)
        else:
            place = of_classes.find(name)
            if place is None:
                raise InputError(f"--semantic must hold {name}.png, got none")
            voted = read_values(class_files[place], void, palettes=palettes)
            if voted.shape != values.shape:
                raise InputError(
                    f"{class_files[place]} must have the size of {true[name]}, "
                    f"{values.shape}, got {voted.shape}"
                )
            rows = vote_objects(values, voted)
        nothing = values < 0
        for label, (kind, _) in rows.items():
            mask = values == label
            if titles and kind >= len(titles):
                raise InputError(f"--names must have a name for class {kind}")
            if kind <= 0:
                nothing |= mask
            elif mask.any():
                objects.append(_record(number, kind, mask))
        if nothing.any():
            voids[number] = run_lengths(nothing)
    content = {"images": listed, "annotations": objects}
    names = ImageNames([f"{name}{file.suffix}" for name, file in true.items()], folder)
    ids = [numbers.get(name) for name in true]
    return Truth(content, names, ids, False, kinds, titles, voids, numbers, 0)


def _folder_results(
    found: Mapping[str, pathlib.Path], truth: Truth
) -> list[dict[str, Any]]:
    sizes = {i["id"]: (i["height"], i["width"]) for i in truth.content["images"]}
    results = []
    for name, path in progress(found.items(), "reading", len(found)):
        image = truth.predicted[name]
        values = read_values(path, None, soft=True)
        if values.shape != sizes[image]:
            raise InputError(
                f"{path} must have the size of its truth, {sizes[image]}, got "
                f"{values.shape}"
            )
        rows = read_table(path, name, values, kinds=truth.kinds, scored=True)
        for label, (kind, score) in rows.items():
            mask = values == label
            if mask.any():
                results.append({**_record(image, kind, mask), "score": score})
    return results


def _crowds(
    voids: Mapping[int, Any], results: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Void as crowds, which COCO has by class: of each that was found in the image."""
    kinds: dict[int, set[int]] = defaultdict(set)
    for result in results:
        kinds[result["image_id"]].add(result["category_id"])
    return [
        {
            "image_id": image,
            "category_id": kind,
            "segmentation": runs,
            "area": 0,
            "iscrowd": 1,
        }
        for image, runs in voids.items()
        for kind in sorted(kinds[image])
    ]


def _record(image: int, kind: int, mask: np.ndarray) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": kind,
        "segmentation": run_lengths(mask),
        "area": int(mask.sum()),
        "iscrowd": 0,
    }
