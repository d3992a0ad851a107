"""Points prepared for grouping: shared sizes, open sizes, positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from sphemb import InputError
from sphemb.grouping import (
    append_positions,
    bucket_size,
    gbms,
    group_padded,
    kwik_cluster,
    label_modes,
    pad_points,
)
from sphemb.sphere import l2_normalize

RNG = np.random.default_rng(0)
M, D = 40, 5


def test_a_bucket_adds_a_quarter_at_most_and_there_are_four_per_octave():
    sizes = {n: bucket_size(n) for n in range(1, 5000)}
    assert all(n <= bucket <= n + max(0, (n - 1) // 4) for n, bucket in sizes.items())
    assert all(bucket_size(bucket) == bucket for bucket in sizes.values())
    for octave in (64, 1024):
        assert len({sizes[n] for n in range(octave + 1, 2 * octave + 1)}) == 4


def test_padding_adds_invalid_rows():
    x = np.ones((2, 9, 3), np.float32)
    mask = np.arange(9) < np.array([[4], [9]])
    padded = pad_points(x, mask=mask)
    assert padded.points.shape == (2, 10, 3)
    np.testing.assert_array_equal(padded.mask.sum(axis=1), [4, 9])
    np.testing.assert_array_equal(padded.points[:, :9], x)
    with pytest.raises(InputError, match=r"mask must have shape"):
        pad_points(x, mask=mask[:, :3])


def test_images_of_ten_sizes_are_grouped_by_two_programs():
    rng = np.random.default_rng(0)
    traces = []

    @jax.jit
    def count(points, mask):
        traces.append(points.shape)
        moved = gbms(points, concentration=25.0, num_steps=5, mask=mask)
        return label_modes(moved, max_groups=4, mask=mask).labels

    for num_points in range(33, 43):
        labels = rng.integers(2, size=num_points)
        x = np.eye(3, dtype=np.float32)[labels]
        found = count(*pad_points(x))[:num_points]
        alone = label_modes(x, max_groups=4).labels
        np.testing.assert_array_equal(found, alone)
    assert sorted({shape[0] for shape in traces}) == [40, 48]
    assert len(traces) == 2


def group(points, mask):
    moved = gbms(points[0], concentration=25.0, num_steps=3, mask=mask[0])
    return label_modes(moved[None], max_groups=4, min_size=2, mask=mask)


def cluster(points, mask):
    return kwik_cluster(jax.random.key(0), points, max_groups=4, mask=mask)


def grouped(function, with_mask):
    def call(points, mask):
        return group_padded(
            function, points, mask=mask if with_mask else None
        )._asdict()

    return call


def noisy_points(number):
    rng = np.random.default_rng(number)
    points = np.eye(3)[np.arange(number) % 3] + 0.1 * rng.standard_normal((number, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    mask = np.arange(number)[None] < number - 2
    return jnp.asarray(points[None], jnp.float32), jnp.asarray(mask)


@pytest.mark.parametrize("function", [group, cluster])
def test_a_symbol_gives_what_its_number_gives(function):
    (number,) = export.symbolic_shape("n", constraints=["n >= 9", "n <= 13"])
    arguments = (
        jax.ShapeDtypeStruct((1, number, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, number), bool),
    )
    call = grouped(function, with_mask=function is group)
    exported = export.export(jax.jit(call))(*arguments)
    for size in (9, 13):  # the first is filled up to 10, the other to 14
        points, mask = noisy_points(size)
        wanted, found = call(points, mask), exported.call(points, mask)
        assert found["labels"].shape == (1, size)
        assert int(wanted["num_groups"][0]) == 3
        for name in ("labels", "sizes", "num_groups"):
            np.testing.assert_array_equal(found[name], wanted[name])


def test_the_labels_have_the_length_of_the_points():
    points, mask = noisy_points(9)
    found = group_padded(group, points, mask=mask)
    assert found.labels.shape == (1, 9)
    np.testing.assert_array_equal(found.labels >= 0, mask)


def test_a_symbol_without_a_bound_is_refused():
    (number,) = export.symbolic_shape("n", constraints=["n >= 9"])
    call = grouped(group, with_mask=False)
    points = jax.ShapeDtypeStruct((1, number, 3), jnp.float32)
    with pytest.raises(InputError, match=r"at most 16,777,216, got n without such"):
        export.export(jax.jit(lambda points: call(points, None)))(points)


class TestAppendPositions:
    x = np.asarray(l2_normalize(RNG.normal(size=(2, M, D)).astype(np.float32)))
    positions = RNG.uniform(0, 6, (2, M, 2)).astype(np.float32)

    def test_the_kernel_is_the_product_of_both(self):
        joint = append_positions(
            self.x, self.positions, concentration=7.0, spatial_bandwidth=3.0
        )
        assert joint.concentration == 23.0
        found = joint.concentration * np.einsum(
            "bnd,bmd->bnm", joint.points, joint.points
        )
        apart = self.positions[:, :, None] - self.positions[:, None]
        position = 8 * np.cos(apart / (np.sqrt(8) * 3.0)).sum(axis=-1)
        expected = 7.0 * np.einsum("bnd,bmd->bnm", self.x, self.x) + position
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_near_positions_have_a_gaussian_kernel_of_the_bandwidth(self):
        positions = np.linspace(0, 1.5, 7)[:, None]
        joint = append_positions(
            np.ones((7, 1)), positions, concentration=1.0, spatial_bandwidth=4.0
        )
        found = joint.concentration * (joint.points @ joint.points[0] - 1)
        np.testing.assert_allclose(found, -(positions[:, 0] ** 2) / 32, atol=6e-4)

    def test_the_points_are_unit_vectors(self):
        joint = append_positions(
            self.x, self.positions, concentration=7.0, spatial_bandwidth=3.0
        )
        lengths = np.linalg.norm(joint.points, axis=-1)
        np.testing.assert_allclose(lengths, 1.0, rtol=1e-6)

    def test_equal_embeddings_far_from_each_other_are_two_groups(self):
        position = np.concatenate(
            [RNG.normal(0, 1, (20, 2)), RNG.normal(9, 1, (20, 2))]
        )
        alike = jnp.tile(jnp.array([1.0, 0.0]), (M, 1))
        joint = append_positions(
            alike, position, concentration=3.0, spatial_bandwidth=3.0
        )
        modes = gbms(joint.points, concentration=joint.concentration, num_steps=10)
        labels = np.asarray(label_modes(modes, threshold=0.9, max_groups=8).labels)
        assert len(set(labels[:20])) == len(set(labels[20:])) == 1
        assert labels[0] != labels[20]

    def test_other_numbers_of_points_are_refused(self):
        with pytest.raises(InputError, match="positions must have shape"):
            append_positions(
                self.x, self.positions[:, 1:], concentration=1.0, spatial_bandwidth=1.0
            )
        with pytest.raises(
            InputError, match="spatial_bandwidth must satisfy 0 < spatial_bandwidth"
        ):
            append_positions(
                self.x, self.positions, concentration=1.0, spatial_bandwidth=0.0
            )
