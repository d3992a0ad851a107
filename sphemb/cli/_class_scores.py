"""Score label images of classes against true ones."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from sphemb._checks import InputError, check_count
from sphemb.cli._results import check_results, make_folder, progress, write_table
from sphemb.data import inspect_mask
from sphemb.metrics import MeanIoU, TrimapIoU
from sphemb.training import write_json
from sphemb.viz import draw_trimap_curves, save_figure

_SCORES, _CLASSES, _PICTURE = "scores.json", "classes.csv", "trimap.png"
_TAIL = "_classes"  # of what `sphemb predict` writes


def run_class_scores(
    predictions: pathlib.Path,
    groundtruth: pathlib.Path,
    *,
    classes: int | None = None,
    names: pathlib.Path | None = None,
    void: int | None = None,
    trimap: int = 40,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Scores label images of classes, and prints mean IoU and IoU of each class.

    Args:
        predictions: a folder of ``NAME.png`` or ``NAME_classes.png``, grey or palette,
            whose values are classes, 0 the background.
        groundtruth: a folder of ``NAME.png``, one for each prediction.
        classes: their number, the background among them; by default that of the names,
            or one more than the largest true one.
        names: a text file with a name in each line, the background's first.
        void: the value of true pixels that count for nothing; in a palette file, 255 is
            void by default.
        trimap: the widest band around true boundaries, in pixels; 0 for none.
        out: gets ``scores.json``, ``classes.csv`` and ``trimap.png``.
        overwrite: replace results that are there.

    Returns:
        What ``scores.json`` holds.

    Raises:
        InputError: files without a partner, unreadable or of different sizes, results
            that are there, a setting out of range. Nothing is written then.

    References:
        ``docs/semantic_benchmark.md``.
    """
    if classes is not None:
        check_count("classes", classes, at_least=2)
    check_count("trimap", trimap)
    check_results(out, (_SCORES, _CLASSES, _PICTURE), overwrite=overwrite)
    pairs = _pairs(predictions, groundtruth)
    listed = _read_names(names) if names else []
    maps = []
    for found, true in progress(pairs, "reading"):
        truth = _read(true, void)
        predicted = _read(found, None)
        if predicted.shape != truth.shape:
            raise InputError(
                f"{found} must have the size of {true}, {truth.shape}, got "
                f"{predicted.shape}"
            )
        maps.append((predicted, truth))
    highest = max(int(truth.max(initial=0)) for _, truth in maps)
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
    for predicted, truth in progress(maps, "scoring"):
        one = MeanIoU.from_batch(predicted[None], truth[None], num_classes=number)
        total = one if total is None else total.merge(one)
        if trimap:
            near = TrimapIoU.from_image(
                predicted, truth, num_classes=number, max_width=trimap
            )
            bands = near if bands is None else bands.merge(near)
    assert total is not None  # there is a pair, or there had been a complaint
    record: dict[str, Any] = {**total.compute(titles), "num_images": len(maps)}
    if bands is not None:
        curve = bands.curve()
        record |= bands.compute()
        record["trimap"] = {k: v.tolist() for k, v in curve._asdict().items()}
    if out is not None:
        make_folder(out)
        pixels = np.asarray(total.confusion).sum(axis=1)
        write_table(
            out / _CLASSES,
            ("class", "iou", "pixels"),
            [
                (name, f"{record[f'iou/{name}']:.6f}", int(count))
                for name, count in zip(titles, pixels, strict=True)
            ],
        )
        if bands is not None:
            figure = draw_trimap_curves({predictions.name: bands.curve()})
            save_figure(figure, out / _PICTURE)
        write_json(out / _SCORES, record)  # last: where it is, the others are
    _say(record, titles, out)
    return record


def _pairs(
    predictions: pathlib.Path, groundtruth: pathlib.Path
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    for name, folder in (("predictions", predictions), ("groundtruth", groundtruth)):
        if not folder.is_dir():
            raise InputError(f"--{name} must be a folder, got {folder}")
    found = {p.stem.removesuffix(_TAIL): p for p in sorted(predictions.glob("*.png"))}
    tailed = [p for p in found.values() if p.stem.endswith(_TAIL)]
    if tailed:  # beside overlays and the like
        found = {p.stem.removesuffix(_TAIL): p for p in tailed}
    if not found:
        raise InputError(
            f"--predictions must hold PNG files, got none in {predictions}"
        )
    pairs = []
    for stem, path in found.items():
        true = groundtruth / f"{stem}.png"
        if not true.is_file():
            raise InputError(f"{path} has no true classes: {true} is missing")
        pairs.append((path, true))
    return pairs


def _read(path: pathlib.Path, void: int | None) -> np.ndarray:
    semantic = inspect_mask(path, masks="classes", void=void).semantic
    assert semantic is not None  # that is what was asked for
    return semantic


def _read_names(path: pathlib.Path) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--names must be a text file: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) != len(names) or not names:
        raise InputError(f"{path} must have a name of its own for each class")
    return names


def _say(record: dict[str, Any], names: list[str], out: pathlib.Path | None) -> None:
    width = max(len(name) for name in names)
    for name in names:
        iou = record[f"iou/{name}"]
        print(f"{name:{width}}  {'   -  ' if np.isnan(iou) else f'{iou:.4f}'}")
    print(f"{'mean IoU':{width}}  {record['mean_iou']:.4f}")
    where = f"; see {out}" if out is not None else ""
    print(f"on {record['num_images']} images{where}", flush=True)
