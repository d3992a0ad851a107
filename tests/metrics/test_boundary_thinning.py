"""Thin curves, beside scikit-image's; maxima across a boundary, beside plain loops."""

import math

import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.metrics import suppress_non_maxima
from sphemb.metrics._boundary_pixels import thin_curves


def blobs(seed, shape=(40, 50), share=0.5, radius=1.5):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), radius)
    return noise > np.quantile(noise, 1 - share)


def soft_map(seed=0, shape=(24, 31)):
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    ridges = np.maximum(1.0 - 8 * abs(smooth) / abs(smooth).max(), 0.0)
    return ridges + 1e-3 * np.random.default_rng(seed + 1).random(shape) * (ridges > 0)


class TestThinCurves:
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
    @pytest.mark.parametrize("radius", [0.0, 1.5, 4.0])
    def test_agrees_with_scikit_image(self, share, radius):
        morphology = pytest.importorskip("skimage.morphology")
        for seed in range(5):
            binary = blobs(seed, share=share, radius=radius)
            before = binary.copy()
            expected = morphology.thin(np.pad(binary, 1))[1:-1, 1:-1]
            np.testing.assert_array_equal(thin_curves(binary), expected)
            np.testing.assert_array_equal(binary, before)

    def test_what_is_thin_stays_and_the_number_of_pieces_too(self):
        from scipy.ndimage import label

        for seed in range(3):
            binary = blobs(seed)
            thin = thin_curves(binary)
            np.testing.assert_array_equal(thin_curves(thin), thin)
            eight = np.ones((3, 3))
            assert label(thin, eight)[1] == label(binary, eight)[1]

    def test_an_empty_map_and_one_pixel_stay(self):
        assert not thin_curves(np.zeros((4, 5), bool)).any()
        assert thin_curves(np.ones((1, 1), bool)).all()


def plain_suppression(soft, radius, border, slack):
    """The published loops, pixel by pixel."""
    high, wide = soft.shape
    weights = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25.0
    padded = np.pad(soft, 4, mode="symmetric")
    smooth = np.zeros_like(soft)
    for y in range(9):
        for x in range(9):
            part = padded[y : y + high, x : x + wide]
            smooth += weights[y] * weights[x] * part
    gy, gx = np.gradient(smooth)
    gxx = np.gradient(gx)[1]
    gyy, gxy = np.gradient(gy)

    def value(y, x):
        y, x = min(max(y, 0), high - 1.001), min(max(x, 0), wide - 1.001)
        top, left = int(y), int(x)
        b, a = y - top, x - left
        return (
            (1 - b) * (1 - a) * soft[top, left]
            + (1 - b) * a * soft[top, left + 1]
            + b * (1 - a) * soft[top + 1, left]
            + b * a * soft[top + 1, left + 1]
        )

    kept = soft.copy()
    for y in range(high):
        for x in range(wide):
            slope = gyy[y, x] * np.sign(-gxy[y, x]) / (gxx[y, x] + 1e-5)
            angle = math.atan(slope) % math.pi
            for d in range(-radius, radius + 1):
                beside = value(y + d * math.sin(angle), x + d * math.cos(angle))
                if d and slack * soft[y, x] < beside:
                    kept[y, x] = 0.0
    border = min(border, high // 2, wide // 2)
    for k in range(border):
        for edge in (kept[k], kept[-1 - k], kept[:, k], kept[:, -1 - k]):
            edge *= k / border
    return kept


class TestSuppressNonMaxima:
    @pytest.mark.parametrize(
        ("radius", "border", "slack"), [(1, 5, 1.01), (2, 0, 1.0), (1, 99, 1.2)]
    )
    def test_agrees_with_plain_loops(self, radius, border, slack):
        soft = soft_map()
        found = suppress_non_maxima(soft, radius=radius, border=border, slack=slack)
        expected = plain_suppression(soft, radius, border, slack)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert 0 < np.count_nonzero(found) < np.count_nonzero(soft)

    def test_a_slanted_ridge_keeps_its_crest(self):
        y, x = np.mgrid[:40, :40]
        across = (x - 0.5 * y - 10) / math.hypot(1, 0.5)
        crest = suppress_non_maxima(np.exp(-0.5 * across**2))[8:-8, 8:-8]
        assert np.all(abs(across[8:-8, 8:-8][crest > 0]) < 1.0)
        assert np.all((crest > 0).any(axis=1) == (crest.shape[0] > 0))

    def test_single_precision_stays_and_zeros_stay_zero(self):
        soft = soft_map(3).astype(np.float32)
        found = suppress_non_maxima(soft)
        assert found.dtype == np.float32
        assert not found[soft == 0].any()
        assert not suppress_non_maxima(0 * soft).any()

    def test_complaints_name_the_argument(self):
        with pytest.raises(InputError, match="boundary_map must be floating point"):
            suppress_non_maxima(np.zeros((4, 4), int))
        with pytest.raises(InputError, match="two pixels or more"):
            suppress_non_maxima(np.zeros((1, 4)))
        with pytest.raises(InputError, match="radius must be >= 1"):
            suppress_non_maxima(np.zeros((4, 4)), radius=0)
