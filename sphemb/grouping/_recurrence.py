"""The steps of blurring mean shift in a row, for every image of a batch.

Letters: N points, D dimensions, T steps; leading axes are batch axes.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from sphemb._checks import (
    InputError,
    check_axis_name,
    check_boolean,
    check_callable,
    check_count,
    check_flag,
    check_floating,
    check_scalar,
    check_shape,
)
from sphemb._ring import AxisName, vary
from sphemb._tiles import Tiling, choose_tiling, map_batch
from sphemb.grouping._attended import Attention, attended_step
from sphemb.grouping._step import plain_step, step


@functools.partial(
    jax.jit,
    static_argnames=(
        "num_steps",
        "tiling",
        "custom_gradient",
        "every_step",
        "attention",
    ),
)
def _moved(
    embeddings: jax.Array,
    mask: jax.Array | None,
    concentration: jax.Array,
    step_size: jax.Array,
    *,
    num_steps: int,
    tiling: Tiling,
    custom_gradient: bool,
    every_step: bool,
    attention: Attention | None,
) -> jax.Array:
    """Returns the points after the last step, or after each, [T, ..., N, D]."""
    if attention is None:
        one_step = functools.partial(step if custom_gradient else plain_step, tiling)
        tile = tiling.size
    else:
        one_step = functools.partial(attended_step, attention, mask is not None)
        tile = 1  # kernels want all images of a batch at a time

    def one_image(x: jax.Array, mass: jax.Array) -> jax.Array:
        def body(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array | None]:
            x = one_step(x, mass, concentration, step_size)
            return x, x if every_step else None

        last, steps = jax.lax.scan(body, x, None, length=num_steps)
        return last if steps is None else steps

    shape, dtype = embeddings.shape, concentration.dtype
    x, mass = embeddings.astype(dtype), jnp.ones(shape[:-1], dtype)
    if mask is not None:
        # Whatever a masked row holds, NaN included, must not reach the others.
        x = jnp.where(mask[..., None], x, 0.0)
        mass = mask.astype(dtype)
    x, mass = x.reshape(-1, *shape[-2:]), mass.reshape(-1, shape[-2])
    x, mass, concentration, step_size = vary(
        (x, mass, concentration, step_size), tiling.axis_name
    )
    moved = map_batch(one_image, x, mass, tile=tile)
    if every_step:
        moved = jnp.moveaxis(moved, 1, 0)
    leading = (num_steps,) if every_step else ()
    moved = moved.reshape(*leading, *shape).astype(embeddings.dtype)
    return moved if mask is None else jnp.where(mask[..., None], moved, embeddings)


def run(
    embeddings: jax.Array,
    *,
    concentration: Any,
    num_steps: int,
    step_size: Any,
    mask: jax.Array | None,
    block_size: int | None,
    precision: jax.lax.PrecisionLike,
    custom_gradient: bool,
    every_step: bool,
    axis_name: AxisName,
    attention: Attention | None,
) -> jax.Array:
    """Checks the arguments and runs the steps."""
    sizes = check_shape("embeddings", embeddings, "... N D")
    check_floating("embeddings", embeddings)
    check_scalar("concentration", concentration, above=0.0, below=math.inf)
    check_scalar("step_size", step_size, above=0.0, at_most=2.0)
    check_count("num_steps", num_steps)
    if mask is not None:
        dims = {"...": sizes["..."], "N": sizes["N"]}
        check_shape("mask", mask, "... N", dims=dims, beside="embeddings")
        check_boolean("mask", mask)
    if block_size is not None:
        check_count("block_size", block_size, at_least=1)
    check_flag("custom_gradient", custom_gradient)
    check_axis_name("axis_name", axis_name)
    check_callable("attention", attention)
    if attention is not None and axis_name is not None:
        raise InputError(
            "attention must be None where axis_name is given, got "
            f"{axis_name!r}: a kernel sees the points of one device only"
        )

    embeddings = jnp.asarray(embeddings)
    if num_steps == 0 or embeddings.size == 0:
        if every_step:
            return jnp.broadcast_to(embeddings, (num_steps + 1, *embeddings.shape))
        return embeddings
    dtype = jnp.promote_types(embeddings.dtype, jnp.float32)
    num_points = sizes["N"]
    tiling = choose_tiling(
        num_points, num_points, block_size, precision=precision, axis_name=axis_name
    )
    moved = _moved(
        embeddings,
        None if mask is None else jnp.asarray(mask),
        jnp.asarray(concentration, dtype),
        jnp.asarray(step_size, dtype),
        num_steps=int(num_steps),
        tiling=tiling,
        custom_gradient=custom_gradient,
        every_step=every_step,
        attention=attention,
    )
    return jnp.concatenate([embeddings[None], moved]) if every_step else moved
