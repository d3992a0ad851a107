"""The verb score: result files against true ones, by three benchmarks."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import itertools
import multiprocessing
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sphemb import metrics, viz
from sphemb._checks import VOID, InputError, check_count, check_number
from sphemb._coco import paint_annotations
from sphemb.cli._instance_files import InstanceFiles, read_instances
from sphemb.cli._label_files import (
    LabelPairs,
    check_sizes,
    find_labels,
    match_labels,
    pair_files,
    read_lines,
    read_pair,
    read_values,
)
from sphemb.cli._names import (
    check_results,
    make_folder,
    progress,
    write_table,
    writing_results,
)
from sphemb.cli._verbs import Results, ScoreBoundaries, ScoreClasses, ScoreInstances
from sphemb.data import PaletteColors
from sphemb.training import write_json

_BYTE, _MOST_CLASSES = 255, 1024  # larger values, and 255, are rarely classes
_OF_IMAGES = ("mean_iou", "pixel_accuracy")
_COCO_DETECTIONS = 100  # of a class in an image that COCO's AP looks at
_PRINTED = ("ap_r@0.5", "ap_r@0.7", "ap_r_vol", "AP", "AP50", "AP75")


def score_boundaries(flags: ScoreBoundaries) -> dict[str, Any]:
    """Prints the scores, writes them to ``out``, and returns ``scores.json``."""
    check_count("thresholds", flags.thresholds, at_least=1)
    check_number("tolerance", flags.tolerance, at_least=0, at_most=1)
    if flags.processes is not None:
        check_count("processes", flags.processes, at_least=1)
    table, picture = "images.csv", "precision_recall.png"
    files = ("scores.json", table, picture)
    check_results(flags.out, files, overwrite=flags.overwrite)
    pairs, left = pair_files(flags.maps, flags.groundtruth, partial=flags.partial)
    for pair in progress(pairs, "checking"):
        read_pair(pair)
    counts = np.stack(
        [*progress(_boundary_counts(flags, pairs), "scoring", len(pairs))]
    )
    if not counts[..., 1].any():
        raise InputError(f"{flags.groundtruth} must have boundary pixels, got none")
    scores = metrics.BoundaryScores.from_counts(counts, thresholds=flags.thresholds)
    record: dict[str, Any] = {
        **scores.compute(),
        "num_images": int(scores.num_images),
        "num_unpredicted": left,
        "nms": flags.nms,
        "tolerance": flags.tolerance,
        "curve": {k: v.tolist() for k, v in scores.curve()._asdict().items()},
    }
    measures = ("recall", "precision", "f")
    columns = ("image", "best_threshold", *(f"best_{m}" for m in measures))
    rows = [
        (pair.name, *_boundary_row(own, scores.thresholds, record["ods_threshold"]))
        for pair, own in zip(pairs, counts, strict=True)
    ]
    lines = ["      score  recall  precision  threshold"]
    own = f"{record['ods_threshold']:.4f}"
    for name, threshold in {"ods": own, "ois": "each its own"}.items():
        ends = (name, f"{name}_recall", f"{name}_precision")
        values = "  ".join(f"{record[key]:.4f}" for key in ends)
        lines.append(f"{name.upper()}   {values}     {threshold}")
    return _finish(
        flags,
        record,
        [*lines, f"AP    {record['ap']:.4f}"],
        {table: ((*columns, *(f"ods_{m}" for m in measures)), rows)},
        {picture: viz.draw_precision_curve(scores)},
        f" with {flags.thresholds} threshold{'s' * (flags.thresholds != 1)}",
    )


def _boundary_counts(
    flags: ScoreBoundaries, pairs: Sequence[Any]
) -> Iterator[np.ndarray]:
    """The counts of each image, in processes that hold few images at a time."""
    count = functools.partial(
        metrics.boundary_counts, thresholds=flags.thresholds, tolerance=flags.tolerance
    )
    jobs = (
        (metrics.suppress_non_maxima(soft) if flags.nms else soft, curves)
        for soft, curves in map(read_pair, pairs)
    )
    number = min(flags.processes or os.cpu_count() or 1, len(pairs))
    if number == 1:
        yield from itertools.starmap(count, jobs)
        return
    # A forked child of a process with threads, as JAX's, may hang. Ctrl-C is for
    # this process: the others would print a traceback each.
    pool = concurrent.futures.ProcessPoolExecutor(
        number,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    waiting: collections.deque[Any] = collections.deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(count, *job))
            if len(waiting) >= 2 * number:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _boundary_row(
    counts: np.ndarray, thresholds: Sequence[float], ods_threshold: float
) -> list[str]:
    """An image's best threshold, recall, precision and F, and the three at ODS's."""
    alone = metrics.BoundaryScores.from_counts(counts[None], thresholds=thresholds)
    best, curve = alone.compute(), alone.curve()
    recall, precision = (
        float(np.interp(ods_threshold, curve.threshold, rate))
        for rate in (curve.recall, curve.precision)
    )
    f = 2.0 * recall * precision / ((recall + precision) or 1.0)
    own = [best[f"ods_{name}"] for name in ("threshold", "recall", "precision")]
    return [f"{value:.6f}" for value in (*own, best["ods"], recall, precision, f)]


def score_classes(flags: ScoreClasses) -> dict[str, Any]:
    """Prints the scores, writes them to ``out``, and returns ``scores.json``."""
    if flags.classes is not None:
        check_count("classes", flags.classes, at_least=2)
    check_count("trimap", flags.trimap)
    files = ("scores.json", "classes.csv", "images.csv", "trimap.png")
    check_results(flags.out, files, overwrite=flags.overwrite)
    both = match_labels(
        find_labels(flags.predictions, "--predictions", tail="_classes"),
        find_labels(flags.groundtruth, "--groundtruth"),
        flags.predictions,
        flags.groundtruth,
        flags.images,
        partial=flags.partial,
    )
    titles = _titles(flags, _highest_class(both, flags.void))
    settings = {"num_classes": len(titles)}

    total = bands = None
    rows = []
    for pair in progress(both.pairs, "scoring"):
        found = read_values(pair.predicted, None, soft=True)
        truth = read_values(pair.true, flags.void, soft=True)  # checked before
        own = metrics.MeanIoU.from_batch(
            _few_sizes(found), _few_sizes(truth), **settings
        )
        total = own if total is None else total.merge(own)
        scores = own.compute()
        rows.append((pair.name, *(f"{scores[name]:.6f}" for name in _OF_IMAGES)))
        if flags.trimap:
            near = metrics.TrimapIoU.from_image(
                found, truth, max_width=flags.trimap, **settings
            )
            bands = near if bands is None else bands.merge(near)
    assert total is not None  # match_labels refuses folders without a pair
    pixels = np.asarray(total.confusion).sum(axis=1)
    if not pixels.any():
        problem = "must have valid pixels, but all of them are void"
        raise InputError(f"{flags.groundtruth} {problem}")
    record: dict[str, Any] = {
        **total.compute(titles),
        "num_images": len(rows),
        "num_unpredicted": both.unpredicted,
    }
    figures = {}
    if bands is not None:
        curve = bands.curve()
        record |= bands.compute()
        record["trimap"] = {k: v.tolist() for k, v in curve._asdict().items()}
        figure = viz.draw_trimap_curves({flags.predictions.name: curve})
        figures["trimap.png"] = figure
    of_classes = [
        (name, f"{record[f'iou/{name}']:.6f}", int(count))
        for name, count in zip(titles, pixels, strict=True)
    ]
    tables = {
        "classes.csv": (("class", "iou", "pixels"), of_classes),
        "images.csv": (("image", *_OF_IMAGES), rows),
    }
    ious = {name: record[f"iou/{name}"] for name in titles}
    ious["mean IoU"] = record["mean_iou"]
    width = max(map(len, ious))
    lines = [
        f"{name:{width}}  {'   -  ' if np.isnan(iou) else f'{iou:.4f}'}"
        for name, iou in ious.items()
    ]
    return _finish(flags, record, lines, tables, figures)


def _titles(flags: ScoreClasses, highest: int) -> list[str]:
    """The names of the classes, by the largest true value where they are open."""
    listed = read_lines(flags.names, "--names") if flags.names else []
    known = flags.classes or len(listed)
    if not known and (highest == _BYTE or highest >= _MOST_CLASSES):
        hint = f"if it is void, give --void {highest}, and else --classes"
        raise InputError(
            f"{flags.groundtruth} has values up to {highest}, which is rarely a "
            f"class: {hint} {highest + 1}"
        )
    number = known or max(highest + 1, 2)
    if highest >= number:
        raise InputError(
            f"{flags.groundtruth} must have classes below {number}, got {highest}: "
            f"if it is void, give --void {highest}"
        )
    if len(listed) not in (0, number):
        raise InputError(f"{flags.names} must have {number} names, got {len(listed)}")
    return listed or [str(c) for c in range(number)]


def _highest_class(both: LabelPairs, void: int | None) -> int:
    """Reads all files once; the largest true class."""
    highest = -1
    palettes = PaletteColors()
    for pair in progress(both.pairs, "reading"):
        truth = read_values(pair.true, void, palettes=palettes)
        found = read_values(pair.predicted, None, soft=True, palettes=palettes)
        check_sizes(pair.predicted, found.shape, pair.true, truth.shape)
        highest = max(highest, int(truth.max(initial=-1)))
    return highest


def _few_sizes(labels: np.ndarray) -> Any:
    """[1, N] for a power of two N, void at the end: counting is compiled for each N."""
    size = 1 << (labels.size - 1).bit_length()
    padding = (0, size - labels.size)
    return np.pad(labels.reshape(-1), padding, constant_values=VOID)[None]


def score_instances(flags: ScoreInstances) -> dict[str, Any]:
    """Prints the scores, writes them to ``out``, and returns ``scores.json``."""
    files = ("scores.json", "classes.csv", "levels.png")
    check_results(flags.out, files, overwrite=flags.overwrite)
    read = read_instances(
        flags.predictions,
        flags.groundtruth,
        semantic=flags.semantic,
        names=flags.names,
        images=flags.images,
        void=flags.void,
        partial=flags.partial,
    )
    categories = {c["id"]: str(c["name"]) for c in read.content["categories"]}
    total = _regions(flags, read, sorted(categories))
    titles = ["background", *(categories[c] for c in sorted(categories))]
    record: dict[str, Any] = {
        **total.compute(titles),
        **metrics.coco_file_scores(read.content, read.results),
        "num_images": len(read.content["images"]),
        "num_unpredicted": read.unpredicted,
    }
    if any(np.isnan(record[name]) for name in _PRINTED):
        raise InputError(
            f"{flags.groundtruth} must have true objects that are not void, got none"
        )
    volumes = total.class_precisions().mean(axis=1)
    columns = ("class", "ap_r@0.5", "ap_r_vol", "AP", "objects")
    rows = []
    for n, name in enumerate(titles[1:], start=1):
        values = (record[f"ap_r@0.5/{name}"], volumes[n], record[f"AP/{name}"])
        texts = (f"{value:.6f}" for value in values)
        rows.append((name, *texts, int(total.num_objects[n])))
    numbers = Counter((r["image_id"], r["category_id"]) for r in read.results)
    many = {image for (image, _), n in numbers.items() if n > _COCO_DETECTIONS}
    if many:
        best = f"the {_COCO_DETECTIONS} best detections of a class in an image"
        line = f"warning: COCO's AP takes {best}: {len(many)} images have more"
        print(line, file=sys.stderr)
    lines = (f"{name:9} {record[name]:.4f}" for name in _PRINTED)
    figure = viz.draw_region_levels({flags.predictions.stem: total})
    tables = {"classes.csv": (columns, rows)}
    return _finish(flags, record, lines, tables, {"levels.png": figure})


def _regions(
    flags: ScoreInstances, files: InstanceFiles, categories: list[int]
) -> metrics.RegionPrecision:
    """AP^r of all images, one at a time."""
    true, detected = defaultdict(list), defaultdict(list)
    for annotation in files.content["annotations"]:
        true[annotation["image_id"]].append(annotation)
    for result in files.results:
        detected[result["image_id"]].append(result)
    numbers = {c: n for n, c in enumerate(categories, start=1)}
    total = metrics.RegionPrecision.empty(num_classes=len(numbers) + 1)
    for image in progress(files.content["images"], "scoring"):
        number, size = image["id"], (image["height"], image["width"])
        where = f"annotations of {number} in {flags.groundtruth}"
        truth = paint_annotations(true[number], size, where=where)
        kinds = [true[number][i]["category_id"] for i in truth.shown]
        found = detected[number]
        where = f"annotations of {number} in {flags.predictions}"
        masks = (
            paint_annotations([result], size, where=where).instances > 0
            for result in found
        )
        maps, places = _label_maps(masks, size, len(found))
        most = max([label for _, label in places], default=0) + 1
        scores = np.full((len(maps), most), -np.inf)
        classes = np.zeros(scores.shape, int)
        for place, result in zip(places, found, strict=True):
            scores[place] = float(result["score"])
            classes[place] = numbers[result["category_id"]]
        one = metrics.RegionPrecision.from_image(
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
    """Draws masks into few label maps [K, H, W], -1 where none is."""
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


def _finish(
    flags: Results,
    record: dict[str, Any],
    lines: Iterable[str],
    tables: Mapping[str, tuple[Sequence[str], Iterable[Sequence[Any]]]],
    figures: Mapping[str, Any],
    more: str = "",
) -> dict[str, Any]:
    """Writes and prints the results, and of how many images they are."""
    images, left = record["num_images"], record["num_unpredicted"]
    if left:
        more += f", {left} more without a prediction are left out"
    if flags.out is not None:
        more += f"; see {flags.out}"
        make_folder(flags.out)
        with writing_results():
            for name, (columns, rows) in tables.items():
                write_table(flags.out / name, columns, rows)
            for name, figure in figures.items():
                viz.save_figure(figure, flags.out / name)
            write_json(flags.out / "scores.json", record)  # last: all is there
    last = f"on {images} image{'s' * (images != 1)}{more}"
    print("\n".join([*lines, last]), flush=True)
    return record
