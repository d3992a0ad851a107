"""Plain weighted means, such as those of losses."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp

from sphemb._checks import InputError, check_shape
from sphemb.metrics._sums import Sums, ratio


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Average(Sums):
    r"""A weighted mean over a whole data set.

    .. math:: \bar v = \sum_i w_i v_i \big/ \sum_i w_i

    Attributes:
        sum_values: the sum of weight times value.
        sum_weights: the sum of the weights.

    >>> Average.from_batch(
    ...     jnp.array([1.0, 2.0, 9.0]), weights=jnp.array([1.0, 1.0, 0.0])
    ... ).compute()
    {'mean': 1.5}
    """

    sum_values: jax.Array
    sum_weights: jax.Array

    @classmethod
    def from_batch(cls, values: jax.Array, *, weights: jax.Array | None = None) -> Self:
        """Sums the values of a batch.

        Args:
            values: numbers [...]; those of weight 0 may be anything, NaN too.
            weights: numbers or bool of the same shape; all 1 where left out.

        Returns:
            The metric of this batch.

        Raises:
            InputError: weights of another shape, complex or non-numeric values.
        """
        values = jnp.asarray(values)
        if jnp.issubdtype(values.dtype, jnp.complexfloating):
            raise InputError(f"values must be real numbers, got {values.dtype}")
        values = values.astype(jnp.float32)
        if weights is None:
            weights = jnp.ones_like(values)
        else:
            check_shape(
                "weights", weights, "...", dims={"...": values.shape}, beside="values"
            )
        weights = jnp.asarray(weights).astype(jnp.float32)
        weighted = jnp.where(weights == 0, 0.0, weights * values)
        return cls(sum_values=jnp.sum(weighted), sum_weights=jnp.sum(weights))

    def compute(self) -> dict[str, float]:
        """The mean under the name ``mean``; NaN where all weights are 0."""
        return {"mean": ratio(self.sum_values, self.sum_weights)}
