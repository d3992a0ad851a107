"""Instances of a label map one by one: where they are, and their run lengths.

Shape letters: H W image size, h w size of an instance's box.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage


class Region(NamedTuple):
    """An instance.

    Attributes:
        label: its number.
        pixels: how many it has.
        middle: row and column of its centre of mass.
        box: (top, left, bottom, right), ends exclusive.
        runs: its mask as COCO's compressed run lengths.
    """

    label: int
    pixels: int
    middle: tuple[float, float]
    box: tuple[int, int, int, int]
    runs: dict[str, Any]

    @property
    def coco_box(self) -> list[int]:
        """Left, top, width, height."""
        top, left, bottom, right = self.box
        return [left, top, right - left, bottom - top]


def regions_of(labels: np.ndarray) -> Iterator[Region]:
    """The instances of a label map, by number.

    Args:
        labels: int [H, W], 0 for the background.
    """
    for number, box in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == number
        rows, columns = np.nonzero(mask)
        top, left = box[0].start, box[1].start
        yield Region(
            number,
            len(rows),
            (top + float(rows.mean()), left + float(columns.mean())),
            (top, left, box[0].stop, box[1].stop),
            placed_runs(mask, (top, left), labels.shape),
        )


def placed_runs(
    mask: np.ndarray, corner: tuple[int, int], size: tuple[int, ...]
) -> dict[str, Any]:
    """COCO's compressed run lengths of a small mask in a large image.

    They are made from the mask alone: the image's own would be as large for each
    instance.

    Args:
        mask: bool [h, w], somewhere True.
        corner: row and column of its upper left pixel in the image.
        size: (H, W).

    >>> runs = placed_runs(np.array([[True, False]]), (1, 1), (2, 3))
    >>> runs["size"], runs["counts"]
    ([2, 3], '312')
    """
    from pycocotools.mask import frPyObjects

    height, width = size
    columns, rows = np.nonzero(mask.T)  # column after column, as COCO counts
    places = (columns + corner[1]).astype(np.int64) * height + rows + corner[0]
    breaks = np.flatnonzero(np.diff(places) > 1)
    starts = places[np.concatenate([[0], breaks + 1])]
    ends = places[np.concatenate([breaks, [len(places) - 1]])] + 1
    edges = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    if not counts[-1]:
        counts = counts[:-1]
    runs: Any = frPyObjects(
        {"size": [height, width], "counts": counts.tolist()}, height, width
    )
    return {"size": [height, width], "counts": runs["counts"].decode()}
