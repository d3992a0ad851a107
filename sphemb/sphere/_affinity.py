r"""The oracle affinity, its graph Laplacian and their spectrum, for small N.

Letters: N points of D entries, K groups with :math:`n_q` points each. The affinity of a
partition is 1 where two points share a group. Deep spectral clustering learns the top
eigenvectors of a Laplacian of it, which have a closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import VOID, check_count, check_integer, check_shape


class OracleSpectrum(NamedTuple):
    r"""The spectral decomposition of Theorem 2.1, see :func:`oracle_spectrum`."""

    eigenvalues: jax.Array  # [..., K] of L, n_q^2, descending; 0 beyond the groups
    # [..., N, K], V_o: orthonormal columns, zero beyond the groups
    eigenvectors: jax.Array
    # [..., N, K], V = V_o Lambda^(1/4): one-hot rows, zero for void points and those of
    # a group beyond K
    embedding: jax.Array


def oracle_affinity(labels: jax.Array) -> jax.Array:
    r"""The oracle kernel, :math:`A_{ij} = 1_{[y_i = y_j]}`, float32 [..., N, N].

    Labels are int [..., N], any values; rows and columns of ``VOID`` (-1) are zero.

    References:
        Barnes & Dubrawski, "Deep spectral clustering for object instance segmentation",
        ICLR 2018 workshop, section 2.1.

    >>> oracle_affinity(jnp.array([4, 7, 4])).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """
    check_shape("labels", labels, "... N")
    check_integer("labels", labels)
    labels = jnp.asarray(labels)
    same = labels[..., :, None] == labels[..., None, :]
    return (same & (labels != VOID)[..., None]).astype(jnp.result_type(float))


def oracle_laplacian(labels: jax.Array) -> jax.Array:
    r"""The graph Laplacian of Theorem 2.1, of labels [..., N]; float32 [..., N, N].

    .. math:: L = A D, \qquad D = \mathrm{diag}(A \mathbf 1)

    It is symmetric and positive semi-definite: all points of a group have one degree.

    >>> oracle_laplacian(jnp.array([4, 7, 4])).tolist()
    [[2.0, 0.0, 2.0], [0.0, 1.0, 0.0], [2.0, 0.0, 2.0]]
    """
    affinity = oracle_affinity(labels)
    return affinity * jnp.sum(affinity, axis=-2, keepdims=True)


def oracle_spectrum(labels: jax.Array, *, num_groups: int) -> OracleSpectrum:
    r"""The spectrum of :func:`oracle_laplacian` in closed form.

    .. math:: L = V_o \Lambda V_o^\top, \qquad \lambda_q = n_q^2, \qquad
              (V_o)_{iq} = 1_{[i \in q]} / \sqrt{n_q}

    The affinity has the same eigenvectors, with the eigenvalues :math:`n_q`. The rows
    of :math:`V = V_o \Lambda^{1/4}` have length one and :math:`V V^\top = A`: unit
    vectors with these products determine the groups. This needs as many dimensions as
    groups; any rotation of V serves as well.

    Args:
        labels: int [..., N].
        num_groups: K; static, at least the number of groups.

    References:
        Barnes & Dubrawski, Theorem 2.1.

    >>> spectrum = oracle_spectrum(jnp.array([4, 7, 4]), num_groups=2)
    >>> spectrum.eigenvalues.tolist(), spectrum.embedding.tolist()
    ([4.0, 1.0], [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    """
    sizes = check_shape("labels", labels, "... N")
    check_integer("labels", labels)
    check_count("num_groups", num_groups, at_least=1)
    labels = jnp.asarray(labels)
    affinity = oracle_affinity(labels)
    # The first point stands for its group.
    earlier = jnp.tril(affinity, k=-1).sum(axis=-1)
    degrees = jnp.where((earlier == 0) & (labels != VOID), affinity.sum(axis=-1), 0.0)
    missing = max(0, num_groups - sizes["N"])
    # Not top_k, for which a compiler gathers a sharded batch.
    firsts = jnp.argsort(-degrees, axis=-1)[..., : min(num_groups, sizes["N"])]
    counts = jnp.take_along_axis(degrees, firsts, axis=-1)
    columns = jnp.take_along_axis(affinity, firsts[..., None, :], axis=-1)
    embedding = jnp.where(counts[..., None, :] > 0, columns, 0.0)

    def widen(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])

    lengths = jnp.sqrt(jnp.maximum(counts, 1.0))
    return OracleSpectrum(
        eigenvalues=widen(jnp.square(counts)),
        eigenvectors=widen(embedding / lengths[..., None, :]),
        embedding=widen(embedding),
    )


def affinity_error(gram: jax.Array, sums: jax.Array, weights: jax.Array) -> jax.Array:
    r"""Squared Frobenius distance of V Vᵀ from an affinity, without N x N arrays.

    .. math:: \lVert V V^\top - A \rVert_F^2 = \lVert V^\top V \rVert_F^2
              - 2 \sum_q \lVert s_q \rVert^2 + \sum_q n_q^2, \qquad
              s_q = \sum_{i \in q} v_i

    With weights w of the points, a pair has weight :math:`w_i w_j`, and the moments are
    ``gram`` :math:`V^\top W V`, [..., D, D], ``sums`` :math:`\sum_{i \in q} w_i v_i`,
    [..., K, D], and ``weights`` :math:`W_q`, [..., K]. The result, [...], is over all
    ordered pairs, :math:`i = j` included. The terms cancel: a distance far below the
    number of pairs has few digits left.

    >>> v, labels = jnp.eye(2)[jnp.array([0, 0, 1])], jnp.array([0, 1, 1])
    >>> one_hot = jax.nn.one_hot(labels, 2)
    >>> float(affinity_error(v.T @ v, one_hot.T @ v, one_hot.sum(axis=0)))
    4.0
    """
    own = check_shape("sums", sums, "... K D")
    check_shape("gram", gram, "... D D", dims=own, beside="sums")
    check_shape("weights", weights, "... K", dims=own, beside="sums")
    return (
        jnp.sum(jnp.square(gram), axis=(-2, -1))
        - 2.0 * jnp.sum(jnp.square(sums), axis=(-2, -1))
        + jnp.sum(jnp.square(weights), axis=-1)
    )
