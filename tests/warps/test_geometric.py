"""Boxes: one for images, feature maps and labels of every size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sphemb import InputError
from sphemb.warps import (
    GeometricTransform,
    apply_geometric,
    apply_geometric_labels,
    sample_geometric,
)

H, W, S = 32, 48, 4
RNG = np.random.default_rng(0)
BOXES = jax.vmap(sample_geometric)(jax.random.split(jax.random.key(1), 3))
INNER = GeometricTransform(  # a coarse cell away from the border at least
    *(jnp.array(v) for v in ([0.2, 0.15, 0.3], [0.1, 0.25, 0.2], [0.5, 0.6, 0.55])),
    jnp.array([True, False, True]),
)


def places(box, i, n, *, flip):
    """Where pixel i of n lies in the image, in float64."""
    start, side = box
    u = (i + 0.5) / n
    return start + side * (1 - u if flip else u)


def one_by_one(values, box, size):
    """Bilinear reading at the places of a box, by scipy."""
    top, left, side, flip = (np.float64(leaf) for leaf in box)
    rows = places((top, side), np.arange(size[0]), size[0], flip=False)
    columns = places((left, side), np.arange(size[1]), size[1], flip=bool(flip))
    grid = np.meshgrid(
        rows * values.shape[0] - 0.5, columns * values.shape[1] - 0.5, indexing="ij"
    )
    channels = np.moveaxis(values.astype(np.float64), -1, 0)
    read = [ndimage.map_coordinates(c, grid, order=1, mode="nearest") for c in channels]
    return np.stack(read, axis=-1)


def pooled(x):
    """A network that is equivariant: means of S x S cells."""
    *batch, height, width, channels = x.shape
    cells = x.reshape(*batch, height // S, S, width // S, S, channels)
    return cells.mean(axis=(-4, -2))


class TestBilinear:
    @pytest.mark.parametrize("size", [None, (20, 56)])
    def test_it_reads_what_scipy_reads_at_the_same_places(self, size):
        values = RNG.normal(size=(3, H, W, 2)).astype(np.float32)
        found = apply_geometric(values, BOXES, size=size)
        for i in range(3):
            box = jax.tree.map(lambda leaf, i=i: leaf[i], BOXES)
            expected = one_by_one(values[i], box, size or (H, W))
            np.testing.assert_allclose(found[i], expected, atol=1e-4)

    def test_the_whole_image_stays_and_a_mirror_image_is_exact(self):
        values = jnp.asarray(RNG.normal(size=(H, W, 2)), jnp.float32)
        whole = GeometricTransform(0.0, 0.0, 1.0, False)
        np.testing.assert_allclose(apply_geometric(values, whole), values, atol=1e-5)
        mirrored = apply_geometric(values, whole._replace(flip=True))
        np.testing.assert_allclose(mirrored, values[:, ::-1], atol=1e-5)

    def test_a_batch_is_its_images_and_vmap_gives_the_same(self):
        values = jnp.asarray(RNG.normal(size=(3, H, W, 2)), jnp.float32)
        found = apply_geometric(values, BOXES)
        mapped = jax.vmap(apply_geometric)(values, BOXES)
        np.testing.assert_allclose(found, mapped, atol=1e-6)

    def test_the_gradient_is_the_transposed_reading(self):
        values = jnp.asarray(RNG.normal(size=(3, H, W, 2)), jnp.float32)
        pull = jnp.asarray(RNG.normal(size=values.shape), jnp.float32)
        back = jax.vjp(lambda v: apply_geometric(v, BOXES), values)[1](pull)[0]
        forward = jnp.vdot(apply_geometric(values, BOXES), pull)
        np.testing.assert_allclose(jnp.vdot(values, back), forward, rtol=1e-4)


class TestEquivariance:
    def test_smooth_maps_commute_with_an_equivariant_network_to_1e_5(self):
        down, along = (jnp.arange(H) + 0.5) / H, (jnp.arange(W) + 0.5) / W
        channels = [0.2 + 0.6 * down[:, None] + 0 * along, 1 - down[:, None] * along]
        images = jnp.broadcast_to(jnp.stack(channels, axis=-1), (3, H, W, 2))
        first = pooled(apply_geometric(images, INNER))
        second = apply_geometric(pooled(images), INNER)
        np.testing.assert_allclose(first, second, atol=1e-5)

    def test_curved_maps_differ_by_the_square_of_a_cell(self):
        def gap(n):
            down = (jnp.arange(n) + 0.5) / n
            image = jnp.sin(3 * down)[:, None, None] * jnp.cos(2 * down)[None, :, None]
            images = jnp.broadcast_to(image, (3, n, n, 1))
            first = pooled(apply_geometric(images, INNER))
            return float(jnp.abs(first - apply_geometric(pooled(images), INNER)).max())

        assert gap(128) < 0.3 * gap(64) < 0.1 * gap(32)

    def test_labels_are_cut_where_the_images_are(self):
        classes = jnp.broadcast_to(jnp.arange(W) // 16, (3, H, W))
        cut = apply_geometric_labels(classes, BOXES)
        picture = jax.nn.one_hot(classes, 3)
        soft = apply_geometric(picture, BOXES)
        sure = soft.max(axis=-1) > 0.99
        assert sure.mean() > 0.8
        np.testing.assert_array_equal(
            np.where(sure, cut, -1), np.where(sure, soft.argmax(axis=-1), -1)
        )
        coarse = apply_geometric_labels(classes, BOXES, size=(H // 2, W // 2))
        agree = coarse == cut[:, 1::2, 1::2]
        assert agree.mean() > 0.95


class TestDraws:
    def test_boxes_lie_inside_and_half_of_them_are_mirrored(self):
        keys = jax.random.split(jax.random.key(2), 2000)
        box = jax.vmap(sample_geometric)(keys)
        assert (box.side >= 0.5).all()
        assert (box.side <= 1).all()
        for start in (box.top, box.left):
            assert (start >= 0).all()
            assert (start + box.side <= 1 + 1e-6).all()
        assert abs(float(box.flip.mean()) - 0.5) < 0.05
        assert abs(float(box.side.mean()) - 0.75) < 0.02

    def test_a_key_determines_the_result(self):
        first, again = (sample_geometric(jax.random.key(5)) for _ in range(2))
        assert [float(v) for v in first] == [float(v) for v in again]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: apply_geometric(jnp.zeros((4, 4)), BOXES),
            r"values must have shape \[\.\.\., H, W, C\], got \(4, 4\)",
        ),
        (
            lambda: apply_geometric_labels(jnp.zeros((4, 4)), BOXES),
            r"labels must be integers, got float32",
        ),
        (
            lambda: apply_geometric(jnp.zeros((4, 4, 1)), BOXES, size=(0, 4)),
            r"size must be >= 1, got 0",
        ),
        (
            lambda: sample_geometric(jax.random.key(0), side=(0.0, 1.0)),
            r"side must satisfy 0 < side <= 1, got 0\.0",
        ),
    ],
)
def test_a_mistake_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
