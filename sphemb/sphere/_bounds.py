"""What no embedding can beat: total similarity, and bounds on the margin."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from sphemb._checks import check_count, check_floating, check_shape


def total_similarity(embeddings: jax.Array) -> jax.Array:
    r"""Sum of the inner products of all pairs of different points, in linear time.

    .. math:: \sum_{i \ne j} x_i^\top x_j
              = \Bigl\lVert \sum_i x_i \Bigr\rVert^2 - \sum_i \lVert x_i \rVert^2

    Args:
        embeddings: [..., N, D] vectors of any length.

    Returns:
        [...] sums; at least :func:`total_similarity_bound` of the same vectors.

    Raises:
        InputError: ``embeddings`` is not a floating-point [..., N, D] array.

    References:
        Kong & Fowlkes, CVPR 2018, Proposition 1.

    >>> float(total_similarity(jnp.array([[1.0, 0.0], [-1.0, 0.0]])))
    -2.0
    """
    bound = total_similarity_bound(embeddings)
    return jnp.sum(jnp.square(jnp.sum(embeddings, axis=-2)), axis=-1) + bound


def total_similarity_bound(embeddings: jax.Array) -> jax.Array:
    r"""Smallest total similarity that vectors of these lengths can have (Prop. 1).

    .. math:: \sum_{i \ne j} x_i^\top x_j \ge -\sum_i \lVert x_i \rVert^2

    It is -N on the sphere, in every dimension, and reached exactly when the vectors sum
    to zero. Hence the weights of the loss: with one over its number of pixels, an
    instance counts as one vector whatever its size.

    Args:
        embeddings: [..., N, D] vectors of any length.

    Returns:
        [...] bounds.

    Raises:
        InputError: ``embeddings`` is not a floating-point [..., N, D] array.

    References:
        Kong & Fowlkes, CVPR 2018, Proposition 1.

    >>> float(total_similarity_bound(jnp.eye(3)))
    -3.0
    """
    check_shape("embeddings", embeddings, "... N D")
    check_floating("embeddings", embeddings)
    return -jnp.sum(jnp.square(embeddings), axis=(-2, -1))


def necessary_margin(n: int) -> float:
    r"""The paper's bound for n points in three dimensions: below it, no zero loss.

    .. math:: 1 - \frac{2 \pi}{\sqrt 3 \, n}

    For 4 to 7 points this is .093, .274, .395 and .482. The paper takes them for
    margins to use; they are necessary only, and far from sufficient: four points need
    one third. Use :func:`margin_for` to choose a margin.

    Args:
        n: number of groups, at least 3.

    Returns:
        A lower bound on the margin; 0 where the formula is negative.

    Raises:
        InputError: ``n`` is no int of at least 3.

    References:
        Kong & Fowlkes, CVPR 2018, Proposition 2.

    >>> [round(necessary_margin(n), 3) for n in (4, 5, 6, 7)]
    [0.093, 0.274, 0.395, 0.482]
    """
    check_count("n", n, at_least=3)
    return max(0.0, 1.0 - 2.0 * math.pi / (math.sqrt(3.0) * n))


def fejes_toth_margin(n: int) -> float:
    r"""Fejes Toth's bound for n points in three dimensions: below it, no zero loss.

    .. math:: \frac{1}{4 \sin^2 \omega}, \qquad \omega = \frac{\pi n}{6 (n - 2)}

    Always sharper than the paper's bound, and reached with 3, 4, 6 and 12 points
    (triangle, tetrahedron, octahedron and icosahedron).

    Args:
        n: number of groups, at least 3.

    Returns:
        A lower bound on the margin.

    Raises:
        InputError: ``n`` is no int of at least 3.

    References:
        L. Fejes Toth, Jahresber. Deutsche Math.-Verein. 53, 1943.

    >>> [round(fejes_toth_margin(n), 4) for n in (3, 4, 6, 12)]
    [0.25, 0.3333, 0.5, 0.7236]
    """
    check_count("n", n, at_least=3)
    return 0.25 / math.sin(math.pi * n / (6.0 * (n - 2))) ** 2
