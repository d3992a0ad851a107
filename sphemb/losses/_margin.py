r"""The spherical max-margin loss of Eq. 2, and its sums over all ordered pairs.

Letters: N points of D entries. Sums :math:`\sum_{ij} w_i w_j \phi(x_i^\top x_j)` visit
the pairs in tiles, so that no derivative holds an N x N array. The forward pass already
computes the first derivative, one more matmul per tile: by symmetry

.. math:: \frac{\partial}{\partial x_i} = 2 w_i \sum_j w_j \phi'(c_{ij})\, x_j
          \qquad \frac{\partial}{\partial w_i} = 2 \sum_j w_j \phi(c_{ij})

are sums over one row of tiles. They are linear in the tangents: one custom JVP serves
forward and reverse mode. Higher derivatives go through the checkpointed tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from sphemb._checks import (
    VOID,
    InputError,
    check_array,
    check_axis_name,
    check_block_size,
    check_broadcasts,
    check_choice,
    check_number,
    check_shape,
)
from sphemb._shards import share_out
from sphemb._tiles import (
    AxisName,
    add_devices,
    choose_tiling,
    fold_tiles,
    map_batch,
    vary,
)
from sphemb.losses._sampling import (
    check_points,
    instance_ids,
    instance_sums,
    inverse_counts,
    valid_labels,
)
from sphemb.sphere import pairwise_dot
from sphemb.sphere._blocks import Plan, arrange, fold_blocks, pays, plan_blocks


class MarginLossTerms(NamedTuple):
    """The two halves of the loss, see :func:`margin_loss_terms`."""

    positive: jax.Array  # [...], of pairs of the same instance
    negative: jax.Array  # [...], of pairs of different instances


class _Options(NamedTuple):
    """The static settings that the public losses share."""

    normalize: str
    power: int
    block_size: int | None
    precision: jax.lax.PrecisionLike
    axis_name: AxisName


def margin_loss(
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    margin: ArrayLike,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    normalize: str = "pixels",
    negative_weight: ArrayLike = 1.0,
    power: int = 1,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Pulls pixels of one instance together and pushes instances apart, as Eq. 2.

    .. math:: \ell = \frac1N \sum_{i,j} w_i w_j \left( 1_{[y_i = y_j]} (1 - s_{ij})
              + \lambda\, 1_{[y_i \ne y_j]} [s_{ij} - \alpha]_+ \right)

    over all ordered pairs, :math:`i = j` included, with the calibrated similarity
    :math:`s = (1 + \cos\theta) / 2`. Time is quadratic in N, memory linear, gradient
    included; use :func:`sample_pixels` for many pixels. Differentiable in embeddings,
    weights, margin and :math:`\lambda`, in both modes and to any order.

    Args:
        embeddings: [..., N, D] unit vectors; they are not normalized again.
        labels: [..., N] instance of every pixel, any integers; ``VOID`` (-1) is
            excluded. Background is an instance.
        margin: alpha in [0, 1], a number or an array that broadcasts to [...].
        weights: [..., N] weights of the pixels; None takes :func:`instance_weights`.
        mask: [..., N] True = valid; None takes all pixels as valid.
        normalize: ``"pixels"`` divides by the number of valid pixels, as Eq. 2;
            ``"pairs"`` by the total weight of all pairs, as the authors' code;
            ``"terms"`` divides each half by the weight of its own pairs, so that with Q
            instances the pull is not Q - 1 times weaker than the push.
        negative_weight: lambda, a number or an array that broadcasts to [...]; the
            authors use 5 on PASCAL VOC.
        power: 1 for Eq. 2; 2 for :math:`1 - s^2` and :math:`[s - \alpha]_+^2`, the loss
            that the authors' backward pass descends.
        block_size: largest side of the tiles of pairs; None chooses.
        precision: of the matmuls, see `jax.lax.Precision`.
        axis_name: of the mesh axis (or a tuple of axes) over which the pixels are
            sharded, inside `jax.shard_map` or `jax.pmap`. All arrays hold the pixels of
            this device, the loss is that of all; see docs/sharding.md.

    Returns:
        [...] losses, in float32 at least; 0 without valid pixels.

    References:
        Kong & Fowlkes, CVPR 2018, Eq. 1 and 2.

    >>> corners = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> labels = jnp.array([1, 1, 2])
    >>> float(margin_loss(corners, labels, margin=0.5))
    0.0
    >>> float(margin_loss(corners, labels, margin=0.25, normalize="pairs"))
    0.125
    """
    check_number("negative_weight", negative_weight, at_least=0)
    options = _Options(normalize, power, block_size, precision, axis_name)
    terms = _checked_terms(embeddings, labels, margin, weights, mask, options)
    batch = jnp.shape(terms.negative)
    check_broadcasts("negative_weight", negative_weight, batch)
    factor = jnp.asarray(negative_weight, terms.negative.dtype)
    return terms.positive + jnp.broadcast_to(factor, batch) * terms.negative


def margin_loss_terms(
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    margin: ArrayLike,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    normalize: str = "pixels",
    power: int = 1,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    axis_name: AxisName = None,
) -> MarginLossTerms:
    r"""The two halves of :func:`margin_loss`, to log or weight them separately.

    ``margin_loss`` is ``positive + negative_weight * negative``, of the same arguments.

    >>> terms = margin_loss_terms(jnp.ones((4, 1)), jnp.array([1, 1, 2, 2]), margin=0.0)
    >>> float(terms.positive), float(terms.negative)
    (0.0, 0.5)
    """
    options = _Options(normalize, power, block_size, precision, axis_name)
    return _checked_terms(embeddings, labels, margin, weights, mask, options)


def trajectory_margin_loss(
    trajectory: jax.Array,
    labels: jax.Array,
    *,
    margin: ArrayLike,
    step_weights: Sequence[float] | jax.Array | None = None,
    weights: jax.Array | None = None,
    mask: jax.Array | None = None,
    normalize: str = "pixels",
    negative_weight: ArrayLike = 1.0,
    power: int = 1,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    axis_name: AxisName = None,
) -> jax.Array:
    r"""Sums the margin loss over every step of a mean shift.

    .. math:: \sum_{t=0}^{T} v_t\, \ell(X^{(t)})

    ``trajectory`` is [T+1, ..., N, D], the input of the mean shift first. The weights v
    of the steps are [T+1], None for 1; ``margin`` and ``negative_weight`` are a number
    for all steps or [T+1]; the authors' digits have the margins .1, .07, .07, ... All
    other arguments, and the result, are those of :func:`margin_loss`. To sample other
    pixels at every step, as the authors do, give it the samples of all as a batch.

    References:
        Kong & Fowlkes, CVPR 2018, section 4.2.

    >>> still = jnp.stack([jnp.eye(2)] * 3)
    >>> float(trajectory_margin_loss(still, jnp.array([1, 2]), margin=0.25))
    0.75
    """
    check_array("trajectory", trajectory)
    check_shape("trajectory", trajectory, "... N D")
    if jnp.ndim(trajectory) < 3:
        raise InputError(
            "trajectory must have shape [T+1, ..., N, D], got "
            f"{jnp.shape(trajectory)}: use margin_loss for a single step"
        )
    steps, *shape = jnp.shape(trajectory)
    step = jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(trajectory))
    name = "a step of the trajectory"
    batch = check_points(name, step, "... N D", labels, weights)["..."]

    def each_step(name: str, value: ArrayLike) -> jax.Array:
        """[.., 1, T+1], of the rank of the losses."""
        value = jnp.asarray(value)
        if value.ndim > 0:
            check_shape(name, value, str(steps), beside="the trajectory")
        return value.reshape(*(1 for _ in batch), -1)

    check_number("margin", margin, at_least=0, at_most=1)
    margin = each_step("margin", margin)
    ones = jnp.ones(steps)
    step_weights = jnp.asarray(ones if step_weights is None else step_weights)
    check_shape("step_weights", step_weights, str(steps), beside="the trajectory")
    step_weights = each_step("step_weights", step_weights)
    check_number("negative_weight", negative_weight, at_least=0)
    negative_weight = each_step("negative_weight", negative_weight)
    options = _Options(normalize, power, block_size, precision, axis_name)
    _check_options(options)
    labels = valid_labels(labels, mask)[..., None, :]
    weights = None if weights is None else jnp.asarray(weights)[..., None, :]
    # The steps are the last batch axis: images that are sharded must stay first.
    trajectory = jnp.moveaxis(jnp.asarray(trajectory), 0, -3)
    terms = _terms(trajectory, labels, weights, margin, options=options)
    dtype = terms.positive.dtype
    losses = terms.positive + negative_weight.astype(dtype) * terms.negative
    # Not a dot product, which accelerators would round.
    return jnp.sum(step_weights.astype(dtype) * losses, axis=-1)


def _check_options(options: _Options) -> None:
    check_choice("normalize", options.normalize, ("pixels", "pairs", "terms"))
    check_choice("power", options.power, (1, 2))
    check_block_size(options.block_size)
    check_axis_name("axis_name", options.axis_name)


def _checked_terms(
    embeddings, labels, margin, weights, mask, options: _Options
) -> MarginLossTerms:
    sizes = check_points("embeddings", embeddings, "... N D", labels, weights)
    check_number("margin", margin, at_least=0, at_most=1)
    check_broadcasts("margin", margin, sizes["..."])
    _check_options(options)
    labels = valid_labels(labels, mask)
    return _terms(embeddings, labels, weights, margin, options=options)


# Compiled even for callers who do not compile, so that a call need not trace it again.
@functools.partial(jax.jit, static_argnames="options")
def _terms(x, labels, weights, margin, *, options: _Options) -> MarginLossTerms:
    """Both halves for [..., N, D]; the other arrays broadcast over the images."""
    return share_out(
        functools.partial(_terms_here, options),
        (x, labels, weights, margin),
        ("... N D", "... N", "... N", "..."),
        MarginLossTerms._make(("...", "...")),
        rows="N",
        axis_name=options.axis_name,
    )


def _terms_here(
    options: _Options, x, labels, weights, margin, *, axis_name: AxisName
) -> MarginLossTerms:
    """Both halves for the images, or points, of this device."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    valid = labels != VOID
    ids = instance_ids(labels, axis_name=axis_name)
    if weights is None:
        weights = inverse_counts(labels, ids, dtype=dtype, axis_name=axis_name)
    weights = jnp.where(valid, weights.astype(dtype), 0.0)
    # Values of invalid points, NaN included, must not reach a matmul.
    x = jnp.where(valid[..., None], x.astype(dtype), 0.0)

    batch, (num_points, dim) = x.shape[:-2], x.shape[-2:]
    sides = num_points, num_points, options.block_size
    settings = {"precision": options.precision, "axis_name": axis_name}
    tiling = choose_tiling(*sides, points=x, **settings)

    def image(x, weights, ids, margin):
        x, weights, ids, margin = vary((x, weights, ids, margin), axis_name)

        def pairs(term):
            return _pair_sum(term, tiling, x, weights, ids, margin)

        total, slot = instance_sums(weights, ids, axis_name=axis_name)
        within = add_devices(jnp.sum(total[slot] * weights), axis_name)
        if options.power == 1:
            same = _within_sum(x, weights, ids, axis_name=axis_name)
            return same, pairs(_hinge), within
        return pairs(_squared_fall), pairs(_squared_hinge), within

    def each_image(array, *tail):
        shape = (math.prod(batch), *tail)
        return jnp.broadcast_to(array, batch + tail).reshape(shape)

    *sums, within = map_batch(
        image,
        x.reshape(math.prod(batch), num_points, dim),
        each_image(weights, num_points),
        each_image(ids, num_points),
        each_image(jnp.asarray(margin, dtype)),
        tile=tiling.size,
    )
    if options.normalize == "pixels":
        total = add_devices(jnp.sum(valid, axis=-1), axis_name).astype(dtype)
    else:
        total = jnp.square(add_devices(jnp.sum(weights, axis=-1), axis_name))
    total = jnp.broadcast_to(total, batch)
    totals = total, total
    if options.normalize == "terms":
        within = within.reshape(batch)
        between = total - within
        # One instance has no pairs between instances, and rounding must not make any.
        rounding = 8 * jnp.finfo(dtype).eps * total
        totals = within, jnp.where(between > rounding, between, 0.0)
    halves = zip(sums, totals, strict=True)
    return MarginLossTerms(
        *(term.reshape(batch) / jnp.where(n == 0, 1.0, n) for term, n in halves)
    )


class _Rows(NamedTuple):
    value: jax.Array  # [N] sum over j of w_j times the pair's value
    slope: jax.Array | None  # [N, D] sum over j of w_j times the slope times x_j
    step: jax.Array | None  # [N] sum over j of w_j times the slope


# The terms return [N, M] values of pairs, and slopes in the cosine.


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


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _pair_sum(term, tiling, x, weights, ids, margin) -> jax.Array:
    """Weighted sum [] of a term over all ordered pairs of one image [N, D]."""
    rows = _row_sums(term, tiling, x, weights, ids, margin)
    return add_devices(jnp.sum(weights * rows.value), tiling.axis_name)


@functools.partial(_pair_sum.defjvp, symbolic_zeros=True)
def _pair_sum_jvp(term, tiling, primals, tangents):
    x, weights, *_ = primals
    x_tangent, weights_tangent, _, margin_tangent = (
        None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents
    )
    # s - alpha falls by one where the cosine, half of which is in s, rises by two.
    margin_moves = margin_tangent is not None and term is not _squared_fall
    wanted = {"slopes": x_tangent is not None, "steps": margin_moves}
    rows = _row_sums(term, tiling, *primals, **wanted)
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
    """Sums the values over the columns, and the slopes and steps where wanted."""
    precision = tiling.precision

    def tile(total: _Rows, row, column) -> _Rows:
        cosine = pairwise_dot(row["x"], column["x"], precision=precision)
        same = row["ids"][:, None] == column["ids"][None, :]
        value, slope = term(cosine, same, margin)

        # Matmuls, because a reduction along the rows of a tile is slower on CPUs. One
        # for each, because one column more than D would make a matmul slower.
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

    def initial(rows: int) -> _Rows:
        zero = jnp.zeros(rows, x.dtype)
        slope = jnp.zeros((rows, x.shape[-1]), x.dtype) if slopes else None
        return _Rows(zero, slope, zero if steps else None)

    if term is not _squared_fall and pays(x, tiling):
        plan = _plan(x, weights, ids, margin)
        return fold_blocks(tile, initial, points, columns, tiling, plan=plan)
    return fold_tiles(tile, initial, points, columns, tiling)


def _plan(x, weights, ids, margin) -> Plan:
    """Leaves out blocks of pairs below the margin, and those of one instance."""
    blocks = arrange(x)
    there = blocks.points < len(x)
    there = there.reshape(-1, blocks.side)
    ids = blocks.cut(ids)
    lowest = jnp.min(jnp.where(there, ids, jnp.iinfo(ids.dtype).max), axis=1)
    highest = jnp.max(jnp.where(there, ids, jnp.iinfo(ids.dtype).min), axis=1)
    one = (lowest == highest)[:, None] & (lowest[:, None] == lowest[None])
    one &= (lowest == highest)[None]
    # The bound is of exact products, to which rounding adds; NaN is needed.
    rounding = 64 * jnp.finfo(x.dtype).eps
    below = blocks.highest < 2.0 * margin - 1.0 - rounding
    return plan_blocks(blocks, ~(below | one), x, weights)


def _within_sum(
    x: jax.Array, weights: jax.Array, ids: jax.Array, *, axis_name: AxisName = None
) -> jax.Array:
    r"""Sum of w_i w_j (1 - s_ij) over the pairs of one instance, in linear time.

    With the weight :math:`W_q` and the weighted mean :math:`\mu_q` of an instance,

    .. math:: \sum_{ij \in q} w_i w_j (1 - s_{ij}) = \frac{W_q}{2} \sum_{i \in q} w_i
              \left(1 - \lVert x_i \rVert^2 + \lVert x_i - \mu_q \rVert^2 \right)

    which on the sphere is :math:`\tfrac12 W_q^2 (1 - \lVert \mu_q \rVert^2)`, but does
    not cancel where the mean is nearly a unit vector.
    """
    weighted = (weights, weights[:, None] * x)
    (total, sums), slot = instance_sums(weighted, ids, axis_name=axis_name)
    means = sums / jnp.where(total == 0, 1.0, total)[:, None]
    spread = jnp.sum(jnp.square(x - means[slot]), axis=-1)
    lacking = 1.0 - jnp.sum(jnp.square(x), axis=-1)
    costs = jnp.sum(total[slot] * weights * (lacking + spread))
    return 0.5 * add_devices(costs, axis_name)
