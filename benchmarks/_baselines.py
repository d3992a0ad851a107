"""What one gets without learning: segments, nuclei and edges by scikit-image.

They take one image, as uint8 or as floats in [0, 1], and give maps in the forms that
the metrics take.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def felzenszwalb_maps(
    image: np.ndarray,
    *,
    scales: Sequence[float] = (1600.0, 800.0, 400.0, 200.0, 100.0),
    sigma: float = 0.8,
    min_size: int = 50,
    max_groups: int = 128,
) -> np.ndarray:
    """Felzenszwalb's segments at several scales, for `pool_proposals`.

    Args:
        image: [H, W, 3].
        scales: the larger, the larger the segments; in the order in which they are
            proposed.
        sigma: of the smoothing.
        min_size: pixels of the smallest segment.
        max_groups: the largest segments that are kept; the others become void.

    Returns:
        int32 [K, H, W] group ids by falling size.
    """
    from skimage.segmentation import felzenszwalb

    how = {"sigma": sigma, "min_size": min_size, "channel_axis": -1}
    segments = (felzenszwalb(image, scale=scale, **how) for scale in scales)
    return np.stack([_largest_first(one, max_groups) for one in segments])


def merged_maps(
    image: np.ndarray,
    *,
    limits: Sequence[float] = (4e6, 2e6, 1e6, 4e5, 1e5),
    max_groups: int = 128,
) -> np.ndarray:
    r"""Neighboring segments merged by color and size, for `pool_proposals`.

    Of small Felzenszwalb segments the two neighbors of smallest
    :math:`\tfrac{n_i n_j}{n_i + n_j} \lVert c_i - c_j \rVert^2` become one, until it
    exceeds the limit; c is the mean color in CIELAB and n the number of pixels. This is
    Ward's criterion; selective search merges by histograms of color and texture.

    Args:
        image: uint8 [H, W, 3].
        limits: the larger, the larger the regions; in the order in which they are
            proposed.
        max_groups: the largest regions that are kept; the others become void.

    Returns:
        int32 [K, H, W] group ids by falling size.
    """
    from skimage import color, graph
    from skimage.segmentation import felzenszwalb

    segments = felzenszwalb(image, scale=100.0, min_size=50, channel_axis=-1)
    colors = color.rgb2lab(image)

    def cost(regions, _, one: int, other: int) -> dict[str, float]:
        a, b = regions.nodes[one], regions.nodes[other]
        n, m = a["pixel count"], b["pixel count"]
        apart = a["total color"] / n - b["total color"] / m
        return {"weight": n * m / (n + m) * float(apart @ apart)}

    def merge(regions, source: int, target: int) -> None:
        for name in ("pixel count", "total color"):
            regions.nodes[target][name] += regions.nodes[source][name]

    regions = graph.rag_mean_color(colors, segments)
    for one, other in regions.edges:
        regions.edges[one, other].update(cost(regions, None, one, other))
    how = {"rag_copy": False, "in_place_merge": True}
    how |= {"merge_func": merge, "weight_func": cost}
    # Each limit starts from the regions of the previous one.
    maps = {
        limit: graph.merge_hierarchical(segments, regions, thresh=limit, **how)
        for limit in sorted(limits)
    }
    return np.stack([_largest_first(maps[limit], max_groups) for limit in limits])


def _largest_first(segments: np.ndarray, max_groups: int) -> np.ndarray:
    sizes = np.bincount(segments.reshape(-1))
    place = np.empty_like(sizes)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    ids = place[segments]
    return np.where(ids < max_groups, ids, -1).astype(np.int32)


def watershed_nuclei(
    image: np.ndarray, *, sigma: float = 1.0, min_size: int = 20, min_distance: int = 5
) -> np.ndarray:
    """Otsu's threshold, distances to its border, and a watershed from their peaks.

    Nuclei are bright in fluorescence and dark in stained tissue. They are taken to be
    what there is less of, in the image and along its border, so that one function
    serves both.

    Args:
        image: [H, W] or [H, W, 3].
        sigma: of the smoothing before the threshold, and of the distances.
        min_size: pixels of the smallest nucleus, and of the smallest hole.
        min_distance: pixels between two peaks.

    Returns:
        int32 [H, W] label map; 0 background, 1.. nuclei.
    """
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.filters import gaussian, threshold_otsu
    from skimage.measure import label
    from skimage.segmentation import watershed

    grey = _grey(image)
    smooth = gaussian(grey, sigma=sigma)
    if smooth.min() == smooth.max():
        return np.zeros(grey.shape, np.int32)
    inside = smooth > threshold_otsu(smooth)
    border = np.pad(
        np.zeros(np.subtract(inside.shape, 2), bool), 1, constant_values=True
    )
    if inside.mean() + inside[border].mean() > 1.0:
        inside = ~inside
    inside = ~_without_small(~inside, min_size)
    inside = _without_small(inside, min_size)
    depth = gaussian(ndimage.distance_transform_edt(inside), sigma=sigma)
    peaks = peak_local_max(
        depth, min_distance=min_distance, labels=label(inside), exclude_border=False
    )
    seeds = np.zeros(grey.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depth, seeds, mask=inside).astype(np.int32)


def sobel_edges(image: np.ndarray, *, sigma: float = 2.0) -> np.ndarray:
    """The root of Sobel's gradient of the smoothed grey image.

    The root spreads the many weak gradients over more of a benchmark's thresholds.

    Args:
        image: [H, W] or [H, W, 3].
        sigma: of the smoothing.

    Returns:
        float64 [H, W] in [0, 1].
    """
    from skimage.filters import gaussian, sobel

    return np.sqrt(np.clip(sobel(gaussian(_grey(image), sigma=sigma)), 0.0, 1.0))


def canny_edges(
    image: np.ndarray, *, sigma: float = 2.0, low: float = 0.4, levels: int = 30
) -> np.ndarray:
    """The highest of many thresholds at which Canny's detector keeps a pixel.

    Args:
        image: [H, W] or [H, W, 3].
        sigma: of the smoothing.
        low: the lower threshold of the hysteresis as a share of the upper one.
        levels: upper thresholds, at most that of the strongest edge.

    Returns:
        float64 [H, W] in [0, 1], curves one pixel wide, in the unit of `sobel_edges`.
    """
    from skimage.feature import canny

    grey = _grey(image)
    strongest = float(sobel_edges(image, sigma=sigma).max())
    edges = np.zeros(grey.shape)
    for level in np.linspace(0.0, strongest, levels + 1)[1:]:
        # Canny's own derivatives are not scaled: by 4 each, and not averaged.
        high = 4.0 * np.sqrt(2.0) * level**2
        found = canny(grey, sigma=sigma, low_threshold=low * high, high_threshold=high)
        edges[found] = level
    return edges


def _grey(image: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2gray
    from skimage.util import img_as_float

    return rgb2gray(image) if image.ndim == 3 else img_as_float(image)


def _without_small(mask: np.ndarray, min_size: int) -> np.ndarray:
    """The mask without its connected parts of fewer pixels."""
    from skimage.measure import label

    parts = label(mask)
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    return (sizes >= min_size)[parts]
