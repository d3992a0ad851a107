"""Points that carry their position, for a mean shift in the joint domain.

Shape letters: N points of D entries, K entries of a position.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import check_number, check_shape

_POSITION_CONCENTRATION = 8.0


class JointPoints(NamedTuple):
    """What :func:`append_positions` returns.

    Attributes:
        points: [..., N, D + 2 K] unit vectors.
        concentration: kappa of the kernel that they are to be shifted with.
    """

    points: jax.Array
    concentration: float


def append_positions(
    embeddings: jax.Array,
    positions: jax.Array,
    *,
    concentration: float,
    spatial_bandwidth: float,
) -> JointPoints:
    r"""Appends positions to unit vectors, so that distant points do not attract.

    The kernel of a mean shift in the joint domain of embedding and position is

    .. math:: \exp(\kappa \cos\theta) \prod_k \exp\left(8 \cos\frac{\Delta_k}
              {\sqrt8\, h} \right) \approx \exp\left(\kappa\cos\theta
              - \frac{\lVert\Delta\rVert^2}{2 h^2} + \text{const} \right)

    for differences :math:`\Delta` of positions much smaller than the period of
    :math:`2 \pi \sqrt8\, h`, about 18 bandwidths. It depends on cosines only, so it is
    the kernel of unit vectors of :math:`D + 2 K` entries, and every mean shift and
    read-off serves the joint domain too. Points a whole period apart are neighbors
    again: split the groups into connected components to separate them.

    Args:
        embeddings: [..., N, D] unit vectors.
        positions: [..., N, K] in any unit, such as rows and columns of an image.
        concentration: kappa, of the embeddings alone.
        spatial_bandwidth: h, standard deviation of the kernel in the unit of positions.

    Returns:
        The joint points, and their concentration :math:`\kappa + 8 K`.

    Raises:
        InputError: shapes that do not fit, or numbers out of range.

    References:
        Comaniciu & Meer, "Mean shift: a robust approach toward feature space analysis",
        PAMI 2002, section 4; von Mises kernels in place of Gaussian ones.

    >>> x, positions = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[0.0], [2.0]])
    >>> joint = append_positions(x, positions, concentration=3.0, spatial_bandwidth=4.0)
    >>> float(joint.concentration), joint.points.shape
    (11.0, (2, 4))
    >>> kernel = joint.concentration * (joint.points[0] @ joint.points[1] - 1)
    >>> round(float(kernel), 2), -(2.0**2) / (2 * 4.0**2)
    (-0.12, -0.125)
    """
    sizes = check_shape("embeddings", embeddings, "... N D")
    del sizes["D"]
    beside = "embeddings"
    number = check_shape("positions", positions, "... N K", dims=sizes, beside=beside)
    check_number("concentration", concentration, above=0)
    check_number("spatial_bandwidth", spatial_bandwidth, above=0)
    total = concentration + _POSITION_CONCENTRATION * number["K"]
    angles = positions / (math.sqrt(_POSITION_CONCENTRATION) * spatial_bandwidth)
    joint = jnp.concatenate(
        [
            math.sqrt(concentration / total) * embeddings,
            math.sqrt(_POSITION_CONCENTRATION / total) * jnp.sin(angles),
            math.sqrt(_POSITION_CONCENTRATION / total) * jnp.cos(angles),
        ],
        axis=-1,
    )
    return JointPoints(joint, total)
