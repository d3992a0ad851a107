"""Mean shift of seeds on a density that stays (not blurring).

Letters: M seeds, N points, D dimensions; leading axes are batch axes.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import (
    check_boolean,
    check_count,
    check_floating,
    check_scalar,
    check_shape,
)
from sphemb._tiles import Tiling, choose_tiling, fold_tiles, map_batch
from sphemb.grouping._kernel import falling_exp
from sphemb.sphere import l2_normalize, pairwise_dot

# No cosine is smaller: where the running maximum starts, and what a point without mass
# is given.
_SMALLEST_COSINE = -1.0


class _Settings(NamedTuple):
    """What is static."""

    num_steps: int
    tiling: Tiling


@functools.partial(jax.jit, static_argnames="settings")
def _moved(
    seeds: jax.Array,
    points: jax.Array,
    mask: jax.Array | None,
    kappa: jax.Array,
    eta: jax.Array,
    *,
    settings: _Settings,
) -> jax.Array:
    num_steps, tiling = settings
    precision = tiling.precision
    dtype = kappa.dtype
    reach = jnp.sqrt(jnp.finfo(dtype).tiny)

    def tile(carry: Any, row: jax.Array, column: Any) -> Any:
        peak, total = carry
        key, mass, value = column
        cosine = pairwise_dot(row, key, precision=precision)
        cosine = jnp.where(mass > 0, cosine, _SMALLEST_COSINE)
        # The quotient does not depend on the peak, nor does its gradient.
        nearest = jax.lax.stop_gradient(jnp.max(cosine, axis=1, keepdims=True))
        higher = jnp.maximum(peak, nearest)
        kernel = falling_exp(kappa * (cosine - higher))
        total = total * falling_exp(kappa * (peak - higher))
        return higher, total + jnp.matmul(kernel, value, precision=precision)

    def one_image(s: jax.Array, x: jax.Array, mass: jax.Array) -> jax.Array:
        value = mass[:, None] * jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=-1)
        start = (
            jnp.full((tiling.rows, 1), _SMALLEST_COSINE, dtype),
            jnp.zeros((tiling.rows, value.shape[1]), dtype),
        )

        def body(s: jax.Array, _: None) -> tuple[jax.Array, None]:
            _, sums = fold_tiles(
                tile,
                start,
                s,
                (x, mass, value),
                tiling,
            )
            # Written so that NaN moves: it must come out, not stand still unnoticed.
            reached = ~(sums[:, -1:] <= reach)
            mean = sums[:, :-1] / jnp.where(reached, sums[:, -1:], 1.0)
            return jnp.where(
                reached, l2_normalize((1.0 - eta) * s + eta * mean), s
            ), None

        return jax.lax.scan(body, s, None, length=num_steps)[0]

    x = points.astype(dtype)
    if mask is None:
        mass = jnp.ones(x.shape[:-1], dtype)
    else:
        x = jnp.where(mask[..., None], x, 0.0)
        mass = mask.astype(dtype)
    moved = map_batch(
        one_image,
        seeds.astype(dtype).reshape(-1, *seeds.shape[-2:]),
        x.reshape(-1, *x.shape[-2:]),
        mass.reshape(-1, x.shape[-2]),
        tile=tiling.size,
    )
    return moved.astype(seeds.dtype).reshape(seeds.shape)


def mean_shift(
    seeds: jax.Array,
    points: jax.Array,
    *,
    concentration: jax.Array | float,
    num_steps: int,
    step_size: jax.Array | float = 1.0,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
) -> jax.Array:
    r"""Moves seeds uphill on the density of points that do not move.

    .. math::
        y_i = (1 - \eta)\, s_i + \eta\,
        \frac{\sum_j e^{\kappa s_i^\top x_j} x_j}{\sum_j e^{\kappa s_i^\top x_j}},
        \qquad s_i \leftarrow y_i / \|y_i\|

    Seeds far from every point are as safe as near ones (the exponent is taken relative
    to the nearest point). Differentiable in everything, in every mode, in memory that
    is linear in M and in N.

    Args:
        seeds: [..., M, D] unit rows that move.
        points: [..., N, D] unit rows that make the density, with the same leading axes.
        concentration: kappa > 0 of the kernel exp(kappa cos), a number or a traced
            scalar.
        num_steps: T >= 0, static.
        step_size: eta in (0, 2], a number or a traced scalar.
        mask: [..., N] bool, which points count; without any, the seeds stay.
        block_size: the largest side of the tiles in which pairs are computed.
        precision: of the matmuls.

    Returns:
        [..., M, D] the seeds after T steps.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Kobayashi and Otsu, Von Mises-Fisher mean shift for clustering on a hypersphere,
        ICPR 2010; Kong and Fowlkes, CVPR 2018, section 4.1.

    >>> points = jnp.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    >>> seeds = jnp.array([[0.6, 0.8]])
    >>> print(jnp.round(mean_shift(seeds, points, concentration=4.0, num_steps=50), 2))
    [[0.95 0.32]]
    """
    sizes = check_shape("points", points, "... N D")
    shared = {"...": sizes["..."], "D": sizes["D"]}
    moving = check_shape("seeds", seeds, "... M D", dims=shared, beside="points")
    check_floating("seeds", seeds)
    check_floating("points", points)
    check_scalar("concentration", concentration, above=0.0, below=math.inf)
    check_scalar("step_size", step_size, above=0.0, at_most=2.0)
    check_count("num_steps", num_steps)
    if mask is not None:
        dims = {"...": sizes["..."], "N": sizes["N"]}
        check_shape("mask", mask, "... N", dims=dims, beside="points")
        check_boolean("mask", mask)
    if block_size is not None:
        check_count("block_size", block_size, at_least=1)

    seeds, points = jnp.asarray(seeds), jnp.asarray(points)
    if num_steps == 0 or seeds.size == 0 or points.size == 0:
        return seeds
    dtype = jnp.promote_types(jnp.result_type(seeds, points), jnp.float32)
    tiling = choose_tiling(moving["M"], sizes["N"], block_size, precision=precision)
    return _moved(
        seeds,
        points,
        None if mask is None else jnp.asarray(mask),
        jnp.asarray(concentration, dtype),
        jnp.asarray(step_size, dtype),
        settings=_Settings(int(num_steps), tiling),
    )
