"""The worst, the middle and the best images of a run, chosen by their scores.

    python -m benchmarks.gallery --workdir RUN --out DIR [--split test] [--images 10]

Writes a picture, with rows image, truth and found, for each kind that the task finds:

* ``groups``, by mean best IoU; with pooled proposals instead ``proposals``, by that at
  the largest budget: the best proposal of every object, in the object's color;
* ``classes``, by mean IoU over the true classes;
* ``instances`` with classes, by AP^r_vol over the true classes, of all detections;
  found are those that reach the task's ``min_score``.

The middle is around the median. Images without a score, such as those without an
object, are left out; images of equal score are in the order of the data.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from sphemb import InputError, tasks
from sphemb.cli import one_line_errors
from sphemb.evaluation import ScoredImage, evaluate, found_in_image
from sphemb.training import Trained, load_run
from sphemb.viz import label_rgb, match_labels, save_figure

ROWS = ("image", "truth", "found")


class Shown(NamedTuple):
    """An image as one kind: uint8 pictures of the `ROWS`, names below the last two."""

    score: float
    index: int
    pictures: list[np.ndarray]
    notes: list[str]


def views(trained: Trained, image: ScoredImage) -> dict[str, tuple[str, Any, Any]]:
    """Kind -> name of its score, (truth, found) [H, W], and the classes of both."""
    mask = image.maps["mask"]
    size = int(mask.any(axis=1).sum()), int(mask.any(axis=0).sum())
    true: Any = {
        name: array[: size[0], : size[1]] for name, array in image.maps.items()
    }
    whole: Any = jax.tree.map(lambda array: array[None], image.prediction)
    least = getattr(trained.experiment.task, "min_score", -np.inf)
    found = found_in_image(whole, size, min_score=least)
    shown = {}
    budgets = [name for name in image.scores if name.startswith("mean_best_iou@")]
    if budgets:
        groups: Any = tasks.groups_of(image.prediction)
        maps = groups.proposals[:, : size[0], : size[1]]
        pair = true["instances"], best_proposals(maps, true["instances"])
        shown["proposals"] = budgets[-1], pair, ((), ())
    elif "mean_best_iou" in image.scores:
        pair = true["instances"], match_labels(found["labels"], true["instances"])
        shown["groups"] = "mean_best_iou", pair, ((), ())
    if "mean_iou" in image.scores and "classes" in found:
        pair = true["semantic"], found["classes"]
        shown["classes"] = "mean_iou", pair, pair
    if "seen" in found:
        pair = true["instances"], match_labels(found["labels"], true["instances"])
        classes = true["semantic"][true["instances"] > 0], found["instance_classes"]
        shown["instances"] = "ap_r_vol", pair, classes
    return shown


def best_proposals(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The proposals of maps [K, H, W] of largest IoU with the objects, numbered so.

    Void pixels do not count. Small objects are painted over large ones.
    """
    numbers, sizes = np.unique(truth[truth > 0], return_counts=True)
    labels = np.minimum(truth, 0)
    for number in numbers[np.argsort(-sizes, kind="stable")]:
        own = truth == number
        masks = [(m == g) & (truth >= 0) for m in maps for g in set(m[own]) if g >= 0]
        if masks:
            iou = [np.sum(mask & own) / np.sum(mask | own) for mask in masks]
            labels[masks[int(np.argmax(iou))]] = number
    return labels


def rank(trained: Trained, split: str, side: int) -> dict[str, list[Shown]]:
    """The images under each "kind, score", the worst first."""
    ranked: dict[str, list[Shown]] = {}

    def small(picture: np.ndarray) -> np.ndarray:
        thumbnail = Image.fromarray(np.rint(255 * picture.clip(0, 1)).astype(np.uint8))
        thumbnail.thumbnail((side, side))
        return np.asarray(thumbnail)

    def names(classes: Any) -> str:
        known = dict(enumerate(trained.class_names))
        return ", ".join(known.get(c, str(c)) for c in np.unique(classes) if c > 0)

    def keep(image: ScoredImage) -> None:
        for kind, (name, maps, classes) in views(trained, image).items():
            height, width = maps[0].shape
            pictures = [image.maps["image"][:height, :width], *map(label_rgb, maps)]
            notes = [names(of) for of in classes]
            score = image.scores[name]
            if np.isfinite(score):
                one = Shown(score, image.index, [small(p) for p in pictures], notes)
                ranked.setdefault(f"{kind}, {name}", []).append(one)

    evaluate(trained, split, num_samples=1, on_image=keep)
    return {
        key: sorted(them, key=lambda one: one.score) for key, them in ranked.items()
    }


def blocks(ranked: Sequence[Shown], number: int) -> dict[str, Sequence[Shown]]:
    """The worst, those around the median and the best; none is in two blocks."""
    number = min(number, len(ranked) // 3)
    starts = (0, (len(ranked) - number) // 2, len(ranked) - number)
    titles = ("worst", "middle", "best")
    return {t: ranked[s : s + number] for t, s in zip(titles, starts, strict=True)}


def draw(chosen: Mapping[str, Sequence[Shown]], title: str, source: Any) -> Figure:
    """Draws the blocks; ``source`` has the names of the images."""
    columns = len(chosen["worst"])
    figure = Figure(figsize=(1.2 * columns + 0.2, 12.0), layout="constrained")
    figure.suptitle(title, fontsize=9)
    grid = figure.subplots(len(chosen) * len(ROWS), columns, squeeze=False)
    for rows, (name, block) in zip(np.split(grid, 3), chosen.items(), strict=True):
        for axes, row in zip(rows[:, 0], ROWS, strict=True):
            axes.set_ylabel(f"{name}: {row}", fontsize=6)
        for column, one in zip(rows.T, block, strict=True):
            file = str(source[one.index].get("name") or f"image {one.index}")
            true, found = one.notes
            notes = file[:14], true, f"{one.score:.3f} {found}"
            for axes, picture, note in zip(column, one.pictures, notes, strict=True):
                axes.imshow(picture)
                axes.set(xticks=[], yticks=[])
                axes.set_xlabel(note[:30], fontsize=5)
                axes.spines[:].set_visible(False)
    return figure


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--images", type=int, default=10, help="of each block")
    parser.add_argument("--side", type=int, default=160, help="pixels of a thumbnail")
    options = parser.parse_args()
    with one_line_errors():
        trained = load_run(options.workdir)
        source = trained.experiment.source(options.split)
        ranked = rank(trained, options.split, options.side)
        fewest = min(map(len, ranked.values()), default=0)
        if fewest < 3:
            raise InputError(
                f"the {options.split} split must have at least 3 images with a "
                f"score of groups, classes or instances, got {fewest}"
            )
        for title, images in ranked.items():
            head = f"{title}, {len(images)} {options.split} images"
            figure = draw(blocks(images, options.images), head, source)
            path = options.out / f"{title.partition(',')[0]}.jpg"
            print(save_figure(figure, path, dpi=options.side / 1.1))


if __name__ == "__main__":
    main()
