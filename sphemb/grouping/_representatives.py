r"""A few representatives of many points, and which of them each point is nearest to.

Letters: N points, D dimensions, M representatives, R rounds.

Representatives are drawn with a probability in proportion to the squared distance from
those that there are (k-means++), M/R in a round (k-means||): a small group far from the
others gets one as surely as a large one, which a uniform draw would not do. On the way,
every point remembers the nearest: M N D multiplications in all.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._ring import vary
from sphemb._tiles import choose_tiling
from sphemb.sphere import pairwise_dot

_ROUNDS = 8


def _packed_nearest(
    x: jax.Array,
    centers: jax.Array,
    numbers: jax.Array,
    bits: int,
    precision: jax.lax.PrecisionLike,
) -> jax.Array:
    """Returns int32 [N]: the least 1 - cos, its lowest bits the number of its center.

    Of non-negative floats the bits have the order of the numbers, so that one minimum
    finds distance and number; an argmin takes several times as long on CPUs.
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


def represent(
    x: jax.Array, mass: jax.Array, number: int, *, precision: jax.lax.PrecisionLike
) -> jax.Array:
    """Draws representatives and assigns the points to them.

    Args:
        x: [N, D] unit rows.
        mass: [N], 0 for what does not count.
        number: M, about; static, at most N and 2^16.
        precision: of the matmuls.

    Returns:
        [N] int32 in 0..M-1, the nearest representative, of which squared distances are
        compared in the 23 - log2 M bits that its number leaves of a float.
    """
    rounds = min(_ROUNDS, number)
    each = number // rounds
    bits = (rounds * each - 1).bit_length()
    key = jax.random.key(0)
    lowest = jnp.float32(jnp.finfo(jnp.float32).tiny)

    def draw(nearest: jax.Array, turn: jax.Array) -> tuple[jax.Array, None]:
        apart = jax.lax.bitcast_convert_type(nearest, jnp.float32)
        # The largest of log-weights and Gumbel noise are a draw by the weights.
        noise = jax.random.gumbel(jax.random.fold_in(key, turn), mass.shape)
        lots = jnp.log(jnp.maximum(apart, lowest)) + noise
        _, chosen = jax.lax.top_k(jnp.where(mass > 0, lots, -jnp.inf), each)
        numbers = turn * each + jnp.arange(each, dtype=jnp.int32)
        found = _packed_nearest(x, x[chosen], numbers, bits, precision)
        return jnp.minimum(nearest, found), None

    # Farther than any point: the first round draws uniformly.
    far = jax.lax.bitcast_convert_type(jnp.float32(4.0), jnp.int32)
    _, _, start = vary((x, mass, jnp.full(x.shape[0], far)))
    nearest, _ = jax.lax.scan(draw, start, jnp.arange(rounds, dtype=jnp.int32))
    return nearest & np.int32((1 << bits) - 1)
