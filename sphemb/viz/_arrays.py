"""Checked arrays, and arrays as RGB: labels, embeddings, overlays.

H rows, W columns, D dimensions.
"""

from __future__ import annotations

import colorsys
import itertools

import numpy as np

from sphemb._checks import (
    InputError,
    check_count,
    check_floating,
    check_integer,
    check_number,
    check_shape,
)


def float_array(name: str, array: np.ndarray, spec: str) -> np.ndarray:
    """A finite floating-point array of that shape as float64."""
    check_floating(name, array)
    check_shape(name, array, spec)
    array = np.asarray(array, np.float64)
    bad = int(np.sum(~np.isfinite(array)))
    if bad:
        raise InputError(f"{name} must be finite, got {bad} values that are not")
    return array


def image_array(name: str, image: np.ndarray) -> np.ndarray:
    """An image [..., H, W, 3] as floats in [0, 1], from uint8 or from floats."""
    check_shape(name, image, "... H W 3")
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image / 255.0
    return np.clip(float_array(name, image, "... H W 3"), 0.0, 1.0)


def check_maps(
    images: np.ndarray, embeddings: np.ndarray | None = None, **labels: np.ndarray
) -> dict[str, int]:
    """The sizes B, H, W, D of images, their embeddings and their integer maps."""
    dims = check_shape("images", images, "B H W 3")
    for name, array in labels.items():
        check_integer(name, array)
        check_shape(name, array, "B H W", dims=dims, beside="images")
    if embeddings is not None:
        wanted = {"dims": dims, "beside": "images"}
        dims |= check_shape("embeddings", embeddings, "B H W D", **wanted)
    return dims


def sample_indices(number: int, at_most: int) -> np.ndarray:
    """Indices of at most so many of ``number`` items in random order."""
    return np.random.default_rng(0).permutation(number)[:at_most]


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """One over the size of each point's group, as in the loss; zero for void."""
    _, ranks, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.where(labels < 0, 0.0, 1.0 / sizes[ranks])


def principal_directions(
    points: np.ndarray, weights: np.ndarray, number: int
) -> np.ndarray:
    """The directions [D, number] along which weighted points vary most."""
    centered = points - np.average(points, axis=0, weights=weights)
    spread = (centered * weights[:, None]).T @ centered
    _, vectors = np.linalg.eigh(spread)
    found = vectors[:, ::-1][:, :number]
    largest = np.argmax(np.abs(found), axis=0)
    found = found * np.sign(found[largest, np.arange(found.shape[1])])
    return np.pad(found, ((0, 0), (0, number - found.shape[1])))


# The colors of Okabe and Ito, then colors chosen one by one to be farthest from all
# before them, from black, gray and white, under normal and red-green-blind vision.
_CHOSEN = (
    "56b4e9 e69f00 009e73 f0e442 cc79a7 d55e00 0072b2 4be1b4 4b3cff 5a87ff c31e1e "
    "ffc3ff a5ffb4 d200b4 b4d269 ff78d2 c35ae1"
)
_FIXED = np.array([list(bytes.fromhex(c)) for c in _CHOSEN.split()]) / 255.0
_BACKGROUND = (0.0, 0.0, 0.0)
_VOID = (0.5, 0.5, 0.5)


def instance_colors(number: int) -> np.ndarray:
    """Colors [number, 3], the most distinct first."""
    # Steps of the golden section never repeat a hue; two tints widen the choice.
    more = [
        colorsys.hsv_to_rgb((0.618034 * i + 0.1) % 1, (0.85, 0.5)[i // 2 % 2], value)
        for i, value in zip(range(number - len(_FIXED)), itertools.cycle((0.95, 0.7)))
    ]
    return np.concatenate([_FIXED[:number], np.reshape(more, (-1, 3))])


def line_colors(number: int) -> np.ndarray:
    """Colors [number, 3] of lines on white: bright ones are darkened."""
    colors = instance_colors(number)
    bright = colors @ (0.2126, 0.7152, 0.0722) > 0.7
    return np.where(bright[:, None], 0.75 * colors, colors)


def label_rgb(labels: np.ndarray, *, background: int | None = 0) -> np.ndarray:
    """Colors labels [...]; a label always has the same color. Void (negative) is gray.

    ``background`` is the label drawn in black, or None for no background.

    >>> label_rgb(np.array([0, -1])).tolist()
    [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    """
    check_integer("labels", labels)
    labels = np.asarray(labels)
    values, ranks = np.unique(labels, return_inverse=True)
    # Label 1 has the first color whether or not label 0 occurs.
    order = np.maximum(values - 1, 0) if background == 0 else np.maximum(values, 0)
    wanted = int(order.max(initial=0)) + 1
    if wanted > 4096:  # large ids: colors by rank, to keep the table small
        order, wanted = np.arange(len(values)), len(values)
    colors = instance_colors(wanted)[order]
    if background is not None:
        colors[values == background] = _BACKGROUND
    colors[values < 0] = _VOID
    return colors[ranks.reshape(labels.shape)]


def match_labels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Renumbers predicted instances by the true ones that they overlap most.

    Pairs are matched greedily by IoU; unmatched instances get the next free numbers.
    Background 0 and void stay. Equal colors then mean equal objects.
    """
    names, rows = np.unique(predicted, return_inverse=True)
    objects, columns = np.unique(truth, return_inverse=True)
    both = np.zeros((len(names), len(objects)))
    np.add.at(both, (rows, columns), 1)
    both[:, objects < 0] = 0
    sizes, areas = both.sum(axis=1, keepdims=True), both.sum(axis=0)
    iou = both / np.maximum(sizes + areas - both, 1)
    iou[names <= 0] = iou[:, objects <= 0] = 0
    renamed = np.minimum(names, 0)
    while iou.size and iou.max() > 0:
        p, q = np.unravel_index(np.argmax(iou), iou.shape)
        renamed[p] = objects[q]
        iou[p] = iou[:, q] = 0
    free = np.flatnonzero((names > 0) & (renamed == 0))
    renamed[free] = max(int(objects.max(initial=0)), 0) + 1 + np.arange(len(free))
    return renamed[rows]


def embedding_rgb(embeddings: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Shows an embedding map float [..., H, W, D] as RGB [..., H, W, 3] in [0, 1].

    Three dimensions are shown as ``(x + 1) / 2``; missing ones are zero. More are
    projected on three random orthonormal directions, as in Kong and Fowlkes (2018),
    Figs. 1 and 11. Each channel is then stretched so that its 1st and 99th percentile
    over all images become 0 and 1.

    >>> embedding_rgb(np.array([[[1.0, 0.0, -1.0]]])).tolist()
    [[[1.0, 0.5, 0.0]]]
    """
    check_count("seed", seed)
    embeddings = float_array("embeddings", embeddings, "... H W D")
    dim = embeddings.shape[-1]
    if dim <= 3:
        fill = [(0, 0)] * (embeddings.ndim - 1) + [(0, 3 - dim)]
        return np.clip((np.pad(embeddings, fill) + 1.0) / 2.0, 0.0, 1.0)
    drawn = np.random.default_rng(seed).normal(size=(dim, 3))
    projected = embeddings @ np.linalg.qr(drawn)[0]
    if not projected.size:
        return projected
    low, high = np.percentile(projected.reshape(-1, 3), [1.0, 99.0], axis=0)
    flat = high - low < 1e-6
    stretched = (projected - low) / np.where(flat, 1.0, high - low)
    return np.where(flat, 0.5, np.clip(stretched, 0.0, 1.0))


def outlines(labels: np.ndarray) -> np.ndarray:
    """The pixels of instances that have a 4-neighbor with another label."""
    differs = np.zeros(labels.shape, bool)
    for axis in (-2, -1):
        edge = np.swapaxes(differs, axis, -1)  # a view
        step = np.swapaxes(np.diff(labels, axis=axis) != 0, axis, -1)
        edge[..., 1:] |= step
        edge[..., :-1] |= step
    return differs & (labels > 0)


def overlay(
    image: np.ndarray, labels: np.ndarray, *, alpha: float = 0.45
) -> np.ndarray:
    """Paints instances over their image, with outlines in full color.

    Of labels [..., H, W] 0 and -1 leave the image [..., H, W, 3] as it is; ``alpha`` is
    the opacity of the interior, between 0 (outlines only) and 1.

    >>> overlay(np.ones((1, 2, 3)), np.zeros((1, 2), int)).tolist()
    [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]
    """
    check_number("alpha", alpha, at_least=0, at_most=1)
    check_integer("labels", labels)
    dims = check_shape("image", image, "... H W 3")
    check_shape("labels", labels, "... H W", dims=dims, beside="image")
    image, labels = image_array("image", image), np.asarray(labels)
    weight = np.where(labels > 0, alpha, 0.0)
    weight = np.where(outlines(labels), 1.0, weight)[..., None]
    return (1.0 - weight) * image + weight * label_rgb(labels)


def overlay_boundaries(image: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """Paints boundaries [H, W] in [0, 1] in red over their pale image [H, W, 3].

    >>> overlay_boundaries(np.zeros((1, 2, 3)), np.array([[0.0, 1.0]])).tolist()
    [[[0.5, 0.5, 0.5], [1.0, 0.1, 0.0]]]
    """
    dims = check_shape("image", image, "H W 3")
    check_shape("boundary", boundary, "H W", dims=dims, beside="image")
    strength = np.clip(float_array("boundary", boundary, "H W"), 0.0, 1.0)[..., None]
    pale = 0.5 + 0.5 * image_array("image", image)
    return (1.0 - strength) * pale + strength * np.array([1.0, 0.1, 0.0])
