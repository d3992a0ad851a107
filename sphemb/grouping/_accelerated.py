r"""Blurring mean shift for its modes alone, fast enough for every pixel of a photo.

Letters: N points, D dimensions, T steps, M points at work; leading axes are batch axes.

Two things make blurring mean shift cheap where only its end is wanted.

* Points that have met move together for ever. They go on as one point of their mass,
  and soon few points are left (Carreira-Perpinan's accelerated algorithm).
* Until they have met, a point need not be compared with every other. The density is a
  sum over cells of neighbours, and a cell acts like its mean with its mass, but for an
  error of second order in its size. Every point moves by itself, on that density.

So steps cost N M instead of N^2 while the points are spread, and M^2 afterwards. The
shapes are static: both phases are loops of one compiled program.
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
from sphemb._ring import vary
from sphemb._tiles import choose_tiling
from sphemb.grouping._cells import (
    Cells,
    are_close,
    average,
    count_cells,
    encode,
    gather,
    project,
)
from sphemb.grouping._representatives import represent
from sphemb.grouping._step import plain_step, step_on
from sphemb.sphere import l2_normalize

# A cell's side in units of the distance that its points may have from their mean: of 24
# projections the rms distance from a mean is about 2.3 sides in 64 dimensions.
_SIDE = 0.25
# Few enough points move on among themselves; until then they move on a density of so
# many times fewer cells, since N M is so much more than M^2.
_FEWER = 4
_MOST_CELLS = 2**16


class _Settings(NamedTuple):
    """What is static: T, M, precision of the matmuls."""

    num_steps: int
    max_points: int
    precision: jax.lax.PrecisionLike


class _State(NamedTuple):
    points: jax.Array  # [N or M, D]
    taken: jax.Array  # [] int32, steps made so far
    moving: jax.Array  # [] bool, whether the last step moved anything


def _settle(
    settings: _Settings,
    state: _State,
    mass: jax.Array,
    numbers: tuple[jax.Array, ...],
) -> _State:
    """Makes the rest of the steps with few points, or until none moves any more."""
    kappa, eta, tolerance, _ = numbers
    count = state.points.shape[0]
    tiling = choose_tiling(count, count, precision=settings.precision)

    def body(state: _State) -> _State:
        points = plain_step(tiling, state.points, mass, kappa, eta)
        moved = jnp.sum(jnp.square(points - state.points), axis=-1)
        # Written so that NaN goes on moving: it must come out.
        still = (moved <= jnp.square(tolerance)) | (mass <= 0)
        return _State(points, state.taken + 1, ~jnp.all(still))

    return jax.lax.while_loop(
        lambda state: state.moving & (state.taken < settings.num_steps),
        body,
        state,
    )


def _merge(
    x: jax.Array, mass: jax.Array, distance: jax.Array, max_points: int
) -> tuple[jax.Array, Cells]:
    """Gathers points that have met, and tells whether that is all of them."""
    codes = encode(project(x), _SIDE * distance)
    cells = jax.eval_shape(
        functools.partial(gather, max_cells=max_points), x, mass, codes
    )

    def gathered() -> tuple[jax.Array, Cells]:
        cells = gather(x, mass, codes, max_points)
        close = are_close(x, mass, cells, distance)
        return close & (cells.number <= max_points), cells

    def spread() -> tuple[jax.Array, Cells]:
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cells)
        return vary((x, mass, (jnp.array(False), nothing)))[-1]

    few = count_cells(codes, mass > 0) <= max_points
    return jax.lax.cond(few, gathered, spread)


def _one_image(
    settings: _Settings,
    x: jax.Array,
    mass: jax.Array,
    numbers: tuple[jax.Array, ...],
) -> tuple[jax.Array, jax.Array]:
    num_points, most = x.shape[0], settings.max_points
    num_cells = min(_MOST_CELLS, max(1, most // _FEWER))
    start = _State(x, jnp.zeros((), jnp.int32), jnp.array(True))
    start, mass, numbers = vary((start, mass, numbers))
    kappa, eta, _, distance = numbers
    if num_points <= most:
        state = _settle(settings, start, mass, numbers)
        return state.points, state.taken
    tiling = choose_tiling(num_points, num_cells, precision=settings.precision)

    def spread(carry: Any) -> jax.Array:
        _, taken, merged, _ = carry
        return ~merged & (taken < settings.num_steps)

    def among_all(carry: Any) -> Any:
        # Neighbours come closer with every step, and so they stay neighbours.
        nearest = represent(x, mass, num_cells, precision=settings.precision)

        def body(carry: Any) -> Any:
            x, taken, _, _ = carry
            density = average(x, mass, nearest, num_cells)
            x = step_on(tiling, x, mass, *density, kappa, eta)
            return x, taken + 1, *_merge(x, mass, distance, most)

        return jax.lax.while_loop(spread, body, carry)

    x = start.points
    carry = (x, start.taken, *_merge(x, mass, distance, most))
    carry = jax.lax.cond(spread(carry), among_all, lambda carry: carry, carry)
    x, taken, merged, cells = carry

    def settled() -> tuple[jax.Array, jax.Array]:
        few = _State(l2_normalize(cells.means), taken, start.moving)
        state = _settle(settings, few, cells.masses, numbers)
        moved = jnp.where(mass[:, None] > 0, state.points[cells.index], x)
        return moved, state.taken

    return jax.lax.cond(merged, settled, lambda: (x, taken))


@functools.partial(jax.jit, static_argnames="settings")
def _images(
    x: jax.Array,
    mask: jax.Array | None,
    numbers: tuple[jax.Array, ...],
    *,
    settings: _Settings,
) -> tuple[jax.Array, jax.Array]:
    dtype = numbers[0].dtype
    flat = x.astype(dtype).reshape(-1, *x.shape[-2:])
    mass = jnp.ones(flat.shape[:-1], dtype)
    if mask is not None:
        mass = mask.reshape(mass.shape).astype(dtype)
        # Whatever a masked row holds, NaN included, must not reach the others.
        flat = jnp.where(mass[..., None] > 0, flat, 0.0)
    # One after another: side by side, every image would wait for the slowest.
    moved, taken = jax.lax.map(
        lambda image: _one_image(settings, image[0], image[1], numbers), (flat, mass)
    )
    moved = moved.reshape(x.shape).astype(x.dtype)
    moved = moved if mask is None else jnp.where(mask[..., None], moved, x)
    return moved, taken.reshape(x.shape[:-2])


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
    r"""Moves points to the modes that :func:`gbms` ends at, in O(N M) time a step.

    With :math:`C_1 \dots C_M` the cells of the points, :math:`n_c` the mass and
    :math:`\mu_c` the mean of a cell, a step is

    .. math::
        y_i = (1 - \eta)\, x_i + \eta\,
        \frac{\sum_c n_c\, e^{\kappa x_i^\top \mu_c} \mu_c}
             {\sum_c n_c\, e^{\kappa x_i^\top \mu_c}},
        \qquad x_i \leftarrow y_i / \|y_i\|,

    with a cell for the points nearest to each of M/4 representatives, which are drawn
    far from each other. As soon as all points are within ``merge_distance`` of at most
    M means, these means go on alone, as points of their mass, until none moves farther
    than ``tolerance``. Up to M points, every step is that of :func:`gbms`.

    For predictions: there is no gradient. What is approximate is the density that a
    point climbs before the points have met, to second order in the size of the cells.
    Well separated groups come out the same. A point between two groups may fall to the
    other, a lone point to the nearest cell, and a group too small to get a cell of its
    own may be lost (docs/speed.md has the measured agreement). Rows that the mask
    silences count towards N.

    Args:
        embeddings: [..., N, D] unit rows.
        concentration: kappa > 0 of the kernel exp(kappa cos), a number or a traced
            scalar.
        num_steps: T >= 0, static: the most steps that are made.
        step_size: eta in (0, 2], a number or a traced scalar.
        mask: [..., N] bool, True = counts; the other rows come back as they are.
        max_points: M >= 8, static. More takes longer, and has smaller cells.
        merge_distance: the largest distance (along the chord) of a point from the mean
            that it is merged into.
        tolerance: a step that moves no point by more (along the chord) is the last.
        precision: of the matmuls.

    Returns:
        [..., N, D] the points after the last step, in the dtype of ``embeddings``.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

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
    if mask is not None:
        dims = {"...": sizes["..."], "N": sizes["N"]}
        check_shape("mask", mask, "... N", dims=dims, beside="embeddings")
        check_boolean("mask", mask)

    x = jax.lax.stop_gradient(jnp.asarray(embeddings))
    if num_steps == 0 or x.size == 0:
        return x
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    settings = (concentration, step_size, tolerance, merge_distance)
    numbers = (jax.lax.stop_gradient(jnp.asarray(s, dtype)) for s in settings)
    moved, _ = _images(
        x,
        None if mask is None else jnp.asarray(mask),
        tuple(numbers),
        settings=_Settings(int(num_steps), int(max_points), precision),
    )
    return moved
