r"""One step of Gaussian blurring mean shift, its kernel, and its gradient.

Letters: N points, D dimensions. With rows x_i, a weight w_j >= 0 of every point as a
*key* (a number n stands for n equal points) and concentration kappa,

.. math::
    e_{ij} = e^{\kappa (x_i^\top x_j - 1)}, \quad d_i = \sum_j w_j e_{ij}, \quad
    M_i = \tfrac1{d_i} \sum_j w_j e_{ij} x_j, \quad
    z_i = \frac{(1 - \eta) x_i + \eta M_i}{\|(1 - \eta) x_i + \eta M_i\|}.

The cosine of unit rows is at most 1, so the exponent needs no running maximum, and e is
symmetric. Hence, for a cotangent m_i of M_i, with g_i = m_i / (w_i d_i), 0 where no
point moves, and c_i = g_i^T M_i,

.. math::
    T_{ij} = (g_i^\top x_j - c_i) + (g_j^\top x_i - c_j), \quad H = e \odot T

is symmetric too, and all gradients are sums along rows of tiles, in which the weights
belong to the columns only:

.. math::
    h_i = \sum_j H_{ij} w_j (x_j, 1), \quad s_i = \sum_j e_{ij} w_j (g_j, c_j), \\
    \bar x_i = w_i (\kappa\, h_i^x + s_i^g), \quad
    \bar w_i = x_i^\top s_i^g - s_i^c, \quad
    \bar\kappa = \tfrac12 \sum_i w_i (x_i^\top h_i^x - h_i^1).

On CPUs in float32 an exponential for exponents :math:`t \le 0` costs a third less than
the general one: with :math:`t \log_2 e = n + f`, n whole and :math:`|f| \le 1/2`,

.. math:: e^t = 2^n p(f), \qquad p(f) = 1 + c_1 f + \dots + c_5 f^5 \approx 2^f,

where p has the minimax relative error, 9.2e-8 before and 1.7e-7 after rounding (less
than three units in the last place). Accelerators have an instruction for it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._tiles import fold_tiles
from sphemb.sphere import l2_normalize, pairwise_dot
from sphemb.sphere._blocks import Plan, arrange, fold_blocks, pays, plan_blocks

_LOG2_E = np.float32(1.4426950408889634)
# c_5 .. c_1: a linear program for the minimax relative error with p(0) = 1.
_COEFFICIENTS = (
    np.float32(0.0013264720),
    np.float32(0.0096715130),
    np.float32(0.0555073395),
    np.float32(0.2402224243),
    np.float32(0.6931470037),
)
_LOWEST = np.float32(-126.0)  # the exponent of the smallest normal number
_HIGHEST = np.float32(128.0)  # that of infinity
_BIAS = np.int32(127)
_MANTISSA_BITS = 23
_NEGLIGIBLE = 2.0**-24  # float32's rounding
# Added to a whole number below 2^22, it puts that number into the lowest bits.
_WHOLE_BITS = np.float32(1.5 * 2**_MANTISSA_BITS)


def _polynomial_exp(t: jax.Array) -> jax.Array:
    # Below the lowest the result stays at 2^-126, which has no effect. Rows longer than
    # 1 may give positive exponents, which must not wrap around.
    u = jnp.clip(t * _LOG2_E, _LOWEST, _HIGHEST)
    n = jax.lax.round(u, jax.lax.RoundingMethod.TO_NEAREST_EVEN)
    f = u - n
    p = jnp.full_like(f, _COEFFICIENTS[0])
    for coefficient in (*_COEFFICIENTS[1:], np.float32(1.0)):
        p = p * f + coefficient
    # Not a conversion to integers, whose checks for NaN and overflow cost more than p.
    whole = jax.lax.bitcast_convert_type(n + _WHOLE_BITS, jnp.int32)
    scale = jax.lax.shift_left(whole + _BIAS, np.int32(_MANTISSA_BITS))
    # A product, not a sum of bits: NaN must come out as NaN.
    return p * jax.lax.bitcast_convert_type(scale, jnp.float32)


@jax.custom_jvp
def falling_exp(t: jax.Array) -> jax.Array:
    """Returns exp(t), made for exponents t <= 0, in their dtype; NaN stays NaN."""
    if t.dtype != jnp.float32:
        return jnp.exp(t)
    return jax.lax.platform_dependent(t, cpu=_polynomial_exp, default=jnp.exp)


@falling_exp.defjvp
def _falling_exp_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    value = falling_exp(*primals)
    return value, value * tangents[0]


def kernel(x, y, concentration, *, precision) -> jax.Array:
    """Returns exp(kappa (x_i . y_j - 1)), [N, M], of unit rows."""
    cosine = pairwise_dot(x, y, precision=precision)
    return falling_exp(concentration * (cosine - 1.0))


def _with_one(x: jax.Array) -> jax.Array:
    return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=-1)


def reached(degree: jax.Array) -> jax.Array:
    """Rows whose sum of kernel weights is not negligible."""
    # Written so that NaN is reached: it must come out, not stay unnoticed.
    return ~(degree <= jnp.sqrt(jnp.finfo(degree.dtype).tiny))


def _moving(weights: jax.Array, degree: jax.Array) -> jax.Array:
    return (weights > 0) & reached(degree)


def near_sums(
    tiling, x, keys, key_weights, concentration, fold=fold_tiles
) -> jax.Array:
    """Returns sums of w e (x, 1) over the keys, [N, D + 1]."""

    def tile(total: jax.Array, row: jax.Array, column: Any) -> jax.Array:
        key, weight = column
        near = kernel(row, key, concentration, precision=tiling.precision)
        values = weight[:, None] * _with_one(key)
        return total + jnp.matmul(near, values, precision=tiling.precision)

    def initial(rows: int) -> jax.Array:
        return jnp.zeros((rows, x.shape[1] + 1), x.dtype)

    return fold(tile, initial, x, (keys, key_weights), tiling)


def _mean(sums: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns kernel-weighted means of the keys, M [N, D], and the degrees d [N]."""
    degree = sums[:, -1]
    return sums[:, :-1] / jnp.where(reached(degree), degree, 1.0)[:, None], degree


def _move(x, mean, moving, step_size) -> jax.Array:
    moved = l2_normalize((1.0 - step_size) * x + step_size * mean)
    return jnp.where(moving[:, None], moved, x)


def step_on(
    tiling, x, weights, keys, key_weights, concentration, step_size
) -> jax.Array:
    """Makes one step of the rows with a weight, on the density of other points."""
    mean, degree = _mean(near_sums(tiling, x, keys, key_weights, concentration))
    return _move(x, mean, _moving(weights, degree), step_size)


def plain_step(tiling, x, weights, concentration, step_size) -> jax.Array:
    """Makes one step; JAX differentiates it, in every mode, through the tiles."""
    return step_on(tiling, x, weights, x, weights, concentration, step_size)


def _plan(x, weights, concentration) -> Plan:
    r"""Leaves out blocks of pairs that together are less than rounding in every row.

    With the weight W_J and the number B of a block's points, and a bound d_I of the
    degrees, those of which all together, for every I,

    .. math:: \sum_J e_{IJ} \max(W_J / d_I, B) < 2^{-24},
              \qquad e_{IJ} = \max_{i \in I, j \in J} e_{ij},

    and of which the same holds with I and J exchanged, as the gradient needs it.
    """
    blocks = arrange(x)
    w = blocks.cut(weights)
    total = jnp.sum(w, axis=1)
    least = jnp.min(jnp.where(w > 0, w, jnp.inf), axis=1)
    # The degree is at least a row's own term, and what its block gives.
    itself = concentration * (jnp.square(blocks.shortest) - 1.0)
    within = concentration * (blocks.lowest - 1.0)
    degree = jnp.maximum(jnp.log(least) + itself, jnp.log(total) + within)
    flow = jnp.maximum(jnp.log(total)[None] - degree[:, None], math.log(blocks.side))
    share = jnp.exp(jnp.minimum(concentration * (blocks.highest - 1.0) + flow, 0.0))
    share = jnp.where(blocks.filled[None], share, 0.0)
    # The largest of a few limits below which all shares together are negligible.
    limit = jnp.full(len(share), _NEGLIGIBLE / len(share), share.dtype)[:, None]
    for _ in range(5):
        larger = 4.0 * limit
        left_out = jnp.sum(jnp.where(share < larger, share, 0.0), axis=1, keepdims=True)
        limit = jnp.where(left_out < _NEGLIGIBLE, larger, limit)
    needed = ~(share < limit)  # written so that NaN is needed
    return plan_blocks(blocks, needed | needed.T, x, weights)


def _fold(plan: Plan | None) -> Callable:
    return functools.partial(fold_blocks, plan=plan) if plan else fold_tiles


def _planned_sums(tiling, x, weights, concentration) -> tuple[jax.Array, Plan | None]:
    """`near_sums` of the points themselves, and what they leave out."""
    plan = _plan(x, weights, concentration) if pays(x, tiling) else None
    sums = near_sums(tiling, x, x, weights, concentration, _fold(plan))
    return sums, plan


def pull_sums(tiling, plan, x, weights, mean, mass, m, concentration) -> Any:
    """Returns sums of H w (x, 1) and of e w (g, c) over the points, [N, D + 1] each.

    ``plan`` is that of `_planned_sums`, ``mean`` M, ``m`` its cotangent, and ``mass``
    w d, infinite where no point moves.
    """
    g = m / mass[:, None]
    c = jnp.sum(g * mean, axis=-1)

    def tile(total: Any, row: Any, column: Any) -> Any:
        query, query_g, query_c = row
        key, key_g, key_c, key_weight = column
        near = kernel(query, key, concentration, precision=tiling.precision)
        # Concatenated by block, so that it need not be kept for all points. Both
        # products in T are one matmul; c is subtracted by entry, because two more
        # columns would make the matmul slower.
        left = jnp.concatenate([query_g, query], axis=-1)
        right = jnp.concatenate([key, key_g], axis=-1)
        products = pairwise_dot(left, right, precision=tiling.precision)
        through = near * (products - query_c[:, None] - key_c[None])
        points = key_weight[:, None] * _with_one(key)
        pulls = key_weight[:, None] * jnp.concatenate([key_g, key_c[:, None]], axis=-1)
        return (
            total[0] + jnp.matmul(through, points, precision=tiling.precision),
            total[1] + jnp.matmul(near, pulls, precision=tiling.precision),
        )

    def initial(rows: int) -> tuple[jax.Array, jax.Array]:
        return (jnp.zeros((rows, x.shape[1] + 1), x.dtype),) * 2

    rows, columns = (x, g, c), (x, g, c, weights)
    return _fold(plan)(tile, initial, rows, columns, tiling)


def _forward(sum_near, tiling, x, weights, concentration, step_size) -> Any:
    sums, plan = sum_near(tiling, x, weights, concentration)
    mean, degree = _mean(sums)
    moved = _move(x, mean, _moving(weights, degree), step_size)
    # Keeping the mean and its degree saves the backward pass 4 of 14 N^2 D operations.
    return moved, (plan, x, weights, mean, degree, concentration, step_size)


def _backward(sum_pulls, tiling, residuals, cotangent) -> tuple[jax.Array, ...]:
    plan, x, weights, mean, degree, concentration, step_size = residuals
    moving = _moving(weights, degree)
    _, pull = jax.vjp(
        lambda *args: _move(args[0], args[1], moving, args[2]), x, mean, step_size
    )
    direct, mean_bar, step_size_bar = pull(cotangent)

    mass = jnp.where(moving, weights * degree, jnp.inf)
    pulls = mean, mass, mean_bar
    through, straight = sum_pulls(tiling, plan, x, weights, *pulls, concentration)
    flown = concentration * through[:, :-1] + straight[:, :-1]
    x_bar = weights[:, None] * flown + direct
    weights_bar = jnp.sum(x * straight[:, :-1], axis=-1) - straight[:, -1]
    # All rows of H together sum to zero, so subtracting them changes rounding only: it
    # takes x.x - 1 (small where H is large) in place of x.x.
    concentration_bar = 0.5 * jnp.sum(
        weights * (jnp.sum(x * through[:, :-1], axis=-1) - through[:, -1])
    )
    return x_bar, weights_bar, concentration_bar, step_size_bar


def step_with_gradient(sum_near: Callable, sum_pulls: Callable) -> Callable:
    """Returns the step of [N, D] unit rows, to which reverse mode applies the rule.

    ``sum_near`` also returns what ``sum_pulls`` takes after the tiling.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def step(tiling, x, weights, concentration, step_size) -> jax.Array:
        args = x, weights, concentration, step_size
        return _forward(sum_near, tiling, *args)[0]

    step.defvjp(
        functools.partial(_forward, sum_near), functools.partial(_backward, sum_pulls)
    )
    return step


step = step_with_gradient(_planned_sums, pull_sums)
