r"""The concentration :math:`\kappa` of the kernel :math:`\exp(\kappa \cos\theta)`.

The sources write the same kernel in three ways (at a margin of .5 the concentrations
are 6, 36, and 25 or 100):

=============  ============================  =====================  ===============
source         kernel                        from the margin        concentration
=============  ============================  =====================  ===============
paper          exp(delta cos)                1/delta = (1 - a)/3    3/(1 - a)
supplement     exp(delta^2 cos)              1/delta = (1 - a)/3    (3/(1 - a))^2
authors' code  exp((cos - 1)/b^2)            none: b = .2 or .1     1/b^2
=============  ============================  =====================  ===============

Only the squared forms make 1/delta, or b, a standard deviation (of the chord), as the
paper says it is. All arguments may be numbers or arrays, traced or not; results have
their shape, and only numbers are checked for their range.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sphemb._checks import check_choice, check_number

_CONVENTIONS = ("supplement", "paper")


def concentration_from_bandwidth(bandwidth: ArrayLike) -> jax.Array:
    r"""Concentration of a mean-shift bandwidth, :math:`\kappa = 1 / b^2`.

    For unit vectors,
    :math:`\exp(-\lVert x - y \rVert^2 / 2 b^2) = \exp((\cos\theta - 1) / b^2)`: the
    bandwidth is the standard deviation of the kernel, as a distance on the chord.

    >>> round(float(concentration_from_bandwidth(0.2)), 3)
    25.0
    """
    check_number("bandwidth", bandwidth, above=0)
    return 1.0 / jnp.square(_floating(bandwidth))


def bandwidth_from_concentration(concentration: ArrayLike) -> jax.Array:
    r"""Mean-shift bandwidth of a concentration, :math:`b = 1 / \sqrt\kappa`.

    >>> round(float(bandwidth_from_concentration(100.0)), 3)
    0.1
    """
    check_number("concentration", concentration, above=0)
    return jax.lax.rsqrt(_floating(concentration))


def concentration_from_margin(
    margin: ArrayLike, *, convention: str = "supplement"
) -> jax.Array:
    r"""Concentration that makes the margin three kernel widths.

    .. math:: \kappa = \left(\frac{3}{1 - \alpha}\right)^2 \text{ (supplement)}
              \qquad \kappa = \frac{3}{1 - \alpha} \text{ (paper)}

    The form of the paper is six times smaller at a margin of .5; with a large
    background it merges all groups into one. The authors' code sets a bandwidth by
    hand, see :func:`concentration_from_bandwidth`.

    Args:
        margin: alpha in [0, 1).
        convention: ``"supplement"`` or ``"paper"``.

    References:
        Kong & Fowlkes, CVPR 2018, section 4.1, and supplement, section 2.

    >>> float(concentration_from_margin(0.5))
    36.0
    >>> float(concentration_from_margin(0.5, convention="paper"))
    6.0
    """
    check_number("margin", margin, at_least=0, below=1)
    check_choice("convention", convention, _CONVENTIONS)
    delta = 3.0 / (1.0 - _floating(margin))
    return jnp.square(delta) if convention == "supplement" else delta


def margin_from_concentration(
    concentration: ArrayLike, *, convention: str = "supplement"
) -> jax.Array:
    r"""Margin of a concentration, the inverse of :func:`concentration_from_margin`.

    .. math:: \alpha = 1 - 3 / \sqrt\kappa \text{ (supplement)}
              \qquad \alpha = 1 - 3 / \kappa \text{ (paper)}

    Below a concentration of 9 (supplement) or 3 (paper) the result is negative, and no
    margin leads to it.

    >>> float(margin_from_concentration(36.0))
    0.5
    """
    check_number("concentration", concentration, above=0)
    check_choice("convention", convention, _CONVENTIONS)
    delta = _floating(concentration)
    return 1.0 - 3.0 / (jnp.sqrt(delta) if convention == "supplement" else delta)


def margin_angle(margin: ArrayLike) -> jax.Array:
    r"""Angle in radians beyond which different instances have no loss.

    .. math:: \theta = \arccos(2 \alpha - 1)

    The margin is on the calibrated similarity of Eq. 1, so that .5 is a right angle.
    (The text of the paper says arccos of the margin, without the calibration.)

    >>> round(float(jnp.degrees(margin_angle(0.5))), 3)
    90.0
    """
    check_number("margin", margin, at_least=0, at_most=1)
    return jnp.arccos(2.0 * _floating(margin) - 1.0)


def margin_from_angle(angle: ArrayLike) -> jax.Array:
    r"""Margin of an angle, :math:`\alpha = \tfrac12 (1 + \cos\theta)`.

    >>> float(margin_from_angle(0.0))
    1.0
    """
    check_number("angle", angle, at_least=0)
    return 0.5 * (1.0 + jnp.cos(_floating(angle)))


def _floating(value: ArrayLike) -> jax.Array:
    dtype = jnp.promote_types(jnp.result_type(value), jnp.float32)
    return jnp.asarray(value, dtype=dtype)
