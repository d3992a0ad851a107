"""Connected components and meeting instances, against scikit-image and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.measure
from scipy import ndimage

from sphemb import VOID, InputError
from sphemb.instances import connected_components, near_two_instances, split_components

B, H, W = 3, 12, 15
parts_of = {
    c: jax.jit(functools.partial(connected_components, connectivity=c)) for c in (4, 8)
}
split = jax.jit(functools.partial(split_components, max_components=5, min_size=3))


def drawn(seed=0, groups=3):
    """Random labels with void; coarse blocks in the last image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, groups, (B, H, W))
    blocks = np.kron(rng.integers(0, groups, (4, 5)), np.ones((3, 3), int))
    labels[-1] = np.where(rng.random((H, W)) < 0.05, -1, blocks)
    return labels


def spiral():
    """One part that winds inwards between the turns of another."""
    labels = np.zeros((H, W), int)
    row, column, step, heading = 0, -1, 0, [(0, 1), (1, 0), (0, -1), (-1, 0)]
    lengths = [W, H - 1, W - 1]
    while lengths[-2] > 2:
        lengths.append(lengths[-2] - 2)
    for step, length in enumerate(lengths):
        for _ in range(length):
            row, column = row + heading[step % 4][0], column + heading[step % 4][1]
            labels[row, column] = 1
    return labels


def oracle(labels, connectivity):
    """skimage numbers the parts of each image from 1; void is its background."""
    return np.stack(
        [
            skimage.measure.label(x, background=-1, connectivity=connectivity // 4) - 1
            for x in labels
        ]
    )


def split_oracle(labels, background, max_components, min_size):
    """One image's instances, part by part."""
    ids = oracle(labels[None], 8)[0]
    parts = [ids == i for i in range(ids.max() + 1)]
    parts = [p for p in parts if labels[p][0] != background and p.sum() >= min_size]
    parts = sorted(parts, key=lambda p: (-p.sum(), np.flatnonzero(p)[0]))[
        :max_components
    ]
    instances = np.where(labels < 0, -1, 0)
    for number, part in enumerate(parts, start=1):
        instances[part] = number
    return instances


class TestConnectedComponents:
    @pytest.mark.parametrize("connectivity", [4, 8])
    @pytest.mark.parametrize("groups", [1, 2, 4])
    def test_agrees_with_scikit_image_id_by_id(self, connectivity, groups):
        labels = drawn(groups, groups)
        found = parts_of[connectivity](labels)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, oracle(labels, connectivity))

    @pytest.mark.parametrize("connectivity", [4, 8])
    def test_long_winding_parts_stay_whole(self, connectivity):
        one = spiral()
        comb = np.zeros((H, W), int)
        comb[:, ::2], comb[-1] = 1, 1
        labels = np.stack([one, one[::-1, ::-1], comb])
        found = parts_of[connectivity](labels)
        np.testing.assert_array_equal(found, oracle(labels, connectivity))
        assert len(np.unique(found[0][one == 1])) == 1

    def test_a_common_corner_connects_under_eight_alone(self):
        labels = np.kron(np.eye(2, dtype=int), np.ones((2, 2), int))[None]
        assert np.asarray(connected_components(labels)).max() == 1
        assert np.asarray(connected_components(labels, connectivity=4)).max() == 3

    def test_parts_of_different_images_never_meet(self):
        labels = np.zeros((B, H, W), int)
        assert not np.asarray(parts_of[8](labels)).any()

    def test_small_parts_become_void_and_the_others_close_ranks(self):
        labels = drawn(1)
        ids = np.asarray(parts_of[8](labels))
        found = np.asarray(connected_components(labels, min_size=4))
        for before, after in zip(ids, found, strict=True):
            sizes = np.bincount(before[before >= 0])
            large = np.flatnonzero(sizes >= 4)
            expected = np.full(before.shape, -1)
            for number, part in enumerate(large):
                expected[before == part] = number
            np.testing.assert_array_equal(after, expected)

    def test_single_images_vmap_and_more_axes_agree(self):
        labels = drawn(2)
        expected = parts_of[8](labels)
        mapped = jax.vmap(connected_components)(jnp.asarray(labels))
        np.testing.assert_array_equal(mapped, expected)
        np.testing.assert_array_equal(connected_components(labels[1]), expected[1])
        np.testing.assert_array_equal(
            connected_components(labels[None, :2])[0], expected[:2]
        )

    def test_images_of_void_and_of_no_pixels_have_no_parts(self):
        void = parts_of[8](np.full((B, H, W), -1))
        np.testing.assert_array_equal(void, -1)
        assert connected_components(jnp.zeros((2, 0, 4), jnp.int32)).shape == (2, 0, 4)

    def test_complaints_name_the_argument(self):
        labels = jnp.zeros((H, W), jnp.int32)
        with pytest.raises(InputError, match="labels must be integers"):
            connected_components(labels * 1.0)
        with pytest.raises(InputError, match="components need rows and columns"):
            connected_components(labels[0])
        with pytest.raises(InputError, match="connectivity must be one of 4, 8"):
            connected_components(labels, connectivity=6)
        with pytest.raises(InputError, match="min_size must be >= 1"):
            connected_components(labels, min_size=0)


class TestSplitComponents:
    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_a_loop_over_the_parts(self, seed):
        labels, background = drawn(seed), np.array([0, 2, -1])
        found = split(labels, background)
        assert found.dtype == jnp.int32
        expected = [
            split_oracle(x, b, 5, 3) for x, b in zip(labels, background, strict=True)
        ]
        np.testing.assert_array_equal(found, expected)

    def test_equal_discs_of_one_group_become_instances_by_size(self):
        labels = np.zeros((B, H, W), int)
        labels[:, 1:4, 1:4] = labels[:, 6:10, 8:12] = labels[:, 0, 13:] = 1
        found = np.asarray(split(labels, np.zeros(B, int)))
        assert (found[:, 6:10, 8:12] == 1).all()
        assert (found[:, 1:4, 1:4] == 2).all()
        assert not found[:, 0, 13:].any()  # two pixels are too few
        assert found.max() == 2

    @pytest.mark.parametrize("max_components", [1, 2, 40])
    def test_the_number_of_parts_knows_no_limit(self, max_components):
        labels = np.stack([drawn(s)[0] for s in range(3)])
        settings = {
            "max_components": max_components,
            "min_size": 2,
            "return_number": True,
        }
        instances, number = split_components(labels, 0, **settings)
        expected = [split_oracle(x, 0, 1000, 2).max() for x in labels]
        assert number.tolist() == expected
        np.testing.assert_array_equal(
            instances.max(axis=(1, 2)), np.minimum(expected, max_components)
        )
        nothing = split_components(labels[:, :0], 0, **settings)[1]
        assert nothing.tolist() == [0, 0, 0]

    def test_room_for_more_parts_than_pixels_is_no_mistake(self):
        labels = jnp.array([[1, 0, 1]])
        found = split_components(labels, 0, max_components=9)
        assert found.tolist() == [[1, 0, 2]]

    def test_vmap_agrees(self):
        labels, background = drawn(4), np.array([0, 2, -1])
        mapped = jax.vmap(
            functools.partial(split_components, max_components=5, min_size=3)
        )(jnp.asarray(labels), jnp.asarray(background))
        np.testing.assert_array_equal(mapped, split(labels, background))

    def test_complaints_name_the_argument(self):
        labels = jnp.zeros((B, H, W), jnp.int32)
        with pytest.raises(InputError, match="max_components must be >= 1"):
            split_components(labels, 0, max_components=0)
        with pytest.raises(InputError, match="background must have shape"):
            split_components(labels, jnp.zeros(2, jnp.int32), max_components=4)


@pytest.fixture(scope="module")
def touching():
    """Two squares that touch, a bar at the image's border, a lone pixel, void."""
    labels = np.zeros((24, 30), np.int32)
    labels[3:12, 4:12] = 1
    labels[3:12, 12:21] = 2
    labels[15:24, 0:7] = 3
    labels[18, 15] = 4
    labels[14:20, 22:26] = VOID
    return labels


def counted_by_scipy(labels, width):
    """How many instances the square around each pixel holds."""
    square = np.ones((2 * width + 1,) * 2)
    numbers = range(1, labels.max() + 1)
    return sum(
        ndimage.binary_dilation(labels == k, square).astype(int) for k in numbers
    )


class TestNearTwoInstances:
    @pytest.mark.parametrize("width", [0, 1, 2])
    def test_is_where_two_dilated_instances_overlap(self, touching, width):
        both = np.stack([touching, touching[::-1]])
        found = near_two_instances(both, width)
        for labels, near in zip(both, found, strict=True):
            np.testing.assert_array_equal(near, counted_by_scipy(labels, width) > 1)

    @pytest.mark.parametrize(
        ("labels", "width", "match"),
        [
            (jnp.zeros((2, 3)), 1, "labels must be integers"),
            (jnp.zeros(3, int), 1, "instances need rows and columns"),
            (jnp.zeros((2, 3), int), -1, "width must be"),
        ],
    )
    def test_bad_input_is_named(self, labels, width, match):
        with pytest.raises((InputError, TypeError), match=match):
            near_two_instances(labels, width)
