"""Predict: image files in; label images, overlays and lists out."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from sphemb._checks import InputError, check_count
from sphemb._files import written_whole
from sphemb.cli._annotation_ids import annotation_ids, check_fit
from sphemb.cli._files_of_task import prediction_files
from sphemb.cli._image_names import result_names
from sphemb.cli._limits import limit_line
from sphemb.cli._names import one_line, spelled
from sphemb.cli._prediction_files import PredictionFiles
from sphemb.cli._prediction_settings import PredictionSettings, check_embeddings
from sphemb.cli._prediction_targets import (
    check_targets,
    image_targets,
)
from sphemb.cli._result_files import ResultFiles
from sphemb.cli._results import make_folder, progress, write_table, writing_results
from sphemb.cli._smaller_tiles import with_smaller_tiles
from sphemb.data import ImageValues, ImageWindows, Reading, Tile, find_images
from sphemb.evaluation import Found, TiledPrediction
from sphemb.training import load_run, write_json

_DECODED = 2**20  # pixels up to which an image is read before the first result
_LIMITS_SAID = 5  # images with a line of their own
_SHARED = ("images.csv", "summary.json")


def run_prediction(
    workdir: pathlib.Path,
    paths: Sequence[str],
    out: pathlib.Path,
    *,
    overwrite: bool = False,
    limit: int = 0,
    dry_run: bool = False,
    annotations: pathlib.Path | None = None,
    settings: PredictionSettings | None = None,
) -> int:
    """Groups or classifies the pixels of images, or finds boundaries, as trained.

    Args:
        workdir: of the run that trained it.
        paths: image files, folders and globs.
        out: gets the files of each image (see ``docs/prediction.md``), ``images.csv``
            with a row for each, ``summary.json``, and what there is of all images
            together: ``instances.json``, COCO's annotations, or ``results.json``,
            COCO's results of instances with classes.
        overwrite: replace files that are there.
        limit: images, at most, the first by name; 0 for all.
        dry_run: say what would be done, and write nothing.
        annotations: COCO's, of these images: ``results.json`` gets their ids, found by
            name, and not the run's own numbers.
        settings: of the prediction.

    Returns:
        The number of images.

    Raises:
        InputError: no images, an unreadable one, two of one name, results that are
            there already, annotations of something else, or no folder to write to.
            Nothing is written then; but of an
            image of more than 2^20 pixels only the header is read before the first
            result.
    """
    check_count("--limit", limit)
    settings = settings or PredictionSettings()
    trained = load_run(workdir)
    reading = trained.experiment.reading
    if settings.page is not None:
        reading = dataclasses.replace(reading, page=settings.page)
    images, called = _images(paths, limit, reading)
    files, tiled = prediction_files(trained), TiledPrediction(trained)
    files.called = called
    if settings.embeddings:
        if not files.embeds:
            raise InputError("--embeddings: what this run predicts has none to keep")
        check_embeddings(images, trained.experiment.config.model)
    if annotations is not None:
        if not isinstance(files, ResultFiles):
            raise InputError(
                "--annotations: what this run predicts has no instances with classes"
            )
        sources = [image.path for image in images]
        files.ids = annotation_ids(annotations, sources, trained.class_names)
        check_fit(images, files.ids)
    for image in images:  # refuses a halo that leaves no core
        tiled.tiles(image.size, tile=settings.tile, halo=settings.halo)
    names = [*files.per_image, *(("{}_embedding.npz",) * settings.embeddings)]
    targets = image_targets(images, called, names, out)
    shared = [out / name for name in (*files.shared, *_SHARED)]
    if os.path.realpath(out) == os.path.realpath(workdir):
        raise InputError(f"--out must not be the run's own folder, got {out}")
    wanted = [*shared, *(path for paths in targets for path in paths)]
    check_targets(images, wanted, overwrite=overwrite)
    values = ImageValues(reading)
    for image in images:
        values.add(image.path)
    for doubt in values.findings:
        print(f"warning: {doubt.message}", file=sys.stderr)
    if dry_run:
        for image, own in zip(images, targets, strict=True):
            print(_planned(image, tiled, settings, own))
        print(f"{len(images)} images; nothing is written")
        return len(images)
    for folder in dict.fromkeys(path.parent for path in wanted):
        make_folder(folder)
    rows = []
    begin = time.perf_counter()
    for i, image in enumerate(progress(images, "images")):
        row, settings = _predict_one(image, targets[i], files, tiled, settings)
        rows.append(row)
        height, width = image.size
        found = files.told(row["found"])
        tqdm.write(
            f"[{i + 1}/{len(images)}] {one_line(_named(image))}, {height} x {width}: "
            f"{found} in {row['seconds']:.1f} s",
            file=sys.stdout,
        )
        sys.stdout.flush()
        if row["reached"] and sum(1 for r in rows if r["reached"]) <= _LIMITS_SAID:
            tqdm.write(
                f"warning: {one_line(image.path)} reached config.task."
                f"{' and config.task.'.join(row['reached'].split())}: it may hold more "
                "than was found",
                file=sys.stderr,
            )
    with writing_results():
        files.finish(shared)
    limits = Counter(name for row in rows for name in row["reached"].split())
    for name, number in limits.items():
        line = limit_line(trained.experiment.task, name, number, len(images))
        print(f"warning: {line}", file=sys.stderr)
    with writing_results():
        write_table(out / _SHARED[0], tuple(rows[0]), (tuple(r.values()) for r in rows))
    summary = {
        "workdir": spelled(workdir),
        "step": trained.step,
        "task": type(trained.experiment.task).__name__,
        "settings": dataclasses.asdict(settings),
        "reading": dataclasses.asdict(reading),
        "num_images": len(images),
        "found": sum(row["found"] for row in rows),
        "seconds": round(time.perf_counter() - begin, 3),
        "images": rows,
    }
    with writing_results():
        write_json(out / _SHARED[1], summary)
    return len(images)


def _images(
    paths: Sequence[str], limit: int, reading: Reading
) -> tuple[list[ImageWindows], dict[pathlib.Path, str]]:
    """The images and the names of their results.

    All but large ones are read once: a bad file leaves nothing half done.

    Raises:
        InputError: there are none, one cannot be read, or two have one name.
    """
    found = find_images(paths)[: limit or None]
    images = [ImageWindows(path, reading) for path in found]
    called = result_names([image.path for image in images])
    for image in images:
        if math.prod(image.size) <= _DECODED:
            image.whole()
            image.close()
    return images, called


def _predict_one(
    image: ImageWindows,
    targets: Sequence[pathlib.Path],
    files: PredictionFiles,
    tiled: TiledPrediction,
    settings: PredictionSettings,
) -> tuple[dict[str, Any], PredictionSettings]:
    """Predicts an image and writes its files.

    Returns:
        Its row of the table, and the settings with tiles that there is memory for.
    """
    start = time.perf_counter()

    def find(tile: int) -> tuple[Found, int]:
        tiles = tiled.tiles(image.size, tile=tile, halo=settings.halo)
        found = tiled.predict(
            image,
            tiles,
            min_size=settings.min_size,
            embedding=settings.embeddings,
            progress=_progress,
        )
        return found, len(tiles)

    (found, number), tile = with_smaller_tiles(
        find,
        settings.tile,
        least=tiled.least_tile(settings.halo),
        name=one_line(image.path),
        say=lambda line: tqdm.write(line, file=sys.stderr),
    )
    with writing_results():
        if settings.embeddings:
            *targets, last = targets
            with written_whole(last) as unfinished, unfinished.open("wb") as file:
                np.savez_compressed(file, embedding=found["embedding"])
        count = files.write(targets, image, found)
    image.close()
    height, width = image.size
    row = {
        "image": spelled(image.path),
        "height": height,
        "width": width,
        "found": count,
        "tiles": number,
        "tile": tile,
        "seconds": round(time.perf_counter() - start, 3),
        "reached": " ".join(found.get("reached", ())),
    }
    return row, dataclasses.replace(settings, tile=tile)


def _progress(tiles: Sequence[Tile], what: str) -> Iterator[Tile]:
    """A bar over tiles, where there are several and it is a terminal."""
    if len(tiles) == 1:
        return iter(tiles)
    return iter(progress(tiles, what, unit="tile"))


def _named(image: ImageWindows) -> str:
    """An image, and which page of it is read where there are several."""
    return ", ".join(filter(None, (str(image.path), image.pages_read)))


def _planned(
    image: ImageWindows,
    tiled: TiledPrediction,
    settings: PredictionSettings,
    targets: Sequence[pathlib.Path],
) -> str:
    height, width = image.size
    tiles = tiled.tiles(image.size, tile=settings.tile, halo=settings.halo)
    sides = " x ".join(map(str, tiles[0].outer.size))
    names = ", ".join(str(path) for path in targets)
    many = f"{len(tiles)} tile{'s' * (len(tiles) != 1)} of {sides}"
    return one_line(f"{_named(image)}, {height} x {width}: {many} -> {names}")
