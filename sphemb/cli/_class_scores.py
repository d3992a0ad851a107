"""Score label images of classes against true ones."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError, check_count
from sphemb._labels import VOID
from sphemb.cli._label_files import (
    LabelPairs,
    check_sizes,
    pair_labels,
    read_lines,
    read_values,
)
from sphemb.cli._results import (
    check_results,
    make_folder,
    progress,
    write_table,
    writing_results,
)
from sphemb.data import PaletteColors
from sphemb.metrics import MeanIoU, TrimapIoU
from sphemb.training import write_json
from sphemb.viz import draw_trimap_curves, save_figure

_SCORES, _CLASSES, _IMAGES = "scores.json", "classes.csv", "images.csv"
_PICTURE = "trimap.png"
_OF_IMAGES = ("mean_iou", "pixel_accuracy")
_BYTE = 255
_MOST_CLASSES = 1024  # unless their number is given; more are ids or void
_TAIL = "_classes"  # of what `sphemb predict` writes


def run_class_scores(
    predictions: pathlib.Path,
    groundtruth: pathlib.Path,
    *,
    classes: int | None = None,
    names: pathlib.Path | None = None,
    images: pathlib.Path | None = None,
    partial: bool = False,
    void: int | None = None,
    trimap: int = 40,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Scores label images of classes, and prints mean IoU and IoU of each class.

    All files are read once before the first is scored, so that a bad one costs no time,
    and no more than two are held at a time.

    Args:
        predictions: a folder of ``NAME.png`` or ``NAME_classes.png``, grey or palette,
            whose values are classes, 0 the background.
        groundtruth: a folder of ``NAME.png``, one for each prediction. Images are found
            by their paths below the two folders.
        classes: their number, the background among them; by default that of the names,
            or one more than the largest true one.
        names: a text file with a name in each line, the background's first.
        images: a text file with the names of the images that count; by default all
            true ones do.
        partial: leave out true images without a prediction, and count them.
        void: the value of true pixels that count for nothing; in a palette file, 255 is
            void by default.
        trimap: the widest band around true boundaries, in pixels; 0 for none.
        out: gets ``scores.json``, ``classes.csv``, ``images.csv`` and ``trimap.png``.
        overwrite: replace results that are there.

    Returns:
        What ``scores.json`` holds.

    Raises:
        InputError: files without a partner, unreadable or of different sizes, results
            that are there, a setting out of range, true values that are rarely
            classes, no true pixel that counts. Nothing is written then.

    References:
        ``docs/semantic_benchmark.md``.
    """
    if classes is not None:
        check_count("classes", classes, at_least=2)
    check_count("trimap", trimap)
    check_results(out, (_SCORES, _CLASSES, _IMAGES, _PICTURE), overwrite=overwrite)
    both = pair_labels(
        predictions, groundtruth, tail=_TAIL, images=images, partial=partial
    )
    listed = read_lines(names, "--names") if names else []
    highest = _highest(both, void)
    if not (classes or listed) and (highest == _BYTE or highest >= _MOST_CLASSES):
        raise InputError(
            f"{groundtruth} has values up to {highest}, which is rarely a class: if it "
            f"is void, give --void {highest}, and else --classes {highest + 1}"
        )
    number = classes or len(listed) or max(highest + 1, 2)
    if highest >= number:
        raise InputError(
            f"{groundtruth} must have classes below {number}, got {highest}: if it is "
            f"void, give --void {highest}"
        )
    if listed and len(listed) != number:
        raise InputError(f"{names} must have {number} names, got {len(listed)}")
    titles = listed or [str(c) for c in range(number)]

    total = bands = None
    rows = []
    for pair in progress(both.pairs, "scoring"):
        predicted, truth = (
            read_values(pair.predicted, None, soft=True),
            read_values(pair.true, void, soft=True),  # it was looked at above
        )
        one = MeanIoU.from_batch(
            _few_sizes(predicted), _few_sizes(truth), num_classes=number
        )
        total = one if total is None else total.merge(one)
        own = one.compute()
        rows.append((pair.name, *(f"{own[name]:.6f}" for name in _OF_IMAGES)))
        if trimap:
            near = TrimapIoU.from_image(
                predicted, truth, num_classes=number, max_width=trimap
            )
            bands = near if bands is None else bands.merge(near)
    assert total is not None  # there is a pair, or there had been a complaint
    if not np.asarray(total.confusion).any():
        raise InputError(
            f"{groundtruth} must have pixels that count, but all of them are void"
        )
    record: dict[str, Any] = {
        **total.compute(titles),
        "num_images": len(rows),
        "num_unpredicted": both.unpredicted,
    }
    if bands is not None:
        curve = bands.curve()
        record |= bands.compute()
        record["trimap"] = {k: v.tolist() for k, v in curve._asdict().items()}
    if out is not None:
        make_folder(out)
        with writing_results():
            pixels = np.asarray(total.confusion).sum(axis=1)
            write_table(
                out / _CLASSES,
                ("class", "iou", "pixels"),
                [
                    (name, f"{record[f'iou/{name}']:.6f}", int(count))
                    for name, count in zip(titles, pixels, strict=True)
                ],
            )
            write_table(out / _IMAGES, ("image", *_OF_IMAGES), rows)
            if bands is not None:
                figure = draw_trimap_curves({predictions.name: bands.curve()})
                save_figure(figure, out / _PICTURE)
            write_json(out / _SCORES, record)  # last: where it is, the others are
    _say(record, titles, out)
    return record


def _highest(both: LabelPairs, void: int | None) -> int:
    """Reads all files once; the highest true class."""
    highest = -1
    palettes = PaletteColors()
    for pair in progress(both.pairs, "reading"):
        truth = read_values(pair.true, void, palettes=palettes)
        predicted = read_values(pair.predicted, None, soft=True, palettes=palettes)
        check_sizes(pair, predicted, truth)
        highest = max(highest, int(truth.max(initial=-1)))
    return highest


def _few_sizes(labels: np.ndarray) -> Any:
    """[1, N] for a power of two N, void at the end: counting is compiled for each N."""
    room = 1 << (labels.size - 1).bit_length()
    padding = (0, room - labels.size)
    return np.pad(labels.reshape(-1), padding, constant_values=VOID)[None]


def _say(
    record: dict[str, Any], names: Sequence[str], out: pathlib.Path | None
) -> None:
    width = max(len("mean IoU"), *(len(name) for name in names))
    for name in names:
        iou = record[f"iou/{name}"]
        print(f"{name:{width}}  {'   -  ' if np.isnan(iou) else f'{iou:.4f}'}")
    print(f"{'mean IoU':{width}}  {record['mean_iou']:.4f}")
    left = record["num_unpredicted"]
    more = f", {left} more without a prediction are left out" if left else ""
    where = f"; see {out}" if out is not None else ""
    print(f"on {record['num_images']} images{more}{where}", flush=True)
