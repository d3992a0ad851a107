"""Label maps, stacks of masks, and group ids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb._checks import InputError
from sphemb.instances import labels_to_masks, masks_to_labels, relabel

Q = 4


def drawn_labels(seed=0):
    return np.random.default_rng(seed).integers(-1, Q + 1, (2, 6, 7))


class TestMasks:
    def test_each_mask_holds_the_pixels_of_its_label(self):
        labels = drawn_labels()
        masks = labels_to_masks(labels, num_instances=Q)
        assert masks.shape == (2, Q, 6, 7)
        assert masks.dtype == bool
        for q in range(Q):
            np.testing.assert_array_equal(masks[:, q], labels == q + 1)

    def test_there_and_back_changes_only_void(self):
        labels = drawn_labels(1)
        back = masks_to_labels(labels_to_masks(labels, num_instances=Q))
        np.testing.assert_array_equal(back, np.maximum(labels, 0))
        assert back.dtype == jnp.int32

    def test_a_later_mask_overwrites_an_earlier_one(self):
        masks = np.random.default_rng(2).random((2, Q, 6, 7)) < 0.5
        pasted = np.zeros((2, 6, 7), int)
        for q in range(Q):
            pasted[masks[:, q]] = q + 1
        np.testing.assert_array_equal(jax.jit(masks_to_labels)(masks), pasted)

    def test_no_masks_give_background_everywhere(self):
        labels = masks_to_labels(jnp.zeros((0, 3, 4), bool))
        np.testing.assert_array_equal(labels, np.zeros((3, 4)))

    def test_complaints_name_the_argument(self):
        with pytest.raises(InputError, match=r"labels must have shape \[\.\.\., H, W"):
            labels_to_masks(jnp.zeros(4, jnp.int32), num_instances=2)
        with pytest.raises(InputError, match="masks must be bool"):
            masks_to_labels(jnp.zeros((2, 3, 4)))


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
