"""Clean-up of label images on the host, through SciPy."""

from __future__ import annotations

import numpy as np

from sphemb._checks import check_choice, check_count, check_integer, check_shape


def connected_parts(labels: np.ndarray, *, connectivity: int = 1) -> np.ndarray:
    """Makes every connected part of an instance an instance of its own.

    Args:
        labels: int [H, W]; -1 void and 0 background stay as they are.
        connectivity: 1 joins pixels by their sides, 2 by their corners too.

    Returns:
        int32 [H, W] with parts 1, 2, ... in the order of the labels they come from, and
        in reading order within a label.

    Raises:
        InputError: labels that are no integers or no single image, or another
            connectivity.

    >>> connected_parts(np.array([[1, 0, 1], [2, 2, 0]])).tolist()
    [[1, 0, 2], [3, 3, 0]]
    """
    import scipy.ndimage  # here, because `import sphemb` must stay light

    check_integer("labels", labels)
    check_shape("labels", labels, "H W")
    check_choice("connectivity", connectivity, (1, 2))
    labels = np.asarray(labels)
    joined = scipy.ndimage.generate_binary_structure(2, connectivity)
    parts = np.where(labels < 0, labels, 0).astype(np.int32)
    total = 0
    values, ranks = np.unique(labels, return_inverse=True)
    boxes = scipy.ndimage.find_objects(ranks.reshape(labels.shape) + 1)
    for value, box in zip(values, boxes, strict=True):
        if value > 0:
            found, number = scipy.ndimage.label(labels[box] == value, joined)
            parts[box] = np.where(found > 0, found + total, parts[box])
            total += number
    return parts


def drop_small(labels: np.ndarray, *, min_size: int) -> np.ndarray:
    """Gives instances of fewer than ``min_size`` pixels to the background.

    Args:
        labels: int [...] ; -1 void and 0 background stay as they are.
        min_size: the smallest number of pixels that is kept.

    Returns:
        int32 of the same shape; the instances that are left are renumbered 1, 2, ... in
        their order.

    Raises:
        InputError: labels that are no integers, or a negative size.

    >>> drop_small(np.array([[1, 0, 3], [2, 3, 3]]), min_size=2).tolist()
    [[0, 0, 1], [0, 1, 1]]
    """
    check_integer("labels", labels)
    check_count("min_size", min_size)
    labels = np.asarray(labels)
    values, ranks, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    kept = (values > 0) & (sizes >= min_size)
    renumbered = np.where(kept, np.cumsum(kept), np.minimum(values, 0))
    return renumbered[ranks.reshape(labels.shape)].astype(np.int32)
