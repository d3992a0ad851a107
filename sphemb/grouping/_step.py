r"""One step of Gaussian blurring mean shift, with its gradient in one pass over rows.

Letters: N points, D dimensions. With rows x_i, a mass w_j >= 0 for every point as a
*key* (1 counts, 0 does not, a number n stands for n equal points) and concentration
kappa,

.. math::
    e_{ij} = e^{\kappa (x_i^\top x_j - 1)}, \quad d_i = \sum_j w_j e_{ij}, \quad
    M_i = \tfrac1{d_i} \sum_j w_j e_{ij} x_j, \quad
    z_i = \frac{(1 - \eta) x_i + \eta M_i}{\|(1 - \eta) x_i + \eta M_i\|}.

The cosine of unit rows is at most 1, so the exponent needs no running maximum, and e is
symmetric. Hence, for a cotangent m_i of M_i, with g_i = m_i / (w_i d_i), 0 where
nothing moves, and c_i = g_i^T M_i,

.. math::
    T_{ij} = (g_i^\top x_j - c_i) + (g_j^\top x_i - c_j), \quad H = e \odot T

is symmetric too, and everything that flows back is a sum along rows of tiles, in which
the masses stand with the columns alone:

.. math::
    h_i = \sum_j H_{ij} w_j (x_j, 1), \quad s_i = \sum_j e_{ij} w_j (g_j, c_j), \\
    \bar x_i = w_i (\kappa\, h_i^x + s_i^g), \quad
    \bar w_i = x_i^\top s_i^g - s_i^c, \quad
    \bar\kappa = \tfrac12 \sum_i w_i (x_i^\top h_i^x - h_i^1).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from sphemb._tiles import Tiling, fold_tiles
from sphemb.grouping._kernel import kernel
from sphemb.sphere import l2_normalize, pairwise_dot


def _with_one(x: jax.Array) -> jax.Array:
    return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=-1)


def _reached(degree: jax.Array) -> jax.Array:
    """Tells the rows within reach of any mass.

    A unit row that is a key itself reaches that. Out of reach are rows far shorter than
    1, such as zero rows, and with a very sharp kernel rows that are no keys.
    """
    # Written so that NaN is reached: it must come out, not stand still unnoticed.
    return ~(degree <= jnp.sqrt(jnp.finfo(degree.dtype).tiny))


def _moving(mass: jax.Array, degree: jax.Array) -> jax.Array:
    """Tells the rows that move: those that count and have mass within reach."""
    return (mass > 0) & _reached(degree)


def _mean(
    tiling: Tiling,
    x: jax.Array,
    keys: jax.Array,
    masses: jax.Array,
    concentration: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns kernel-weighted means of the keys, M [N, D], and the degrees d [N]."""

    def tile(total: jax.Array, row: jax.Array, column: Any) -> jax.Array:
        key, mass = column
        near = kernel(row, key, concentration, precision=tiling.precision)
        values = mass[:, None] * _with_one(key)
        return total + jnp.matmul(near, values, precision=tiling.precision)

    initial = jnp.zeros((tiling.rows, x.shape[1] + 1), x.dtype)
    sums = fold_tiles(tile, initial, x, (keys, masses), tiling)
    degree = sums[:, -1]
    return sums[:, :-1] / jnp.where(_reached(degree), degree, 1.0)[:, None], degree


def _move(
    x: jax.Array, mean: jax.Array, moving: jax.Array, step_size: jax.Array
) -> jax.Array:
    moved = l2_normalize((1.0 - step_size) * x + step_size * mean)
    return jnp.where(moving[:, None], moved, x)


def step_on(
    tiling: Tiling,
    x: jax.Array,
    mass: jax.Array,
    keys: jax.Array,
    masses: jax.Array,
    concentration: jax.Array,
    step_size: jax.Array,
) -> jax.Array:
    """Makes one step of the rows that have mass, on the density of other points."""
    mean, degree = _mean(tiling, x, keys, masses, concentration)
    return _move(x, mean, _moving(mass, degree), step_size)


def plain_step(
    tiling: Tiling,
    x: jax.Array,
    mass: jax.Array,
    concentration: jax.Array,
    step_size: jax.Array,
) -> jax.Array:
    """Makes one step; JAX differentiates it, in every mode, through the tiles."""
    return step_on(tiling, x, mass, x, mass, concentration, step_size)


def _forward(
    tiling: Tiling,
    x: jax.Array,
    mass: jax.Array,
    concentration: jax.Array,
    step_size: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean, degree = _mean(tiling, x, x, mass, concentration)
    moved = _move(x, mean, _moving(mass, degree), step_size)
    # The mean and its degree are kept beside X: a second array of X's size spares the
    # backward pass 4 of 14 N^2 D operations.
    return moved, (x, mass, mean, degree, concentration, step_size)


def _backward(
    tiling: Tiling, residuals: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x, mass, mean, degree, concentration, step_size = residuals
    moving = _moving(mass, degree)
    _, pull = jax.vjp(
        lambda *args: _move(args[0], args[1], moving, args[2]), x, mean, step_size
    )
    direct, mean_bar, step_size_bar = pull(cotangent)

    g = mean_bar / jnp.where(moving, mass * degree, 1.0)[:, None]
    c = jnp.sum(g * mean, axis=-1)

    def tile(total: Any, row: Any, column: Any) -> Any:
        query, query_g, query_c = row
        key, key_g, key_c, key_mass = column
        near = kernel(query, key, concentration, precision=tiling.precision)
        # What is put together here, a block at a time, need not be kept for all points.
        # Both products in T are one matmul; c goes by entry, because two more columns
        # would cost the matmul more.
        left = jnp.concatenate([query_g, query], axis=-1)
        right = jnp.concatenate([key, key_g], axis=-1)
        products = pairwise_dot(left, right, precision=tiling.precision)
        through = near * (products - query_c[:, None] - key_c[None])
        points = key_mass[:, None] * _with_one(key)
        pulls = key_mass[:, None] * jnp.concatenate([key_g, key_c[:, None]], axis=-1)
        return (
            total[0] + jnp.matmul(through, points, precision=tiling.precision),
            total[1] + jnp.matmul(near, pulls, precision=tiling.precision),
        )

    initial = (jnp.zeros((tiling.rows, x.shape[1] + 1), x.dtype),) * 2
    through, straight = fold_tiles(tile, initial, (x, g, c), (x, g, c, mass), tiling)

    flown = concentration * through[:, :-1] + straight[:, :-1]
    x_bar = mass[:, None] * flown + direct
    mass_bar = jnp.sum(x * straight[:, :-1], axis=-1) - straight[:, -1]
    # The rows of H sum to zero in all, so subtracting them changes nothing but the
    # rounding: it takes x.x - 1 (small where H is large) in place of x.x.
    concentration_bar = 0.5 * jnp.sum(
        mass * (jnp.sum(x * through[:, :-1], axis=-1) - through[:, -1])
    )
    return x_bar, mass_bar, concentration_bar, step_size_bar


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def step(
    tiling: Tiling,
    x: jax.Array,
    mass: jax.Array,
    concentration: jax.Array,
    step_size: jax.Array,
) -> jax.Array:
    """Makes one step; reverse mode takes the rule written at the top of the file.

    Args:
        tiling: how to compute the pairs; static.
        x: [N, D] unit rows.
        mass: [N] what each point counts for as a key; rows without mass stay.
        concentration: [] kappa.
        step_size: [] eta.

    Returns:
        [N, D] the moved rows.
    """
    return plain_step(tiling, x, mass, concentration, step_size)


step.defvjp(_forward, _backward)
