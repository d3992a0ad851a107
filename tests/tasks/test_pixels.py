"""Pixels against the cells of a coarser map."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb._grid import Grid
from sphemb.tasks import _pixels

B, H, W, D, S = 2, 3, 5, 4, 4


def interpolated(maps: np.ndarray, stride: int) -> np.ndarray:
    """Bilinear interpolation between cell middles, pixel by pixel, in float64."""
    height, width = maps.shape[1:3]
    out = np.zeros((maps.shape[0], stride * height, stride * width, maps.shape[3]))
    for r in range(stride * height):
        for c in range(stride * width):
            y = min(max((r + 0.5) / stride - 0.5, 0), height - 1)
            x = min(max((c + 0.5) / stride - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = (1 - x + left) * maps[:, top, left] + (x - left) * maps[
                :, top, right
            ]
            lower = (1 - x + left) * maps[:, bottom, left] + (x - left) * maps[
                :, bottom, right
            ]
            out[:, r, c] = (1 - y + top) * upper + (y - top) * lower
    return out / np.linalg.norm(out, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def embedding():
    return np.random.default_rng(0).normal(size=(B, H, W, D)).astype(np.float32)


def placed(embedding, stride):
    return _pixels.PlacedMap(jnp.asarray(embedding), Grid(stride))


class TestPixels:
    def test_all_pixels_are_interpolated_between_the_cells_middles(self, embedding):
        wanted = interpolated(embedding.astype(float), S)
        found = _pixels.unit_vectors_of_all(placed(embedding, S), (S * H, S * W))
        np.testing.assert_allclose(found, wanted, atol=2e-6)

    @pytest.mark.parametrize("stride", [1, S])
    def test_some_pixels_are_what_they_are_among_all(self, embedding, stride):
        all_of_them = _pixels.unit_vectors_of_all(
            placed(embedding, stride), (stride * H, stride * W)
        )
        flat = all_of_them.reshape(B, -1, D)
        pixels = jax.random.permutation(jax.random.key(0), flat.shape[1])[:15]
        pixels = jnp.stack([pixels, pixels[::-1]])
        found = _pixels.unit_vectors_at(placed(embedding, stride), pixels)
        wanted = jnp.take_along_axis(flat, pixels[..., None], axis=1)
        np.testing.assert_allclose(found, wanted, atol=2e-6)

    def test_the_middle_of_a_cell_has_the_cells_own_direction(self, embedding):
        found = _pixels.unit_vectors_of_all(placed(embedding, 3), (3 * H, 3 * W))
        rows, columns = Grid(3).pixels(3 * H), Grid(3).pixels(3 * W)
        middles = found[:, rows[:, None], columns]
        own = _pixels.unit_map(jnp.asarray(embedding))
        np.testing.assert_allclose(middles, own, atol=1e-6)

    def test_the_stride_is_read_off_and_must_be_whole(self, embedding):
        assert _pixels.map_stride(jnp.asarray(embedding), (12, 20)) == 4
        with pytest.raises(InputError, match=r"size \(12, 21\) over a whole stride"):
            _pixels.map_stride(jnp.asarray(embedding), (12, 21))
