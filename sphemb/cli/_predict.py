"""The verb predict: from its flags to the files of each image."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from tqdm import tqdm

from sphemb._checks import InputError, check_count
from sphemb._files import written_whole
from sphemb.cli._instance_files import annotation_ids, check_fit
from sphemb.cli._names import (
    check_unwritten,
    make_folder,
    progress,
    result_names,
    spelled,
    write_table,
    writing_results,
)
from sphemb.cli._output import one_line
from sphemb.cli._predict_files import (
    DetectionFiles,
    Paths,
    PredictionFiles,
    either_picture,
    files_for,
    named_for,
)
from sphemb.cli._verbs import Predict
from sphemb.data import ImageWindows, Reading, Tile
from sphemb.data.files import ImageValues, find_images
from sphemb.evaluation import Found, SizedPrediction, TiledPrediction
from sphemb.training import Trained, load_model, model_path, write_json

_DECODED = 2**20  # pixels up to which an image is read before the first result
_LIMITS_PRINTED = 5  # images with a line of their own
_EMBEDDING_BYTES = 2**31
_EXHAUSTED = "RESOURCE_EXHAUSTED"  # XLA's word for it, on every platform
_SHARED = ("images.csv", "summary.json")
_SETTINGS = ("tile", "halo", "min_size", "embeddings", "geojson", "page", "diameter")

T = TypeVar("T")


def predict_images(flags: Predict) -> int:
    """Writes the results, and returns the number of images."""
    check_count("--limit", flags.limit)
    check_count("--tile", flags.tile, at_least=1)
    check_count("--halo", flags.halo)
    check_count("--min-size", flags.min_size, at_least=1)
    if flags.tile <= 2 * flags.halo:
        got = f"got {flags.tile} and {flags.halo}"
        raise InputError(f"--tile must be more than twice --halo, {got}")
    trained = load_model(flags.model)
    reading = trained.experiment.reading
    if flags.page is not None:
        reading = dataclasses.replace(reading, page=flags.page)
    images = _read(flags, reading)
    sized = SizedPrediction(trained, _diameter(flags))
    tiled, files = sized.first, files_for(trained)
    files.called = result_names([image.path for image in images])
    _check(flags, images, trained, files)
    for image in images:  # refuses a halo that leaves no core
        tiled.tiles(image.size, tile=flags.tile, halo=flags.halo)
    names = [*files.per_image, *(("{}_embedding.npz",) * flags.embeddings)]
    names += ["{}_labels.geojson"] * flags.geojson
    targets = image_targets(images, files.called, names, flags.out)
    shared = [flags.out / name for name in (*files.shared, *_SHARED)]
    wanted = [*shared, *(path for paths in targets for path in paths)]
    check_targets(images, wanted, overwrite=flags.overwrite)
    values = ImageValues(reading)
    for image in images:
        values.add(image.path)
    for doubt in values.findings:
        print(f"warning: {doubt.message}", file=sys.stderr)
    if flags.dry_run:
        for image, own in zip(images, targets, strict=True):
            print(_plan(flags, image, tiled, own))
        print(f"{len(images)} images; nothing is written")
        return len(images)
    for folder in dict.fromkeys(path.parent for path in wanted):
        make_folder(folder)
    begin = time.perf_counter()
    rows, tile = _predict(flags, images, targets, files, sized)
    limits = Counter(name for row in rows for name in row["reached"].split())
    for name, number in limits.items():
        line = limit_line(trained.experiment.task, name, number, len(images))
        print(f"warning: {line}", file=sys.stderr)
    summary = {
        "model": spelled(flags.model),
        "step": trained.step,
        "task": type(trained.experiment.task).__name__,
        "settings": {n: getattr(flags, n) for n in _SETTINGS} | {"tile": tile},
        "reading": dataclasses.asdict(reading),
        "num_images": len(images),
        "found": sum(row["found"] for row in rows),
        "seconds": round(time.perf_counter() - begin, 3),
        "images": rows,
    }
    with writing_results():
        files.finish(shared)
        table, record = (flags.out / name for name in _SHARED)
        write_table(table, tuple(rows[0]), (tuple(row.values()) for row in rows))
        write_json(record, summary)
    return len(images)


def _diameter(flags: Predict) -> float | Literal["auto"] | None:
    """The flag of that name."""
    if flags.diameter is None or flags.diameter == "auto":
        return flags.diameter
    try:
        pixels = float(flags.diameter)
    except ValueError:
        pixels = math.nan
    if not 0 < pixels < math.inf:
        raise InputError(
            "--diameter must be a number of pixels above 0, or auto, got "
            f"{flags.diameter!r}"
        )
    return pixels


def _read(flags: Predict, reading: Reading) -> list[ImageWindows]:
    """The images, of which all but large ones are read once."""
    found = find_images(flags.images)[: flags.limit or None]
    images = [ImageWindows(path, reading) for path in found]
    for image in images:
        if math.prod(image.size) <= _DECODED:
            image.whole()
            image.close()
    return images


def _check(
    flags: Predict,
    images: Sequence[ImageWindows],
    trained: Trained,
    files: PredictionFiles,
) -> None:
    """Refuses flags that the images or the run's predictions do not allow."""
    if flags.embeddings and not files.embeds:
        raise InputError("--embeddings: what this run predicts has none to keep")
    if flags.geojson and not files.outlines:
        raise InputError("--geojson: what this run predicts has no instances")
    for image in images if flags.embeddings else ():
        dim = trained.experiment.config.model.embedding_dim
        dim = getattr(trained.experiment.task, "embedding_dim", dim)
        size = 2 * math.prod(image.size) * dim
        if size > _EMBEDDING_BYTES:
            raise InputError(
                f"--embeddings of {image.path} would take {size / 2**30:.1f} GiB, "
                f"of at most {_EMBEDDING_BYTES / 2**30:.0f}: cut the image"
            )
    if flags.annotations is not None:
        if not isinstance(files, DetectionFiles):
            problem = "what this run predicts has no instances with classes"
            raise InputError(f"--annotations: {problem}")
        sources = [image.path for image in images]
        files.ids = annotation_ids(flags.annotations, sources, trained.class_names)
        check_fit(images, files.ids)
    own = os.path.realpath(model_path(flags.model))
    if os.path.realpath(flags.out) == own:
        raise InputError(f"--out must not be the run's own folder, got {flags.out}")


def _predict(
    flags: Predict,
    images: Sequence[ImageWindows],
    targets: Sequence[Paths],
    files: PredictionFiles,
    sized: SizedPrediction,
) -> tuple[list[dict[str, Any]], int]:
    """Writes each image's files; returns their rows and the last tile's side."""
    rows: list[dict[str, Any]] = []
    tile, settings = flags.tile, {"embedding": flags.embeddings}

    def find(image: ImageWindows, tile: int) -> tuple[Found, int]:
        given = {"min_size": flags.min_size, "progress": _progress, **settings}
        return sized.predict(image, tile=tile, halo=flags.halo, **given)

    for i, image in enumerate(progress(images, "images")):
        start, own = time.perf_counter(), targets[i]
        (found, number), tile = with_smaller_tiles(
            functools.partial(find, image),
            tile,
            least=sized.first.least_tile(flags.halo),
            name=one_line(image.path),
            say=functools.partial(tqdm.write, file=sys.stderr),
        )
        with writing_results():
            if flags.geojson:
                *own, last = own
                files.write_outlines(last, found)
            if flags.embeddings:
                *own, last = own
                with written_whole(last) as part, part.open("wb") as file:
                    np.savez_compressed(file, embedding=found["embedding"])
            count = files.write(own, image, found)
        image.close()
        seconds, reached = time.perf_counter() - start, found.get("reached", ())
        row = {
            "image": spelled(image.path),
            "height": image.size[0],
            "width": image.size[1],
            "found": count,
            "tiles": number,
            "tile": tile,
            "diameter": found["diameter"],
            "seconds": round(seconds, 3),
            "reached": " ".join(reached),
        }
        rows.append(row)
        line = f"{_title(image)}: {count} {files.noun[count != 1]}"
        line = f"[{i + 1}/{len(images)}] {line} in {seconds:.1f} s"
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
        if reached and sum(bool(row["reached"]) for row in rows) <= _LIMITS_PRINTED:
            limits = " and config.task.".join(reached)
            line = f"warning: {one_line(image.path)} reached config.task.{limits}: "
            tqdm.write(f"{line}it may hold more than was found", file=sys.stderr)
    return rows, tile


def _plan(
    flags: Predict, image: ImageWindows, tiled: TiledPrediction, targets: Paths
) -> str:
    tiles = tiled.tiles(image.size, tile=flags.tile, halo=flags.halo)
    sides = " x ".join(map(str, tiles[0].outer.size))
    many = f"{len(tiles)} tile{'s' * (len(tiles) != 1)} of {sides}"
    return f"{_title(image)}: {many} -> {one_line(', '.join(map(str, targets)))}"


def _progress(tiles: Sequence[Tile], what: str) -> Iterator[Tile]:
    """A bar over several tiles, on a terminal."""
    return iter(tiles if len(tiles) == 1 else progress(tiles, what, unit="tile"))


def _title(image: ImageWindows) -> str:
    """An image, its page if it has several, and its size."""
    names = filter(None, (str(image.path), image.pages_read))
    return one_line(f"{', '.join(names)}, {image.size[0]} x {image.size[1]}")


def image_targets(
    images: Sequence[ImageWindows],
    called: Mapping[pathlib.Path, str],
    names: Sequence[str],
    out: pathlib.Path,
) -> list[list[pathlib.Path]]:
    """The files in ``out`` of each image; ``{}`` in ``names`` is what it is called.

    A second ``{}`` is the ending of a label image: a TIFF has one with its own tags.
    """

    def target(image: ImageWindows, name: str) -> pathlib.Path:
        ending = ".tif" if image.kind == "TIFF" else ".png"
        return named_for(out / name.format(called[image.path], ending), image.size)

    return [[target(image, name) for name in names] for image in images]


def check_targets(
    images: Sequence[ImageWindows], wanted: Paths, *, overwrite: bool
) -> None:
    """Refuses files that would replace an image, an older result or one another."""
    sources = {os.path.realpath(image.path) for image in images}
    path, number = Counter(wanted).most_common(1)[0]
    if number > 1:
        hint = "predict them into different folders"
        raise InputError(f"{path} would be written for two images: {hint}")
    for path in wanted:
        for existing in either_picture(path):
            if os.path.realpath(existing) in sources:
                problem = "is an image that is predicted: give another --out"
                raise InputError(f"{existing} {problem}")
            check_unwritten(existing, overwrite=overwrite)


def with_smaller_tiles(
    work: Callable[[int], T],
    tile: int,
    *,
    least: int,
    name: str,
    say: Callable[[str], None] = print,
) -> tuple[T, int]:
    """Calls ``work`` with a tile, halved while memory is exhausted: result and tile."""
    while True:
        try:
            return work(tile), tile
        except jax.errors.JaxRuntimeError as error:
            if _EXHAUSTED not in str(error):
                raise
            smaller = max(tile // 2, least)
            if smaller >= tile:
                raise InputError(
                    f"{name} does not fit in the device's memory in tiles of {tile} "
                    "pixels: give a smaller --halo and --tile"
                ) from error
        # Outside of the handler, the failed attempt's memory is released.
        say(f"{name}: out of memory in tiles of {tile}, again in tiles of {smaller}")
        tile = smaller


def limit_line(task: Any, name: str, number: int, images: int) -> str:
    """Which setting of a task so many of the images reached."""
    return (
        f"{number} of {images} images reached config.task.{name} "
        f"{getattr(task, name)}: they may hold more than was found; raise the limit "
        "(sphemb advise counts what images hold)"
    )
