"""Contingency tables of two labelings of the same N points."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import check_boolean, check_count, check_integer, check_shape


def overlap_table(
    predicted: jax.Array,
    truth: jax.Array,
    *,
    num_predicted: int,
    num_true: int,
    mask: jax.Array | None = None,
) -> jax.Array:
    r"""Counts the points that each predicted label shares with each true label.

    .. math:: n_{pq} = |\{i : \hat y_i = p,\ y_i = q\}|

    No point that counts is lost: one more row takes the points whose predicted label
    is not in 0..P-1 (stray points too, which carry a negative one), and one more
    column those whose true label is Q or above. Void points (truth below 0) and points
    outside the mask count nowhere, so that sums over rows and columns are the sizes of
    the groups and of the objects with the void removed.

    Args:
        predicted: int [..., N] labels; row p counts the points labelled p.
        truth: int [..., N] labels; column q counts the points labelled q.
        num_predicted: P, the number of rows before the last; static.
        num_true: Q, the number of columns before the last; static. A label map with
            background 0 and instances 1..n needs Q = n + 1.
        mask: bool [..., N], True = counts.

    Returns:
        int32 [..., P+1, Q+1] counts.

    Raises:
        InputError: shapes that differ, labels that are not integers, a mask that is
            not bool, a negative size.

    >>> predicted = jnp.array([0, 0, 1, 1, -1])
    >>> truth = jnp.array([0, 1, 1, -1, 1])
    >>> overlap_table(predicted, truth, num_predicted=2, num_true=2).tolist()
    [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    """
    check_integer("predicted", predicted)
    check_integer("truth", truth)
    check_count("num_predicted", num_predicted)
    check_count("num_true", num_true)
    dims = check_shape("predicted", predicted, "... N")
    check_shape("truth", truth, "... N", dims=dims, beside="predicted")
    predicted, truth = jnp.asarray(predicted), jnp.asarray(truth)
    counts = truth >= 0
    if mask is not None:
        check_boolean("mask", mask)
        check_shape("mask", mask, "... N", dims=dims, beside="predicted")
        counts &= jnp.asarray(mask)

    rows, columns = num_predicted + 1, num_true + 1
    in_range = (predicted >= 0) & (predicted < num_predicted)
    row = jnp.where(in_range, predicted, num_predicted).astype(jnp.int32)
    column = jnp.clip(truth, 0, num_true).astype(jnp.int32)
    # A scatter is linear in N whatever P and Q are; a product of one-hot rows is not.
    cell = jnp.where(counts, row * columns + column, rows * columns)

    def count(cells: jax.Array) -> jax.Array:
        return jnp.zeros(rows * columns, jnp.int32).at[cells].add(1, mode="drop")

    batch, num_points = predicted.shape[:-1], predicted.shape[-1]
    table = jax.vmap(count)(cell.reshape(math.prod(batch), num_points))
    return table.reshape(*batch, rows, columns)


def overlap_counts(
    predicted: np.ndarray, truth: np.ndarray, *, num_predicted: int, num_true: int
) -> np.ndarray:
    """Counts as :func:`overlap_table` does, on the host and without remainders.

    For the host's own work, where numbers differ from image to image, and compiling for
    each would take longer than counting.

    Args:
        predicted: int [...]; row p counts the points labelled p.
        truth: int, the same shape; column q counts the points labelled q.
        num_predicted: P. Points with another label count nowhere.
        num_true: Q. Points with another label count nowhere.

    Returns:
        int64 [P, Q].

    Raises:
        InputError: shapes that differ, labels that are not integers, a negative size.

    >>> overlap_counts(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]),
    ...                num_predicted=2, num_true=2).tolist()
    [[1, 1], [0, 1]]
    """
    check_integer("predicted", predicted)
    check_integer("truth", truth)
    check_count("num_predicted", num_predicted)
    check_count("num_true", num_true)
    predicted, truth = np.asarray(predicted).ravel(), np.asarray(truth).ravel()
    sizes = {"N": len(predicted)}
    check_shape("truth", truth, "N", dims=sizes, beside="predicted")
    counts = (predicted >= 0) & (predicted < num_predicted)
    counts &= (truth >= 0) & (truth < num_true)
    pairs = predicted[counts].astype(np.int64) * num_true + truth[counts]
    table = np.bincount(pairs, minlength=num_predicted * num_true)
    return table.reshape(num_predicted, num_true)
