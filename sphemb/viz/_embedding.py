"""Embedding maps as colors."""

from __future__ import annotations

import numpy as np

from sphemb._checks import check_count
from sphemb.viz._arrays import float_array


def embedding_rgb(embeddings: np.ndarray, *, seed: int = 0) -> np.ndarray:
    r"""Shows an embedding map as an RGB image.

    Three dimensions are shown as they are, ``(x + 1) / 2``. More are projected on
    three random orthonormal directions, the same ones for the same seed, and each
    channel is stretched so that its 1st and 99th percentile over all images become 0
    and 1; images of one call are therefore comparable. Fewer are filled up with zeros.

    Args:
        embeddings: float [..., H, W, D], rows of unit length.
        seed: of the projection.

    Returns:
        float [..., H, W, 3] in [0, 1].

    Raises:
        InputError: another rank, integers, values that are not finite.

    References:
        Kong and Fowlkes (2018), Fig. 1 and Fig. 11 (random projections of 64
        dimensions).

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
