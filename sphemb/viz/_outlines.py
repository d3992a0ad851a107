"""Instances painted over their image."""

from __future__ import annotations

import numpy as np

from sphemb._checks import check_integer, check_number, check_shape
from sphemb.viz._arrays import image_array
from sphemb.viz._colors import label_rgb


def outlines(labels: np.ndarray) -> np.ndarray:
    """The pixels [..., H, W] of instances that touch another label with a side.

    Pixels at the border of the image have none there: an instance cut by the border
    stays open.
    """
    differs = np.zeros(labels.shape, bool)
    down = labels[..., 1:, :] != labels[..., :-1, :]
    right = labels[..., :, 1:] != labels[..., :, :-1]
    differs[..., 1:, :] |= down
    differs[..., :-1, :] |= down
    differs[..., :, 1:] |= right
    differs[..., :, :-1] |= right
    return differs & (labels > 0)


def overlay(
    image: np.ndarray, labels: np.ndarray, *, alpha: float = 0.45
) -> np.ndarray:
    """Paints instances over their image, with outlines in full color.

    Args:
        image: uint8 or float in [0, 1], [..., H, W, 3].
        labels: int [..., H, W]; 0 background and -1 void leave the image as it is.
        alpha: the weight of the colors inside, between 0 (outlines alone) and 1.

    Returns:
        float [..., H, W, 3] in [0, 1].

    Raises:
        InputError: shapes that do not go together, alpha outside [0, 1].

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
