"""Outlines given to the background, and taken back, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sphemb import VOID, InputError
from sphemb.instances import dilate_instances, erode_instances

H, W = 24, 30


@pytest.fixture(scope="module")
def labels():
    """Two squares that touch, a bar at the image's border, a lone pixel, void."""
    labels = np.zeros((H, W), np.int32)
    labels[3:12, 4:12] = 1
    labels[3:12, 12:21] = 2
    labels[15:24, 0:7] = 3
    labels[18, 15] = 4
    labels[14:20, 22:26] = VOID
    return labels


def shrunk_by_scipy(labels, width):
    expected = np.where(labels == VOID, VOID, 0)
    square = np.ones((2 * width + 1,) * 2)
    for k in range(1, labels.max() + 1):
        # What nobody knows, and what lies outside, is no other label.
        inside = ndimage.binary_erosion(
            (labels == k) | (labels == VOID), square, border_value=1
        )
        expected[inside & (labels == k)] = k
    return expected


class TestShrinkInstances:
    @pytest.mark.parametrize("width", [0, 1, 2])
    def test_is_the_erosion_of_every_instance(self, labels, width):
        shrunk = jax.jit(erode_instances, static_argnums=1)(labels, width)
        np.testing.assert_array_equal(shrunk, shrunk_by_scipy(labels, width))

    def test_leading_axes_are_images(self, labels):
        both = np.stack([labels, labels[::-1]])
        shrunk = erode_instances(both, 1)
        np.testing.assert_array_equal(shrunk[0], erode_instances(labels, 1))
        np.testing.assert_array_equal(shrunk[1], erode_instances(labels[::-1], 1))


class TestGrowInstances:
    def test_gives_shrunk_squares_back_that_touched(self, labels):
        back = dilate_instances(erode_instances(labels, 2), 2)
        np.testing.assert_array_equal(back[:13], labels[:13])

    def test_changes_nothing_but_the_background(self, labels):
        grown = np.asarray(dilate_instances(labels, 3))
        np.testing.assert_array_equal(grown[labels != 0], labels[labels != 0])
        reached = ndimage.binary_dilation(labels > 0, np.ones((7, 7)))
        assert ((grown > 0) <= reached).all()

    @pytest.mark.parametrize(
        ("labels", "width", "match"),
        [
            (jnp.zeros((2, 3)), 1, "labels must be integers"),
            (jnp.zeros(3, int), 1, "instances need rows and columns"),
            (jnp.zeros((2, 3), int), -1, "width must be"),
        ],
    )
    @pytest.mark.parametrize("function", [erode_instances, dilate_instances])
    def test_bad_input_is_named(self, function, labels, width, match):
        with pytest.raises((InputError, TypeError), match=match):
            function(labels, width)
