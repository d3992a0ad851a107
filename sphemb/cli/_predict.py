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
from sphemb.data import (
    find_images,
    pad_to_multiple,
    read_image,
    write_image,
    write_labels,
)
from sphemb.instances import relabel
from sphemb.tasks import Boundaries, Maps
from sphemb.training import load_run
from sphemb.viz import ink, overlay

_MAX_PIXELS = 1024 * 1024


def run_prediction(
    workdir: pathlib.Path,
    paths: Sequence[str],
    out: pathlib.Path,
    *,
    overwrite: bool = False,
) -> int:
    """Groups the pixels of images, or finds boundaries, with a trained network.

    Args:
        workdir: of the run that trained it.
        paths: image files, folders and globs.
        out: gets ``{stem}_labels.png`` (16 bit, 0 = background) and
            ``{stem}_overlay.png``; or, of boundaries, ``{stem}.png`` (16 bit, from 0
            to certain) and ``overlays/{stem}.png``.
        overwrite: replace files that are there.

    Returns:
        The number of images.

    Raises:
        InputError: no images, an unreadable or too large one, two of one name, results
            that are there already, or no folder to write to. Nothing is written then.
    """
    images = find_images(paths)
    shared = [s for s, n in Counter(image.stem for image in images).items() if n > 1]
    if shared:
        raise InputError(
            f"images must have different names, but several are called {shared[0]}: "
            "predict them into different folders"
        )
    # All before the first result, so that one bad file leaves nothing half done.
    for path in images:
        _read(path)
    trained = load_run(workdir)
    task = trained.experiment.task
    names, write = (
        (("{}.png", "overlays/{}.png"), _write_boundaries)
        if isinstance(task, Boundaries)
        else (("{}_labels.png", "{}_overlay.png"), _write_groups)
    )
    targets = {
        image: [out / name.format(image.stem) for name in names] for image in images
    }
    there = [path for pair in targets.values() for path in pair if path.exists()]
    if there and not overwrite:
        raise InputError(
            f"{there[0]} exists already: give --overwrite or another --out"
        )
    try:
        for path in targets[images[0]]:
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
        note = write(targets[path], image, predictions)
        seconds = time.perf_counter() - start
        print(f"{note} in {seconds:.1f} s", flush=True)
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


def _write_groups(
    targets: Sequence[pathlib.Path], image: np.ndarray, predictions: Maps
) -> str:
    height, width = image.shape[:2]
    labels = relabel(predictions["labels"], predictions["background"])[0]
    # An image smaller than any group may be has no group, and so no instance.
    labels = np.maximum(labels, 0)[:height, :width]
    write_labels(targets[0], labels)
    write_image(targets[1], np.rint(255 * overlay(image, labels)).astype(np.uint8))
    found = int(labels.max())
    return f"{found} instance{'s' * (found != 1)}"


def _write_boundaries(
    targets: Sequence[pathlib.Path], image: np.ndarray, predictions: Maps
) -> str:
    height, width = image.shape[:2]
    boundary = np.asarray(predictions["boundary"][0])[:height, :width]
    write_labels(targets[0], np.rint(65535 * boundary).astype(np.int32))
    write_image(targets[1], np.rint(255 * ink(image, boundary)).astype(np.uint8))
    share = float(np.mean(boundary >= 0.5))
    return f"{100 * share:.1f} % of the pixels above .5"
