"""Checked arrays, random subsets and principal directions of points."""

from __future__ import annotations

import numpy as np

from sphemb._checks import InputError, check_floating, check_integer, check_shape


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
