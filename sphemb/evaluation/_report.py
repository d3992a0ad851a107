"""A page about an evaluation: scores, worst and best images, spheres, curves.

Shape letters: H rows, W columns, N points, D dimension, T steps.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from sphemb._files import written_whole
from sphemb.evaluation._pictures import common_size, instance_map
from sphemb.evaluation._score import Evaluation, ScoredImage
from sphemb.grouping import gbms_trajectory
from sphemb.tasks import ClassMap, Clusters, Detections, Groups, named_arrays
from sphemb.training import Trained
from sphemb.viz import (
    Example,
    Scene,
    draw_curves,
    embedding_rgb,
    html_page,
    label_rgb,
    match_labels,
    onto_sphere,
)

_SIDE_SHOWN = 256  # pixels of a picture, at most
_SIDE_COMPARED = 64  # pixels; that many squared are compared with each other
_POINTS_SHOWN = 1500
_MOST_BYTES = 3_000_000


def write_report(
    trained: Trained,
    evaluation: Evaluation,
    records: Sequence[Mapping[str, Any]],
    path: pathlib.Path,
    *,
    split: str,
    facts: Sequence[str] = (),
) -> pathlib.Path:
    """Writes an evaluation as one page below 3 MB, and returns its path.

    Args:
        trained: the network.
        evaluation: of it, with extremes.
        records: of the training, from `sphemb.training.read_log`.
        path: of the page.
        split: that was evaluated.
        facts: lines below its title.
    """
    kept = [image for image in evaluation.ranked if image.maps]
    half, by = -(-len(kept) // 2), evaluation.ranked_by
    ends = {"worst": kept[:half], "best": kept[half:][::-1]}
    source, config = trained.experiment.source(split), trained.experiment.config
    names = {
        image.index: str(source[image.index].get("name") or f"image {image.index}")
        for image in kept
    }
    scenes = [
        _scene(trained, image, f"{kind} {place}: {names[image.index]}")
        for kind, images in ends.items()
        for place, image in enumerate(images, start=1)
    ]

    def page(side: int) -> bytes:
        examples = {
            f"The {kind} images": [
                Example(
                    names[image.index],
                    f"{by} {image.scores[by]:.4f}",
                    _pictures(image, side),
                )
                for image in images
            ]
            for kind, images in ends.items()
            if images
        }
        text = html_page(
            f"{config.task.name} of {config.model.name}",
            facts=facts,
            scores=evaluation.scores,
            figures={"The training": draw_curves(records)} if records else {},
            examples=examples,
            scenes=[scene for scene in scenes if scene],
        )
        # File names may hold bytes that UTF-8 cannot.
        return text.encode("utf-8", errors="backslashreplace")

    side = _SIDE_SHOWN
    while len(content := page(side)) >= _MOST_BYTES and side >= 32:
        side = side * 3 // 4
    with written_whole(path) as unfinished:
        unfinished.write_bytes(content)
    return path


def _cut(image: ScoredImage, side: int) -> dict[str, np.ndarray]:
    """The maps of an image without padding, of every so many pixels."""
    size = image.maps["mask"].shape
    height, width = common_size(image.maps["mask"][None])
    step = -(-max(height, width) // side)
    cut = {}
    for name, array in (image.maps | named_arrays(image.prediction)).items():
        first = 1 if name in ("boundaries", "branches") else 0
        if array.shape[first : first + 2] == size:
            area = (slice(0, height, step), slice(0, width, step))
            cut[name] = array[(slice(None),) * first + area]
    return cut


@functools.singledispatch
def _labels(
    found: Any, maps: Mapping[str, np.ndarray]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """True and predicted labels, int [H, W], 0 the background; None without any."""
    return None, None


@_labels.register(ClassMap)
@_labels.register(Detections)
def _(found: Any, maps: Mapping[str, np.ndarray]) -> Any:
    return maps.get("semantic"), maps["classes"]


@_labels.register(Clusters)
def _(found: Clusters, maps: Mapping[str, np.ndarray]) -> Any:
    return maps.get("semantic"), maps["classes"] + 1


@_labels.register(Groups)
def _(found: Groups, maps: Mapping[str, np.ndarray]) -> Any:
    instances = instance_map(found._replace(labels=maps["labels"]))
    return maps["instances"], match_labels(instances, maps["instances"])


def _pictures(image: ScoredImage, side: int) -> dict[str, np.ndarray]:
    maps = _cut(image, side)
    truth, found = _labels(image.prediction, maps)
    pictures = {"image": maps["image"]}
    if truth is not None:
        pictures["truth"] = label_rgb(truth)
    if found is not None:
        pictures["found"] = label_rgb(found)
    if "boundaries" in maps:
        present = maps["boundaries"][:, :1, :1] >= 0
        marked = np.where(present, maps["boundaries"] > 0, 0)
        share = marked.sum(axis=0) / max(int(present.sum()), 1)
        pictures["annotators"] = _black(share)
    if "boundary" in maps:
        pictures["boundaries found"] = _black(maps["boundary"])
    if "embedding" in maps:
        pictures["embedding"] = embedding_rgb(maps["embedding"])
    elif "branches" in maps:
        pictures["embedding of the finest branch"] = embedding_rgb(maps["branches"][0])
    return pictures


def _scene(trained: Trained, image: ScoredImage, name: str) -> Scene | None:
    """The points of an image at every step of the mean shift, if it has points."""
    maps = _cut(image, _SIDE_COMPARED)
    if "embedding" not in maps:
        return None
    readoff = trained.experiment.task.readoff
    dim = maps["embedding"].shape[-1]
    points = jnp.asarray(maps["embedding"].reshape(-1, dim), jnp.float32)
    trajectory, grid = np.asarray(points)[None], f"{len(points):,} pixels on a grid"
    note = f"{grid}; this task shifts no points."
    if readoff is not None:
        kappa, steps = readoff.concentration, readoff.predict_steps
        shifted = gbms_trajectory(points, concentration=kappa, num_steps=steps)
        trajectory = np.asarray(shifted)
        note = f"Every step of the mean shift at κ = {kappa:g} of {grid}."
    shown = np.random.default_rng(0).permutation(len(points))[:_POINTS_SHOWN]
    if len(shown) < len(points):
        note += f" {len(shown):,} of them are shown."
    if dim > 3:
        note += (
            f" Of {dim} dimensions, the three principal ones of the last step are "
            "shown, normalized to length one: points that are close here may be far "
            "apart in the embedding."
        )
    truth, found = _labels(image.prediction, maps)
    labels = {
        kind: array.reshape(-1)
        for kind, array in {"truth": truth, "found": found}.items()
        if array is not None
    }
    weights = next((array for array in labels.values() if (array >= 0).any()), None)
    colors = {kind: label_rgb(array)[shown] for kind, array in labels.items()}
    colors["image"] = np.clip(maps["image"].reshape(-1, 3), 0.0, 1.0)[shown]
    return Scene(name, note, onto_sphere(trajectory, labels=weights)[:, shown], colors)


def _black(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as black on white."""
    return np.repeat(1.0 - np.clip(values, 0.0, 1.0)[..., None], 3, axis=-1)
