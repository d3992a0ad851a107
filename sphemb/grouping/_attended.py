"""One step of mean shift by somebody else's attention kernel.

Letters: N points, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sphemb.sphere import l2_normalize

# (query, key, value [B, N, H, D], mask=[B, 1, 1, N] bool or None) -> softmax(q k^T) v
Attention = Callable[..., jax.Array]


def attended_step(
    attention: Attention,
    masked: bool,
    x: jax.Array,
    mass: jax.Array,
    concentration: jax.Array,
    step_size: jax.Array,
) -> jax.Array:
    """Makes one step with queries kappa x, keys and values x.

    Kappa stands with the queries, because kernels take their scale as a constant, and
    would not differentiate in it.
    """
    counts = mass > 0
    points = x[None, :, None, :]
    # Kernels that know no mask can serve who needs none.
    mask = counts[None, None, None, :] if masked else None
    mean = attention(concentration * points, points, points, mask=mask)[0, :, 0]
    moved = l2_normalize((1.0 - step_size) * x + step_size * mean.astype(x.dtype))
    return jnp.where(counts[:, None], moved, x)
