"""Instances with class and score, from COCO's files or label images, in COCO's form."""

from __future__ import annotations

import csv
import os
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sphemb._checks import InputError
from sphemb._coco import encode_mask
from sphemb.cli._label_files import (
    Files,
    check_sizes,
    find_labels,
    match_labels,
    read_lines,
    read_values,
    unpredicted,
)
from sphemb.cli._names import ImageNames, progress
from sphemb.data import (
    VOC_NAMES,
    ImageWindows,
    PaletteColors,
    category_names,
    load_annotations,
)
from sphemb.training import read_json

_TAIL = "_labels"  # of what `sphemb predict` writes
Rows = dict[int, tuple[int, float]]  # label -> class and score


class Truth(NamedTuple):
    """The ground truth, and the names that predictions may use."""

    content: dict[str, Any]  # as COCO's annotations
    names: ImageNames  # of all true images
    ids: Sequence[int | None]  # in the order of the names; None does not count
    numbers: bool  # whether a number in the results is an id; else it is a name
    kinds: Mapping[str, int]  # name or number of a class -> its id; empty: all are ids
    titles: list[str]  # of the classes, the background's first, if a list was given
    voids: Mapping[int, Any]  # id of an image -> run lengths of its void pixels
    predicted: Mapping[str, int]  # name of a file of predictions -> id of its image
    unpredicted: int  # the number of true images that were left out


def coco_truth(path: pathlib.Path, titles: list[str], *, who: str = "--names") -> Truth:
    """Reads COCO's annotations."""
    content = load_annotations(path)
    if not all("name" in c for c in content.get("categories", [{}])):
        raise InputError(f"{path} must have the names of its categories")
    names_of = category_names(content["categories"], path)
    kinds = {name: number for number, name in names_of.items()}
    files = [str(i.get("file_name", i["id"])) for i in content["images"]]
    ids = [image["id"] for image in content["images"]]
    by_name = {VOC_NAMES[n]: c for n, c in kinds.items() if n in VOC_NAMES} | kinds
    kinds |= {str(c["id"]): c["id"] for c in content["categories"]}
    if titles:
        if not by_name.keys() & set(titles):
            got = f"names of categories in {path}, got {titles[:3]}"
            raise InputError(f"{who} must have {got}")
        numbered = {str(n): by_name[t] for n, t in enumerate(titles) if t in by_name}
        kinds = by_name | numbered
    return Truth(content, ImageNames(files, path), ids, True, kinds, [], {}, {}, 0)


def _of_predicted(
    truth: Truth,
    found: Files,
    path: pathlib.Path,
    predictions: pathlib.Path,
    *,
    partial: bool,
) -> Truth:
    """Reduces COCO's annotations to the images with predictions."""
    predicted: dict[str, int] = {}
    for name, place in truth.names.match(found).items():
        if place is None:
            got = f"got {name}{truth.names.near(name)}"
            raise InputError(f"{found[name]} must be of an image of {path}, {got}")
        predicted[name] = truth.content["images"][place]["id"]
    counted = set(predicted.values())
    images = truth.content["images"]
    left = [i for i in images if i["id"] not in counted]
    if left and not partial:
        first = f"image {left[0].get('file_name', left[0]['id'])} of {path}"
        raise unpredicted(first, len(left), len(images), predictions)
    items = truth.content["annotations"]
    kept = {
        "images": [i for i in images if i["id"] in counted],
        "annotations": [a for a in items if a["image_id"] in counted],
    }
    content = truth.content | kept
    return truth._replace(content=content, predicted=predicted, unpredicted=len(left))


def _coco_results(
    path: pathlib.Path, groundtruth: pathlib.Path, truth: Truth
) -> list[dict[str, Any]]:
    """Reads COCO's results, and refuses images and classes that the truth lacks."""

    def unknown(key: str, value: Any) -> InputError:
        problem = f"but its {key} {value!r} is not there"
        return InputError(f"{path} must have what {groundtruth} has, {problem}")

    results = []
    places = {image: place for place, image in enumerate(truth.ids)}
    try:
        for result in read_json(path):
            called, kind = result["image_id"], result["category_id"]
            score = float(result["score"])
            result["segmentation"]
            image = called if truth.numbers else _named(called, truth)
            if type(image) is not int or image not in places:
                raise unknown("image_id", called)
            file = result.get("file_name")
            if isinstance(file, str) and not truth.names.fits(file, places[image]):
                true = truth.names.files[places[image]]
                raise InputError(
                    f"{path} must have the ids of {groundtruth}, but image_id "
                    f"{called!r} is {file} in it, and {true} there: predict with "
                    "--annotations"
                )
            if truth.kinds and str(kind) not in truth.kinds:
                raise unknown("category_id", kind)
            if not np.isfinite(score):
                raise InputError(f"{path} must have scores that are numbers, got NaN")
            kind = _class_number(kind, truth.kinds)
            own = {"image_id": image, "category_id": kind, "score": score}
            results.append(result | own)
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"but one of them lacks {error}"
        raise InputError(f"{path} must hold COCO's results, {problem}") from error
    return results


def _named(called: Any, truth: Truth) -> int | None:
    """Finds the id of an image of a folder by its name or number."""
    place = None
    if isinstance(called, str):
        place = truth.names.find(called)
    elif type(called) is int:
        place = truth.names.find_number(called)
    return None if place is None else truth.ids[place]


class InstanceFiles(NamedTuple):
    """Ground truth and predictions in the form of COCO's files."""

    content: dict[str, Any]  # images, annotations and categories
    results: list[dict[str, Any]]  # image_id, category_id, segmentation, score
    unpredicted: int  # the number of true images that were left out


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
    """Reads predictions and truth, each from a JSON file or a folder."""
    found = None
    if predictions.is_dir():
        found = find_labels(predictions, "--predictions", tail=_TAIL)
    titles = read_lines(names, "--names") if names else []
    if groundtruth.is_dir():
        true = find_labels(groundtruth, "--groundtruth")
        # COCO's results say nothing about images without an instance.
        own = true if found is None else found
        pairs, left = match_labels(
            own, true, predictions, groundtruth, images, partial=partial
        )
        chosen = [pair.name for pair in pairs]
        if found is not None:
            found = {pair.name: pair.predicted for pair in pairs}
        truth = _folder_truth(true, chosen, groundtruth, semantic, titles, void)
        truth = truth._replace(unpredicted=left)
    else:
        for flag, value in {"--semantic": semantic, "--images": images}.items():
            if value is not None:
                raise InputError(f"{flag} goes with a folder for --groundtruth")
        truth = coco_truth(groundtruth, titles)
        if found is not None:
            truth = _of_predicted(
                truth, found, groundtruth, predictions, partial=partial
            )
    if found is None:
        results = _coco_results(predictions, groundtruth, truth)
    else:
        results = _folder_results(found, truth)
    content = truth.content
    if groundtruth.is_dir():  # where 0 is the background; COCO has its own numbers
        results = [r for r in results if r["category_id"] > 0]
        used = [a["category_id"] for a in (*content["annotations"], *results)]
        titles = truth.titles or [str(c) for c in range(max(used, default=1) + 1)]
        content["categories"] = [
            {"id": c, "name": title} for c, title in enumerate(titles) if c
        ]
    # Void is a crowd, which COCO has by class: of each that was found in the image.
    kinds: dict[int, set[int]] = defaultdict(set)
    for result in results:
        kinds[result["image_id"]].add(result["category_id"])
    content["annotations"] += [
        _record(image, kind, runs, area=0, crowd=1)
        for image, runs in truth.voids.items()
        for kind in sorted(kinds[image])
    ]
    return InstanceFiles(content, results, truth.unpredicted)


def _folder_truth(
    true: Files,
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
            rows = _read_table(true[name], name, values, kinds=kinds, scored=False)
        else:
            place = of_classes.find(name)
            if place is None:
                raise InputError(f"--semantic must hold {name}.png, got none")
            voted = read_values(class_files[place], void, palettes=palettes)
            check_sizes(class_files[place], voted.shape, true[name], values.shape)
            rows = _vote_objects(values, voted)
        nothing = values < 0
        for label, (kind, _) in rows.items():
            mask = values == label
            if titles and kind >= len(titles):
                raise InputError(f"--names must have a name for class {kind}")
            if kind <= 0:
                nothing |= mask
            elif area := int(mask.sum()):
                objects.append(_record(number, kind, encode_mask(mask), area=area))
        if nothing.any():
            voids[number] = encode_mask(nothing)
    content = {"images": listed, "annotations": objects}
    names = ImageNames([f"{name}{file.suffix}" for name, file in true.items()], folder)
    ids = [numbers.get(name) for name in true]
    return Truth(content, names, ids, False, kinds, titles, voids, numbers, 0)


def _folder_results(found: Files, truth: Truth) -> list[dict[str, Any]]:
    sizes = {i["id"]: (i["height"], i["width"]) for i in truth.content["images"]}
    results = []
    for name, path in progress(found.items(), "reading", len(found)):
        image = truth.predicted[name]
        values = read_values(path, None, soft=True)
        check_sizes(path, values.shape, "its truth", sizes[image])
        rows = _read_table(path, name, values, kinds=truth.kinds, scored=True)
        for label, (kind, score) in rows.items():
            mask = values == label
            if area := int(mask.sum()):
                record = _record(image, kind, encode_mask(mask), area=area)
                results.append(record | {"score": score})
    return results


def _record(
    image: int, kind: int, runs: Any, *, area: int, crowd: int = 0
) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": kind,
        "segmentation": runs,
        "area": area,
        "iscrowd": crowd,
    }


def _read_table(
    path: pathlib.Path,
    name: str,
    values: np.ndarray,
    *,
    kinds: Mapping[str, int],
    scored: bool,
) -> Rows:
    """Reads the classes of the instances of a label image, and their scores, or 0."""
    stems = dict.fromkeys((path.stem, name.rpartition("/")[2]))
    tables = [path.with_name(stem + end) for stem in stems for end in (".csv", ".json")]
    columns = "label, class, score" if scored else "label, class"
    table = next((t for t in tables if t.is_file()), None)
    labels = {int(label) for label in np.unique(values[values > 0])}
    if table is None:
        if not labels:
            return {}
        where = " or ".join(t.name for t in tables)
        wanted = f"{columns} of its instances beside it in {where}"
        raise InputError(f"{path} must have {wanted}, got none")
    rows: Rows = {}
    for row in _read_rows(table):
        try:
            label, kind = int(row["label"]), _class_number(row["class"], kinds)
            score = float(row["score"]) if scored else 0.0
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{table} must have {columns} of every instance, with numbers or known "
                f"classes, but has not: {error}"
            ) from error
        if label in rows or not np.isfinite(score):
            wanted = "each label once, with a score that is a number"
            raise InputError(f"{table} must have {wanted}, but label {label} has not")
        rows[label] = (kind, score)
    if missing := labels - rows.keys():
        first = min(missing)
        hint = "" if scored else f": if that is void, give --void {first}"
        wanted = f"every label of {path.name}, but has not {first}{hint}"
        raise InputError(f"{table} must have {wanted}")
    return rows


def _class_number(value: Any, kinds: Mapping[str, int]) -> int:
    """The number of a class, by its number or name where ``kinds`` are known."""
    return kinds[str(value)] if kinds else int(value)


def _vote_objects(values: np.ndarray, semantic: np.ndarray) -> Rows:
    """The commonest class of each object's pixels, or 0, with score 0."""
    rows: Rows = {}
    for label in np.unique(values[values > 0]):
        counts = np.bincount(semantic[(values == label) & (semantic > 0)], minlength=1)
        rows[int(label)] = (int(np.argmax(counts)), 0.0)
    return rows


def _read_rows(table: pathlib.Path) -> list[Any]:
    if table.suffix == ".json":
        rows = read_json(table)
        if not isinstance(rows, list):
            raise InputError(f"{table} must hold a list, an entry for each instance")
        return rows
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as CSV: {error}") from error


class AnnotationIds(NamedTuple):
    """The ids of COCO's annotations for the images and classes of a prediction."""

    images: Mapping[pathlib.Path, int]
    sizes: Mapping[pathlib.Path, tuple[int, int]]  # (H, W) of the annotations
    classes: Mapping[int, int]  # a class of the run -> the category of that name


def annotation_ids(
    path: pathlib.Path, images: Sequence[pathlib.Path], class_names: Sequence[str]
) -> AnnotationIds:
    """Looks images up by their paths, see `ImageNames`, and classes by name."""
    if not class_names:
        wanted = "a run whose classes have names, but this one has no classes.json"
        raise InputError(f"--annotations needs {wanted}")
    truth = coco_truth(path, list(class_names), who="the run's classes")
    # Links and ".." in a path are folders that the annotations do not know.
    whole = {os.path.abspath(i.with_suffix("")): i for i in images}
    ids: dict[pathlib.Path, int] = {}
    sizes: dict[pathlib.Path, tuple[int, int]] = {}
    for name, place in truth.names.match(whole, endings=True).items():
        image = whole[name]
        if place is None:
            wanted = f"an image of --annotations {path}, by its path"
            raise InputError(f"{image} must be {wanted}{truth.names.near(name)}")
        entry = truth.content["images"][place]
        ids[image], sizes[image] = entry["id"], (entry["height"], entry["width"])
    kinds = truth.kinds
    classes = {n: kinds[name] for n, name in enumerate(class_names) if name in kinds}
    return AnnotationIds(ids, sizes, classes)


def check_fit(images: Sequence[ImageWindows], ids: AnnotationIds) -> None:
    """Refuses images of another size or orientation than their annotations."""
    for image in images:
        size = ids.sizes[image.path]
        if image.turned_from and size == image.turned_from:
            raise InputError(
                f"{image.path} must be stored upright for --annotations, but its "
                "camera's orientation turns it, and its outlines are those of the "
                "stored pixels: save it upright and turn them, or leave the flag out"
            )
        if size != image.size:
            wanted, got = (
                f"{height} x {width}" for height, width in (size, image.size)
            )
            raise InputError(
                f"{image.path} must have the size that --annotations give it, {wanted},"
                f" got {got}: was it resized?"
            )
