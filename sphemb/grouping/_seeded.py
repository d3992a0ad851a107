"""Mean shift of seeds on a fixed density (not blurring).

Letters: M seeds, N points, D dimensions; leading axes are batch axes.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from sphemb._checks import (
    check_block_size,
    check_count,
    check_floating,
    check_mask,
    check_scalar,
    check_shape,
)
from sphemb._shards import share_out
from sphemb._tiles import Tiling, choose_tiling, fold_tiles, map_batch
from sphemb.grouping._step import falling_exp, reached
from sphemb.sphere import l2_normalize, pairwise_dot

# The start of the running maximum, and the cosine of points without a weight.
_SMALLEST_COSINE = -1.0


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
    r"""Moves seeds uphill on the density of fixed points.

    .. math::
        y_i = (1 - \eta)\, s_i + \eta\,
        \frac{\sum_j e^{\kappa s_i^\top x_j} x_j}{\sum_j e^{\kappa s_i^\top x_j}},
        \qquad s_i \leftarrow y_i / \|y_i\|

    The exponent is relative to the nearest point, so seeds may be far from all points.
    Differentiable in all arguments, in every mode, in memory linear in M and N.

    Args:
        seeds: [..., M, D] unit rows that move.
        points: [..., N, D] unit rows of the density, with the same leading axes.
        concentration: kappa > 0, a number or a traced scalar.
        num_steps: T >= 0, static.
        step_size: eta in (0, 2], a number or a traced scalar.
        mask: [..., N] bool, True = valid; without valid points the seeds stay.
        block_size: largest side of the tiles of pairs.
        precision: of the matmuls.

    References:
        Kobayashi and Otsu, Von Mises-Fisher mean shift for clustering on a hypersphere,
        ICPR 2010; Kong and Fowlkes, CVPR 2018, section 4.1.

    >>> points = jnp.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    >>> seeds = jnp.array([[0.6, 0.8]])
    >>> print(jnp.round(mean_shift(seeds, points, concentration=4.0, num_steps=50), 2))
    [[0.95 0.32]]
    """
    sizes = check_shape("points", points, "... N D")
    moving = check_shape("seeds", seeds, "... M D", dims=sizes, beside="points")
    check_floating("seeds", seeds)
    check_floating("points", points)
    check_scalar("concentration", concentration, above=0.0, below=math.inf)
    check_scalar("step_size", step_size, above=0.0, at_most=2.0)
    check_count("num_steps", num_steps)
    check_mask("mask", mask, "... N", dims=sizes, beside="points")
    check_block_size(block_size)

    seeds, points = jnp.asarray(seeds), jnp.asarray(points)
    if num_steps == 0 or seeds.size == 0 or points.size == 0:
        return seeds
    dtype = jnp.promote_types(jnp.result_type(seeds, points), jnp.float32)
    tiling = choose_tiling(moving["M"], sizes["N"], block_size, precision=precision)
    mask = None if mask is None else jnp.asarray(mask)
    kappa, eta = jnp.asarray(concentration, dtype), jnp.asarray(step_size, dtype)
    settings = {"num_steps": int(num_steps), "tiling": tiling}
    return _moved(seeds, points, mask, kappa, eta, **settings)


@functools.partial(jax.jit, static_argnames=("num_steps", "tiling"))
def _moved(
    seeds, points, mask, kappa, eta, *, num_steps: int, tiling: Tiling
) -> jax.Array:
    return share_out(
        functools.partial(_moved_here, num_steps, tiling),
        (seeds, points, mask, kappa, eta),
        ("... M D", "... N D", "... N", "", ""),
        "... M D",
    )


def _moved_here(
    num_steps: int, tiling: Tiling, seeds, points, mask, kappa, eta
) -> jax.Array:
    precision = tiling.precision
    dtype = kappa.dtype

    def tile(carry: Any, row: jax.Array, column: Any) -> Any:
        peak, total = carry
        key, weight, value = column
        cosine = pairwise_dot(row, key, precision=precision)
        cosine = jnp.where(weight > 0, cosine, _SMALLEST_COSINE)
        # The quotient does not depend on the peak, nor does its gradient.
        nearest = jax.lax.stop_gradient(jnp.max(cosine, axis=1, keepdims=True))
        higher = jnp.maximum(peak, nearest)
        near = falling_exp(kappa * (cosine - higher))
        total = total * falling_exp(kappa * (peak - higher))
        return higher, total + jnp.matmul(near, value, precision=precision)

    def one_image(s: jax.Array, x: jax.Array, weight: jax.Array) -> jax.Array:
        value = weight[:, None] * jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=-1)

        def start(rows: int) -> tuple[jax.Array, jax.Array]:
            peak = jnp.full((rows, 1), _SMALLEST_COSINE, dtype)
            return peak, jnp.zeros((rows, value.shape[1]), dtype)

        def body(s: jax.Array, _: None) -> tuple[jax.Array, None]:
            _, sums = fold_tiles(tile, start, s, (x, weight, value), tiling)
            moving = reached(sums[:, -1:])
            mean = sums[:, :-1] / jnp.where(moving, sums[:, -1:], 1.0)
            moved = l2_normalize((1.0 - eta) * s + eta * mean)
            return jnp.where(moving, moved, s), None

        return jax.lax.scan(body, s, None, length=num_steps)[0]

    x = points.astype(dtype)
    if mask is None:
        weight = jnp.ones(x.shape[:-1], dtype)
    else:
        x = jnp.where(mask[..., None], x, 0.0)
        weight = mask.astype(dtype)
    arrays = (seeds.astype(dtype), x, weight[..., None])
    s, x, weight = (a.reshape(-1, *a.shape[-2:]) for a in arrays)
    moved = map_batch(one_image, s, x, weight[..., 0], tile=tiling.size)
    return moved.astype(seeds.dtype).reshape(seeds.shape)
