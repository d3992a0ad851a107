"""Rounding by rotation: orthonormal directions, and every point to the nearest of them.

Letters: N points, D dimensions, and as many groups at most; leading axes are batch
axes.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from sphemb._checks import check_count, check_key
from sphemb._labels import VOID
from sphemb.grouping._leaders import Leaders
from sphemb.grouping._modes import Grouping, countable_points, number_groups
from sphemb.grouping._rounding import Rounding, best_of, lots
from sphemb.sphere import l2_normalize

_NO_LENGTH = 1e-6  # squared


def orthogonal_rounding(
    key: jax.Array,
    embeddings: jax.Array,
    *,
    num_steps: int = 30,
    num_starts: int = 1,
    min_size: int = 1,
    mask: jax.Array | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
) -> Rounding:
    r"""Rounds embeddings to the nearest partition up to a rotation, locally.

    The eigenvectors of the oracle Laplacian are one-hot rows, times any rotation, which
    the spectral loss leaves open. So a rotation and a partition are sought together,

    .. math:: \min_{R^\top R = 1,\; Y \text{ one-hot}} \lVert V R - Y \rVert_F^2
              \quad\Leftrightarrow\quad
              \max_{R,\, \hat y} \sum_i v_i^\top r_{\hat y_i}

    by turns: every point goes to the direction :math:`r_k` of its largest product, and
    :math:`R = U W^\top` with :math:`V^\top Y = U \Sigma W^\top` (orthogonal
    Procrustes). Neither turn lowers the sum, and it ends when no point moves: a local
    optimum. A reflection is no loss, since exchanging two groups undoes it. Directions
    start at points that are farthest from the span of those before, the first of them
    random.

    Groups are at right angles, and hence at most D; there is no threshold. Static
    shapes; O(N D^2) time a turn. No gradient.

    Args:
        key: a random key, typed or legacy, for the first directions.
        embeddings: [..., N, D] unit rows; rows with NaN or infinity are taken for
            masked.
        num_steps: turns at most, static.
        num_starts: R tries, static, of which the one is kept whose affinity is nearest
            to the embeddings' products.
        min_size: groups of fewer points are dissolved; their points go to the nearest
            direction that is left.
        mask: [..., N] bool, True = counts; the other points get VOID.
        precision: of the matmuls.

    Returns:
        A :class:`Rounding` whose modes are the directions, at most D of them; as each
        point goes to one, ``num_left`` is 0.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Yu & Shi, "Multiclass spectral clustering", ICCV 2003; Damle, Minden & Ying,
        "Simple, direct and efficient multi-way spectral clustering", Information and
        Inference 2019, for the start. Barnes & Dubrawski, section 4, wish for it.

    >>> x = jnp.array([[0.6, 0.8], [0.8, -0.6], [1.0, 0.0]])
    >>> found = orthogonal_rounding(jax.random.key(0), x)
    >>> found.labels.tolist(), found.sizes.tolist()
    ([1, 0, 0], [2, 1])
    """
    x, counts = countable_points(embeddings, mask)
    check_count("num_steps", num_steps, at_least=1)
    check_count("num_starts", num_starts, at_least=1)
    check_count("min_size", min_size, at_least=1)
    return _rotations(
        check_key("key", key),
        x,
        counts,
        num_steps=int(num_steps),
        num_starts=int(num_starts),
        min_size=int(min_size),
        precision=precision,
    )


@functools.partial(
    jax.jit, static_argnames=("num_steps", "num_starts", "min_size", "precision")
)
def _rotations(
    key: jax.Array,
    x: jax.Array,
    counts: jax.Array,
    *,
    num_steps: int,
    num_starts: int,
    min_size: int,
    precision: jax.lax.PrecisionLike,
) -> Rounding:
    def one_start(key: jax.Array, x: jax.Array, counts: jax.Array) -> Grouping:
        directions = _spread_directions(key, x, counts, precision)

        def assign(directions: jax.Array) -> jax.Array:
            cosine = jnp.matmul(x, directions.T, precision=precision)
            nearest = jnp.argmax(cosine, axis=1).astype(jnp.int32)
            return jnp.where(counts, nearest, VOID)

        def turn(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            step, labels, _, _ = state
            slots = jnp.where(labels == VOID, x.shape[1], labels)
            sums = jnp.zeros_like(directions).at[slots].add(x, mode="drop")
            new = _nearest_rotation(sums, precision)
            found = assign(new)
            return step + 1, found, new, jnp.any(found != labels)

        start = (jnp.int32(0), assign(directions), directions, jnp.asarray(True))
        _, labels, directions, _ = jax.lax.while_loop(
            lambda state: (state[0] < num_steps) & state[3], turn, start
        )
        found = Leaders(
            free=jnp.zeros_like(counts),
            labels=labels,
            modes=directions,
            found=jnp.int32(x.shape[1]),
            left=jnp.asarray(False),
        )
        return number_groups(
            found,
            x,
            counts,
            min_size=min_size,
            unassigned="nearest",
            precision=precision,
        )

    return best_of(
        one_start,
        key,
        x,
        counts,
        number=num_starts,
        max_groups=x.shape[-1],
        precision=precision,
    )


def _spread_directions(
    key: jax.Array, x: jax.Array, counts: jax.Array, precision: jax.lax.PrecisionLike
) -> jax.Array:
    """Orthonormal rows [D, D], by a QR decomposition that pivots on the points."""
    dim = x.shape[1]
    first = jnp.argmin(lots(key, counts))

    def add(k: jax.Array, state: tuple[jax.Array, jax.Array]):
        basis, left = state
        point = jnp.where(k == 0, first, jnp.argmax(left))
        # Twice is enough for orthogonality to the last digits.
        new = x[point]
        for _ in range(2):
            inside = jnp.matmul(basis, new, precision=precision)
            new = new - jnp.matmul(inside, basis, precision=precision)
        # What is left of points within the span is rounding, and no direction.
        new = jnp.where(left[point] > _NO_LENGTH, l2_normalize(new), 0.0)
        along = jnp.matmul(x, new, precision=precision)
        return basis.at[k].set(new), left - jnp.square(along)

    lengths = jnp.where(counts, jnp.sum(jnp.square(x), axis=-1), 0.0)
    basis, _ = jax.lax.fori_loop(0, dim, add, (jnp.zeros((dim, dim), x.dtype), lengths))
    # Completes the basis where the points do not span the space.
    return _nearest_rotation(basis, precision)


def _nearest_rotation(x: jax.Array, precision: jax.lax.PrecisionLike) -> jax.Array:
    """The orthogonal matrix [D, D] nearest to a matrix."""
    left, _, right = jnp.linalg.svd(x)
    return jnp.matmul(left, right, precision=precision)
