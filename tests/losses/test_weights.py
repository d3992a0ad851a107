"""One over the size of a pixel's instance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError, instance_weights
from tests.references import losses as reference


class TestInstanceWeights:
    rng = np.random.default_rng(0)
    labels = rng.choice([VOID, 0, 3, 1000, -7], size=(2, 3, 40)).astype(np.int32)
    mask = rng.uniform(size=(2, 3, 40)) < 0.7

    @pytest.mark.parametrize("masked", [False, True])
    def test_are_one_over_the_counting_pixels_of_the_instance(self, masked):
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

    def test_are_zero_where_nothing_counts(self):
        assert not instance_weights(jnp.full(5, VOID)).any()
        nothing = instance_weights(jnp.arange(5), mask=jnp.zeros(5, bool))
        assert not nothing.any()

    def test_take_labels_of_any_integer_dtype(self):
        small = np.array([255, 255, 0], np.uint8)
        assert instance_weights(small).tolist() == [0.5, 0.5, 1.0]

    def test_are_the_same_under_vmap_and_jit(self):
        mapped = jax.jit(jax.vmap(instance_weights))(self.labels)
        np.testing.assert_array_equal(mapped, instance_weights(self.labels))

    def test_refuse_labels_that_are_no_integers_and_masks_that_do_not_fit(self):
        with pytest.raises(InputError, match="labels must be integers, got float32"):
            instance_weights(jnp.zeros(4))
        with pytest.raises(InputError, match=r"mask must have shape .*\(2, 3, 40\)"):
            instance_weights(self.labels, mask=self.mask[0])
        with pytest.raises(InputError, match="mask must be bool"):
            instance_weights(self.labels, mask=self.labels)
