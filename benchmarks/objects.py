"""Objects of one kind, side by side: what `benchmarks.objects_peers` needs and scores.

    python -m benchmarks.objects splits --workdir RUN --out splits.json
    python -m benchmarks.objects labels --workdir RUN --out results/sphemb/30
    python -m benchmarks.objects draw results/sphemb/30 --splits S --out objects.png
    python -m benchmarks.objects sizes --workdir RUN

``splits`` writes the files of each split of a run on a folder. ``labels`` writes what
the run finds in the test images, a label image NAME.npy for each, for the same referee.
``draw`` shows the images in which most objects touch. ``sizes`` scores a run on the
test images at half, once and twice their size, or by other ``--factors``: as trained,
with the right diameter, and with the diameter measured in what is found (``auto``).
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.objects_peers import touching_pairs
from sphemb.cli import one_line_errors
from sphemb.data import ImageWindows
from sphemb.evaluation import SizedPrediction, TiledPrediction
from sphemb.metrics import MatchedPrecision
from sphemb.training import Experiment, Trained, load_config, load_run
from sphemb.viz import match_labels, overlay, save_figure

_TILE, _HALO = 1024, 128
SPLITS = ("train", "validation", "test")


def _pairs(experiment: Experiment, split: str) -> list[dict[str, str]]:
    source: Any = experiment.source(split)
    return [
        {
            "name": pair.image.stem,
            "image": str(pair.image.absolute()),
            "labels": str(pathlib.Path(pair.mask).absolute()),
        }
        for pair in source.pairs
    ]


def write_splits(options: argparse.Namespace) -> None:
    """Writes the image and the mask of each example of each split."""
    experiment = Experiment(load_config(options.workdir))
    splits = {split: _pairs(experiment, split) for split in SPLITS}
    options.out.write_text(json.dumps(splits, indent=1) + "\n")


def write_labels(options: argparse.Namespace) -> None:
    """Writes the labels that a run finds in its test images."""
    trained = load_run(options.workdir)
    prediction = TiledPrediction(trained)
    options.out.mkdir(parents=True, exist_ok=True)
    for pair in _pairs(trained.experiment, "test"):
        image = ImageWindows(pathlib.Path(pair["image"]), trained.experiment.reading)
        tiles = prediction.tiles(image.size, tile=_TILE, halo=_HALO)
        found: Any = prediction.predict(image, tiles)
        np.save(options.out / f"{pair['name']}.npy", found["labels"])


def score_sizes(options: argparse.Namespace) -> None:
    """Prints AP at .5 for each size of the images and each way to tell the diameter."""
    trained = load_run(options.workdir)
    usual = trained.experiment.config.task.diameter
    pairs = _pairs(trained.experiment, "test")
    for factor in options.factors:
        for diameter in (None, usual * factor, "auto"):
            sized = SizedPrediction(trained, diameter)
            scores = [_score_resized(sized, pair, factor, trained) for pair in pairs]
            total = functools.reduce(MatchedPrecision.merge, scores)
            shown = {k: round(v, 3) for k, v in total.compute().items()}
            record = {"factor": factor, "diameter": diameter, **shown}
            print(json.dumps(record), flush=True)


def _score_resized(
    sized: SizedPrediction, pair: dict[str, str], factor: float, trained: Trained
) -> MatchedPrecision:
    mask = Image.open(pair["labels"])
    sides = (round(factor * mask.width), round(factor * mask.height))
    true = np.array(mask.resize(sides, Image.Resampling.NEAREST), np.int32)
    numbers = np.append(0, true.ravel())  # 0 stays the background
    true = np.unique(numbers, return_inverse=True)[1][1:].reshape(true.shape)
    image = Image.open(pair["image"]).convert("RGB")
    image = np.asarray(image.resize(sides, Image.Resampling.BICUBIC))
    window = ImageWindows.of_array(image, trained.experiment.reading)
    found = sized.predict(window, tile=_TILE, halo=_HALO)[0]["labels"]
    return MatchedPrecision.from_batch(
        jnp.asarray(found[None]),
        jnp.asarray(true[None]),
        max_predicted=int(found.max()) + 1,
        max_true=int(true.max()) + 1,
    )


def draw(options: argparse.Namespace) -> None:
    """Draws images beside the outlines of the true objects and those of folders."""
    pairs = json.loads(options.splits.read_text())["test"]
    truth = {p["name"]: np.array(Image.open(p["labels"])) for p in pairs}
    crowded = sorted(pairs, key=lambda p: -len(touching_pairs(truth[p["name"]])))
    shown = crowded[:: max(1, len(crowded) // (2 * options.images))][: options.images]
    titles = ["image", "true", *(f"{f.parent.name}, {f.name}" for f in options.folders)]
    size = (2.4 * len(titles), 2.6 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(shown), len(titles), squeeze=False)
    for pair, row in zip(shown, rows, strict=True):
        image = np.array(Image.open(pair["image"]).convert("RGB"))
        maps = [np.load(f / f"{pair['name']}.npy") for f in options.folders]
        true = truth[pair["name"]]
        row[0].imshow(image)
        for axes, labels in zip(row[1:], [true, *maps], strict=True):
            matched = match_labels(labels.astype(int), true.astype(int))
            axes.imshow(overlay(image, matched))
            axes.set_xlabel(f"{len(np.unique(labels)) - 1} objects", fontsize=8)
        for axes in row:
            axes.set(xticks=[], yticks=[])
    for axes, title in zip(rows[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    save_figure(figure, options.out)


def main() -> None:
    """Writes the splits or the labels, or draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    for name, run in {"splits": write_splits, "labels": write_labels}.items():
        verb = verbs.add_parser(name)
        verb.add_argument("--workdir", type=pathlib.Path, required=True)
        verb.add_argument("--out", type=pathlib.Path, required=True)
        verb.set_defaults(run=run)
    sizes = verbs.add_parser("sizes")
    sizes.add_argument("--workdir", type=pathlib.Path, required=True)
    sizes.add_argument("--factors", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    sizes.set_defaults(run=score_sizes)
    drawn = verbs.add_parser("draw")
    drawn.add_argument("folders", type=pathlib.Path, nargs="+")
    drawn.add_argument("--splits", type=pathlib.Path, required=True)
    drawn.add_argument("--images", type=int, default=4)
    drawn.add_argument("--out", type=pathlib.Path, required=True)
    drawn.set_defaults(run=draw)
    options = parser.parse_args()
    with one_line_errors():
        options.run(options)


if __name__ == "__main__":
    main()
