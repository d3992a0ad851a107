"""Score files of boundary maps against the curves of annotators."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sphemb._checks import InputError, check_count, check_number
from sphemb.cli._boundary_files import pair_files, read_pair
from sphemb.cli._results import (
    check_results,
    make_folder,
    progress,
    write_table,
    writing_results,
)
from sphemb.metrics import BoundaryScores, boundary_counts, suppress_non_maxima
from sphemb.training import write_json
from sphemb.viz import draw_precision_curve, save_figure

_SCORES, _IMAGES, _PICTURE = "scores.json", "images.csv", "precision_recall.png"
_COLUMNS = (
    "image",
    "best_threshold",
    "best_recall",
    "best_precision",
    "best_f",
    "ods_recall",
    "ods_precision",
    "ods_f",
)


def run_boundary_scores(
    maps: pathlib.Path,
    groundtruth: pathlib.Path,
    *,
    nms: bool = False,
    thresholds: int = 99,
    tolerance: float = 0.0075,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
    partial: bool = False,
    processes: int | None = None,
) -> dict[str, Any]:
    """Scores boundary maps by the BSDS benchmark, and prints ODS, OIS and AP.

    All files are read once before the first is scored, so that a bad one costs no time.

    Args:
        maps: a folder of ``NAME.png`` or ``NAME.tif``, grey with 8 or 16 bits, or
            ``NAME.npy``, floating point in 0 .. 1.
        groundtruth: a folder of ``NAME.mat``, one for each map. Images are found by
            their paths below the two folders.
        nms: suppress what is not largest across the boundary first.
        thresholds: their number n: k/(n+1).
        tolerance: the largest distance of a pair, as a share of the diagonal.
        out: gets ``scores.json``, ``images.csv`` and ``precision_recall.png``.
        overwrite: replace results that are there.
        partial: leave out ground truths without a map, and count them.
        processes: images scored at a time; as many as there are processors by default.

    Returns:
        What ``scores.json`` holds.

    Raises:
        InputError: files without a partner, unreadable, of different sizes or with
            values outside 0 .. 1, results that are there, or a setting out of range.
            Nothing is written then.

    References:
        ``docs/boundaries_benchmark.md``.
    """
    check_count("thresholds", thresholds, at_least=1)
    check_number("tolerance", tolerance, at_least=0, at_most=1)
    if processes is not None:
        check_count("processes", processes, at_least=1)
    check_results(out, (_SCORES, _IMAGES, _PICTURE), overwrite=overwrite)
    pairs, left = pair_files(maps, groundtruth, partial=partial)
    for pair in progress(pairs, "checking"):
        read_pair(pair)
    if out is not None:
        make_folder(out)

    counts: dict[str, np.ndarray] = {}
    jobs = (_job(pair, nms) for pair in pairs)
    settings = {"thresholds": thresholds, "tolerance": tolerance}
    number = min(processes or os.cpu_count() or 1, len(pairs))
    done = (
        _in_processes(jobs, settings, number) if number > 1 else _here(jobs, settings)
    )
    for name, found in progress(done, "scoring", len(pairs)):
        counts[name] = found
    names = [pair.name for pair in pairs]
    stacked = np.stack([counts[name] for name in names])
    if not stacked[..., 1].any():
        raise InputError(f"{groundtruth} must have curves, but has no pixel of one")
    scores = BoundaryScores.from_counts(stacked, thresholds=thresholds)
    record = _record(scores, nms=nms, tolerance=tolerance, unpredicted=left)
    if out is not None:
        _write(out, scores, record, names, stacked)
    print("\n".join(_lines(record, thresholds, out)), flush=True)
    return record


def _job(pair: Any, nms: bool) -> tuple[str, np.ndarray, np.ndarray]:
    soft, curves = read_pair(pair)
    return pair.name, suppress_non_maxima(soft) if nms else soft, curves


def _here(
    jobs: Iterable[tuple[str, np.ndarray, np.ndarray]], settings: dict[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, soft, curves in jobs:
        yield name, boundary_counts(soft, curves, **settings)


def _in_processes(
    jobs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    settings: dict[str, Any],
    number: int,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and counts as they are done; few images wait in memory."""
    # A forked child of a process with threads, as JAX's, may hang.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        number,
        mp_context=context,
        # Ctrl-C is for this process: the others would print a traceback each.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    waiting: dict[concurrent.futures.Future[np.ndarray], str] = {}
    try:
        for name, soft, curves in jobs:
            waiting[pool.submit(boundary_counts, soft, curves, **settings)] = name
            if len(waiting) >= 2 * number:
                yield from _collect(waiting)
        while waiting:
            yield from _collect(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(waiting: dict[Any, str]) -> list[tuple[str, np.ndarray]]:
    done, _ = concurrent.futures.wait(
        waiting, return_when=concurrent.futures.FIRST_COMPLETED
    )
    return [(waiting.pop(future), future.result()) for future in done]


def _record(
    scores: BoundaryScores, *, nms: bool, tolerance: float, unpredicted: int
) -> dict[str, Any]:
    curve = scores.curve()
    return {
        **scores.compute(),
        "num_images": int(scores.num_images),
        "num_unpredicted": unpredicted,
        "nms": nms,
        "tolerance": tolerance,
        "curve": {
            "threshold": curve.threshold.tolist(),
            "recall": curve.recall.tolist(),
            "precision": curve.precision.tolist(),
            "f": curve.f.tolist(),
        },
    }


def _write(
    out: pathlib.Path,
    scores: BoundaryScores,
    record: dict[str, Any],
    names: Sequence[str],
    counts: np.ndarray,
) -> None:
    with writing_results():
        rows = (
            [
                name,
                *(
                    f"{value:.6f}"
                    for value in _image_row(
                        found, scores.thresholds, record["ods_threshold"]
                    )
                ),
            ]
            for name, found in zip(names, counts, strict=True)
        )
        write_table(out / _IMAGES, _COLUMNS, rows)
        figure = draw_precision_curve(scores)
        save_figure(figure, out / _PICTURE)
        write_json(out / _SCORES, record)  # last: where it is, the others are


def _image_row(
    counts: np.ndarray, thresholds: Sequence[float], ods_threshold: float
) -> list[float]:
    """An image's best threshold, recall, precision and F, and the three at ODS's."""
    alone = BoundaryScores.from_counts(counts[None], thresholds=thresholds)
    best, curve = alone.compute(), alone.curve()
    recall, precision = (
        float(np.interp(ods_threshold, curve.threshold, rate))
        for rate in (curve.recall, curve.precision)
    )
    f = 2.0 * recall * precision / ((recall + precision) or 1.0)
    own = [best[f"ods_{name}"] for name in ("threshold", "recall", "precision")]
    return [*own, best["ods"], recall, precision, f]


def _lines(
    record: dict[str, Any], thresholds: int, out: pathlib.Path | None
) -> list[str]:
    r = record
    images = f"{r['num_images']} image{'s' * (r['num_images'] != 1)}"
    levels = f"{thresholds} threshold{'s' * (thresholds != 1)}"
    left = r["num_unpredicted"]
    more = f", {left} more without a map are left out" if left else ""
    where = f"; see {out}" if out is not None else ""
    return [
        "      score  recall  precision  threshold",
        f"ODS   {r['ods']:.4f}  {r['ods_recall']:.4f}  {r['ods_precision']:.4f}     "
        f"{r['ods_threshold']:.4f}",
        f"OIS   {r['ois']:.4f}  {r['ois_recall']:.4f}  {r['ois_precision']:.4f}     "
        "each its own",
        f"AP    {r['ap']:.4f}",
        f"on {images} with {levels}{more}{where}",
    ]
