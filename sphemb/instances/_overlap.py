"""Contingency tables of two labelings of the same N points, dense or sparse."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import (
    InputError,
    check_boolean,
    check_count,
    check_integer,
    check_shape,
)

TABLE_BYTES = 2**28
"""Beyond it the host counts the pairs that there are, and not a table of all pairs."""


def table_fits(cells: int, *labels: Any) -> bool:
    """Whether tables with so many cells in all are made, of int32.

    Args:
        cells: of the tables of all images.
        labels: what is counted; where a tracer is among them there is no other way.
    """
    traced = any(isinstance(one, jax.core.Tracer) for one in labels)
    return traced or 4 * cells <= TABLE_BYTES


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
            not bool, a negative size, 2^31 cells of an image or more.

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
    if rows * columns >= 2**31:
        raise InputError(
            f"num_predicted {num_predicted} and num_true {num_true} must give a table "
            f"of fewer than 2^31 cells, got {rows * columns:,}: count pairs on the host"
        )
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


class OverlapPairs(NamedTuple):
    """The cells of an :func:`overlap_table` of one image that are not 0.

    Attributes:
        rows: int64 [M], in rising order.
        columns: int64 [M], in rising order within a row.
        counts: int64 [M].
        row_sizes: int64 [P+1], sums over columns.
        column_sizes: int64 [Q+1], sums over rows.
    """

    rows: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    row_sizes: np.ndarray
    column_sizes: np.ndarray

    def within(self, rows: slice, columns: slice) -> OverlapPairs:
        """The pairs of a range of rows and columns; the sizes stay those of all."""
        kept = (self.rows >= (rows.start or 0)) & (self.rows < rows.stop)
        kept &= (self.columns >= (columns.start or 0)) & (self.columns < columns.stop)
        cells = (self.rows[kept], self.columns[kept], self.counts[kept])
        return OverlapPairs(*cells, self.row_sizes, self.column_sizes)

    @property
    def unions(self) -> np.ndarray:
        """Points that either label of a pair has, int64 [M]."""
        either = self.row_sizes[self.rows] + self.column_sizes[self.columns]
        return either - self.counts


def overlap_pairs(
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    num_predicted: int,
    num_true: int,
    mask: np.ndarray | None = None,
) -> OverlapPairs:
    """Counts as :func:`overlap_table` does, on the host, without a cell for each pair.

    O(N log N) time and O(N + P + Q) memory: for images with thousands of labels.

    Args:
        predicted: int [...] labels of one image; row P takes those not in 0..P-1.
        truth: int, the same shape; column Q takes those of Q or above.
        num_predicted: P.
        num_true: Q.
        mask: bool, the same shape, True = counts; void counts nowhere.

    Returns:
        The :class:`OverlapPairs`.

    Raises:
        InputError: shapes that differ, labels that are not integers, a negative size.

    >>> pairs = overlap_pairs(np.array([0, 0, 1, 1, -1]), np.array([0, 1, 1, -1, 1]),
    ...                       num_predicted=2, num_true=2)
    >>> list(zip(pairs.rows.tolist(), pairs.columns.tolist(), pairs.counts.tolist()))
    [(0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 1, 1)]
    """
    check_integer("predicted", predicted)
    check_integer("truth", truth)
    check_count("num_predicted", num_predicted)
    check_count("num_true", num_true)
    predicted, truth = np.asarray(predicted).ravel(), np.asarray(truth).ravel()
    sizes = {"N": len(predicted)}
    check_shape("truth", truth, "N", dims=sizes, beside="predicted")
    counts = truth >= 0
    if mask is not None:
        check_boolean("mask", mask)
        flat = np.asarray(mask).ravel()
        check_shape("mask", flat, "N", dims=sizes, beside="predicted")
        counts = counts & flat
    row = predicted[counts].astype(np.int64)
    row = np.where((row >= 0) & (row < num_predicted), row, num_predicted)
    column = np.minimum(truth[counts].astype(np.int64), num_true)
    cells, numbers = np.unique(row * (num_true + 1) + column, return_counts=True)
    rows, columns = np.divmod(cells, num_true + 1)
    return OverlapPairs(
        rows,
        columns,
        numbers.astype(np.int64),
        np.bincount(row, minlength=num_predicted + 1),
        np.bincount(column, minlength=num_true + 1),
    )
