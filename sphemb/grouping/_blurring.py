"""Gaussian blurring mean shift on the sphere.

Letters: N points, D dimensions, T steps; leading axes are batch axes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sphemb._checks import (
    InputError,
    check_axis_name,
    check_block_size,
    check_broadcasts,
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_floating,
    check_mask,
    check_number,
    check_scalar,
    check_shape,
)
from sphemb._shards import share_out
from sphemb._tiles import AxisName, choose_tiling, map_batch, vary
from sphemb.grouping import _fused
from sphemb.grouping._step import plain_step, step
from sphemb.sphere import l2_normalize

# (query, key, value [B, N, H, D], mask=[B, 1, 1, N] bool or None) -> softmax(q k^T) v
Attention = Callable[..., jax.Array]


class _Options(NamedTuple):
    """The static settings that the public functions share."""

    num_steps: int
    every_step: bool
    block_size: int | None
    precision: jax.lax.PrecisionLike
    custom_gradient: bool
    axis_name: AxisName
    attention: Attention | None
    implementation: str


def gbms(
    embeddings: jax.Array,
    *,
    concentration: ArrayLike,
    num_steps: int,
    step_size: ArrayLike = 1.0,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    custom_gradient: bool = True,
    axis_name: AxisName = None,
    attention: Attention | None = None,
    implementation: str = "auto",
) -> jax.Array:
    r"""Moves points to their modes; `custom_gradient=False` allows forward mode.

    Each step of Gaussian blurring mean shift replaces the rows by

    .. math::
        y_i = (1 - \eta)\, x_i + \eta \sum_j P_{ij} x_j, \qquad
        P_{ij} = \frac{w_j e^{\kappa x_i^\top x_j}}{\sum_k w_k e^{\kappa x_i^\top x_k}},
        \qquad x_i \leftarrow y_i / \|y_i\|,

    softmax self-attention with queries, keys and values equal to X, normalized. The
    gradient in embeddings, kappa, eta and weights is exact, in memory linear in N. A
    small kappa merges all groups.

    Args:
        embeddings: [..., N, D] unit rows; they are not normalized again.
        concentration: kappa > 0 of the kernel exp(kappa cos), 1/b^2 for a bandwidth b;
            a number or an array that broadcasts to [...], one for each image.
        num_steps: T >= 0, static; 0 returns the embeddings.
        step_size: eta in (0, 2]; a number or a traced scalar.
        weights: [..., N] w >= 0, 1 by default. Points of weight 0 do not move.
        mask: [..., N] bool, True = valid; the other rows are returned unchanged.
        block_size: largest side of the tiles of pairs. None chooses, and with many
            points leaves out the pairs that cannot matter (docs/speed.md); reverse mode
            through the gradient then needs a size.
        precision: of the matmuls; anything below the highest shifts the kernel.
        custom_gradient: True for the gradient rule of the supplement: the fastest
            `jax.grad`, `jax.vjp` and `jax.hessian`, but `jax.jvp` and `jax.jacfwd`
            raise a TypeError. False for JAX's own derivatives, up to four times as
            slow, forward mode included.
        axis_name: of the mesh axis (or a tuple of axes) over which the points are
            sharded, inside `jax.shard_map` or `jax.pmap`. All arrays hold the rows of
            this device, equally many on all devices; see docs/sharding.md.
        attention: a function (query, key, value, mask=) -> [B, N, H, D] that attends at
            scale 1, in place of the tiles; see docs/speed.md.
        implementation: ``"xla"`` for tiles of XLA's matmuls; ``"pallas"`` for the fused
            kernel on GPUs and TPUs, as exact, for D <= 128 in float32, on one device,
            with first derivatives only (``block_size`` and ``precision`` have no
            effect; other platforms interpret it, which is slow); ``"auto"`` is
            ``"xla"``, see docs/speed.md.

    Returns:
        [..., N, D] the points after T steps, in the dtype of ``embeddings``.

    References:
        Kong and Fowlkes, Recurrent Pixel Embedding for Instance Grouping, CVPR 2018:
        section 4.1, and Eq. 5 of the supplement with kappa = delta^2.

    >>> x = jnp.array([[1.0, 0.0], [0.96, 0.28], [0.0, 1.0]])
    >>> y = gbms(x, concentration=25.0, num_steps=5)
    >>> print(jnp.round(y @ y.T, 2))
    [[1.   1.   0.14]
     [1.   1.   0.14]
     [0.14 0.14 1.  ]]
    """
    rest = custom_gradient, axis_name, attention, implementation
    options = _Options(num_steps, False, block_size, precision, *rest)
    return _run(embeddings, concentration, step_size, weights, mask, options)


def gbms_step(
    embeddings: jax.Array,
    *,
    concentration: ArrayLike,
    step_size: ArrayLike = 1.0,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    custom_gradient: bool = True,
    axis_name: AxisName = None,
    attention: Attention | None = None,
    implementation: str = "auto",
) -> jax.Array:
    r"""Makes one step of :func:`gbms`, with the same arguments.

    >>> gbms_step(jnp.eye(2), concentration=1.0, step_size=2.0).shape
    (2, 2)
    """
    rest = custom_gradient, axis_name, attention, implementation
    options = _Options(1, False, block_size, precision, *rest)
    return _run(embeddings, concentration, step_size, weights, mask, options)


def gbms_trajectory(
    embeddings: jax.Array,
    *,
    concentration: ArrayLike,
    num_steps: int,
    step_size: ArrayLike = 1.0,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    custom_gradient: bool = True,
    axis_name: AxisName = None,
    attention: Attention | None = None,
    implementation: str = "auto",
) -> jax.Array:
    r"""Runs :func:`gbms` and returns the points of every step, the input first.

    Arguments are those of :func:`gbms`; the result is [T + 1, ..., N, D].

    References:
        Kong and Fowlkes, CVPR 2018: section 4.2, where the loss is taken on every step.

    >>> gbms_trajectory(jnp.eye(3), concentration=4.0, num_steps=5).shape
    (6, 3, 3)
    """
    rest = custom_gradient, axis_name, attention, implementation
    options = _Options(num_steps, True, block_size, precision, *rest)
    return _run(embeddings, concentration, step_size, weights, mask, options)


def _run(
    embeddings, concentration, step_size, weights, mask, options: _Options
) -> jax.Array:
    """Checks the arguments and runs the steps."""
    sizes = check_shape("embeddings", embeddings, "... N D")
    check_floating("embeddings", embeddings)
    check_number("concentration", concentration, above=0.0, below=math.inf)
    check_broadcasts("concentration", concentration, sizes["..."])
    check_scalar("step_size", step_size, above=0.0, at_most=2.0)
    check_count("num_steps", options.num_steps)
    dims = {"...": sizes["..."], "N": sizes["N"]}
    if weights is not None:
        check_shape("weights", weights, "... N", dims=dims, beside="embeddings")
        check_floating("weights", weights)
    check_mask("mask", mask, "... N", dims=dims, beside="embeddings")
    check_block_size(options.block_size)
    check_flag("custom_gradient", options.custom_gradient)
    check_axis_name("axis_name", options.axis_name)
    check_callable("attention", options.attention)
    if options.attention is not None and options.axis_name is not None:
        raise InputError(
            "attention must be None where axis_name is given, got "
            f"{options.axis_name!r}: a kernel sees the points of one device only"
        )
    if options.attention is not None and weights is not None:
        raise InputError(
            "weights must be None where attention is given: a kernel takes a mask only"
        )
    check_choice("implementation", options.implementation, ("auto", "xla", "pallas"))

    embeddings = jnp.asarray(embeddings)
    if options.implementation == "pallas":
        _check_fused(embeddings, options)
    if options.num_steps == 0 or embeddings.size == 0:
        if options.every_step:
            shape = (options.num_steps + 1, *embeddings.shape)
            return jnp.broadcast_to(embeddings, shape)
        return embeddings
    dtype = jnp.promote_types(embeddings.dtype, jnp.float32)
    moved = _moved(
        embeddings,
        None if weights is None else jnp.asarray(weights, dtype),
        None if mask is None else jnp.asarray(mask),
        jnp.asarray(concentration, dtype),
        jnp.asarray(step_size, dtype),
        options=options._replace(num_steps=int(options.num_steps)),
    )
    return jnp.concatenate([embeddings[None], moved]) if options.every_step else moved


def _check_fused(embeddings: jax.Array, options: _Options) -> None:
    """Checks what the fused kernel cannot do."""
    dim, dtype = embeddings.shape[-1], embeddings.dtype
    for fine, need, found in (
        (options.attention is None, "attention None", options.attention),
        (options.axis_name is None, "axis_name None", options.axis_name),
        (options.custom_gradient, "custom_gradient True", options.custom_gradient),
        (dim <= _fused.MAX_DIM, f"D <= {_fused.MAX_DIM}", dim),
        (dtype != jnp.float64, "float32 or less", dtype.name),
    ):
        if not fine:
            raise InputError(
                f'implementation "pallas" needs {need}, got {found!r}: use "xla"'
            )


@functools.partial(jax.jit, static_argnames="options")
def _moved(
    embeddings, weights, mask, concentration, step_size, *, options: _Options
) -> jax.Array:
    """Returns the points after the last step, or after each, [T, ..., N, D]."""
    fused = options.implementation == "pallas"
    moved = share_out(
        functools.partial(_moved_here, options),
        (embeddings, weights, mask, concentration, step_size),
        ("... N D", "... N", "... N", "...", ""),
        "... T N D" if options.every_step else "... N D",
        # Kernels see the points of one device only.
        rows="" if options.attention or fused else "N",
        axis_name=options.axis_name,
        # Pallas has no types of varying results when it interprets.
        check_vma=not fused,
    )
    return jnp.moveaxis(moved, -3, 0) if options.every_step else moved


def _moved_here(
    options: _Options,
    embeddings,
    weights,
    mask,
    concentration,
    step_size,
    *,
    axis_name: AxisName = None,
) -> jax.Array:
    """Returns the points of this device, [..., N, D] or [..., T, N, D]."""
    shape, dtype = embeddings.shape, concentration.dtype
    sides = shape[-2], shape[-2], options.block_size
    settings = {"precision": options.precision, "axis_name": axis_name}
    # The first step seldom leaves out what the choice of the pairs costs.
    points = embeddings if options.num_steps > 1 else None
    tiling = choose_tiling(*sides, points=points, **settings)
    if options.implementation == "pallas":
        one_step, tile = functools.partial(_fused.step, None), 1
    elif options.attention is None:
        method = step if options.custom_gradient else plain_step
        one_step, tile = functools.partial(method, tiling), tiling.size
    else:  # kernels take all images of a batch at a time
        settings = (options.attention, mask is not None)
        one_step, tile = functools.partial(_attended_step, *settings), 1

    def one_image(x, weights, concentration) -> jax.Array:
        def body(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array | None]:
            x = one_step(x, weights, concentration, step_size)
            return x, x if options.every_step else None

        last, steps = jax.lax.scan(body, x, None, length=options.num_steps)
        return last if steps is None else steps

    x = embeddings.astype(dtype)
    weights = jnp.ones(shape[:-1], dtype) if weights is None else weights
    if mask is not None:
        # Values of masked rows, NaN included, must not reach the others.
        x = jnp.where(mask[..., None], x, 0.0)
        weights = jnp.where(mask, weights, 0.0)
    images = math.prod(shape[:-2])
    x, weights = x.reshape(images, *shape[-2:]), weights.reshape(images, shape[-2])
    concentration = jnp.broadcast_to(concentration, shape[:-2]).reshape(images)
    x, weights, concentration, step_size = vary(
        (x, weights, concentration, step_size), axis_name
    )
    moved = map_batch(one_image, x, weights, concentration, tile=tile)
    moved = moved.reshape(*shape[:-2], *moved.shape[1:]).astype(embeddings.dtype)
    if mask is None:
        return moved
    if options.every_step:
        mask, embeddings = mask[..., None, :], embeddings[..., None, :, :]
    return jnp.where(mask[..., None], moved, embeddings)


def _attended_step(
    attention, masked, x, weights, concentration, step_size
) -> jax.Array:
    """Makes one step by attention with queries kappa x, keys and values x."""
    valid = weights > 0
    points = x[None, :, None, :]
    # Without a mask, kernels that take none can serve.
    mask = valid[None, None, None, :] if masked else None
    mean = attention(concentration * points, points, points, mask=mask)[0, :, 0]
    moved = l2_normalize((1.0 - step_size) * x + step_size * mean.astype(x.dtype))
    return jnp.where(valid[:, None], moved, x)
