"""Connected parts and small instances."""

import numpy as np
import pytest
import skimage.measure

from sphemb._checks import InputError
from sphemb.instances import connected_parts, drop_small


def drawn_labels(seed=0):
    return np.random.default_rng(seed).integers(-1, 3, (12, 15))


@pytest.mark.parametrize("connectivity", [1, 2])
def test_parts_are_those_of_scikit_image(connectivity):
    labels = drawn_labels()
    found = connected_parts(labels, connectivity=connectivity)
    expected = skimage.measure.label(
        np.maximum(labels, 0), background=0, connectivity=connectivity
    )
    pairs = np.unique(np.stack([found[labels > 0], expected[labels > 0]]), axis=1)
    assert pairs.shape[1] == expected.max() == found.max()
    np.testing.assert_array_equal(found[labels <= 0], labels[labels <= 0])


def test_parts_of_a_clean_map_are_its_instances():
    labels = np.zeros((8, 8), int)
    labels[1:4, 1:4], labels[5:7, 2:8] = 1, 2
    np.testing.assert_array_equal(connected_parts(labels), labels)


def test_small_instances_go_to_the_background_and_the_rest_close_ranks():
    labels = np.array([[1, 1, 2, -1], [3, 3, 3, 0]])
    np.testing.assert_array_equal(
        drop_small(labels, min_size=2), [[1, 1, 0, -1], [2, 2, 2, 0]]
    )


def test_a_minimum_of_one_pixel_drops_nothing():
    labels = connected_parts(drawn_labels(1))
    np.testing.assert_array_equal(drop_small(labels, min_size=1), labels)


def test_background_only_images_stay_as_they_are():
    labels = np.zeros((4, 5), int)
    np.testing.assert_array_equal(connected_parts(labels), labels)
    np.testing.assert_array_equal(drop_small(labels, min_size=3), labels)


def test_complaints_name_the_argument():
    with pytest.raises(InputError, match="connectivity must be one of 1, 2"):
        connected_parts(np.zeros((3, 3), int), connectivity=4)
    with pytest.raises(InputError, match="labels must have shape"):
        connected_parts(np.zeros((2, 3, 3), int))
    with pytest.raises(InputError, match="min_size must be >= 0"):
        drop_small(np.zeros((3, 3), int), min_size=-1)
