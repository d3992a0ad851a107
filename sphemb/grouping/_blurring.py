"""Gaussian blurring mean shift on the sphere: the public functions.

Letters: N points, D dimensions, T steps; leading axes are batch axes.
"""

from __future__ import annotations

import jax

from sphemb._ring import AxisName
from sphemb.grouping._attended import Attention
from sphemb.grouping._recurrence import run


def gbms(
    embeddings: jax.Array,
    *,
    concentration: jax.Array | float,
    num_steps: int,
    step_size: jax.Array | float = 1.0,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    custom_gradient: bool = True,
    axis_name: AxisName = None,
    attention: Attention | None = None,
) -> jax.Array:
    r"""Moves all points together towards the modes of their own density.

    Each step of Gaussian blurring mean shift replaces the rows by

    .. math::
        y_i = (1 - \eta)\, x_i + \eta \sum_j P_{ij} x_j, \qquad
        P_{ij} = \frac{e^{\kappa x_i^\top x_j}}{\sum_k e^{\kappa x_i^\top x_k}}, \qquad
        x_i \leftarrow y_i / \|y_i\|,

    that is, softmax self-attention with queries, keys and values all equal to X, put
    back on the sphere. The gradient in the embeddings, kappa and eta is the true one;
    both passes need memory that is linear in N (two arrays of the embeddings' size a
    step are kept for the backward pass). Images whose pairs fill a tile are worked on
    one after another, smaller ones side by side.

    A blunt kernel ends in one group: of eight noisy orthogonal clusters kappa = 6 left
    one after thirty steps, or after five where one of them held 84 % of the points;
    kappa = 25 kept all eight.

    Args:
        embeddings: [..., N, D] unit rows. They are not normalised here, so that the
            gradient is that of the formula; leading axes are batch axes.
        concentration: kappa > 0 of the kernel exp(kappa cos), which is 1/b^2 for a
            bandwidth b; a number or a traced scalar.
        num_steps: T >= 0, static; 0 returns the embeddings.
        step_size: eta in (0, 2]; a number or a traced scalar.
        mask: [..., N] bool, True = counts. The other rows attract nobody, come back as
            they are, and pass their cotangent on.
        block_size: the largest side of the tiles in which pairs are computed; by
            default 4096 x 256. It changes the memory, and the result by rounding only.
        precision: of the matmuls; anything below the highest shifts the kernel.
        custom_gradient: True for the gradient rule of the supplement: the fastest
            `jax.grad`, `jax.vjp` and `jax.hessian`, but `jax.jvp` and `jax.jacfwd`
            raise a TypeError. False for JAX's own derivatives, forward mode included:
            also linear in memory, with a gradient up to four times as slow.
        axis_name: of the mesh axis over which the points are sharded, or a tuple of
            names, inside `jax.shard_map` or `jax.pmap`. The arrays then hold this
            device's rows, equally many on all devices, and so does the result, which is
            that of all points on one device. The points go round, so that each of P
            devices needs memory for N / P points; docs/sharding.md has the gradient.
        attention: a function (query, key, value, mask=) -> [B, N, H, D] that attends at
            scale 1, such as a fused kernel for an accelerator, to be used instead of
            the tiles. Precision, memory and derivatives are its own then;
            docs/speed.md has examples and their errors. None takes the tiles.

    Returns:
        [..., N, D] the points after T steps, in the dtype of ``embeddings``.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Kong and Fowlkes, Recurrent Pixel Embedding for Instance Grouping, CVPR 2018:
        section 4.1, and Eq. 5 of the supplement with kappa = delta^2.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [0.96, 0.28], [0.0, 1.0]])
    >>> y = gbms(x, concentration=25.0, num_steps=5)
    >>> print(jnp.round(y @ y.T, 2))
    [[1.   1.   0.14]
     [1.   1.   0.14]
     [0.14 0.14 1.  ]]
    """
    return run(
        embeddings,
        concentration=concentration,
        num_steps=num_steps,
        step_size=step_size,
        mask=mask,
        block_size=block_size,
        precision=precision,
        custom_gradient=custom_gradient,
        axis_name=axis_name,
        attention=attention,
        every_step=False,
    )


def gbms_step(
    embeddings: jax.Array,
    *,
    concentration: jax.Array | float,
    step_size: jax.Array | float = 1.0,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    custom_gradient: bool = True,
    axis_name: AxisName = None,
    attention: Attention | None = None,
) -> jax.Array:
    r"""Makes one step of :func:`gbms`.

    .. math:: x_i \leftarrow \frac{y_i}{\|y_i\|}, \qquad
        y_i = (1 - \eta)\, x_i + \eta \sum_j P_{ij} x_j

    Args:
        embeddings: [..., N, D] unit rows.
        concentration: kappa > 0, a number or a traced scalar.
        step_size: eta in (0, 2], a number or a traced scalar.
        mask: [..., N] bool, True = counts.
        block_size: the largest side of a tile.
        precision: of the matmuls.
        custom_gradient: False allows forward-mode derivatives, see :func:`gbms`.
        axis_name: of the axis over which the points are sharded, as in :func:`gbms`.
        attention: a kernel to use instead, as in :func:`gbms`.

    Returns:
        [..., N, D] the points after the step.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Kong and Fowlkes, CVPR 2018: section 4.1, Eq. 5 of the supplement.

    >>> import jax.numpy as jnp
    >>> gbms_step(jnp.eye(2), concentration=1.0, step_size=2.0).shape
    (2, 2)
    """
    return run(
        embeddings,
        concentration=concentration,
        num_steps=1,
        step_size=step_size,
        mask=mask,
        block_size=block_size,
        precision=precision,
        custom_gradient=custom_gradient,
        axis_name=axis_name,
        attention=attention,
        every_step=False,
    )


def gbms_trajectory(
    embeddings: jax.Array,
    *,
    concentration: jax.Array | float,
    num_steps: int,
    step_size: jax.Array | float = 1.0,
    mask: jax.Array | None = None,
    block_size: int | None = None,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    custom_gradient: bool = True,
    axis_name: AxisName = None,
    attention: Attention | None = None,
) -> jax.Array:
    r"""Runs :func:`gbms` and keeps the points of every step, the input first.

    .. math:: x^{(0)} = x, \qquad x^{(t + 1)} = \mathrm{step}(x^{(t)})

    Args:
        embeddings: [..., N, D] unit rows.
        concentration: kappa > 0, a number or a traced scalar.
        num_steps: T >= 0, static.
        step_size: eta in (0, 2], a number or a traced scalar.
        mask: [..., N] bool, True = counts.
        block_size: the largest side of a tile.
        precision: of the matmuls.
        custom_gradient: False allows forward-mode derivatives, see :func:`gbms`.
        axis_name: of the axis over which the points are sharded, as in :func:`gbms`.
        attention: a kernel to use instead, as in :func:`gbms`.

    Returns:
        [T + 1, ..., N, D] the points at t = 0..T.

    Raises:
        InputError: an argument has the wrong shape, dtype or range.

    References:
        Kong and Fowlkes, CVPR 2018: section 4.2, where the loss is taken on every step.

    >>> import jax.numpy as jnp
    >>> gbms_trajectory(jnp.eye(3), concentration=4.0, num_steps=5).shape
    (6, 3, 3)
    """
    return run(
        embeddings,
        concentration=concentration,
        num_steps=num_steps,
        step_size=step_size,
        mask=mask,
        block_size=block_size,
        precision=precision,
        custom_gradient=custom_gradient,
        axis_name=axis_name,
        attention=attention,
        every_step=True,
    )
