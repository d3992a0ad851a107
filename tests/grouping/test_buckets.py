"""Padding to few sizes: how many there are, and that images share programs."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from sphemb import grouping
from sphemb._checks import InputError


def test_a_bucket_adds_a_quarter_at_most_and_there_are_four_per_octave():
    sizes = {n: grouping.bucket_size(n) for n in range(1, 5000)}
    assert all(n <= bucket <= n + max(0, (n - 1) // 4) for n, bucket in sizes.items())
    assert all(grouping.bucket_size(bucket) == bucket for bucket in sizes.values())
    for octave in (64, 1024):
        assert len({sizes[n] for n in range(octave + 1, 2 * octave + 1)}) == 4


def test_padding_fills_up_and_counts_for_nothing():
    x = np.ones((2, 9, 3), np.float32)
    mask = np.arange(9) < np.array([[4], [9]])
    padded = grouping.pad_points(x, mask=mask)
    assert padded.points.shape == (2, 10, 3)
    np.testing.assert_array_equal(padded.mask.sum(axis=1), [4, 9])
    np.testing.assert_array_equal(padded.points[:, :9], x)
    with pytest.raises(InputError, match=r"mask must have shape"):
        grouping.pad_points(x, mask=mask[:, :3])


def test_images_of_ten_sizes_are_grouped_by_two_programs():
    rng = np.random.default_rng(0)
    traces = []

    @jax.jit
    def group(points, mask):
        traces.append(points.shape)
        moved = grouping.gbms(points, concentration=25.0, num_steps=5, mask=mask)
        return grouping.label_modes(moved, max_groups=4, mask=mask).labels

    for num_points in range(33, 43):
        labels = rng.integers(2, size=num_points)
        x = np.eye(3, dtype=np.float32)[labels]
        found = group(*grouping.pad_points(x))[:num_points]
        alone = grouping.label_modes(x, max_groups=4).labels
        np.testing.assert_array_equal(found, alone)
    assert sorted({shape[0] for shape in traces}) == [40, 48]
    assert len(traces) == 2
