"""Groups read off points that lie around a few modes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphemb.grouping as grouping
from sphemb._checks import VOID, InputError
from tests.references import grouping as reference

N, D = 60, 3

label = jax.jit(
    grouping.label_modes, static_argnames=("max_groups", "min_size", "unassigned")
)


@pytest.fixture(scope="module")
def scattered() -> np.ndarray:
    """Points that no threshold parts cleanly."""
    x, _ = reference.sphere_points(np.random.default_rng(1), N, D, spread=0.4)
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return np.random.default_rng(2).uniform(size=N) < 0.7


class TestAgainstTheOracle:
    @pytest.mark.parametrize("threshold", [-0.5, 0.5, 0.9, 0.99])
    @pytest.mark.parametrize("unassigned", ["nearest", "void"])
    @pytest.mark.parametrize("min_size", [1, 4])
    def test_labels_and_modes_are_those_of_the_sequential_definition(
        self, scattered, mask, threshold, unassigned, min_size
    ):
        settings = dict(
            threshold=threshold, max_groups=9, min_size=min_size, unassigned=unassigned
        )
        found = label(scattered, mask=mask, **settings)
        labels, modes = reference.label_modes(scattered, mask=mask, **settings)
        np.testing.assert_array_equal(found.labels, labels)
        assert found.num_groups == len(modes)
        np.testing.assert_allclose(found.modes[: len(modes)], modes, atol=1e-5)
        np.testing.assert_array_equal(found.modes[len(modes) :], 0.0)
        counts = np.bincount(labels[labels != VOID], minlength=9)
        np.testing.assert_array_equal(found.sizes, counts)
        assert (np.diff(found.sizes) <= 0).all()
        assert (found.labels[~mask] == VOID).all()
        assert found.labels.dtype == found.sizes.dtype == jnp.int32


class TestBehaviour:
    def test_mean_shift_then_labels_give_the_groups_back(self):
        centers = np.eye(4)[:3].repeat([30, 20, 10], axis=0)
        noise = 0.05 * np.random.default_rng(3).normal(size=centers.shape)
        x = centers + noise
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        gathered = grouping.gbms(x, concentration=36.0, num_steps=5)
        found = grouping.label_modes(gathered, max_groups=8)
        np.testing.assert_array_equal(
            found.labels, np.repeat(np.arange(3), [30, 20, 10])
        )
        np.testing.assert_array_equal(found.sizes, [30, 20, 10, 0, 0, 0, 0, 0])
        np.testing.assert_allclose(found.modes[:3], np.eye(4)[:3], atol=0.05)

    def test_equal_sizes_are_numbered_in_the_order_of_their_seeds(self):
        x = np.eye(3, dtype=np.float32)[[2, 0, 1, 0, 1, 2]]
        found = grouping.label_modes(x, max_groups=5)
        np.testing.assert_array_equal(found.labels, [0, 1, 2, 1, 2, 0])

    def test_points_beyond_the_last_group_are_unassigned(self, scattered):
        settings = dict(threshold=0.99, max_groups=2)
        void = grouping.label_modes(scattered, unassigned="void", **settings)
        near = grouping.label_modes(scattered, unassigned="nearest", **settings)
        assert (void.labels == VOID).any()
        assert (near.labels != VOID).all()
        assert near.sizes.sum() == N
        # The limit was reached: as many points are left as the groups do not take.
        assert void.num_left == near.num_left == (np.asarray(void.labels) == VOID).sum()

    def test_no_point_is_left_below_the_limit_of_groups(self, scattered, mask):
        dissolved = dict(threshold=0.9, max_groups=N, min_size=5, unassigned="void")
        found = grouping.label_modes(scattered, mask=mask, **dissolved)
        assert (np.asarray(found.labels)[mask] == VOID).any()
        assert found.num_left == 0

    def test_no_group_large_enough_leaves_void(self, scattered):
        found = grouping.label_modes(scattered, max_groups=5, min_size=N + 1)
        assert (found.labels == VOID).all()
        assert found.num_groups == 0

    def test_masked_points_and_zero_rows_change_nothing(self, scattered, mask):
        spoilt = np.where(mask[:, None], scattered, np.nan)
        settings = dict(max_groups=9, mask=mask)
        found = grouping.label_modes(spoilt, **settings)
        same = grouping.label_modes(scattered, **settings)
        jax.tree.map(np.testing.assert_array_equal, found, same)
        zeros = grouping.label_modes(np.zeros((5, D), np.float32), max_groups=3)
        assert not np.isnan(zeros.modes).any()
        nothing = grouping.label_modes(scattered[:0], max_groups=3)
        assert nothing.labels.shape == (0,)

    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_rows_that_are_not_finite_are_void_and_spoil_no_other(
        self, scattered, broken
    ):
        spoilt = scattered.copy()
        spoilt[[0, 7], [1, 2]] = broken
        finite = np.isfinite(spoilt).all(axis=1)
        found = grouping.label_modes(spoilt, max_groups=9)
        same = grouping.label_modes(scattered, max_groups=9, mask=finite)
        assert (found.labels[~finite] == VOID).all()
        assert (found.labels[finite] != VOID).all()
        jax.tree.map(np.testing.assert_array_equal, found, same)

    def test_half_precision_is_grouped_in_single(self, scattered):
        half = jnp.asarray(scattered, jnp.bfloat16)
        found = grouping.label_modes(half, max_groups=9)
        same = grouping.label_modes(half.astype(jnp.float32), max_groups=9)
        jax.tree.map(np.testing.assert_array_equal, found, same)

    def test_no_gradient_flows_and_none_is_refused(self, scattered):
        slope = jax.grad(lambda x: grouping.label_modes(x, max_groups=9).modes.sum())
        np.testing.assert_array_equal(slope(scattered), 0.0)


class TestComposition:
    def test_batch_axes_jit_and_vmap_are_a_loop(self, scattered, mask):
        x = np.stack([scattered, -scattered[::-1], scattered[:, ::-1]])
        counts = np.stack([mask, mask[::-1], ~mask])

        @jax.jit
        def run(x, counts):
            return grouping.label_modes(x, mask=counts, max_groups=9, min_size=3)

        together = run(x, counts)
        mapped = jax.jit(jax.vmap(run))(x, counts)
        nested = run(x[None], counts[None])
        for index in range(3):
            alone = run(x[index], counts[index])
            for found in (together, mapped, jax.tree.map(lambda a: a[0], nested)):
                jax.tree.map(
                    lambda a, b, i=index: np.testing.assert_allclose(
                        a[i], b, atol=1e-6
                    ),
                    found,
                    alone,
                )

    def test_a_shape_is_traced_once_for_all_thresholds(self, scattered):
        traces = []

        @jax.jit
        def run(x, threshold):
            traces.append(x.shape)
            return grouping.label_modes(x, threshold=threshold, max_groups=9)

        sizes = [int(run(scattered, t).num_groups) for t in (0.0, 0.5, 0.9)]
        assert sizes == sorted(sizes)
        assert len(traces) == 1


X = np.zeros((4, 9, 3), np.float32)


@pytest.mark.parametrize(
    ("embeddings", "settings", "message"),
    [
        (X[0, 0], {}, "embeddings must have shape"),
        (X.astype(int), {}, "embeddings must be floating point"),
        (X, {"threshold": 1.0}, "threshold must satisfy -1.0 < .* it is a cosine"),
        (X, {"threshold": -1.0}, "threshold must satisfy"),
        (X, {"max_groups": 0}, "max_groups must be >= 1, got 0"),
        (X, {"max_groups": 2.0}, "max_groups must be a Python int"),
        (X, {"min_size": 0}, "min_size must be >= 1, got 0"),
        (
            X,
            {"unassigned": "drop"},
            "unassigned must be one of 'nearest', 'void', got 'drop'",
        ),
        (X, {"mask": np.ones(9, bool)}, r"mask must have shape .* got \(9,\)"),
        (X, {"mask": np.ones((4, 9))}, "mask must be bool"),
    ],
)
def test_a_mistake_is_named(embeddings, settings, message):
    with pytest.raises(InputError, match=message):
        grouping.label_modes(embeddings, **({"max_groups": 4} | settings))
