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
from sphemb.cli._label_images import named_for
from sphemb.cli._names import one_line, spelled
from sphemb.cli._prediction_files import PredictionFiles, prediction_files
from sphemb.cli._results import progress, write_table
from sphemb.cli._smaller_tiles import with_smaller_tiles
from sphemb.data import ImageWindows, Tile, find_images
from sphemb.evaluation import Found, TiledPrediction
from sphemb.training import load_run, write_json

_DECODED = 2**20  # pixels up to which an image is read before the first result
_EMBEDDING_BYTES = 2**31
_SHARED = ("images.csv", "summary.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How images are predicted.

    Attributes:
        tile: side of a tile, in pixels; an image of no more pixels than that squared is
            taken whole.
        halo: pixels around what a tile answers for.
        min_size: pixels that an instance needs, beside what the run asks for.
        embeddings: keep the embedding of every pixel.
    """

    tile: int = 1024
    halo: int = 128
    min_size: int = 1
    embeddings: bool = False

    def __post_init__(self):
        check_count("--tile", self.tile, at_least=1)
        check_count("--halo", self.halo)
        check_count("--min-size", self.min_size, at_least=1)
        if self.tile <= 2 * self.halo:
            raise InputError(
                f"--tile must be more than twice --halo, got {self.tile} and "
                f"{self.halo}"
            )


def run_prediction(
    workdir: pathlib.Path,
    paths: Sequence[str],
    out: pathlib.Path,
    *,
    overwrite: bool = False,
    limit: int = 0,
    dry_run: bool = False,
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
        settings: of the prediction.

    Returns:
        The number of images.

    Raises:
        InputError: no images, an unreadable one, two of one name, results that are
            there already, or no folder to write to. Nothing is written then; but of an
            image of more than 2^20 pixels only the header is read before the first
            result.
    """
    check_count("--limit", limit)
    settings = settings or PredictionSettings()
    files_found = find_images(paths)
    images = [ImageWindows(path) for path in files_found[: limit or None]]
    stems = Counter(image.path.stem for image in images)
    doubled = [stem for stem, number in stems.items() if number > 1]
    if doubled:
        raise InputError(
            f"images must have different names, but several are called {doubled[0]}: "
            "predict them into different folders"
        )
    # All before the first result, so that one bad file leaves nothing half done.
    for image in images:
        if math.prod(image.size) <= _DECODED:
            image.whole()
            image.close()
    trained = load_run(workdir)
    files, tiled = prediction_files(trained), TiledPrediction(trained)
    if settings.embeddings:
        _check_embeddings(images, files, trained.experiment.config.model)
    for image in images:  # refuses a halo that leaves no core
        tiled.tiles(image.size, tile=settings.tile, halo=settings.halo)
    targets = _targets(images, files, out, settings)
    shared = [out / name for name in (*files.shared, *_SHARED)]
    if os.path.realpath(out) == os.path.realpath(workdir):
        raise InputError(f"--out must not be the run's own folder, got {out}")
    _check_targets(images, [*shared, *(p for t in targets for p in t)], overwrite)
    if dry_run:
        for image, names in zip(images, targets, strict=True):
            print(_planned(image, tiled, settings, names))
        print(f"{len(images)} images; nothing is written")
        return len(images)
    try:
        for path in [*shared, *targets[0]]:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out must be a folder for results: {error}") from error
    rows = []
    begin = time.perf_counter()
    for i, image in enumerate(progress(images, "images")):
        row, settings = _predict_one(image, targets[i], files, tiled, settings)
        rows.append(row)
        height, width = image.size
        found = files.told(row["found"])
        tqdm.write(
            f"[{i + 1}/{len(images)}] {one_line(image.path)}, {height} x {width}: "
            f"{found} in {row['seconds']:.1f} s",
            file=sys.stdout,
        )
        sys.stdout.flush()
    files.finish(shared)
    write_table(out / _SHARED[0], tuple(rows[0]), (tuple(r.values()) for r in rows))
    summary = {
        "workdir": spelled(workdir),
        "step": trained.step,
        "task": type(trained.experiment.task).__name__,
        "settings": dataclasses.asdict(settings),
        "num_images": len(images),
        "found": sum(row["found"] for row in rows),
        "seconds": round(time.perf_counter() - begin, 3),
        "images": rows,
    }
    write_json(out / _SHARED[1], summary)
    return len(images)


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
    for path in targets:
        for other in _either(path) - {path}:  # of an earlier prediction
            other.unlink(missing_ok=True)
    if settings.embeddings:
        *targets, last = targets
        last.unlink(missing_ok=True)  # or a link would be written through
        np.savez_compressed(last, embedding=found["embedding"])
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
    }
    return row, dataclasses.replace(settings, tile=tile)


def _progress(tiles: Sequence[Tile], what: str) -> Iterator[Tile]:
    """A bar over tiles, where there are several and it is a terminal."""
    if len(tiles) == 1:
        return iter(tiles)
    return iter(progress(tiles, what, unit="tile"))


def _targets(
    images: Sequence[ImageWindows],
    files: PredictionFiles,
    out: pathlib.Path,
    settings: PredictionSettings,
) -> list[list[pathlib.Path]]:
    """The files of every image."""
    names = [*files.per_image, *(("{}_embedding.npz",) * settings.embeddings)]
    return [
        [named_for(out / name.format(image.path.stem), image.size) for name in names]
        for image in images
    ]


def _check_targets(
    images: Sequence[ImageWindows], wanted: Sequence[pathlib.Path], overwrite: bool
) -> None:
    """Refuses to write over an image, or unasked over a result.

    Raises:
        InputError: as above.
    """
    sources = {os.path.realpath(image.path) for image in images}
    for path in wanted:
        for there in _either(path):
            if os.path.realpath(there) in sources:
                raise InputError(
                    f"{there} is an image that is predicted: give another --out"
                )
            if os.path.lexists(there) and not overwrite:
                raise InputError(
                    f"{there} exists already: give --overwrite or another --out"
                )


def _either(path: pathlib.Path) -> set[pathlib.Path]:
    """Where a picture may be: large ones, and those of many labels, are TIFF."""
    endings = (".png", ".tif")
    return {path, *(path.with_suffix(end) for end in endings if path.suffix in endings)}


def _check_embeddings(
    images: Sequence[ImageWindows], files: PredictionFiles, model: Any
) -> None:
    """Refuses embeddings that there are none of, or too large ones.

    Raises:
        InputError: as above.
    """
    if not files.embeds:
        raise InputError("--embeddings: what this run predicts has none to keep")
    for image in images:
        size = 2 * math.prod(image.size) * model.embedding_dim
        if size > _EMBEDDING_BYTES:
            raise InputError(
                f"--embeddings of {image.path} would take {size / 2**30:.1f} GiB, of "
                f"at most {_EMBEDDING_BYTES / 2**30:.0f}: leave it out, or cut the "
                "image"
            )


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
    return one_line(f"{image.path}, {height} x {width}: {many} -> {names}")
