"""Points that carry the place they come from, for a mean shift in the joint domain.

Shape letters: N points of D entries, K entries of a place.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sphemb._checks import check_number, check_shape

_PLACE_CONCENTRATION = 8.0


class PlacedPoints(NamedTuple):
    """What :func:`place_points` returns.

    Attributes:
        points: [..., N, D + 2 K] unit vectors.
        concentration: kappa of the kernel that they are to be shifted with.
    """

    points: jax.Array
    concentration: float


def place_points(
    embeddings: jax.Array, places: jax.Array, *, concentration: float, reach: float
) -> PlacedPoints:
    r"""Adds to unit vectors where they are, so that far ones do not attract each other.

    The kernel of a mean shift in the joint domain of embedding and place is a product,

    .. math:: \exp(\kappa \cos\theta) \prod_k \exp\left(8 \cos\frac{\Delta_k}
              {\sqrt8\, h} \right) \approx \exp\left(\kappa\cos\theta
              - \frac{\lVert\Delta\rVert^2}{2 h^2} + \text{const} \right)

    for differences :math:`\Delta` of places that are small beside the period of
    :math:`2 \pi \sqrt8\, h`, nearly eighteen reaches. As it depends on cosines alone,
    it is the kernel of unit vectors of :math:`D + 2 K` entries, and everything that
    shifts and labels those serves the joint domain too. Points a whole period apart are
    neighbours again: connected parts of a group tell them apart.

    Args:
        embeddings: [..., N, D] unit vectors.
        places: [..., N, K] in any unit, such as rows and columns of an image.
        concentration: kappa, of the embeddings alone.
        reach: h, the kernel's standard deviation in the unit of the places.

    Returns:
        The joint points, and their concentration :math:`\kappa + 8 K`.

    Raises:
        InputError: shapes that do not go together, or numbers out of range.

    References:
        Comaniciu & Meer, "Mean shift: a robust approach toward feature space analysis",
        PAMI 2002, section 4; von Mises kernels in place of Gaussian ones.

    >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> joint = place_points(
    ...     x, jnp.array([[0.0], [2.0]]), concentration=3.0, reach=4.0
    ... )
    >>> float(joint.concentration), joint.points.shape
    (11.0, (2, 4))
    >>> kernel = joint.concentration * (joint.points[0] @ joint.points[1] - 1)
    >>> round(float(kernel), 2), -(2.0**2) / (2 * 4.0**2)
    (-0.12, -0.125)
    """
    sizes = check_shape("embeddings", embeddings, "... N D")
    number = check_shape("places", places, "... N K")["K"]
    check_shape(
        "places", places, "... N K", dims=sizes | {"K": number}, beside="embeddings"
    )
    check_number("concentration", concentration, above=0)
    check_number("reach", reach, above=0)
    total = concentration + _PLACE_CONCENTRATION * number
    angles = places / (math.sqrt(_PLACE_CONCENTRATION) * reach)
    joint = jnp.concatenate(
        [
            math.sqrt(concentration / total) * embeddings,
            math.sqrt(_PLACE_CONCENTRATION / total) * jnp.sin(angles),
            math.sqrt(_PLACE_CONCENTRATION / total) * jnp.cos(angles),
        ],
        axis=-1,
    )
    return PlacedPoints(joint, total)
