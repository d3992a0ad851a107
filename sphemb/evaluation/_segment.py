"""One call from an image in memory to its label map."""

from __future__ import annotations

import functools
import os
import pathlib
from typing import Literal

import numpy as np

from sphemb._checks import InputError
from sphemb.data import ImageWindows
from sphemb.evaluation._large import SizedPrediction
from sphemb.training import Trained, load_model


def segment(
    image: np.ndarray,
    model: str | os.PathLike[str] | Trained = "nuclei",
    *,
    diameter: float | Literal["auto"] | None = None,
    tile: int = 1024,
    halo: int = 128,
) -> np.ndarray:
    """The objects of an image, or its classes, as a trained network finds them.

    Large images are predicted by tiles. ``sphemb predict`` writes the same labels. A
    network that is given by its name, folder or file is read once, and compiled once
    for each size of image; one that is given as `Trained` with a diameter is compiled
    for each call.

    Args:
        image: [H, W], [H, W, 1], [H, W, 3] or, with opacity, [H, W, 4]: bool, uint8,
            uint16, or floating-point values from 0 to 1.
        model: see `sphemb.training.load_model`.
        diameter: of a typical object, in pixels, for a network of `Objects`: None for
            that of its training images, ``"auto"`` to measure it in what is found.
        tile: side of the tiles of larger images, in pixels as the network sees them.
        halo: overlap of tiles on each side, likewise.

    Returns:
        int32 [H, W]: 0 for the background, objects from 1 on; or classes.

    >>> image = np.zeros((64, 64), np.uint8)
    >>> segment(image, "nuclei").max()
    np.int32(0)
    """
    if isinstance(model, Trained):
        sized = SizedPrediction(model, diameter)
    else:
        sized = _sized(_stamped(model), diameter)
    reading = sized.trained.experiment.reading
    found, _ = sized.predict(
        ImageWindows.of_array(image, reading), tile=tile, halo=halo
    )
    for name in ("labels", "classes"):
        if name in found:
            return found[name].astype(np.int32)
    task = type(sized.trained.experiment.task).__name__
    raise InputError(f"model must find objects or classes, got one of {task}")


def _stamped(model: str | os.PathLike[str]) -> tuple[str, float]:
    """A model, and when its file or its checkpoints changed last."""
    path = pathlib.Path(model)
    path = path / "checkpoints" if path.is_dir() else path
    return str(model), path.stat().st_mtime if path.exists() else 0.0


@functools.lru_cache(maxsize=4)
def _loaded(model: tuple[str, float]) -> Trained:
    return load_model(model[0])


@functools.lru_cache(maxsize=4)
def _sized(
    model: tuple[str, float], diameter: float | Literal["auto"] | None
) -> SizedPrediction:
    return SizedPrediction(_loaded(model), diameter)
