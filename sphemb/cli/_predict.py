"""Predict: image files in, label images and overlays out."""

from __future__ import annotations

import functools
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError
from sphemb.cli._prediction_files import prediction_files
from sphemb.data import find_images, pad_to_multiple, read_image
from sphemb.training import load_run

_MAX_PIXELS = 1024 * 1024


def run_prediction(
    workdir: pathlib.Path,
    paths: Sequence[str],
    out: pathlib.Path,
    *,
    overwrite: bool = False,
) -> int:
    """Groups or classifies the pixels of images, or finds boundaries, as trained.

    Args:
        workdir: of the run that trained it.
        paths: image files, folders and globs.
        out: gets ``{stem}_labels.png`` (16 bit, 0 = background) and
            ``{stem}_overlay.png``; of boundaries, ``{stem}.png`` (16 bit, from 0 to
            certain) and ``overlays/{stem}.png``; of classes, ``{stem}_classes.png`` and
            ``{stem}_overlay.png``; of instances with classes all three, and
            ``results.json``, COCO's results of all images.
        overwrite: replace files that are there.

    Returns:
        The number of images.

    Raises:
        InputError: no images, an unreadable or too large one, two of one name, results
            that are there already, or no folder to write to. Nothing is written then.
    """
    images = find_images(paths)
    doubled = [s for s, n in Counter(image.stem for image in images).items() if n > 1]
    if doubled:
        raise InputError(
            f"images must have different names, but several are called {doubled[0]}: "
            "predict them into different folders"
        )
    # All before the first result, so that one bad file leaves nothing half done.
    for path in images:
        _read(path)
    trained = load_run(workdir)
    task, files = trained.experiment.task, prediction_files(trained)
    targets = {
        image: [out / name.format(image.stem) for name in files.per_image]
        for image in images
    }
    shared = [out / name for name in files.shared]
    wanted = [*shared, *(path for paths in targets.values() for path in paths)]
    there = [path for path in wanted if path.exists()]
    if there and not overwrite:
        raise InputError(
            f"{there[0]} exists already: give --overwrite or another --out"
        )
    try:
        for path in [*shared, *targets[images[0]]]:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out must be a folder for results: {error}") from error
    stride = trained.experiment.model.stride
    # The network is compiled for every image size, the grouping for a few of them.
    network = jax.jit(trained.experiment.network)
    apply = functools.partial(network, trained.params, trained.batch_stats)
    for i, path in enumerate(images):
        image = _read(path)
        height, width = image.shape[:2]
        print(f"[{i + 1}/{len(images)}] {path}, {height} x {width}: ", end="")
        sys.stdout.flush()
        start = time.perf_counter()
        padded = pad_to_multiple(image, multiple=stride)[0]
        mask = np.zeros((1, *padded.shape[:2]), bool)
        mask[:, :height, :width] = True
        batch = {
            "image": jnp.asarray(padded[None], jnp.float32) / 255,
            "mask": jnp.asarray(mask),
        }
        predictions = task.predict(apply, trained.memory, batch)
        note = files.write(targets[path], image, predictions)
        seconds = time.perf_counter() - start
        print(f"{note} in {seconds:.1f} s", flush=True)
    files.finish(shared)
    return len(images)


def _read(path: pathlib.Path) -> np.ndarray:
    image = read_image(path)
    height, width = image.shape[:2]
    if height * width > _MAX_PIXELS:
        raise InputError(
            f"{path} must have at most {_MAX_PIXELS:,} pixels, got {height} x {width}: "
            "all of them are grouped in memory; make it smaller"
        )
    return image
