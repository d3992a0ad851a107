"""Mean shift in the joint domain of embedding and place."""

import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import InputError
from sphemb.grouping import append_positions, gbms, label_modes
from sphemb.sphere import l2_normalize

RNG = np.random.default_rng(0)
N, D = 40, 5


class TestAppendPositions:
    x = np.asarray(l2_normalize(RNG.normal(size=(2, N, D)).astype(np.float32)))
    places = RNG.uniform(0, 6, (2, N, 2)).astype(np.float32)

    def test_the_kernel_is_the_product_of_both(self):
        joint = append_positions(
            self.x, self.places, concentration=7.0, spatial_bandwidth=3.0
        )
        assert joint.concentration == 23.0
        found = joint.concentration * np.einsum(
            "bnd,bmd->bnm", joint.points, joint.points
        )
        apart = self.places[:, :, None] - self.places[:, None]
        place = 8 * np.cos(apart / (np.sqrt(8) * 3.0)).sum(axis=-1)
        expected = 7.0 * np.einsum("bnd,bmd->bnm", self.x, self.x) + place
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_near_places_have_a_gaussian_kernel_of_the_reach(self):
        places = np.linspace(0, 1.5, 7)[:, None]
        joint = append_positions(
            np.ones((7, 1)), places, concentration=1.0, spatial_bandwidth=4.0
        )
        found = joint.concentration * (joint.points @ joint.points[0] - 1)
        np.testing.assert_allclose(found, -(places[:, 0] ** 2) / 32, atol=6e-4)

    def test_the_points_are_unit_vectors(self):
        joint = append_positions(
            self.x, self.places, concentration=7.0, spatial_bandwidth=3.0
        )
        lengths = np.linalg.norm(joint.points, axis=-1)
        np.testing.assert_allclose(lengths, 1.0, rtol=1e-6)

    def test_equal_embeddings_far_from_each_other_are_two_groups(self):
        place = np.concatenate([RNG.normal(0, 1, (20, 2)), RNG.normal(9, 1, (20, 2))])
        alike = jnp.tile(jnp.array([1.0, 0.0]), (N, 1))
        joint = append_positions(alike, place, concentration=3.0, spatial_bandwidth=3.0)
        modes = gbms(joint.points, concentration=joint.concentration, num_steps=10)
        labels = np.asarray(label_modes(modes, threshold=0.9, max_groups=8).labels)
        assert len(set(labels[:20])) == len(set(labels[20:])) == 1
        assert labels[0] != labels[20]

    def test_other_numbers_of_points_are_refused(self):
        with pytest.raises(InputError, match="positions must have shape"):
            append_positions(
                self.x, self.places[:, 1:], concentration=1.0, spatial_bandwidth=1.0
            )
        with pytest.raises(
            InputError, match="spatial_bandwidth must satisfy 0 < spatial_bandwidth"
        ):
            append_positions(
                self.x, self.places, concentration=1.0, spatial_bandwidth=0.0
            )
