"""Recolouring: against Pillow and the standard library, and what must stay."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sphemb import InputError
from sphemb.warps import PhotometricTransform, apply_photometric, sample_photometric

H, W = 12, 16
RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(size=(H, W, 3)).astype(np.float32)
NEUTRAL = PhotometricTransform(1.0, 1.0, 1.0, 0.0, False, 0.0)
GRAY = np.array([0.299, 0.587, 0.114])


def changed(**settings):
    return np.asarray(apply_photometric(IMAGE, NEUTRAL._replace(**settings)))


class TestEachChange:
    def test_neutral_numbers_change_nothing(self):
        np.testing.assert_allclose(changed(), IMAGE, atol=1e-6)

    def test_brightness_contrast_and_saturation_are_blends(self):
        luma = (IMAGE.astype(np.float64) @ GRAY)[..., None]
        expected = {
            "brightness": 1.3 * IMAGE,
            "contrast": luma.mean() + 1.3 * (IMAGE - luma.mean()),
            "saturation": luma + 1.3 * (IMAGE - luma),
        }
        for name, value in expected.items():
            found = changed(**{name: 1.3})
            np.testing.assert_allclose(found, np.clip(value, 0, 1), atol=1e-6)

    @pytest.mark.parametrize("turn", [-0.1, 0.04, 0.5])
    def test_hue_turns_as_in_the_standard_library(self, turn):
        expected = np.empty_like(IMAGE)
        for place in np.ndindex(H, W):
            hue, saturation, value = colorsys.rgb_to_hsv(*IMAGE[place].tolist())
            expected[place] = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        np.testing.assert_allclose(changed(hue=turn), expected, atol=1e-5)

    def test_gray_and_black_have_no_hue_to_turn(self):
        flat = np.stack([np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.6)])
        found = apply_photometric(jnp.asarray(flat), NEUTRAL._replace(hue=0.3))
        np.testing.assert_allclose(found, flat, atol=1e-6)

    def test_gray_removes_the_colors(self):
        luma = (IMAGE.astype(np.float64) @ GRAY)[..., None]
        expected = np.broadcast_to(luma, IMAGE.shape)
        np.testing.assert_allclose(changed(gray=True), expected, atol=1e-6)

    def test_blur_is_a_gaussian_and_keeps_a_plain_image(self):
        found = changed(blur=1.2)
        inside = (slice(5, -5), slice(5, -5))
        expected = ndimage.gaussian_filter(IMAGE.astype(float), (1.2, 1.2, 0))
        np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)
        plain = apply_photometric(jnp.full((H, W, 3), 0.4), NEUTRAL._replace(blur=2.0))
        np.testing.assert_allclose(plain, 0.4, atol=1e-6)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_compiled_it_is_the_same(name):
    images = RNG.uniform(size=(2, 32, 32, 3)).astype(np.float32)
    factors = {name: jnp.array([0.8, 1.2]) - (1.0 if name == "hue" else 0.0)}
    still = {k: jnp.full(2, v) for k, v in NEUTRAL._asdict().items()}
    transforms = PhotometricTransform(**still | factors)
    found = jax.jit(apply_photometric)(images, transforms)
    expected = apply_photometric(images, transforms)
    np.testing.assert_allclose(found, expected, atol=1e-5)


class TestDraws:
    def test_they_have_the_authors_ranges_and_chances(self):
        keys = jax.random.split(jax.random.key(0), 4000)
        drawn = jax.vmap(sample_photometric)(keys)
        for factor in drawn[:3]:
            assert 0.7 <= factor.min() < 0.71
            assert 1.29 < factor.max() <= 1.3
            assert abs(float((factor == 1).mean()) - 0.2) < 0.03
        assert float(jnp.abs(drawn.hue).max()) <= 0.1
        assert abs(float(drawn.gray.mean()) - 0.2) < 0.03
        assert abs(float((drawn.blur > 0).mean()) - 0.5) < 0.03
        blurred = drawn.blur[drawn.blur > 0]
        assert 0.1 <= blurred.min() < 0.12
        assert 1.95 < blurred.max() <= 2.0

    def test_a_batch_is_its_images_and_stays_in_range(self):
        images = jnp.asarray(RNG.uniform(size=(5, H, W, 3)), jnp.float32)
        drawn = jax.vmap(sample_photometric)(jax.random.split(jax.random.key(3), 5))
        found = apply_photometric(images, drawn)
        mapped = jax.vmap(apply_photometric)(images, drawn)
        np.testing.assert_allclose(found, mapped, atol=1e-6)
        assert found.min() >= 0
        assert found.max() <= 1 + 1e-6
        assert float(jnp.abs(found - images).max()) > 0.05

    def test_switching_one_change_off_leaves_the_others(self):
        first = sample_photometric(jax.random.key(4))
        second = sample_photometric(jax.random.key(4), hue=0.0)
        assert float(second.hue) == 0
        for name in ("brightness", "contrast", "saturation", "blur"):
            assert float(getattr(first, name)) == float(getattr(second, name))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: apply_photometric(jnp.zeros((4, 4, 1)), NEUTRAL),
            r"image must have shape \[\.\.\., H, W, 3\], got \(4, 4, 1\)",
        ),
        (
            lambda: apply_photometric(np.zeros((4, 4, 3), np.uint8), NEUTRAL),
            r"image must be floating point, got uint8",
        ),
        (
            lambda: sample_photometric(jax.random.key(0), hue=0.7),
            r"hue must satisfy 0 <= hue <= 0\.5, got 0\.7",
        ),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
