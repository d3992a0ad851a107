"""Contingency tables of predicted and true labels, and group ids as instance ids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics.cluster

from sphemb._checks import InputError
from sphemb.instances import overlap_table, relabel
from tests.references import metrics as reference

P, Q = 4, 5
table_of = jax.jit(functools.partial(overlap_table, num_predicted=P, num_true=Q))


def drawn(seed=0, batch=3, n=60):
    rng = np.random.default_rng(seed)
    predicted = rng.integers(-1, P + 2, (batch, n))
    truth = rng.integers(-1, Q + 2, (batch, n))
    return predicted, truth, rng.random((batch, n)) < 0.7


class TestOverlapTable:
    def test_counts_what_a_loop_counts(self):
        predicted, truth, mask = drawn()
        table = table_of(predicted, truth, mask=mask)
        expected = [
            reference.overlap_table(p, t, P, Q, m)
            for p, t, m in zip(predicted, truth, mask, strict=True)
        ]
        assert table.dtype == jnp.int32
        np.testing.assert_array_equal(table, expected)

    def test_agrees_with_the_contingency_matrix_of_scikit_learn(self):
        rng = np.random.default_rng(1)
        predicted = np.concatenate([np.arange(P), rng.integers(0, P, 60 - P)])
        truth = np.concatenate([np.arange(Q), rng.integers(0, Q, 60 - Q)])
        expected = sklearn.metrics.cluster.contingency_matrix(truth, predicted).T
        table = overlap_table(predicted, truth, num_predicted=P, num_true=Q)
        np.testing.assert_array_equal(table[:P, :Q], expected)
        assert int(table.sum()) == 60

    def test_every_counting_point_is_in_exactly_one_cell(self):
        predicted, truth, mask = drawn(2)
        table = table_of(predicted, truth, mask=mask)
        np.testing.assert_array_equal(
            table.sum((1, 2)), np.sum(mask & (truth >= 0), axis=1)
        )

    def test_void_and_masked_points_count_nowhere(self):
        predicted, truth, mask = drawn(3)
        voided = np.where(mask, truth, -1)
        np.testing.assert_array_equal(
            table_of(predicted, truth, mask=mask),
            table_of(predicted, voided, mask=np.ones_like(mask)),
        )

    def test_the_order_of_points_does_not_matter(self):
        predicted, truth, mask = drawn(4)
        order = np.random.default_rng(5).permutation(60)
        np.testing.assert_array_equal(
            table_of(predicted, truth, mask=mask),
            table_of(predicted[:, order], truth[:, order], mask=mask[:, order]),
        )

    def test_vmap_leading_axes_and_single_images_agree(self):
        predicted, truth, _ = drawn(6)
        whole = overlap_table(predicted, truth, num_predicted=P, num_true=Q)
        mapped = jax.vmap(functools.partial(overlap_table, num_predicted=P, num_true=Q))
        np.testing.assert_array_equal(
            whole, mapped(jnp.asarray(predicted), jnp.asarray(truth))
        )
        np.testing.assert_array_equal(
            whole[1], overlap_table(predicted[1], truth[1], num_predicted=P, num_true=Q)
        )

    def test_no_points_give_an_empty_table(self):
        empty = jnp.zeros((2, 0), jnp.int32)
        table = overlap_table(empty, empty, num_predicted=P, num_true=Q)
        assert table.shape == (2, P + 1, Q + 1)
        assert not table.any()

    def test_complaints_name_the_argument(self):
        labels = jnp.zeros((2, 6), jnp.int32)
        sizes = {"num_predicted": P, "num_true": Q}
        with pytest.raises(InputError, match=r"truth must have shape .*\(2, 5\)"):
            overlap_table(labels, labels[:, :5], **sizes)
        with pytest.raises(InputError, match="predicted must be integers"):
            overlap_table(labels.astype(float), labels, **sizes)
        with pytest.raises(InputError, match="mask must be bool"):
            overlap_table(labels, labels, mask=labels, **sizes)
        with pytest.raises(InputError, match="num_true must be >= 0"):
            overlap_table(labels, labels, num_predicted=P, num_true=-1)


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
