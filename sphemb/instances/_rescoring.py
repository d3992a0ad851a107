"""How good a proposal is, by a line through its features: M proposals, F features."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphemb._checks import InputError, check_number, check_shape


class LinearScore(NamedTuple):
    """A linear function of standardised features; a pytree, to be kept and restored.

    Attributes:
        mean: [F], taken from the features.
        scale: [F], what they are divided by then.
        slope: [F].
        offset: [], the score of mean features.
    """

    mean: jax.Array
    scale: jax.Array
    slope: jax.Array
    offset: jax.Array


def fit_scores(
    features: np.ndarray, targets: np.ndarray, *, ridge: float = 1.0
) -> LinearScore:
    r"""Fits scores to targets by least squares, on the host in float64.

    .. math:: \min_{a, b} \sum_m \Big(t_m - b - \sum_f a_f
              \frac{x_{mf} - \bar x_f}{\sigma_f}\Big)^2 + \lambda \lVert a \rVert^2

    Args:
        features: x, [M, F].
        targets: t, [M], such as the IoU with the best object.
        ridge: :math:`\lambda`, which holds what M proposals leave open.

    Returns:
        The line. Features that are always the same get the slope 0.

    Raises:
        InputError: shapes that do not go together, no proposal, NaN.

    References:
        Kong & Fowlkes, CVPR 2018, section 5.4: "a linear regressor".

    >>> line = fit_scores(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0]),
    ...                   ridge=0.0)
    >>> round(float(apply_scores(line, jnp.array([[3.0]]))[0]), 3)
    7.0
    """
    dims = check_shape("features", features, "M F")
    check_shape("targets", targets, "M", dims={"M": dims["M"]}, beside="features")
    check_number("ridge", ridge, at_least=0)
    x, t = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    if not len(x):
        raise InputError("features must be those of one proposal at least, got none")
    if not (np.isfinite(x).all() and np.isfinite(t).all()):
        raise InputError("features and targets must be finite, got NaN or infinity")
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-9, scale, np.inf)
    z = (x - mean) / scale
    # As more rows of the same problem, lambda squares no condition number.
    rows = np.concatenate([z, np.sqrt(ridge) * np.eye(x.shape[1])])
    wanted = np.concatenate([t - t.mean(), np.zeros(x.shape[1])])
    slope = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return LinearScore(
        *(
            jnp.asarray(v, jnp.float32)
            for v in (mean, np.where(np.isinf(scale), 1.0, scale), slope, t.mean())
        )
    )


def apply_scores(line: LinearScore, features: jax.Array) -> jax.Array:
    """Scores proposals.

    Args:
        line: from :func:`fit_scores`.
        features: [..., F].

    Returns:
        [...] scores, in no fixed range.

    Raises:
        InputError: another number of features than the line has.
    """
    wanted = {"F": jnp.shape(line.mean)[0]}
    check_shape("features", features, "... F", dims=wanted, beside="line")
    features = jnp.asarray(features)
    mean, scale = (jnp.broadcast_to(v, features.shape) for v in (line.mean, line.scale))
    z = (features - mean) / scale
    product = jnp.einsum(
        "...f,f->...", z, jnp.asarray(line.slope), precision=jax.lax.Precision.HIGHEST
    )
    return line.offset + product
