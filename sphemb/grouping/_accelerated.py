r"""Blurring mean shift for its modes alone, fast enough for every pixel of a photo.

Letters: N points, D dimensions, T steps, M moving points, P projections; leading axes
are batch axes. Two approximations make it cheap:

* Points that have met stay together. They continue as one point of their total weight,
  and soon few points are left (Carreira-Perpinan's accelerated algorithm).
* Until then the density is a sum over cells of neighbors. A cell acts like its mean,
  with its weight, up to an error of second order in its size. Points move singly.

A step costs N M instead of N^2 before the points have met, and M^2 afterwards. Shapes
are static: both phases are loops of one compiled program.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import (
    check_count,
    check_floating,
    check_mask,
    check_scalar,
    check_shape,
)
from sphemb._shards import share_out
from sphemb._tiles import choose_tiling, map_batch, vary
from sphemb.grouping._step import plain_step, step_on
from sphemb.sphere import l2_normalize, pairwise_dot

# Side of a cell in units of the distance that its points may have from their mean: with
# 24 projections the rms distance from a mean is about 2.3 sides in 64 dimensions.
_SIDE = 0.25
_FEWER = 4  # the cells of the first phase are so many times fewer than M
_MOST_CELLS = 2**16
_MOST_PROJECTIONS = 24
_TABLE_BITS = 22  # of the table by which cells are counted: 4 Mi entries of a byte
_ROUNDS = 8  # in which representatives are sampled


def accelerated_gbms(
    embeddings: jax.Array,
    *,
    concentration: jax.Array | float,
    num_steps: int,
    step_size: jax.Array | float = 1.0,
    mask: jax.Array | None = None,
    max_points: int = 8192,
    merge_distance: jax.Array | float = 0.01,
    tolerance: jax.Array | float = 1e-4,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
) -> jax.Array:
    r"""Moves points to the modes of :func:`gbms`, in O(N M) time a step.

    With the cells :math:`C_1 \dots C_M` of the points, the weight :math:`n_c` and the
    mean :math:`\mu_c` of a cell, a step is

    .. math::
        y_i = (1 - \eta)\, x_i + \eta\,
        \frac{\sum_c n_c\, e^{\kappa x_i^\top \mu_c} \mu_c}
             {\sum_c n_c\, e^{\kappa x_i^\top \mu_c}},
        \qquad x_i \leftarrow y_i / \|y_i\|,

    with a cell for the points nearest to each of M/4 representatives, which are sampled
    far from each other. Once all points are within ``merge_distance`` of at most M
    means, these means continue alone, with their weights, until none moves more than
    ``tolerance``. Up to M points, every step is that of :func:`gbms`.

    For predictions: no gradient. Well separated groups come out the same. Other points
    may move to another group, and small groups may be lost (docs/speed.md).

    Args:
        embeddings: [..., N, D] unit rows.
        concentration: kappa > 0, a number or a traced scalar.
        num_steps: T >= 0, static: the most steps.
        step_size: eta in (0, 2], a number or a traced scalar.
        mask: [..., N] bool, True = valid; the other rows are returned unchanged.
        max_points: M >= 8, static. More takes longer, and has smaller cells.
        merge_distance: the longest chord from a point to the mean it is merged into.
        tolerance: the last step moves no point by more (along the chord).
        precision: of the matmuls.

    References:
        Carreira-Perpinan, Fast nonparametric clustering with Gaussian blurring
        mean-shift, ICML 2006; Kong and Fowlkes, CVPR 2018, section 4.

    >>> import sphemb
    >>> noise = 0.1 * jax.random.normal(jax.random.key(0), (4096, 8))
    >>> x = l2_normalize(jnp.eye(8)[jnp.arange(4096) % 3] + noise)
    >>> y = accelerated_gbms(x, concentration=25.0, num_steps=50, max_points=256)
    >>> int(sphemb.label_modes(y, max_groups=8).num_groups)
    3
    """
    sizes = check_shape("embeddings", embeddings, "... N D")
    check_floating("embeddings", embeddings)
    check_scalar("concentration", concentration, above=0.0, below=math.inf)
    check_scalar("step_size", step_size, above=0.0, at_most=2.0)
    check_scalar("merge_distance", merge_distance, above=0.0, at_most=1.0)
    check_scalar("tolerance", tolerance, at_least=0.0)
    check_count("num_steps", num_steps)
    check_count("max_points", max_points, at_least=8)
    check_mask("mask", mask, "... N", dims=sizes, beside="embeddings")

    x = jax.lax.stop_gradient(jnp.asarray(embeddings))
    if num_steps == 0 or x.size == 0:
        return x
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    settings = (concentration, step_size, tolerance, merge_distance)
    numbers = (jax.lax.stop_gradient(jnp.asarray(s, dtype)) for s in settings)
    mask = None if mask is None else jnp.asarray(mask)
    options = _Settings(int(num_steps), int(max_points), precision)
    return _images(x, mask, tuple(numbers), settings=options)[0]


class _Settings(NamedTuple):
    """Static: T, M, precision of the matmuls."""

    num_steps: int
    max_points: int
    precision: jax.lax.PrecisionLike


class _State(NamedTuple):
    points: jax.Array  # [N or M, D]
    taken: jax.Array  # [] int32, steps made so far
    moving: jax.Array  # [] bool, whether the last step moved anything


@functools.partial(jax.jit, static_argnames="settings")
def _images(x, mask, numbers, *, settings) -> tuple[jax.Array, jax.Array]:
    """The moved points, and the number of steps of each image."""
    return share_out(
        functools.partial(_images_here, settings),
        (x, mask, *numbers),
        ("... N D", "... N", "", "", "", ""),
        ("... N D", "..."),
    )


def _images_here(settings, x, mask, *numbers) -> tuple[jax.Array, jax.Array]:
    dtype = numbers[0].dtype
    images = math.prod(x.shape[:-2])
    flat = x.astype(dtype).reshape(images, *x.shape[-2:])
    weights = jnp.ones(flat.shape[:-1], dtype)
    if mask is not None:
        weights = mask.reshape(weights.shape).astype(dtype)
        # Values of masked rows, NaN included, must not reach the others.
        flat = jnp.where(weights[..., None] > 0, flat, 0.0)

    def one_image(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _one_image(settings, x, weights, numbers)

    # One after another: side by side, every image would wait for the slowest.
    moved, taken = map_batch(one_image, flat, weights, tile=None)
    moved = moved.reshape(x.shape).astype(x.dtype)
    moved = moved if mask is None else jnp.where(mask[..., None], moved, x)
    return moved, taken.reshape(x.shape[:-2])


def _one_image(settings, x, weights, numbers) -> tuple[jax.Array, jax.Array]:
    num_points, most = x.shape[0], settings.max_points
    num_cells = min(_MOST_CELLS, max(1, most // _FEWER))
    start = _State(x, jnp.zeros((), jnp.int32), jnp.array(True))
    start, weights, numbers = vary((start, weights, numbers))
    kappa, eta, _, distance = numbers
    if num_points <= most:
        state = _settle(settings, start, weights, numbers)
        return state.points, state.taken
    tiling = choose_tiling(num_points, num_cells, precision=settings.precision)

    def spread(carry: Any) -> jax.Array:
        _, taken, merged, _ = carry
        return ~merged & (taken < settings.num_steps)

    def among_all(carry: Any) -> Any:
        # Neighbors come closer with every step, and so they stay neighbors.
        nearest = represent(x, weights, num_cells, precision=settings.precision)

        def body(carry: Any) -> Any:
            x, taken, _, _ = carry
            density = average(x, weights, nearest, num_cells)
            x = step_on(tiling, x, weights, *density, kappa, eta)
            return x, taken + 1, *_merge(x, weights, distance, most)

        return jax.lax.while_loop(spread, body, carry)

    x = start.points
    carry = (x, start.taken, *_merge(x, weights, distance, most))
    carry = jax.lax.cond(spread(carry), among_all, lambda carry: carry, carry)
    x, taken, merged, cells = carry

    def settled() -> tuple[jax.Array, jax.Array]:
        few = _State(l2_normalize(cells.means), taken, start.moving)
        state = _settle(settings, few, cells.weights, numbers)
        moved = jnp.where(weights[:, None] > 0, state.points[cells.index], x)
        return moved, state.taken

    return jax.lax.cond(merged, settled, lambda: (x, taken))


def _settle(settings, state, weights, numbers) -> _State:
    """Makes the rest of the steps with few points, or until none moves any more."""
    kappa, eta, tolerance, _ = numbers
    count = state.points.shape[0]
    tiling = choose_tiling(count, count, precision=settings.precision)

    def body(state: _State) -> _State:
        points = plain_step(tiling, state.points, weights, kappa, eta)
        moved = jnp.sum(jnp.square(points - state.points), axis=-1)
        # Written so that NaN goes on moving: it must come out.
        still = (moved <= jnp.square(tolerance)) | (weights <= 0)
        return _State(points, state.taken + 1, ~jnp.all(still))

    return jax.lax.while_loop(
        lambda state: state.moving & (state.taken < settings.num_steps), body, state
    )


def _merge(x, weights, distance, max_points: int) -> tuple[jax.Array, Cells]:
    """Merges points that have met, and returns whether that is all of them."""
    codes = encode(project(x), _SIDE * distance)
    few_cells = functools.partial(gather, max_cells=max_points)
    cells = jax.eval_shape(few_cells, x, weights, codes)

    def gathered() -> tuple[jax.Array, Cells]:
        cells = gather(x, weights, codes, max_points)
        close = are_close(x, weights, cells, distance)
        return close & (cells.number <= max_points), cells

    def spread() -> tuple[jax.Array, Cells]:
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cells)
        return vary((x, weights, (jnp.array(False), nothing)))[-1]

    few = count_cells(codes, weights > 0) <= max_points
    return jax.lax.cond(few, gathered, spread)


# Space is cut into cubes after an orthogonal projection; points share a cell when all P
# coordinates fall into one interval. With P < D distant points share a cell only if no
# projection shows their difference, which `are_close` checks.


class Cells(NamedTuple):
    """Points gathered in cells; means and weights of unused cells are zero."""

    index: jax.Array  # [N] int32, the cell of every point; >= M for cells beyond M
    means: jax.Array  # [M, D] weighted means
    weights: jax.Array  # [M] total weights
    number: jax.Array  # [] int32, the number of cells, those beyond M included


def project(x: jax.Array) -> jax.Array:
    """Projects [N, D] onto min(D, 24) fixed random orthonormal directions."""
    dim = x.shape[-1]
    square = np.random.default_rng(0).standard_normal((dim, dim))
    directions = np.linalg.qr(square)[0][:, :_MOST_PROJECTIONS]
    directions = jnp.asarray(directions, x.dtype)
    return jnp.matmul(x, directions, precision=jax.lax.Precision.HIGHEST)


def encode(projected: jax.Array, side: jax.Array) -> tuple[jax.Array, ...]:
    """Hashes the cell of every point [N, P] to 64 bits: two hashes [N] uint32."""
    cell = jnp.floor(projected / side).astype(jnp.int32).astype(jnp.uint32)
    factors = np.random.default_rng(1).integers(2**32, size=(2, cell.shape[1]))
    factors = factors.astype(np.uint32) | np.uint32(1)

    def mix(row: np.ndarray) -> jax.Array:
        code = jnp.zeros(cell.shape[0], jnp.uint32)
        for column, factor in enumerate(row):
            code = (code ^ cell[:, column]) * factor
            code = code ^ (code >> np.uint32(15))
        return code

    return tuple(mix(row) for row in factors)


def count_cells(codes: tuple[jax.Array, ...], valid: jax.Array) -> jax.Array:
    """Counts cells of valid points in a hash table: sometimes slightly too few."""
    slot = codes[0] >> np.uint32(32 - _TABLE_BITS)
    table = jnp.zeros(2**_TABLE_BITS, bool).at[slot].max(valid)
    return jnp.sum(table, dtype=jnp.int32)


def gather(x: jax.Array, weights: jax.Array, codes, max_cells: int) -> Cells:
    """Gathers points by their codes; points of weight 0 share one more cell."""
    num_points = x.shape[0]
    # Points of weight 0 sort last, so that their cell is the last one.
    silent = weights <= 0
    order = jnp.arange(num_points, dtype=jnp.int32)
    masked = (jnp.where(silent, jnp.uint32(0), key) for key in codes)
    *keys, order = jax.lax.sort((silent, *masked, order), num_keys=3)
    opens = jnp.zeros(num_points, bool)
    for key in keys:
        opens |= key != jnp.roll(key, 1)
    cell = jnp.cumsum(opens.at[0].set(False), dtype=jnp.int32)
    index = jnp.zeros(num_points, jnp.int32).at[order].set(cell, unique_indices=True)
    number = 1 + jnp.max(jnp.where(silent, -1, index))
    return Cells(index, *average(x, weights, index, max_cells), number)


def average(x, weights, index, number: int) -> tuple[jax.Array, jax.Array]:
    """Returns means [number, D] and weights [number] of the points of every index."""
    totals = jnp.zeros(number, x.dtype).at[index].add(weights, mode="drop")
    sums = jnp.zeros((number, x.shape[1]), x.dtype)
    sums = sums.at[index].add(weights[:, None] * x, mode="drop")
    return sums / jnp.where(totals > 0, totals, 1.0)[:, None], totals


def are_close(x, weights, cells: Cells, distance) -> jax.Array:
    """Whether all points of positive weight are near the means of their cells."""
    away = jnp.sum(jnp.square(x - cells.means[cells.index]), axis=1)
    return jnp.all((away <= jnp.square(distance)) | (weights <= 0))


# Representatives are sampled with a probability proportional to the squared distance
# from earlier ones (k-means++), several in a round (k-means||): a small distant group
# gets one as surely as a large one.


def _packed_nearest(x, centers, numbers, bits: int, precision: Any) -> jax.Array:
    """Returns int32 [N]: the least 1 - cos, its lowest bits the number of its center.

    The bits of non-negative floats have the order of the numbers, so one minimum finds
    distance and number; an argmin takes several times as long on CPUs.
    """
    keep = np.int32(-(1 << bits))

    def nearest(rows: jax.Array) -> jax.Array:
        cosine = pairwise_dot(centers, rows, precision=precision)
        apart = jnp.maximum(1.0 - cosine.astype(jnp.float32), 0.0)
        packed = jax.lax.bitcast_convert_type(apart, jnp.int32) & keep
        return jnp.min(packed | numbers[:, None], axis=0)

    num_points = x.shape[0]
    side = choose_tiling(num_points, len(centers), precision=precision).rows
    padded = jnp.pad(x, ((0, -num_points % side), (0, 0)))
    blocks = jax.lax.map(nearest, padded.reshape(-1, side, x.shape[1]))
    return blocks.reshape(-1)[:num_points]


def represent(x, weights, number: int, *, precision: Any) -> jax.Array:
    """Samples about M representatives, and returns the nearest one of each point, [N].

    M is static, at most N and 2^16; its number leaves 23 - log2 M bits of a float for
    the squared distance.
    """
    rounds = min(_ROUNDS, number)
    each = number // rounds
    bits = (rounds * each - 1).bit_length()
    key = jax.random.key(0)
    lowest = jnp.float32(jnp.finfo(jnp.float32).tiny)

    def sample(nearest: jax.Array, turn: jax.Array) -> tuple[jax.Array, None]:
        apart = jax.lax.bitcast_convert_type(nearest, jnp.float32)
        # The largest of log-weights and Gumbel noise are a sample by the weights.
        noise = jax.random.gumbel(jax.random.fold_in(key, turn), weights.shape)
        scores = jnp.log(jnp.maximum(apart, lowest)) + noise
        _, chosen = jax.lax.top_k(jnp.where(weights > 0, scores, -jnp.inf), each)
        numbers = turn * each + jnp.arange(each, dtype=jnp.int32)
        found = _packed_nearest(x, x[chosen], numbers, bits, precision)
        return jnp.minimum(nearest, found), None

    # Farther than any point: the first round samples uniformly.
    far = jax.lax.bitcast_convert_type(jnp.float32(4.0), jnp.int32)
    _, _, start = vary((x, weights, jnp.full(x.shape[0], far)))
    nearest, _ = jax.lax.scan(sample, start, jnp.arange(rounds, dtype=jnp.int32))
    return nearest & np.int32((1 << bits) - 1)
