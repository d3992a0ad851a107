r"""Sums over all ordered pairs of points, :math:`\sum_{ij} w_i w_j \phi(x_i^\top x_j)`.

Letters: N points of D entries. The pairs are visited in tiles, so that neither the sum
nor any derivative holds an N x N array. The first derivative is taken in the forward
pass already, while a tile is at hand: :math:`\phi` depends on symmetric products, hence

.. math:: \frac{\partial}{\partial x_i} = 2 w_i \sum_j w_j \phi'(c_{ij})\, x_j
          \qquad \frac{\partial}{\partial w_i} = 2 \sum_j w_j \phi(c_{ij})

are sums over one row of tiles, and cost one more matmul. They are linear in the
tangents, so that a custom JVP serves forward and reverse mode alike; derivatives of
higher order go through the checkpointed tiles.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from sphemb._ring import AxisName, add_devices
from sphemb._tiles import Tiling, fold_tiles
from sphemb.losses._instances import instance_sums
from sphemb.sphere import pairwise_dot


class _Rows(NamedTuple):
    value: jax.Array  # [N] sum over j of w_j times the pair's value
    slope: jax.Array | None  # [N, D] sum over j of w_j times the slope times x_j
    step: jax.Array | None  # [N] sum over j of w_j times the slope


def _hinge(cosine, same, margin) -> tuple[jax.Array, jax.Array]:
    """Different instances above the margin: s - alpha."""
    active = ~same & (cosine > 2.0 * margin - 1.0)
    value = jnp.where(active, 0.5 * (1.0 + cosine) - margin, 0.0)
    return value, 0.5 * active.astype(cosine.dtype)


def _squared_hinge(cosine, same, margin) -> tuple[jax.Array, jax.Array]:
    """Different instances above the margin: (s - alpha)^2."""
    excess, _ = _hinge(cosine, same, margin)
    return jnp.square(excess), excess


def _squared_fall(cosine, same, margin) -> tuple[jax.Array, jax.Array]:
    """The same instance: 1 - s^2."""
    del margin
    similarity = 0.5 * (1.0 + cosine)
    value = jnp.where(same, 1.0 - jnp.square(similarity), 0.0)
    return value, jnp.where(same, -similarity, 0.0)


# Each returns [N, M] values and slopes in the cosine.
_TERMS = {
    "hinge": _hinge,
    "squared_hinge": _squared_hinge,
    "squared_fall": _squared_fall,
}


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def pair_sum(
    term: str,
    tiling: Tiling,
    x: jax.Array,
    weights: jax.Array,
    ids: jax.Array,
    margin: jax.Array,
) -> jax.Array:
    """Weighted sum of a term over all ordered pairs of one image.

    Args:
        term: ``"hinge"``, ``"squared_hinge"`` or ``"squared_fall"``.
        tiling: how to visit the pairs; static.
        x: [N, D] unit vectors.
        weights: [N], 0 for what does not count.
        ids: [N] instances.
        margin: [].

    Returns:
        [] the sum.
    """
    rows = _row_sums(term, tiling, x, weights, ids, margin)
    return add_devices(jnp.sum(weights * rows.value), tiling.axis_name)


@functools.partial(pair_sum.defjvp, symbolic_zeros=True)
def _pair_sum_jvp(term, tiling, primals, tangents):
    x, weights, ids, margin = primals
    x_tangent, weights_tangent, _, margin_tangent = (
        None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents
    )
    # s - alpha falls by one where the cosine, half of which is in s, rises by two.
    margin_moves = margin_tangent is not None and term != "squared_fall"
    rows = _row_sums(
        term,
        tiling,
        x,
        weights,
        ids,
        margin,
        slopes=x_tangent is not None,
        steps=margin_moves,
    )
    tangent = jnp.zeros((), x.dtype)
    if x_tangent is not None:
        tangent += 2.0 * jnp.sum((weights[:, None] * rows.slope) * x_tangent)
    if weights_tangent is not None:
        tangent += 2.0 * jnp.sum(rows.value * weights_tangent)
    if margin_moves:
        tangent -= 2.0 * jnp.sum(weights * rows.step) * margin_tangent
    return add_devices((jnp.sum(weights * rows.value), tangent), tiling.axis_name)


def _row_sums(
    term, tiling, x, weights, ids, margin, *, slopes=False, steps=False
) -> _Rows:
    """Sums the value, and what is asked for beside it, over the columns."""
    precision = tiling.precision

    def tile(total: _Rows, row, column) -> _Rows:
        cosine = pairwise_dot(row["x"], column["x"], precision=precision)
        same = row["ids"][:, None] == column["ids"][None, :]
        value, slope = _TERMS[term](cosine, same, margin)

        # Matmuls, because a reduction along the rows of a tile is slower on CPUs. One
        # for each, because one column more than D would cost a matmul more.
        def add(sums, pairs, weighted) -> Any:
            if sums is None:
                return None
            return sums + jnp.matmul(pairs, weighted, precision=precision)

        return _Rows(
            add(total.value, value, column["weights"]),
            add(total.slope, slope, column["moments"]),
            add(total.step, slope, column["weights"]),
        )

    points = {"x": x, "ids": ids}
    columns = points | {"weights": weights, "moments": weights[:, None] * x}
    zero = jnp.zeros(tiling.rows, x.dtype)
    initial = _Rows(
        value=zero,
        slope=jnp.zeros((tiling.rows, x.shape[-1]), x.dtype) if slopes else None,
        step=zero if steps else None,
    )
    return fold_tiles(tile, initial, points, columns, tiling)


def weight_within(
    weights: jax.Array, ids: jax.Array, *, axis_name: AxisName = None
) -> jax.Array:
    """Sum of w_i w_j over the pairs of one instance, [], of all instances."""
    total, place = instance_sums(weights, ids, axis_name=axis_name)
    return add_devices(jnp.sum(total[place] * weights), axis_name)


def within_sum(
    x: jax.Array, weights: jax.Array, ids: jax.Array, *, axis_name: AxisName = None
) -> jax.Array:
    r"""Sum of w_i w_j (1 - s_ij) over the pairs of one instance, in linear time.

    With :math:`W_q` the weight and :math:`\mu_q` the weighted mean of an instance,

    .. math:: \sum_{ij \in q} w_i w_j (1 - s_{ij}) = \frac{W_q}{2} \sum_{i \in q} w_i
              \left(1 - \lVert x_i \rVert^2 + \lVert x_i - \mu_q \rVert^2 \right)

    which on the sphere is :math:`\tfrac12 W_q^2 (1 - \lVert \mu_q \rVert^2)`, but does
    not cancel where an instance is tight and its mean nearly a unit vector.

    Args:
        x: [N, D] unit vectors.
        weights: [N], 0 for what does not count.
        ids: [N] what :func:`~sphemb.losses._instances.instance_ids` returns.
        axis_name: of the devices over which the points are spread.

    Returns:
        [] the sum over all instances.
    """
    weighted = (weights, weights[:, None] * x)
    (total, sums), place = instance_sums(weighted, ids, axis_name=axis_name)
    means = sums / jnp.where(total == 0, 1.0, total)[:, None]
    spread = jnp.sum(jnp.square(x - means[place]), axis=-1)
    lacking = 1.0 - jnp.sum(jnp.square(x), axis=-1)
    costs = jnp.sum(total[place] * weights * (lacking + spread))
    return 0.5 * add_devices(costs, axis_name)
