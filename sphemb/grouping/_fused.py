r"""The sums of a step of mean shift, and of its gradient, as one Pallas kernel each.

The tiles of pairs stay in registers, or in a TPU's vector memory. Tensor cores take
16-bit factors, so a float32 factor is split into parts, :math:`x = x_0 + x_1 (+ x_2)`,
and a product is the sum of the products :math:`x_i y_j` with :math:`i + j` below the
number of parts: two parts of float16 and three products, four for the cosine, keep 22
bits (GPUs), three of bfloat16 and six products keep 24 (TPUs, which have no float16).
One product alone keeps 11 or 8 bits.

float16 ends at 2^16 and has subnormal numbers below 2^-14, so every factor is brought
near 1 and multiplied by a power of two. The weights stand in the exponent,
:math:`2^{\kappa' (\cos - 1) + \log_2 w_j}`; a masked point and padding have
:math:`-\infty`. The forward pass divides them by the largest; points of less than 1e-5
of it lose digits. The backward pass multiplies the m_i themselves, by the shares

.. math:: P_{ij} = e_{ij} w_j / d_i \le 1, \quad Q_{ij} = e_{ij} w_i / d_j \le 1, \quad
          w_i w_j H_{ij} = P_{ij}\, m_i^\top (x_j - M_i) + Q_{ij}\, m_j^\top (x_i - M_j)

of `_step`'s letters. Nothing is added atomically: equal inputs give equal bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from sphemb.grouping import _step

MAX_DIM = 128  # a wider backward pass exceeds a multiprocessor's shared memory
_LOG2_E = math.log2(math.e)
_UNIT = 2.0**6  # factor of unit rows: their second parts are no subnormal numbers
_SHARE = 2.0**13  # factor of weights and shares up to 1
_FORMATS = {"cuda": (jnp.float16, 2), "tpu": (jnp.bfloat16, 3)}


class Plan(NamedTuple):
    """How a platform works on tiles; static."""

    platform: str  # "cuda" or "tpu"
    rows: int
    columns: int
    chunks: int = 1  # of the columns, which are summed apart to fill a GPU
    num_warps: int = 8  # of a GPU's block
    interpret: bool = False


def fill_gpu(plan: Plan, num_points: int) -> Plan:
    """Chunks of four tiles at least, until 132 multiprocessors have three blocks."""
    chunks, blocks = 1, math.ceil(num_points / plan.rows)
    while blocks * chunks < 400 and num_points >= 8 * chunks * plan.columns:
        chunks *= 2
    return plan._replace(chunks=min(chunks, 16))


def choose_plans(platform: str, num_points: int, dim: int) -> tuple[Plan, Plan]:
    """Plans of the forward and of the backward pass.

    On GPUs the largest tiles that do not spill on an H200 (`tests/test_accelerators.py`
    compiles them; D > 64 backward spills in every shape), on TPUs tiles that fit a
    v5e's vector memory. Not timed yet.
    """
    if platform == "tpu":
        return (Plan("tpu", 512, 512),) * 2
    plans = []
    for backward in (False, True):
        plan = Plan("cuda", 64, 64, num_warps=4)
        if dim > 32:
            plan = Plan("cuda", 128, 32 if backward else 64)
        plans.append(fill_gpu(plan, num_points))
    return plans[0], plans[1]


def _split(x: jax.Array, plan: Plan) -> tuple[jax.Array, ...]:
    """Parts of 16 bits, whose sum is x but for rounding."""
    dtype, count = _FORMATS[plan.platform]
    parts = []
    for _ in range(count):
        parts.append(x.astype(dtype))
        x = x - parts[-1].astype(jnp.float32)
    return tuple(parts)


def _dot(a: tuple, b: tuple, axis: int, *, extra: int = 0) -> jax.Array:
    """The product of two sums of parts over columns of a and ``axis`` of b."""
    pairs = [(x, y) for i, x in enumerate(a) for y in b[: len(b) - i + extra]]
    products = [
        jax.lax.dot_general(
            x, y, (((1,), (axis,)), ((), ())), preferred_element_type=jnp.float32
        )
        for x, y in reversed(pairs)
    ]
    return functools.reduce(jnp.add, products)


def _near(plan: Plan, kappa, rows, columns, exponents) -> jax.Array:
    """2^(kappa (cosine - 1) + exponent) of a tile; kappa is scaled for both rows."""
    # kappa multiplies the error of the cosine: two parts want all four products.
    cosine = _dot(rows, columns, 1, extra=1 if len(rows) == 2 else 0)
    if plan.platform == "tpu" or plan.interpret:
        return jnp.exp2(kappa * (cosine - _UNIT**2) + exponents[None])
    from jax.experimental.pallas import triton

    # Two instructions, where XLA emits seven: it rounds the product, and it treats
    # subnormal results apart.
    offsets = exponents[None] - kappa * _UNIT**2
    (near,) = triton.elementwise_inline_asm(
        "{ .reg .f32 t; fma.rn.f32 t, $1, $2, $3; ex2.approx.ftz.f32 $0, t; }",
        args=[cosine, *(jnp.broadcast_to(a, cosine.shape) for a in (kappa, offsets))],
        constraints="=f,f,f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(cosine.shape, jnp.float32)],
    )
    return near


def _near_tile(plan: Plan, kappa, row, column) -> tuple[jax.Array, ...]:
    """Sums of w e x and w e over a block of columns."""
    x, exponents = column
    near = _near(plan, kappa, row, x, exponents)
    return _dot(_split(near, plan), x, 0), jnp.sum(near, axis=1)


def _pull_tile(plan: Plan, kappa, row, column) -> tuple[jax.Array, ...]:
    """Sums of w H w (x, 1) and of Q (m, m^T M) over a block of columns."""
    row_x, row_m, row_mean, row_share, row_weight = row
    x, m, mean, share, exponents = column
    near = _near(plan, kappa, row_x, x, exponents)
    pulled = _dot(row_m, x, 1) * (1.0 / _UNIT) - row_mean[:, None]
    through = (near * row_share[:, None]) * pulled
    shares = near * row_weight[:, None] * share[None]
    pulls = _dot(row_x, m, 1) * (1.0 / (_UNIT * _SHARE)) - mean[None]
    through = through + shares * pulls
    return (
        _dot(_split(through, plan), x, 0),
        jnp.sum(through, axis=1),
        _dot(_split(shares, plan), m, 0),
        jnp.sum(shares * mean[None], axis=1),
    )


# Vectors are [1, N], because a TPU wants two axes.


def _read(tree: Any, at: Any = slice(None)) -> Any:
    return jax.tree.map(lambda ref: ref[0, at] if ref.shape[0] == 1 else ref[at], tree)


def _gpu_kernel(tile, columns: int, tree, *refs) -> None:
    """Loops over the columns of a chunk; the sums stay in registers."""
    kappa, row, column, out = jax.tree.unflatten(tree, refs)
    kappa, row = kappa[...], _read(row)

    def body(index, sums):
        shares = tile(kappa, row, _read(column, pl.ds(index * columns, columns)))
        return tuple(map(jnp.add, sums, shares))

    length = column[-1].shape[-1]
    shapes = [o.shape[o.shape[0] == 1 :] for o in out]
    initial = tuple(jnp.zeros(shape, jnp.float32) for shape in shapes)
    sums = jax.lax.fori_loop(0, length // columns, body, initial)
    for ref, value in zip(out, sums, strict=True):
        ref[0 if ref.shape[0] == 1 else ...] = value


def _tpu_kernel(tile, columns: int, tree, *refs) -> None:
    """Adds one block of columns, the last axis of the grid, to the outputs."""
    kappa, row, column, out = jax.tree.unflatten(tree, refs)

    @pl.when(pl.program_id(2) == 0)
    def _():
        for ref in out:
            ref[...] = jnp.zeros_like(ref)

    shares = tile(kappa[...], _read(row), _read(column))
    for ref, share in zip(out, shares, strict=True):
        ref[...] += share.reshape(ref.shape)


def _fold(plan: Plan, tile: Callable, kappa, rows, columns, widths) -> list[jax.Array]:
    """Sums the outputs of a tile, [R, width] or for 0 [R], over all columns."""
    length = columns[-1].shape[-1]
    chunk = length // plan.chunks
    blocks = chunk // plan.columns
    grid = (length // plan.rows, plan.chunks)
    settings: dict[str, Any] = {"interpret": plan.interpret}
    if plan.platform == "tpu":
        from jax.experimental.pallas import tpu

        kernel, grid, side = _tpu_kernel, (*grid, blocks), plan.columns
        order = "parallel", "parallel", "arbitrary"
        params = tpu.CompilerParams(dimension_semantics=order)
    else:
        from jax.experimental.pallas import triton

        kernel, side = _gpu_kernel, chunk
        params = triton.CompilerParams(num_warps=plan.num_warps, num_stages=2)
    if not plan.interpret:
        settings["compiler_params"] = params

    def block(leaf, side: int, at: Callable) -> pl.BlockSpec:
        if leaf.shape[0] == 1:
            return pl.BlockSpec((1, side), lambda *ids: (0, at(*ids)))
        return pl.BlockSpec((side, leaf.shape[1]), lambda *ids: (at(*ids), 0))

    def column_at(i, s, j=None):
        return s if j is None else s * blocks + j

    out_shape, out_specs = [], []
    for width in widths:
        shape = (length, width) if width else (1, length)
        out_shape.append(jax.ShapeDtypeStruct((plan.chunks, *shape), jnp.float32))
        side_shape = (plan.rows, width) if width else (1, plan.rows)
        out_specs.append(
            pl.BlockSpec(
                (None, *side_shape),
                lambda i, s, *j, width=width: (s, i, 0) if width else (s, 0, i),
            )
        )
    row_specs = jax.tree.map(lambda a: block(a, plan.rows, lambda i, *_: i), rows)
    column_specs = jax.tree.map(lambda a: block(a, side, column_at), columns)
    tree = jax.tree.structure((kappa, rows, columns, list(widths)))
    out = pl.pallas_call(
        functools.partial(kernel, functools.partial(tile, plan), plan.columns, tree),
        grid=grid,
        in_specs=[
            block(kappa, 1, lambda *_: 0),
            *jax.tree.leaves((row_specs, column_specs)),
        ],
        out_specs=out_specs,
        out_shape=out_shape,
        **settings,
    )(kappa, *jax.tree.leaves((rows, columns)))
    sums = [jnp.sum(o, axis=0) for o in out]
    return [o if width else o[0] for o, width in zip(sums, widths, strict=True)]


def _power(x: jax.Array) -> jax.Array:
    """The largest power of two up to x > 0."""
    return jnp.exp2(jnp.floor(jnp.log2(jnp.maximum(x, jnp.finfo(x.dtype).tiny))))


class _Padded:
    """Splits and pads points for a plan, and cuts what comes back."""

    def __init__(self, plan: Plan, shape: tuple[int, int]):
        self.plan, (self.num_points, self.dim) = plan, shape
        side = math.lcm(plan.rows, plan.columns * plan.chunks)
        self.length = math.ceil(self.num_points / side) * side
        power = max(16, 1 << (self.dim - 1).bit_length())  # what a GPU's tiles want
        self.width = self.dim if plan.platform == "tpu" else power

    def vector(self, a: jax.Array, fill: float = 0.0) -> jax.Array:
        missing = self.length - self.num_points
        return jnp.pad(a, (0, missing), constant_values=fill)[None]

    def parts(self, a: jax.Array) -> tuple[jax.Array, ...]:
        missing = (0, self.length - self.num_points), (0, self.width - self.dim)
        return _split(jnp.pad(a, missing), self.plan)

    def exponents(self, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The logarithms of the weights in a unit, and the unit.

        Both passes take the same, so that the rounding of e is the same in e / d.
        """
        largest = _power(jnp.max(weights))
        exponents = jnp.log2(weights / largest) + math.log2(_SHARE)
        return self.vector(exponents, fill=-jnp.inf), largest / _SHARE

    def cut(self, points: jax.Array, ones: jax.Array) -> jax.Array:
        joined = jnp.concatenate([points[:, : self.dim], ones[:, None]], axis=1)
        return joined[: self.num_points]


def _near_sums(plan: Plan, x, weights, concentration) -> jax.Array:
    padded = _Padded(plan, x.shape)
    kappa = concentration.reshape(1, 1) * (_LOG2_E / _UNIT**2)
    exponents, unit = padded.exponents(weights)
    parts, widths = padded.parts(_UNIT * x), (padded.width, 0)
    sums, degree = _fold(plan, _near_tile, kappa, parts, (parts, exponents), widths)
    return unit * padded.cut(sums / _UNIT, degree)


def _pull_sums(plan: Plan, x, weights, mean, mass, m, concentration) -> Any:
    padded = _Padded(plan, x.shape)
    kappa = concentration.reshape(1, 1) * (_LOG2_E / _UNIT**2)
    largest = jnp.max(jnp.abs(m))
    # Below 2^11; the sums of a tile, at most 4 sqrt(D) times that, below 2^16.
    scale = jnp.where(largest > 0, 2.0**10 / _power(largest), 1.0)
    # The smallest weight serves where it is 0: the gradient in that weight wants a row.
    positive = jnp.where(weights > 0, weights, jnp.inf)
    row_weights = jnp.where(weights > 0, weights, jnp.min(positive))
    row_weights = jnp.where(jnp.isinf(row_weights), 1.0, row_weights)
    points, pulls = padded.parts(_UNIT * x), padded.parts(scale * m)
    # Of what the parts hold, because m^T x - m^T M cancels.
    held = sum(part[: x.shape[0], : x.shape[1]].astype(x.dtype) for part in pulls)
    means, vector = jnp.sum(held * mean, axis=-1), padded.vector
    exponents, unit = padded.exponents(weights)
    rows = points, pulls, *map(vector, (means, unit * weights / mass, row_weights))
    columns = points, pulls, *map(vector, (means / _SHARE, _SHARE * unit / mass))
    columns = *columns, exponents
    widths = padded.width, 0, padded.width, 0
    hx, h, qm, qc = _fold(plan, _pull_tile, kappa, rows, columns, widths)
    factor = 1.0 / (scale * row_weights)[:, None]
    return factor * padded.cut(hx / _UNIT, h), factor * padded.cut(qm / _SHARE, qc)


def _by_platform(sums: Callable, index: int, plans, x, *args) -> Any:
    if plans is not None:
        return sums(plans[index], x, *args)

    def on(platform: str, *, interpret: bool = False) -> Callable:
        plan = choose_plans(platform, *x.shape)[index]
        return functools.partial(sums, plan._replace(interpret=interpret))

    default = on("cuda", interpret=True)
    kernels = {"cuda": on("cuda"), "tpu": on("tpu"), "default": default}
    return jax.lax.platform_dependent(x, *args, **kernels)


def _sum_near(plans, x, weights, concentration) -> tuple[jax.Array, None]:
    return _by_platform(_near_sums, 0, plans, x, weights, concentration), None


def _sum_pulls(plans, _, *args) -> Any:
    return _by_platform(_pull_sums, 1, plans, *args)


# Takes the plans of both passes in place of the tiling, None for those of the platform.
step = _step.step_with_gradient(_sum_near, _sum_pulls)
