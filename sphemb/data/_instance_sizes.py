"""How many instances images have, how large they are, and which a coarse map loses.

H W image size, K + 1 numbers of the instances of an image, also those it has not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from sphemb._checks import InputError, check_count
from sphemb._grid import Grid
from sphemb.data._examples import network_ready
from sphemb.data._loader import ExampleSource


@dataclasses.dataclass(frozen=True)
class InstanceSizes:
    """What `measure_instances` found; I images, J instances of all of them.

    Attributes:
        images: int [I, 2], (H, W) of every image.
        counts: int [I], its instances.
        areas: int [J], pixels.
        sides: int [J], the longer side of the box around it, in pixels.
        touching: bool [J], whether a neighbour shares a border with it.
        vanishing: stride -> bool [J], see `vanishing_instances`.
        unusable: why examples could not be used.
    """

    images: np.ndarray
    counts: np.ndarray
    areas: np.ndarray
    sides: np.ndarray
    touching: np.ndarray
    vanishing: dict[int, np.ndarray]
    unusable: tuple[str, ...]

    def merge(self, other: InstanceSizes) -> InstanceSizes:
        """Returns the sizes of these images and of others, at the same strides."""

        def both(name: str) -> np.ndarray:
            return np.concatenate([getattr(self, name), getattr(other, name)])

        arrays = ("images", "counts", "areas", "sides", "touching")
        return InstanceSizes(
            **{name: both(name) for name in arrays},
            vanishing={
                stride: np.concatenate([lost, other.vanishing[stride]])
                for stride, lost in self.vanishing.items()
            },
            unusable=self.unusable + other.unusable,
        )


def instance_areas(instances: np.ndarray) -> np.ndarray:
    """Pixels [K + 1] of every number in a label map [H, W], 0 for the background."""
    areas = np.bincount(instances[instances > 0])
    return areas if areas.size else np.zeros(1, np.int64)


def vanishing_instances(
    instances: np.ndarray, areas: np.ndarray, stride: int, *, origin: float = 0.0
) -> np.ndarray:
    """Which instances have no place on a coarser map.

    Args:
        instances: int [H, W].
        areas: [K + 1], see `instance_areas`.
        stride: of the map.
        origin: of the map, see `sphemb.models.FeatureMap`.

    Returns:
        bool [K + 1]: instances with fewer pixels than a cell of stride x stride, or
        none at the centre of a cell.

    >>> dot = np.zeros((8, 8), int)
    >>> dot[1, 1] = 1
    >>> [bool(vanishing_instances(dot, instance_areas(dot), s)[1]) for s in (1, 2)]
    [False, True]
    """
    grid = Grid(stride, origin)
    middle = instances[np.ix_(*(grid.pixels(side) for side in instances.shape))]
    sampled = np.bincount(middle[middle > 0], minlength=len(areas)) > 0
    return (areas > 0) & ((areas < stride**2) | ~sampled)


def measure_instances(
    source: ExampleSource,
    *,
    indices: Iterable[int] | None = None,
    strides: Sequence[int] = (8, 4, 2, 1),
    progress: Callable[[int], None] | None = None,
) -> InstanceSizes:
    """Measures the instances of some examples.

    Args:
        source: the examples.
        indices: which; all by default.
        strides: of the maps that instances may vanish on.
        progress: called with the number of examples measured.

    Returns:
        The sizes.

    Raises:
        InputError: a stride below 1. An example that cannot be used is no error here:
            it is left out and told.

    >>> picture = {"image": np.zeros((8, 8, 3), np.uint8), "name": "a"}
    >>> sizes = measure_instances([{**picture, "instances": np.eye(8, dtype=int)}])
    >>> sizes.counts.tolist(), sizes.areas.tolist(), sizes.sides.tolist()
    ([1], [8], [8])
    """
    for stride in strides:
        check_count("strides", stride, at_least=1)
    images, counts, unusable = [], [], []
    columns: dict[Any, list[np.ndarray]] = {
        name: [] for name in ("areas", "sides", "touching", *strides)
    }
    chosen = range(len(source)) if indices is None else indices
    for done, i in enumerate(chosen, start=1):
        try:
            instances = network_ready(source[i])["instances"]
        except InputError as error:
            unusable.append(str(error))
            continue
        areas = instance_areas(instances)
        there = areas > 0
        boxes = ndimage.find_objects(np.maximum(instances, 0))
        sides = [max(s.stop - s.start for s in box) for box in boxes if box is not None]
        images.append(instances.shape)
        counts.append(int(there.sum()))
        columns["areas"].append(areas[there])
        columns["sides"].append(np.array(sides, np.int64))
        columns["touching"].append(_touching(instances, len(areas))[there])
        for stride in strides:
            columns[stride].append(vanishing_instances(instances, areas, stride)[there])
        if progress is not None:
            progress(done)

    def joined(name: Any, dtype: Any) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype), *columns[name]])

    return InstanceSizes(
        images=np.array(images, np.int64).reshape(-1, 2),
        counts=np.array(counts, np.int64),
        areas=joined("areas", np.int64),
        sides=joined("sides", np.int64),
        touching=joined("touching", bool),
        vanishing={stride: joined(stride, bool) for stride in strides},
        unusable=tuple(unusable),
    )


def _touching(instances: np.ndarray, number: int) -> np.ndarray:
    """Which of the numbers [K + 1] share a side of a pixel with another instance."""
    found = np.zeros(number, bool)
    for one, other in (
        (instances[1:], instances[:-1]),
        (instances[:, 1:], instances[:, :-1]),
    ):
        meet = (one != other) & (one > 0) & (other > 0)
        found[one[meet]] = found[other[meet]] = True
    return found
