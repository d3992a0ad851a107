"""Group ids to label maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.instances import relabel


class TestRelabel:
    def test_the_background_becomes_zero_and_the_rest_dense(self):
        groups = np.array([[0, 1, 2, 3, 3, -1], [2, 2, 1, 0, 0, 3]])
        found = jax.jit(relabel)(groups, np.array([2, 0]))
        np.testing.assert_array_equal(found, [[1, 2, 0, 3, 3, -1], [2, 2, 1, 0, 0, 3]])

    def test_without_a_background_all_groups_become_instances(self):
        np.testing.assert_array_equal(relabel(jnp.array([0, 1, 1]), -1), [1, 2, 2])

    def test_images_keep_their_partition(self):
        groups = np.random.default_rng(3).integers(0, 5, (3, 6, 7))
        background = np.array([4, 0, 2])
        found = np.asarray(relabel(groups, background))
        for g, b, f in zip(groups, background, found, strict=True):
            assert set(np.unique(f)) == set(range(5))
            np.testing.assert_array_equal(f == 0, g == b)
            same = g.reshape(-1, 1) == g.reshape(1, -1)
            np.testing.assert_array_equal(f.reshape(-1, 1) == f.reshape(1, -1), same)

    def test_a_background_of_another_batch_is_refused(self):
        with pytest.raises(InputError, match="background must have shape"):
            relabel(jnp.zeros((3, 6, 7), jnp.int32), jnp.zeros(2, jnp.int32))
