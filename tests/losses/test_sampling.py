"""Weights by the size of a pixel's instance, and uniform samples of pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError, instance_weights, sample_pixels
from tests.references import losses as reference


class TestInstanceWeights:
    rng = np.random.default_rng(0)
    labels = rng.choice([VOID, 0, 3, 1000, -7], size=(2, 3, 40)).astype(np.int32)
    mask = rng.uniform(size=(2, 3, 40)) < 0.7

    @pytest.mark.parametrize("masked", [False, True])
    def test_are_one_over_the_valid_pixels_of_the_instance(self, masked):
        mask = self.mask if masked else np.ones_like(self.mask)
        expected = [
            [reference.instance_weights(*pair) for pair in zip(*image, strict=True)]
            for image in zip(self.labels, mask, strict=True)
        ]
        found = instance_weights(self.labels, mask=self.mask if masked else None)
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_sum_to_the_number_of_instances(self):
        instances = [[len(set(row) - {VOID}) for row in x] for x in self.labels]
        found = instance_weights(self.labels).sum(axis=-1)
        np.testing.assert_allclose(found, instances, rtol=1e-6)

    def test_are_zero_without_valid_pixels(self):
        assert not instance_weights(jnp.full(5, VOID)).any()
        nothing = instance_weights(jnp.arange(5), mask=jnp.zeros(5, bool))
        assert not nothing.any()

    def test_take_labels_of_any_integer_dtype(self):
        small = np.array([255, 255, 0], np.uint8)
        assert instance_weights(small).tolist() == [0.5, 0.5, 1.0]

    def test_are_the_same_under_vmap_and_jit(self):
        mapped = jax.jit(jax.vmap(instance_weights))(self.labels)
        np.testing.assert_array_equal(mapped, instance_weights(self.labels))

    def test_refuse_labels_that_are_not_integers_and_masks_that_do_not_fit(self):
        with pytest.raises(InputError, match="labels must be integers, got float32"):
            instance_weights(jnp.zeros(4))
        with pytest.raises(InputError, match=r"mask must have shape .*\(2, 3, 40\)"):
            instance_weights(self.labels, mask=self.mask[0])
        with pytest.raises(InputError, match="mask must be bool"):
            instance_weights(self.labels, mask=self.labels)


class TestSamplePixels:
    labels = jnp.array([[3, VOID, 3, 0, 0, 9, VOID, 9, 1, 1], [VOID] * 7 + [2, 2, 2]])

    def test_samples_different_valid_pixels(self):
        sample = sample_pixels(jax.random.key(0), self.labels, num_samples=6)
        assert sample.indices.shape == sample.mask.shape == (2, 6)
        assert sample.indices.dtype == jnp.int32
        picked = jnp.take_along_axis(self.labels, sample.indices, axis=-1)
        assert bool(((picked != VOID) == sample.mask).all())
        for row in sample.indices.tolist():
            assert len(set(row)) == 6

    def test_masks_the_rest_where_too_few_pixels_are_valid(self):
        sample = sample_pixels(jax.random.key(1), self.labels, num_samples=6)
        assert sample.mask.sum(axis=-1).tolist() == [6, 3]
        assert set(sample.indices[1][sample.mask[1]].tolist()) == {7, 8, 9}

    def test_takes_a_mask_in_place_of_labels(self):
        key = jax.random.key(2)
        by_label = sample_pixels(key, self.labels, num_samples=6)
        by_mask = sample_pixels(key, self.labels != VOID, num_samples=6)
        np.testing.assert_array_equal(by_label.indices, by_mask.indices)
        np.testing.assert_array_equal(by_label.mask, by_mask.mask)

    def test_samples_every_valid_pixel_equally_often(self):
        labels = jnp.broadcast_to(self.labels[0], (4000, 10))
        sample = sample_pixels(jax.random.key(3), labels, num_samples=4)
        times = np.bincount(np.ravel(sample.indices), minlength=10)
        expected = np.where(self.labels[0] == VOID, 0, 4000 * 4 / 8)
        assert sample.mask.all()
        # Five standard deviations of a count with probability one half.
        np.testing.assert_allclose(times, expected, atol=5 * np.sqrt(4000 / 4))

    def test_samples_every_image_independently_and_reproducibly(self):
        labels = jnp.zeros((2, 64), jnp.int32)
        key = jax.random.key(4)
        first, second = sample_pixels(key, labels, num_samples=32).indices
        assert set(first.tolist()) != set(second.tolist())
        again = sample_pixels(key, labels, num_samples=32).indices
        np.testing.assert_array_equal(again, [first, second])

    def test_refuses_more_samples_than_pixels_and_wrong_arguments(self):
        key = jax.random.key(5)
        with pytest.raises(
            InputError, match="at most the number of pixels, 10, got 11"
        ):
            sample_pixels(key, self.labels, num_samples=11)
        with pytest.raises(InputError, match="num_samples must be >= 1, got 0"):
            sample_pixels(key, self.labels, num_samples=0)
        with pytest.raises(InputError, match="integers, got float32"):
            sample_pixels(key, jnp.zeros(10), num_samples=2)
