"""Theorem 2.1 of deep spectral clustering, against NumPy's eigenvalues."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphemb import VOID, InputError, sphere
from tests.references import spectral as reference
from tests.references.sphere import unit_rows

LABELS = np.array([5, 5, VOID, 0, 9, 9, 9, 0, 5, 9, VOID, 7])
SIZES = [4, 3, 2, 1]
spectrum_of = jax.jit(sphere.oracle_spectrum, static_argnames="num_groups")


class TestTheorem21:
    def test_the_affinity_is_one_within_a_group(self):
        found = sphere.oracle_affinity(jnp.asarray(LABELS))
        np.testing.assert_array_equal(found, reference.affinity(LABELS))

    def test_the_laplacian_is_a_times_d_symmetric_and_positive_semidefinite(self):
        affinity = reference.affinity(LABELS)
        found = np.asarray(sphere.oracle_laplacian(jnp.asarray(LABELS)))
        np.testing.assert_array_equal(found, affinity @ np.diag(affinity.sum(axis=1)))
        np.testing.assert_array_equal(found, found.T)
        assert np.linalg.eigvalsh(found.astype(float)).min() > -1e-12

    def test_its_eigenvalues_are_the_squared_sizes_and_the_affinitys_the_sizes(self):
        eigenvalues = spectrum_of(LABELS, num_groups=4).eigenvalues
        np.testing.assert_array_equal(eigenvalues, np.square(SIZES))
        affinity = reference.affinity(LABELS)
        for matrix, top in (
            (affinity @ np.diag(affinity.sum(axis=1)), np.square(SIZES)),
            (affinity, SIZES),
        ):
            found = np.linalg.eigvalsh(matrix)[::-1]
            np.testing.assert_allclose(found[:4], top, atol=1e-12)
            np.testing.assert_allclose(found[4:], 0.0, atol=1e-12)

    def test_the_eigenvectors_are_orthonormal_and_decompose_the_laplacian(self):
        values, vectors, _ = map(np.asarray, spectrum_of(LABELS, num_groups=4))
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-6)
        found = vectors @ np.diag(values) @ vectors.T
        np.testing.assert_allclose(found, sphere.oracle_laplacian(LABELS), atol=1e-5)

    def test_their_fourth_roots_scale_them_to_unit_rows_with_the_affinity(self):
        values, vectors, embedding = map(np.asarray, spectrum_of(LABELS, num_groups=4))
        np.testing.assert_allclose(vectors * values**0.25, embedding, atol=1e-6)
        np.testing.assert_array_equal(
            embedding @ embedding.T, reference.affinity(LABELS)
        )
        np.testing.assert_array_equal((embedding**2).sum(axis=1), LABELS != VOID)

    def test_unused_groups_are_zero_and_a_batch_is_a_loop(self):
        batch = jnp.stack([jnp.asarray(LABELS), jnp.zeros(12, int)])
        found = spectrum_of(batch, num_groups=15)
        alone = spectrum_of(LABELS, num_groups=15)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), found, alone)
        np.testing.assert_array_equal(alone.eigenvalues[4:], 0.0)
        np.testing.assert_array_equal(alone.embedding[:, 4:], 0.0)
        np.testing.assert_array_equal(found.eigenvalues[1], [144.0] + [0.0] * 14)


class TestAffinityError:
    def test_is_the_frobenius_distance_of_any_vectors(self, x64):
        rng = np.random.default_rng(0)
        v = 2.0 * unit_rows(rng, 40, 5)
        labels = rng.integers(0, 3, 40)
        one_hot = np.eye(3)[labels]
        found = sphere.affinity_error(v.T @ v, one_hot.T @ v, one_hot.sum(axis=0))
        expected = reference.spectral_loss(v, labels, normalize="total")
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: sphere.oracle_affinity(jnp.zeros(3)), "labels must be integers"),
        (
            lambda: sphere.oracle_spectrum(jnp.zeros(3, int), num_groups=0),
            "num_groups must be >= 1, got 0",
        ),
        (
            lambda: sphere.affinity_error(jnp.eye(3), jnp.zeros((2, 4)), jnp.zeros(2)),
            r"gram must have shape .* \(4, 4\) to go with sums, got \(3, 3\)",
        ),
        (
            lambda: sphere.affinity_error(jnp.eye(3), jnp.zeros((2, 3)), jnp.zeros(3)),
            r"weights must have shape .* \(2,\) to go with sums, got \(3,\)",
        ),
    ],
)
def test_a_mistake_is_named(function, message):
    with pytest.raises(InputError, match=message):
        function()
