"""Claims about what trained networks give for images."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from benchmarks._claims_records import Effect, over_images
from sphemb import InputError, load_model
from sphemb.data import load_handwriting, render_digits
from sphemb.evaluation import PixelGrid
from sphemb.tasks import Instances, embed_pixels
from sphemb.training import load_run

_EIGHT = np.ones((3, 3), bool)  # neighbors
_POSITIVE = (0.0, None)


def drawings(number: int, *, touching: bool) -> Iterator[PixelGrid]:
    """Drawings with digits, of test handwriting, as the network ``digits`` embeds them.

    Args:
        number: of drawings, each from a seed of its own.
        touching: whether two digits must touch.
    """
    network, handwriting = load_model("digits"), load_handwriting()["test"]
    embed = jax.jit(lambda image: embed_pixels(network.apply, {"image": image}))
    seed = 0
    while number:
        drawn = render_digits(np.random.default_rng(seed), *handwriting)
        seed += 1
        instances = drawn["instances"]
        wanted = touching_border(instances) if touching else instances
        if wanted.any():
            image = drawn["image"].astype(np.float32) / 255.0
            yield PixelGrid(image, instances, np.asarray(embed(image[None])[0]))
            number -= 1


def touching_border(instances: np.ndarray) -> np.ndarray:
    """The pixels [H, W] of an instance (1, 2, ...) with a neighbor of another one."""
    others = np.where(instances > 0, instances, instances.max() + 1)
    lowest = ndimage.minimum_filter(others, footprint=_EIGHT)
    highest = ndimage.maximum_filter(instances, footprint=_EIGHT)
    return (instances > 0) & (lowest < highest)


def measure_ambiguous(flags: argparse.Namespace) -> list[Effect]:
    """The share of the gradient within 3 pixels of where digits touch."""
    rows = []
    for grid in drawings(flags.number, touching=True):
        border = touching_border(grid.instances)
        near = np.asarray(ndimage.distance_transform_edt(~border)) <= 3
        gradients = grid.gradients(concentration=36.0, margin=0.5).values()
        lengths = [np.linalg.norm(gradient, axis=-1) for gradient in gradients]
        rows.append([near.mean(), *(a[near].sum() / a.sum() for a in lengths)])
    pixels, without, through = np.transpose(rows)
    ones = np.ones(len(rows))
    return [
        over_images("pixels near (share of all)", pixels, ones),
        over_images("their gradient, no mean shift", without, ones),
        over_images("their gradient, one step of mean shift", through, ones),
        over_images("difference", through - without, ones, claimed=_POSITIVE),
    ]


Rows = Sequence[tuple[np.ndarray, np.ndarray]]  # of each image: [Q, D] and [Q, K]


def read_out(fitted: Rows, held_out: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Fits targets linearly, and predicts those of other images.

    Returns:
        Squared errors [B, K] of each image, and those of the mean target.
    """
    x, y = (np.concatenate(part) for part in zip(*fitted, strict=True))
    slope = np.linalg.lstsq(np.pad(x, [(0, 0), (0, 1)], constant_values=1), y)[0]
    errors = [(t - e @ slope[:-1] - slope[-1], t - y.mean(axis=0)) for e, t in held_out]
    residual, total = (
        np.stack([(error**2).sum(axis=0) for error in part])
        for part in zip(*errors, strict=True)
    )
    return residual, total


def measure_places(flags: argparse.Namespace) -> list[Effect]:
    """Linear read-outs of center and area from the mean embedding of a digit."""
    rows = []
    for grid in drawings(2 * flags.number, touching=False):
        numbers = np.unique(grid.instances[grid.instances > 0])
        masks = grid.instances == numbers[:, None, None]
        area = masks.sum(axis=(1, 2))[:, None]
        means = np.einsum("qhw,hwd->qd", masks, grid.embedding) / area
        centers = [ndimage.center_of_mass(mask) for mask in masks]
        rows.append((means, np.hstack([centers, np.log(area)])))
    residual, total = read_out(rows[::2], rows[1::2])
    names = ("row of the center", "its column", "log of the area")
    return [
        over_images(name, (total - residual)[:, k], total[:, k], claimed=_POSITIVE)
        for k, name in enumerate(names)
    ]


def components(classes: np.ndarray) -> np.ndarray:
    """Numbers the connected components of each class from 1 on; 0 elsewhere."""
    labels = np.zeros(classes.shape, np.int32)
    for value in np.unique(classes[classes > 0]):
        found, _ = ndimage.label(classes == value, structure=_EIGHT)
        labels += np.where(found > 0, found + labels.max(), 0)
    return labels


def pieces_of(mask: np.ndarray) -> list[np.ndarray]:
    """The components of an object [H, W] that have at least 5 % of its pixels."""
    labels, number = ndimage.label(mask, structure=_EIGHT)
    pieces = [labels == piece for piece in range(1, number + 1)]
    return [piece for piece in pieces if piece.sum() >= 0.05 * mask.sum()]


def found_whole(pieces: list[np.ndarray], mask: np.ndarray, labels: np.ndarray) -> list:
    """Whether a label has IoU >= .5 with a mask; and most pixels of each piece, too."""
    found = [labels == number for number in np.unique(labels[mask & (labels > 0)])]
    found = [f for f in found if (f & mask).sum() >= 0.5 * (f | mask).sum()]
    joined = (all((f & p).sum() > 0.5 * p.sum() for p in pieces) for f in found)
    return [bool(found), any(joined)]


def found_maps(
    workdir: pathlib.Path, number: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """The truth of a run's first test images, -1 void, and three label maps [H, W].

    They are the run's groups, the connected components of their foreground, and those
    of the run's classes; each 0 in the background.
    """
    trained = load_run(workdir)
    experiment, task = trained.experiment, trained.experiment.task
    if not isinstance(task, Instances):
        kind = type(task).__name__
        raise InputError(f"--workdir must be a run of configs/voc.py:small, got {kind}")

    @jax.jit
    def predict(batch):
        found = task.predict(trained.apply, trained.task_state, batch)
        return found.groups.labels[0], found.classes[0]

    indices = experiment.usable("test", number)
    for batch in experiment.one_pass("test", indices, batch_size=1):
        seen = {name: jnp.asarray(batch[name]) for name in ("image", "mask")}
        groups, classes = map(np.asarray, predict(seen))
        yield (
            batch["instances"][0],
            [groups, components(groups > 0), components(classes)],
        )


def count_found(truth: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
    """Objects of several pieces, and of one: their number, `found_whole` by each map.

    Returns:
        [2, 1 + 2 K] for K maps; what they label in void pixels does not count.
    """
    counts = np.zeros((2, 1 + 2 * len(maps)))
    maps = [np.where(truth < 0, 0, labels) for labels in maps]
    for instance in np.unique(truth[truth > 0]):
        mask = truth == instance
        pieces = pieces_of(mask)
        found = [found_whole(pieces, mask, labels) for labels in maps]
        counts[int(len(pieces) < 2)] += [1, *np.ravel(found)]
    return counts


def measure_pieces(flags: argparse.Namespace) -> list[Effect]:
    """How often objects of several pieces are found whole, by groups and components."""
    images = [count_found(*seen) for seen in found_maps(flags.workdir, flags.number)]
    several, single = np.stack(images, axis=1)
    objects, *found = several.T
    effects = []
    for text, (groups, area, kinds) in (
        ("found whole", found[::2]),
        ("the same, with most of every piece", found[1::2]),
    ):
        effects.append(over_images(f"{text}, groups", groups, objects))
        for name, other in (("foreground", area), ("classes", kinds)):
            difference = groups - other, objects
            name = f"minus components of the {name}"
            effects.append(over_images(name, *difference, claimed=_POSITIVE))
    text = "objects of one piece found, groups"
    return [*effects, over_images(text, single[:, 1], single[:, 0])]
