"""Contingency tables of two labelings of the same N points, dense or sparse."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import (
    VOID,
    InputError,
    check_count,
    check_integer,
    check_mask,
    check_shape,
)

TABLE_BYTES = 2**28
"""Larger tables are replaced by the nonzero pairs, which are counted on the host."""


def table_fits(cells: int, *labels: Any) -> bool:
    """Whether int32 tables of so many cells in all, of all images, are small enough.

    With a tracer among the labels that are counted only tables are possible.
    """
    traced = any(isinstance(one, jax.core.Tracer) for one in labels)
    return traced or 4 * cells <= TABLE_BYTES


def _check_labels(
    predicted: Any, truth: Any, mask: Any, num_predicted: int, num_true: int
) -> None:
    check_integer("predicted", predicted)
    check_integer("truth", truth)
    check_count("num_predicted", num_predicted)
    check_count("num_true", num_true)
    dims = check_shape("predicted", predicted, "... N")
    check_shape("truth", truth, "... N", dims=dims, beside="predicted")
    check_mask("mask", mask, "... N", dims=dims, beside="predicted")


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

    Every valid point is counted: the last row has the points whose predicted label is
    not in 0..P-1, and the last column those whose true label is Q or above. Void points
    (truth below 0) and points outside the mask count nowhere.

    Labels are int [..., N], the mask is bool, the table int32 [..., P+1, Q+1]. P is
    ``num_predicted``, Q ``num_true``, both static: n + 1 for a background 0 and
    instances 1..n.

    >>> predicted = jnp.array([0, 0, 1, 1, -1])
    >>> truth = jnp.array([0, 1, 1, -1, 1])
    >>> overlap_table(predicted, truth, num_predicted=2, num_true=2).tolist()
    [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    """
    _check_labels(predicted, truth, mask, num_predicted, num_true)
    predicted, truth = jnp.asarray(predicted), jnp.asarray(truth)
    valid = truth >= 0
    if mask is not None:
        valid &= jnp.asarray(mask)
    rows, columns = num_predicted + 1, num_true + 1
    if rows * columns >= 2**31:
        raise InputError(
            f"num_predicted {num_predicted} and num_true {num_true} must give a table "
            f"of fewer than 2^31 cells, got {rows * columns:,}: use overlap_pairs"
        )
    in_range = (predicted >= 0) & (predicted < num_predicted)
    row = jnp.where(in_range, predicted, num_predicted).astype(jnp.int32)
    column = jnp.clip(truth, 0, num_true).astype(jnp.int32)
    # A scatter is linear in N whatever P and Q are; a product of one-hot rows is not.
    cell = jnp.where(valid, row * columns + column, rows * columns)

    def count(cells: jax.Array) -> jax.Array:
        return jnp.zeros(rows * columns, jnp.int32).at[cells].add(1, mode="drop")

    batch = predicted.shape[:-1]
    table = jax.vmap(count)(cell.reshape(math.prod(batch), predicted.shape[-1]))
    return table.reshape(*batch, rows, columns)


class OverlapPairs(NamedTuple):
    """The nonzero cells of an :func:`overlap_table` of one image."""

    rows: np.ndarray  # int64 [M], in rising order
    columns: np.ndarray  # int64 [M], in rising order within a row
    counts: np.ndarray  # int64 [M]
    row_sizes: np.ndarray  # int64 [P+1], sums over columns
    column_sizes: np.ndarray  # int64 [Q+1], sums over rows

    def within(self, rows: slice, columns: slice) -> OverlapPairs:
        """The pairs of a range of rows and columns; the sizes stay those of all."""
        kept = (self.rows >= (rows.start or 0)) & (self.rows < rows.stop)
        kept &= (self.columns >= (columns.start or 0)) & (self.columns < columns.stop)
        cells = (self.rows[kept], self.columns[kept], self.counts[kept])
        return OverlapPairs(*cells, self.row_sizes, self.column_sizes)

    @property
    def table(self) -> np.ndarray:
        """The counts as a table, int64 [P+1, Q+1]."""
        table = np.zeros((len(self.row_sizes), len(self.column_sizes)), np.int64)
        table[self.rows, self.columns] = self.counts
        return table

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
    """Counts the nonzero cells of an :func:`overlap_table`, in NumPy.

    O(N log N) time and O(N + P + Q) memory: for images with thousands of labels. All
    arrays are of one image and of any one shape.

    >>> pairs = overlap_pairs(np.array([0, 0, 1, 1, -1]), np.array([0, 1, 1, -1, 1]),
    ...                       num_predicted=2, num_true=2)
    >>> list(zip(pairs.rows.tolist(), pairs.columns.tolist(), pairs.counts.tolist()))
    [(0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 1, 1)]
    """
    _check_labels(predicted, truth, mask, num_predicted, num_true)
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    valid = truth >= 0
    if mask is not None:
        valid = valid & np.asarray(mask)
    row = predicted[valid].astype(np.int64)
    row = np.where((row >= 0) & (row < num_predicted), row, num_predicted)
    column = np.minimum(truth[valid].astype(np.int64), num_true)
    cells, numbers = np.unique(row * (num_true + 1) + column, return_counts=True)
    rows, columns = np.divmod(cells, num_true + 1)
    return OverlapPairs(
        rows,
        columns,
        numbers.astype(np.int64),
        np.bincount(row, minlength=num_predicted + 1),
        np.bincount(column, minlength=num_true + 1),
    )


def relabel(labels: jax.Array, background: jax.Array | int) -> jax.Array:
    """Turns group ids 0..G-1 into instance ids with 0 for the background.

    The background's group becomes 0 and the others 1..G-1 in the order of their ids,
    without gaps where the ids had none. Negative labels become void. The background is
    int, a group for each of the leading axes of ``labels`` that it has; -1 for none.

    >>> relabel(jnp.array([0, 1, 2, -1]), 1).tolist()
    [1, 0, 2, -1]
    """
    check_integer("labels", labels)
    check_integer("background", background)
    labels, background = jnp.asarray(labels), jnp.asarray(background)
    leading = background.shape
    dims, hint = {"...": labels.shape[: len(leading)]}, "one group id per image"
    check_shape("background", background, "...", dims=dims, beside="labels", hint=hint)
    background = background.reshape(leading + (1,) * (labels.ndim - len(leading)))
    above = (labels < background) | (background < 0)
    shifted = labels + above.astype(labels.dtype)
    instances = jnp.where(labels == background, 0, shifted)
    return jnp.where(labels < 0, VOID, instances).astype(jnp.int32)
