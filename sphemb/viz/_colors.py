"""Distinct colors for the labels of an image."""

from __future__ import annotations

import numpy as np

from sphemb._checks import check_integer

# The colors of Okabe and Ito, then colors chosen one by one to be farthest from all
# before them, from black, gray and white, under normal and red-green-blind vision.
_CHOSEN = (
    "56b4e9 e69f00 009e73 f0e442 cc79a7 d55e00 0072b2 4be1b4 4b3cff 5a87ff c31e1e "
    "ffc3ff a5ffb4 d200b4 b4d269 ff78d2 c35ae1"
)
_FIXED = np.array([list(bytes.fromhex(c)) for c in _CHOSEN.split()]) / 255.0

BACKGROUND_COLOR = (0.0, 0.0, 0.0)
VOID_COLOR = (0.5, 0.5, 0.5)


def instance_colors(number: int) -> np.ndarray:
    """As many colors [number, 3], the best told apart first."""
    extra = np.arange(max(number - len(_FIXED), 0))
    # Steps of the golden section never come back to a hue; two tints widen the choice.
    hue = 6.0 * np.modf(0.618034 * extra + 0.1)[0][:, None]
    value = np.where(extra % 2 == 0, 0.95, 0.7)[:, None]
    saturation = np.where(extra % 4 < 2, 0.85, 0.5)[:, None]
    wheel = np.mod(hue + np.array([5.0, 3.0, 1.0]), 6.0)
    ramp = np.clip(np.minimum(wheel, 4.0 - wheel), 0.0, 1.0)
    return np.concatenate([_FIXED[:number], value * (1.0 - saturation * ramp)])


def label_rgb(labels: np.ndarray, *, background: int | None = 0) -> np.ndarray:
    """Gives every label a color of its own, always the same one.

    Args:
        labels: int [...]; negative ones are void.
        background: the label drawn in black, or None where none is the background.

    Returns:
        float [..., 3] in [0, 1]; void is gray.

    Raises:
        InputError: labels that are no integers.

    >>> label_rgb(np.array([0, -1])).tolist()
    [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    """
    check_integer("labels", labels)
    labels = np.asarray(labels)
    values, ranks = np.unique(labels, return_inverse=True)
    # Label 1 takes the first color whether or not there is a label 0 before it.
    order = np.maximum(values - 1, 0) if background == 0 else np.maximum(values, 0)
    wanted = int(order.max(initial=0)) + 1
    if wanted > 4096:  # ids that are no counters: by rank, to keep the table small
        order, wanted = np.arange(len(values)), len(values)
    colors = instance_colors(wanted)[order]
    if background is not None:
        colors[values == background] = BACKGROUND_COLOR
    colors[values < 0] = VOID_COLOR
    return colors[ranks.reshape(labels.shape)]


def match_labels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Renames predicted instances after the true ones they overlap most.

    Pairs are taken greedily by IoU; instances without a partner take the next free
    numbers. Background 0 and void stay, so that equal colors mean equal objects.
    """
    names, rows = np.unique(predicted, return_inverse=True)
    objects, columns = np.unique(truth, return_inverse=True)
    cells = rows.reshape(-1) * len(objects) + columns.reshape(-1)
    both = np.bincount(cells, minlength=len(names) * len(objects))
    both = both.reshape(len(names), len(objects))[:, objects >= 0]
    sizes, areas = both.sum(axis=1, keepdims=True), both.sum(axis=0)
    objects = objects[objects >= 0]
    iou = both / np.maximum(sizes + areas - both, 1)
    iou = iou[names > 0][:, objects > 0]
    names, objects = names[names > 0], objects[objects > 0]
    renamed = np.minimum(predicted, 0)
    next_name = int(objects.max(initial=0)) + 1
    partner: dict[int, int] = {}
    while iou.size and iou.max() > 0.0:
        p, q = np.unravel_index(np.argmax(iou), iou.shape)
        partner[int(p)] = int(objects[q])
        iou[p, :] = iou[:, q] = 0.0
    for p, name in enumerate(names):
        if p not in partner:
            partner[p], next_name = next_name, next_name + 1
        renamed = np.where(predicted == name, partner[p], renamed)
    return renamed
